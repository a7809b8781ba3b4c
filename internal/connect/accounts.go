package connect

import (
	"context"
	"slices"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

// errNoAccount is the answer to a choice that is not the visitor's to make: another person's connection, another upstream's, and one
// that has ended look like one that never was.
var errNoAccount = fault.New(fault.NotFound, "there is no such account of yours here any more; nothing was changed; go back and choose again", nil)

// one finds the account that is meant among those of a person at an upstream.
func one(l []vault.Connection, id vault.ConnectionID) (vault.Connection, error) {
	if i := slices.IndexFunc(l, func(c vault.Connection) bool { return c.ID == id }); i >= 0 && id != "" {
		return l[i], nil
	}
	return vault.Connection{}, errNoAccount
}

// meant is the account that a visitor begins with: his choice, else the one that was found wanting, else the one that new grants
// take; a zero one where it is a new one.
func meant(l []vault.Connection, s Start, m catalog.Missing) (vault.Connection, error) {
	switch {
	case s.Connection != "":
		return one(l, s.Connection)
	case s.Another || len(l) == 0:
		return vault.Connection{}, nil
	}
	if c, err := one(l, vault.ConnectionID(m.Connection)); err == nil {
		return c, nil
	}
	return l[0], nil
}

// Suits reports whether an account can be used as it is: it works, and its person allowed there what is asked for.
func Suits(c vault.Connection, scopes []string) bool {
	switch c.Status {
	case vault.Active, vault.Suspect, vault.Uncertain:
		return c.Method == catalog.APIKey || oauth.HasScopes(c.Scopes, scopes...)
	}
	return false
}

// Prefer makes one of the visitor's accounts the one that new grants at its upstream take.
func (d *Desk) Prefer(ctx context.Context, v Visitor, id vault.ConnectionID) error {
	c, err := d.own(ctx, v, id)
	if err != nil {
		return err
	}
	if err := d.Store.Prefer(ctx, c, d.Now()); err != nil {
		return err
	}
	if err := d.Epochs.End(ctx, v.Tenant, identity.EpochAccess, string(v.User)); err != nil { // of a grant that names no account, too
		return err
	}
	return d.event(ctx, v, "account.preferred", audit.Record{Upstream: string(c.Upstream), Connection: string(c.ID), Result: audit.ResultOK})
}

// UseAccount makes a client at a server use another account of the visitor's. What he allowed it, and until when, stays.
func (d *Desk) UseAccount(ctx context.Context, v Visitor, g Grant) error {
	c, err := d.own(ctx, v, g.Connection)
	if err != nil {
		return err
	}
	if c.Upstream != g.Upstream {
		return errNoAccount
	}
	l, err := d.Store.Grants(ctx, v.Tenant, v.User)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(l, g.sameAgent)
	if i < 0 {
		return fault.New(fault.NotFound, "this agent has nothing of yours there any more; if it needs it, it asks you", nil)
	}
	l[i].Connection = c.ID
	return d.putGrant(ctx, v, l[i], "grant.account")
}

// own is a living connection of the visitor's.
func (d *Desk) own(ctx context.Context, v Visitor, id vault.ConnectionID) (vault.Connection, error) {
	if v.User == "" || id == "" {
		return vault.Connection{}, errNoAccount
	}
	l, err := d.Vault.Connections(ctx, v.Tenant, v.User, "")
	if err != nil {
		return vault.Connection{}, err
	}
	c, err := one(l, id)
	if err == nil && d.Catalog.Upstream(v.Tenant, c.Upstream) == nil { // the company's own IdP among them
		err = errNoAccount
	}
	return c, err
}

// Account asks the vendor whose credential it is, for a credential that came another way than by a browser (package intake).
func (d *Desk) Account(ctx context.Context, up *catalog.Upstream, kind catalog.MethodKind, s secret.Text) (id, label string, err error) {
	if up.Sites != nil {
		return "", "", fault.New(fault.Invalid, "at which site an account of "+up.Title+" is, only its person's consent says: it is connected by him", nil)
	}
	return d.account(ctx, up, vault.Connection{Method: kind}, vault.Secrets{Access: s})
}

// CheckKey refuses what cannot be a credential for this vendor, before it is sent anywhere.
func (d *Desk) CheckKey(up *catalog.Upstream, s secret.Text) error { return checkKey(d.Catalog, up, s) }

// Adopt stores a connection that its person made elsewhere, in its place among his others. No grant comes with it.
func (d *Desk) Adopt(ctx context.Context, c vault.Connection, s vault.Secrets) (vault.Connection, error) {
	c, err := d.keep(ctx, c, s)
	if err != nil {
		return c, err
	}
	c.Sealed = vault.Sealed{}
	return c, d.Epochs.End(ctx, c.Tenant, identity.EpochAccess, string(c.User))
}
