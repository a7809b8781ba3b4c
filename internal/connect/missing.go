package connect

import (
	"context"
	"errors"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Readiness says by which method a credential could be obtained, releasing none (exchange.Exchange). Errors: *catalog.Needed,
// or a fault. Of what the person connected, the named connection counts alone; "" is the account that new grants take.
type Readiness interface {
	Ready(ctx context.Context, c *identity.Caller, up *catalog.Upstream, scopes []string, of vault.ConnectionID) (catalog.MethodKind, error)
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
		yes, err := d.Granted(ctx, c, s, up, scopes)
		if err != nil {
			return nil, err
		}
		method, err := d.Ready.Ready(ctx, c, up, scopes, yes.Connection)
		if needed, ok := errors.AsType[*catalog.Needed](err); ok {
			all = append(all, needed.Missing...)
			continue
		}
		if err != nil {
			return nil, err
		}
		if method.Asks() && !yes.Given { // else nobody connected anything: the operator's configuration and policy are the yes
			all = append(all, yes.Missing(up, scopes))
		}
	}
	return all, nil
}

// Yes is what a person said to one client at one server about one upstream.
type Yes struct {
	Given      bool               // for the scopes that were asked about, and still
	Connection vault.ConnectionID // which of his accounts he meant; "" where he said nothing yet
}

// Missing is the question for it, where it was not given.
func (y Yes) Missing(up *catalog.Upstream, scopes []string) catalog.Missing {
	return catalog.Missing{Upstream: up.Name, Scopes: scopes, Why: catalog.WhyGrant, Connection: string(y.Connection)}
}
