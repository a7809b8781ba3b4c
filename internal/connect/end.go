package connect

import (
	"context"
	"fmt"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault"
)

// End implements the third of broker.Flows: the connection ends here at once, for everybody and on all replicas; then the
// vendor is asked to end it too. A refresh that is under way finds another generation, and throws away what it got.
func (d *Desk) End(ctx context.Context, v Visitor, id vault.ConnectionID) (Ending, error) {
	return d.end(ctx, v, id, "disconnected by its user", func(c vault.Connection) bool { return v.User != "" && c.User == v.User })
}

var errNoConnection = fault.New(fault.NotFound, "there is no such connection", nil)

// end ends a connection, if that is right of it as it stands now.
func (d *Desk) end(ctx context.Context, v Visitor, id vault.ConnectionID, why string, right func(vault.Connection) bool) (Ending, error) {
	c, err := d.mark(ctx, v.Tenant, id, why, right)
	if err != nil {
		return "", err
	}
	secrets, openErr := d.Vault.Open(ctx, c)
	c.Status, c.Reason, c.Refreshes = vault.Revoked, why, false
	if c, err = d.Vault.Connect(ctx, c, vault.Secrets{}); err != nil {
		return "", err
	}
	if _, err := d.Store.DeleteGrants(ctx, Grant{Tenant: v.Tenant, User: c.User, Upstream: c.Upstream, Connection: c.ID}); err != nil {
		return "", err
	}
	if err := d.Epochs.End(ctx, v.Tenant, identity.EpochAccess, string(c.User)); err != nil {
		return "", err
	}
	ending := EndedHere
	if up := d.Catalog.Upstream(v.Tenant, c.Upstream); up != nil && openErr == nil {
		if ending, err = d.Endings.End(ctx, up, c, secrets); err != nil {
			return "", err
		}
	}
	return ending, d.event(ctx, v, "connection.ended", audit.Record{Upstream: string(c.Upstream), Connection: string(c.ID), Result: audit.ResultOK, Detail: why + "; at the vendor: " + string(ending)})
}

// mark makes a connection Revoking: from then on no refresh moves it, so what it holds is the newest that its vendor has given. What was
// read before that may have been replaced, and the vendor would be told of a token that is none any more.
func (d *Desk) mark(ctx context.Context, t identity.Tenant, id vault.ConnectionID, why string, right func(vault.Connection) bool) (vault.Connection, error) {
	for {
		c, err := d.Vault.Connection(ctx, t, id)
		if err != nil {
			return c, err
		}
		if c.Status == vault.Revoked || !right(c) {
			return c, errNoConnection
		}
		if c.Status == vault.Revoking {
			return c, nil
		}
		c.Status, c.Reason = vault.Revoking, why
		if err := d.Vault.Update(ctx, c); fault.KindOf(err) != fault.Conflict { // a refresh was faster
			return c, err
		}
	}
}

// Unused finds connections that nobody uses.
type Unused interface {
	// Unused lists the tenant's living connections that were neither made nor used since then; at most limit.
	Unused(ctx context.Context, t identity.Tenant, since time.Time, limit int) ([]vault.Connection, error)
}

const (
	unusedEvery  = 10 * time.Minute
	unusedAtOnce = 100
)

// Run ends connections that nobody has used for as long as the config says, until ctx ends.
func (d *Desk) Run(ctx context.Context) error {
	tick := time.NewTicker(unusedEvery)
	defer tick.Stop()
	for {
		if err := d.EndUnused(ctx); err != nil && ctx.Err() == nil {
			d.Log.Warn("connections that nobody uses could not be ended; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// EndUnused is one round of Run.
func (d *Desk) EndUnused(ctx context.Context) error {
	after := d.UnusedAfter()
	if after <= 0 {
		return nil
	}
	for t := range d.Catalog.Snapshot().Upstreams {
		since := d.Now().Add(-after)
		l, err := d.Unused.Unused(ctx, t, since, unusedAtOnce)
		if err != nil {
			return err
		}
		unused := func(c vault.Connection) bool { return c.LastUsed.Before(since) && c.Created.Before(since) }
		for _, c := range l { // each may take its vendor a while, in which the next one is used after all, or another replica ends it
			if _, err := d.end(ctx, Visitor{Tenant: t, User: c.User}, c.ID, fmt.Sprintf("nobody used it for %d days", int(after.Hours()/24)), unused); err != nil && err != errNoConnection && fault.KindOf(err) != fault.Conflict {
				return err
			}
		}
	}
	return nil
}
