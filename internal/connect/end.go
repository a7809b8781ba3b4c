package connect

import (
	"context"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault"
)

// End implements the third of broker.Flows: the connection ends here at once, for everybody and on all replicas; then the
// vendor is asked to end it too. A refresh that is under way finds another generation, and throws away what it got.
func (d *Desk) End(ctx context.Context, v Visitor, id vault.ConnectionID) (Ending, error) {
	c, err := d.Vault.Connection(ctx, v.Tenant, id)
	if err != nil {
		return "", err
	}
	if v.User == "" || c.User != v.User || c.Status == vault.Revoked {
		return "", fault.New(fault.NotFound, "there is no such connection", nil)
	}
	secrets, openErr := d.Vault.Open(ctx, c)
	c.Status, c.Reason, c.Refreshes = vault.Revoked, "disconnected by its user", false
	if c, err = d.Vault.Connect(ctx, c, vault.Secrets{}); err != nil {
		return "", err
	}
	if _, err := d.Store.DeleteGrants(ctx, Grant{Tenant: v.Tenant, User: c.User, Upstream: c.Upstream}); err != nil {
		return "", err
	}
	if err := d.Epochs.End(ctx, v.Tenant, identity.EpochAccess, string(c.User)); err != nil {
		return "", err
	}
	ending := EndedHere
	if up := d.Catalog.Upstream(v.Tenant, c.Upstream); up != nil && openErr == nil {
		ending = d.revoke(ctx, up, c.Method, secrets)
	}
	return ending, d.event(ctx, v, "connection.ended", audit.Record{Upstream: string(c.Upstream), Connection: string(c.ID), Result: audit.ResultOK, Detail: "at the vendor: " + string(ending)})
}

// revoke ends a credential at its vendor by RFC 7009, where it has that; the refresh token first, since that ends the grant.
func (d *Desk) revoke(ctx context.Context, up *catalog.Upstream, kind catalog.MethodKind, s vault.Secrets) Ending {
	o := up.Provider.OAuth
	if o == nil || o.Revocation == "" || kind == catalog.APIKey {
		return EndedHere
	}
	e, err := d.Clients.Endpoint(up, methodOf(up, kind))
	if err != nil {
		return EndedHere
	}
	e.URL = o.Revocation
	token, hint := s.Refresh, "refresh_token"
	if token.IsZero() {
		token, hint = s.Access, "access_token"
	}
	try := func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
		defer cancel()
		return d.OAuth.Revoke(ctx, e, token, hint)
	}
	if err := try(ctx); err != nil {
		d.Log.Warn("a vendor has not confirmed that a connection ended; it will be asked again", "upstream", up.Name, "error", err)
		d.again(revocation{up.Name, try, d.Now().Add(revokeFirst), 1})
		return EndedTrying
	}
	return EndedAtVendor
}

const (
	revokeTimeout = 10 * time.Second
	revokeFirst   = 15 * time.Second
	revokeTries   = 10
	maxRevoking   = 1000
)

// revocation is one that the vendor has not confirmed. It lives in memory: a restart forgets it, and the connection is
// ended here in any case.
type revocation struct {
	upstream catalog.UpstreamName
	try      func(context.Context) error
	next     time.Time
	tries    int
}

func (d *Desk) again(r revocation) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.revoking) >= maxRevoking {
		d.Log.Error("too many revocations wait for their vendors; giving one up", "upstream", d.revoking[0].upstream)
		d.revoking = d.revoking[1:]
	}
	d.revoking = append(d.revoking, r)
}

// Run asks vendors again until they confirm, or it is given up, with a line in the log either way.
func (d *Desk) Run(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		d.mu.Lock()
		all := d.revoking
		d.revoking = nil
		d.mu.Unlock()
		for _, r := range all {
			d.retry(ctx, r)
		}
	}
}

func (d *Desk) retry(ctx context.Context, r revocation) {
	if d.Now().Before(r.next) {
		d.again(r)
		return
	}
	err := r.try(ctx)
	switch {
	case err == nil:
		d.Log.Info("a vendor confirmed that a connection ended", "upstream", r.upstream, "tries", r.tries+1)
	case r.tries >= revokeTries:
		d.Log.Error("a vendor never confirmed that a connection ended; end it there by hand", "upstream", r.upstream, "error", err)
	default:
		r.next, r.tries = d.Now().Add(revokeFirst<<r.tries), r.tries+1
		d.again(r)
	}
}
