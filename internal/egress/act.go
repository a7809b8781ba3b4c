package egress

import (
	"errors"
	"net/http"
	"net/url"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/policy/content"
)

// act is what a request would do, for the broker to decide, and where it goes. r is looked into only when the broker asks.
func (rt route) act(r *http.Request, h *broker.Holding) (broker.Act, *url.URL, error) {
	up, err := rt.upstream(h)
	if err != nil {
		return broker.Act{}, nil, err
	}
	if err := mayUpgrade(r, up); err != nil {
		return broker.Act{}, nil, err
	}
	target, err := rt.target(up)
	if err != nil {
		return broker.Act{}, nil, err
	}
	operation, reads := up.Operation(r.Method, target)
	return broker.Act{Kind: broker.KindAPI, Server: h.Server, Method: r.Method, Name: operation, Upstream: up, Host: target.Host, Path: target.EscapedPath(),
		Session: session(h), Holding: h, Content: content.Of(r, target, up, reads)}, target, nil
}

func session(h *broker.Holding) audit.CallID {
	if h.Ticket.Kind != identity.TicketCall {
		return audit.CallID(h.Ticket.Txn)
	}
	return ""
}

// Asked is the act that a request of a server would be, by the way that all requests go: r has an absolute URL, as a proxy gets it,
// and no keycard. Its error says why egress would not even ask: fault.Invalid or fault.Denied.
func (p *Proxy) Asked(s *catalog.Server, r *http.Request) (broker.Act, error) {
	act, err := p.asked(s, r)
	if k, ok := errors.AsType[*statusError](err); ok {
		err = fault.New(fault.Invalid, k.msg, nil)
	}
	return act, err
}

func (p *Proxy) asked(s *catalog.Server, r *http.Request) (broker.Act, error) {
	if err := p.checkRequest(r); err != nil {
		return broker.Act{}, err
	}
	rt, err := p.route(r)
	if err != nil {
		return broker.Act{}, err
	}
	if err := checkNoCredential(rt.query); err != nil {
		return broker.Act{}, err
	}
	act, _, err := rt.act(r, &broker.Holding{Ticket: identity.Ticket{Tenant: s.Tenant, Kind: identity.TicketCall}, Server: s})
	return act, err
}
