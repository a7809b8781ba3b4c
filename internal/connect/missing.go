package connect

import (
	"context"
	"errors"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Readiness says by which method a credential could be obtained, releasing none (exchange.Exchange). Errors: *catalog.Needed,
// or a fault.
type Readiness interface {
	Ready(ctx context.Context, c *identity.Caller, up *catalog.Upstream, scopes []string) (catalog.MethodKind, error)
}

// Missing is everything that a person must do before a caller can use these upstreams through the server: connections,
// scopes and grants, all at once, so that he is asked once.
func (d *Desk) Missing(ctx context.Context, c *identity.Caller, s *catalog.Server, needs []catalog.Need) ([]catalog.Missing, error) {
	var all []catalog.Missing
	for _, n := range needs {
		up := d.Catalog.Upstream(c.Tenant, n.Upstream)
		if up == nil {
			return nil, fault.New(fault.Unavailable, "upstream "+string(n.Upstream)+" is not configured any more; ask an operator", nil)
		}
		scopes := n.Wants(up)
		method, err := d.Ready.Ready(ctx, c, up, scopes)
		if needed, ok := errors.AsType[*catalog.Needed](err); ok {
			all = append(all, needed.Missing...)
			continue
		}
		if err != nil {
			return nil, err
		}
		if !method.Asks() {
			continue // nobody connected anything: the operator's configuration and policy are the yes
		}
		ungranted, err := d.Ungranted(ctx, c, s, up, scopes)
		if err != nil {
			return nil, err
		}
		all = append(all, ungranted...)
	}
	return all, nil
}

// Ungranted is what a person must still allow where a credential turned out to be of something that he connected: nil once this
// caller may use it through the server. It is asked of the credential at hand, since between Missing and then the first method that
// can serve may have become another one.
func (d *Desk) Ungranted(ctx context.Context, c *identity.Caller, s *catalog.Server, up *catalog.Upstream, scopes []string) ([]catalog.Missing, error) {
	granted, err := d.granted(ctx, c, s, up, scopes)
	if err != nil || granted {
		return nil, err
	}
	return []catalog.Missing{{Upstream: up.Name, Scopes: scopes, Why: catalog.WhyGrant}}, nil
}
