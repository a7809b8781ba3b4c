package connect

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/vault"
)

// grantCache remembers users' grants until their access epoch moves, at most two minutes; in two generations, so it is bounded.
type grantCache struct {
	mu         sync.RWMutex
	young, old map[userKey]userGrants
	moved      uint64 // counts what was forgotten: what was read before is not stored after
}

type userKey struct {
	tenant identity.Tenant
	user   identity.UserID
}

type userGrants struct {
	grants []Grant
	until  time.Time
}

const (
	grantCacheLife  = 2 * time.Minute
	grantCacheUsers = 10_000
)

func (c *grantCache) get(k userKey, now time.Time) ([]Grant, uint64, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	g, ok := c.young[k]
	if !ok {
		g, ok = c.old[k]
	}
	return g.grants, c.moved, ok && now.Before(g.until)
}

func (c *grantCache) put(k userKey, g []Grant, stamp uint64, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.moved != stamp {
		return
	}
	if c.young == nil || len(c.young) >= grantCacheUsers {
		c.young, c.old = map[userKey]userGrants{}, c.young
	}
	c.young[k] = userGrants{g, until}
}

// Forget drops what is remembered of a user, because his access changed somewhere.
func (d *Desk) Forget(t identity.Tenant, u identity.UserID) {
	d.grants.mu.Lock()
	defer d.grants.mu.Unlock()
	if d.grants.moved++; u == identity.Everybody {
		d.grants.young, d.grants.old = nil, nil
		return
	}
	delete(d.grants.young, userKey{t, u})
	delete(d.grants.old, userKey{t, u})
}

// Granted is what the person said to this client at this server: which of his connections it uses, and whether the yes still
// holds, for these scopes. A service has nobody to ask: it stands under policy alone, and no method that acts for a person serves it.
func (d *Desk) Granted(ctx context.Context, c *identity.Caller, s *catalog.Server, up *catalog.Upstream, scopes []string) (Yes, error) {
	if c.User == "" {
		return Yes{Given: true}, nil
	}
	k, now := userKey{c.Tenant, c.User}, d.Now()
	grants, stamp, ok := d.grants.get(k, now)
	if !ok {
		var err error
		if grants, err = d.Store.Grants(ctx, c.Tenant, c.User); err != nil {
			return Yes{}, err
		}
		d.grants.put(k, grants, stamp, now.Add(grantCacheLife))
	}
	for _, g := range grants { // one for each client at each server
		if g.Client == c.Client && g.Server == s.Name && g.Upstream == up.Name {
			return Yes{Given: now.Before(g.Expires) && oauth.HasScopes(g.Scopes, scopes...), Connection: g.Connection}, nil
		}
	}
	return Yes{}, nil
}

// asksPeople reports whether any of the upstream's methods uses what a person connected.
func asksPeople(up *catalog.Upstream) bool {
	for _, m := range up.Methods {
		if m.Kind.Asks() {
			return true
		}
	}
	return false
}

// Grants lists the visitor's grants.
func (d *Desk) Grants(ctx context.Context, v Visitor) ([]Grant, error) {
	return d.Store.Grants(ctx, v.Tenant, v.User)
}

// RevokeGrant ends the visitor's yes for a client at a server; with an empty upstream, for all upstreams. Where there is none, nothing is
// done, and nothing recorded: what a stranger's form names is no record of ours.
func (d *Desk) RevokeGrant(ctx context.Context, v Visitor, g Grant) error {
	g.Tenant, g.User = v.Tenant, v.User
	if n, err := d.Store.DeleteGrants(ctx, g); err != nil || n == 0 {
		return err
	}
	if err := d.Epochs.End(ctx, v.Tenant, identity.EpochAccess, string(v.User)); err != nil {
		return err
	}
	return d.event(ctx, v, "grant.revoked", audit.Record{Client: g.Client, Server: string(g.Server), Upstream: string(g.Upstream), Result: audit.ResultOK})
}

// Consent writes the grants that come with the consent to a new agent: for what is connected already, no vendor page is
// needed again. They take the account that the agent had, if it is one that comes back, else the one that new grants take.
func (d *Desk) Consent(ctx context.Context, v Visitor, client identity.ClientID, s *catalog.Server) error {
	before, err := d.Store.Grants(ctx, v.Tenant, v.User)
	if err != nil {
		return err
	}
	for _, n := range s.Needs {
		up := d.Catalog.Upstream(v.Tenant, n.Upstream)
		if up == nil || !asksPeople(up) {
			continue
		}
		l, err := d.Vault.Connections(ctx, v.Tenant, v.User, n.Upstream)
		if err != nil {
			return err
		}
		if len(l) == 0 {
			continue
		}
		g := Grant{Client: client, Server: s.Name, Upstream: n.Upstream, Scopes: n.Wants(up), Connection: l[0].ID}
		if i := slices.IndexFunc(before, g.sameAgent); i >= 0 && has(l, before[i].Connection) {
			g.Connection = before[i].Connection
		}
		if err := d.grant(ctx, v, g); err != nil {
			return err
		}
	}
	return nil
}

// sameAgent reports whether two grants of one person are for the same client, server and upstream: there is one such at a time.
func (g Grant) sameAgent(o Grant) bool {
	return g.Client == o.Client && g.Server == o.Server && g.Upstream == o.Upstream
}

func has(l []vault.Connection, id vault.ConnectionID) bool {
	return slices.ContainsFunc(l, func(c vault.Connection) bool { return c.ID == id })
}

func (d *Desk) grant(ctx context.Context, v Visitor, g Grant) error {
	now := d.Now()
	g.Tenant, g.User, g.Created, g.Expires = v.Tenant, v.User, now, now.Add(grantLife)
	return d.putGrant(ctx, v, g, "grant.given")
}

func (d *Desk) putGrant(ctx context.Context, v Visitor, g Grant, action string) error {
	if err := d.Store.PutGrant(ctx, g); err != nil {
		return err
	}
	if err := d.Epochs.End(ctx, v.Tenant, identity.EpochAccess, string(v.User)); err != nil {
		return err
	}
	return d.event(ctx, v, action, audit.Record{Client: g.Client, Server: string(g.Server), Upstream: string(g.Upstream), Connection: string(g.Connection), Result: audit.ResultOK})
}

// Door lists the upstreams of a server that its visitor could connect now, so that no call of his is interrupted later.
func (d *Desk) Door(ctx context.Context, v Visitor, s *catalog.Server) ([]catalog.UpstreamName, error) {
	u, err := d.Users.User(ctx, v.Tenant, v.User)
	if err != nil {
		return nil, err
	}
	caller := &identity.Caller{Tenant: v.Tenant, User: u.ID, IDP: u.IDP, Subject: u.Subject, Groups: u.Groups, Local: true}
	var open []catalog.UpstreamName
	for _, n := range s.Needs {
		up := d.Catalog.Upstream(v.Tenant, n.Upstream)
		if up == nil || !asksPeople(up) {
			continue
		}
		l, err := d.Vault.Connections(ctx, v.Tenant, v.User, n.Upstream)
		if err != nil {
			return nil, err
		}
		if method, err := d.Ready.Ready(ctx, caller, up, n.Wants(up), ""); err == nil && !method.Asks() {
			continue // he is known there without connecting anything
		}
		if len(l) == 0 || l[0].Status != vault.Active || !oauth.HasScopes(l[0].Scopes, n.Wants(up)...) {
			open = append(open, n.Upstream)
		}
	}
	return open, nil
}

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
