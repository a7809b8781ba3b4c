package ending

import (
	"context"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/vault"
)

const (
	retireEvery  = time.Second
	retireAtOnce = 200
	recordAtOnce = 50
)

// Run takes marked connections to their end until ctx ends: what a vendor has to be told becomes an ending, the credential
// goes. A process that dies in between leaves them marked, for the next one.
func (o *Office) Run(ctx context.Context) error {
	tick := time.NewTicker(retireEvery)
	defer tick.Stop()
	for {
		for more, failed := true, false; more && !failed && ctx.Err() == nil; {
			var err error
			if more, err = o.Round(ctx); err != nil {
				failed = true
				if ctx.Err() == nil {
					o.Log.Warn("ended connections could not be taken out of the vault; it is tried again", "error", err)
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Round takes some of them, and reports whether there are more.
func (o *Office) Round(ctx context.Context) (bool, error) {
	marked, err := o.Store.Revoking(ctx, retireAtOnce)
	if err != nil || len(marked) == 0 {
		return false, err
	}
	l := make([]Retired, len(marked))
	for i, c := range marked {
		if l[i], err = o.prepare(ctx, c); err != nil {
			return false, err
		}
	}
	if l, err = o.Store.Retire(ctx, l); err != nil {
		return false, err
	}
	// After it was done: of two processes one records it. A crash in between loses this line, not the order's own.
	var g errgroup.Group
	g.SetLimit(recordAtOnce)
	for _, r := range l {
		e := audit.Record{Kind: audit.KindEvent, Time: o.Now(), Tenant: r.Tenant, User: r.User, Action: "connection.ended", Upstream: string(r.Upstream),
			Connection: string(r.ID), Sealed: vault.FingerprintGone(r.Connection), Result: audit.ResultOK, Detail: r.Reason + "; at the vendor: " + r.Note}
		if r.Note == "" { // the home credential, which is nobody's connection
			e.Action, e.Detail = "vault.emptied", r.Reason
		}
		g.Go(func() error { return o.Events.Event(ctx, e) })
	}
	return len(marked) == retireAtOnce, g.Wait()
}

// prepare makes the ending. A credential that does not open cannot be ended at its vendor, and is no reason to stop.
func (o *Office) prepare(ctx context.Context, c vault.Connection) (Retired, error) {
	r := Retired{Connection: c}
	if strings.HasPrefix(string(c.Upstream), "idp:") {
		return r, nil // the home credential: the IdP has ended it, or it ends with the sign-in
	}
	up := o.Catalog.Upstream(c.Tenant, c.Upstream)
	secrets, err := o.Vault.Open(ctx, c)
	if err != nil {
		o.Log.Warn("an ended connection does not open, so its vendor cannot be told", "upstream", c.Upstream, "connection", c.ID, "error", err)
		secrets = vault.Secrets{}
	}
	e, tell, err := o.Vendors.Prepare(ctx, up, c, secrets)
	if err != nil {
		return r, err
	}
	r.Ending, r.Note = &e, "it offers no way; to be ended there by hand"
	if tell {
		r.Note = "it is told"
	}
	return r, nil
}
