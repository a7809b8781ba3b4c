package admin

import (
	"context"
	"net/http"
	"strings"

	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Explains is what an explanation is made by, beside the broker.
type Explains struct {
	Explain  Explainer
	Grants   Granter
	Requests Requests
}

// Requests says what an API request would be (egress.Proxy).
type Requests interface {
	// Asked takes a request with an absolute URL.
	Asked(s *catalog.Server, r *http.Request) (broker.Act, error)
}

// APIRequest is one that a server might send.
type APIRequest struct {
	Method string `json:"method"`
	URL    string `json:"url"`
	Type   string `json:"type,omitzero"` // of the body
	Body   string `json:"body,omitzero"`
}

// explained is an explanation of what the broker would do.
func (a *API) explained(ctx context.Context, c *identity.Caller, act broker.Act) (*Explanation, error) {
	answer, err := a.Door.Ready(ctx, c, act)
	refused := ""
	switch fault.KindOf(err) {
	case fault.Denied, fault.Unauthenticated, fault.Unavailable: // what a call would be told
		refused, err = fault.Message(err), nil
	}
	if err != nil {
		return nil, err
	}
	d := answer.Decision
	return &Explanation{Allow: d.Allow, Reason: d.Reason, Policies: d.Policies, Errors: d.Errors, WouldDeny: d.WouldDeny, Masks: d.Masks, Missing: answer.Missing, Refused: refused,
		Upstreams: map[string][]exchange.Verdict{}, Accounts: map[string]string{}, Caller: c.Principal()}, nil
}

// answerAPI explains one API request, by the way that the server's own take.
func (a *API) answerAPI(ctx context.Context, c *identity.Caller, s *catalog.Server, q *APIRequest) (*Explanation, error) {
	line, err := http.NewRequestWithContext(ctx, q.Method, q.URL, strings.NewReader(q.Body))
	if err != nil || line.Host == "" {
		return nil, fault.New(fault.Invalid, "method and url are no request: write the URL whole, as https://api.example.com/x", nil)
	}
	line.RequestURI = q.URL
	if q.Body != "" && q.Type != "" {
		line.Header.Set("Content-Type", q.Type)
	}
	act, err := a.Requests.Asked(s, line)
	if err != nil {
		return nil, fault.New(fault.Invalid, "egress refuses this before any policy is asked: "+fault.Message(err), err)
	}
	e, err := a.explained(ctx, c, act)
	if err != nil {
		return nil, err
	}
	e.Visible, e.Operation = true, act.Name
	for _, n := range s.Need(act.Upstream.Name) {
		if err := a.explainMethods(ctx, e, c, s, n); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// explainMethods says of each way to an upstream whether it would be taken, and of several accounts of the person which.
func (a *API) explainMethods(ctx context.Context, e *Explanation, c *identity.Caller, s *catalog.Server, n catalog.Need) error {
	up := a.Catalog.Upstream(c.Tenant, n.Upstream)
	if up == nil {
		return nil
	}
	yes, err := a.Grants.Granted(ctx, c, s, up, n.Wants(up))
	if err != nil {
		return err
	}
	e.Upstreams[string(up.Name)] = a.Explain.Explain(ctx, c, up, n.Wants(up), yes.Connection)
	if yes.Connection != "" {
		e.Accounts[string(up.Name)] = string(yes.Connection)
	}
	return nil
}
