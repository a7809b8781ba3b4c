// Package refresh keeps stored credentials good: the refresh machine (docs/connections.md).
//
// Four rules carry everything:
//
//  1. The lease only avoids duplicates, the version decides truth: a result is stored if and only if generation and
//     version are those it was obtained from.
//  2. Nothing leaves before its intent is durable (phase sent), nothing is released before its result is durable.
//  3. Death needs two witnesses: one invalid_grant makes a connection suspect, the next one ends it.
//  4. A refresh token lives in one row and is redeemed in one function: redeem.
//
// It trusts the database's clock for leases and nothing that a vendor says but in RFC 6749's words. It does not decide who
// may use a connection, and hands out no secret: whoever wants one opens the row that Fresh returns.
package refresh

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Machine keeps stored credentials good. All exported fields but Moves are required. It is safe for concurrent use.
type Machine struct {
	Vault   Vault
	Steps   Steps
	Rows    Rows
	Endings Endings
	Catalog *catalog.Catalog
	Clients *vault.Clients
	OAuth   oauth.Client
	Log     Log
	Slog    *slog.Logger
	Owner   Owner
	Spool   Spool
	Moves   Moves   // nil: the database cannot lose what it has acknowledged
	Unknown Unknown // nil: nobody registers Frontdesk anew
	Now     func() time.Time
	// Callback is the redirect URI with which a code of the upstream was asked, for vendors that want it again; nil: there are none.
	Callback func(identity.Tenant, catalog.UpstreamName) string

	state
}

// Unknown is called where a vendor does not know our client, and reports whether there is another one now.
type Unknown func(ctx context.Context, up *catalog.Upstream, client string) bool

// state is what a machine knows that no row says.
type state struct {
	flights flights
	kept    kept
	orphans orphans
	health  health
	short   time.Duration // tests: instead of leaseTime
}

func (m *Machine) lease() time.Duration { return cmp.Or(m.short, leaseTime) }

// Owner names this process in leases: the place where it runs (its data_dir), and the run.
type Owner struct{ Place, Run string }

func (o Owner) String() string { return o.Place + "-" + o.Run }

// Vault is what the machine needs of the vault (vault.Vault).
type Vault interface {
	Open(ctx context.Context, c vault.Connection) (vault.Secrets, error)
	// Seal fills c.Sealed for c's generation and version.
	Seal(ctx context.Context, c *vault.Connection, s vault.Secrets) error
	Update(ctx context.Context, c vault.Connection) error
}

// Steps are the machine's changes of a row. Each is one compare-and-swap, durable before it returns; the bool is false
// where another process was first, which is no error: read again. Times are the database's.
type Steps interface {
	// Claim takes the lease if it is free or over, of exactly this generation and version: phase becomes claimed,
	// lease_epoch grows by one; a row that stood at sent becomes uncertain, with one recovery more. The row as it stands
	// after it is returned. It is not given while a lease runs on another connection of this user at l.Siblings, nor of one that only its user
	// can mend: another process has marked it since c was read.
	Claim(ctx context.Context, c vault.Connection, l Lease) (vault.Connection, bool, error)
	// Sent marks that the request may leave from now on; only the holder of the lease may.
	Sent(ctx context.Context, c vault.Connection) (bool, error)
	// Settle stores a new credential: c.Sealed, Expires, Scopes, Status, and where the account has moved Site, Account and Label (but not
	// those of another living connection of the person's), with c.Version, at least fromVersion+1, phase idle and no
	// lease, if and only if generation and version are still c.Generation and fromVersion. The lease does not matter.
	Settle(ctx context.Context, c vault.Connection, fromVersion int64) (bool, error)
	// Fail gives the lease back with status, reason, failures, not_before and recoveries as in c, version unchanged;
	// only the holder of the lease may.
	Fail(ctx context.Context, c vault.Connection) (bool, error)
}

// Lease is what a claim asks for.
type Lease struct {
	Attempt  string
	Owner    string
	Time     time.Duration
	Siblings []catalog.UpstreamName // catalog.SiblingAppUser: upstreams at which one lease a user may run
}

// Rows reads connections, and keeps them in order.
type Rows interface {
	Connection(ctx context.Context, t identity.Tenant, id vault.ConnectionID) (vault.Connection, error)
	// Due lists living connections that hold a refresh token and whose last refresh was interrupted, or was before then;
	// at most limit, the interrupted ones first.
	Due(ctx context.Context, t identity.Tenant, up catalog.UpstreamName, before time.Time, limit int) ([]vault.Connection, error)
	// Inherit ends the leases of earlier runs at a place, since whoever stands there now is their only successor.
	Inherit(ctx context.Context, o Owner) (int64, error)
	// Proved forgets the refresh tokens that were replaced before then.
	Proved(ctx context.Context, t identity.Tenant, up catalog.UpstreamName, before time.Time) (int64, error)
}

// Endings ends credentials at their vendors (vault.Endings).
type Endings interface {
	End(ctx context.Context, up *catalog.Upstream, c vault.Connection, s vault.Secrets) (vault.Ended, error)
}

// Log records refreshes (audit.Log).
type Log interface {
	Begin(ctx context.Context, r audit.Record) (audit.CallID, error)
	End(ctx context.Context, id audit.CallID, r audit.Record)
}

// The times stand in this order, so that a request (two thirds of its lease) ends before the lease, and a lease before the
// patience of who waits.
const (
	leaseTime = 30 * time.Second
	patience  = 35 * time.Second
	waitStep  = 50 * time.Millisecond
)

// Margin is how long before its expiry a token is no longer given out: a fifth of its life, spread by connection so that
// not all of a fleet come due at once.
func Margin(c vault.Connection) time.Duration {
	life := c.Expires.Sub(c.Renewed)
	if c.Renewed.IsZero() || life <= 0 {
		return time.Minute
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(c.ID))
	return min(life/5, 10*time.Minute) * time.Duration(80+h.Sum32()%21) / 100
}

// Fresh returns the connection with a token that is good, refreshing it if it is due. While the old token lives, and its
// vendor lets it live on, nobody waits for the new one. Errors: *catalog.Needed where only the user can mend it;
// fault.Unavailable where it may work later.
func (m *Machine) Fresh(ctx context.Context, c vault.Connection, up *catalog.Upstream, method catalog.Method) (vault.Connection, error) {
	switch {
	case m.good(c):
		return c, nil
	case !c.Refreshes && m.alive(c):
		return c, nil
	case !c.Refreshes:
		return c, m.end(ctx, c, "the vendor's token has expired and there is none to renew it with")
	}
	w, err := m.walk(c, up, method)
	if err != nil {
		return c, err
	}
	flight := m.fly(ctx, w, c)
	if m.alive(c) && survives(up) {
		return c, nil
	}
	return land(ctx, flight, c, up)
}

// Replace gets another token in the place of one that its vendor refuses before its time. It does nothing where somebody
// has done so since c was read.
func (m *Machine) Replace(ctx context.Context, c vault.Connection, up *catalog.Upstream, method catalog.Method) (vault.Connection, error) {
	w, err := m.walk(c, up, method)
	if err != nil {
		return c, err
	}
	w.from = c.Version
	return land(ctx, m.fly(ctx, w, c), c, up)
}

// Renew redeems the refresh token though nothing is due, at the company's IdP: to learn whether it still lets the person
// in. There each answer counts at once, however many are dismissed in one hour.
func (m *Machine) Renew(ctx context.Context, c vault.Connection, e oauth.Endpoint, up *catalog.Upstream) (vault.Connection, oauth.Token, error) {
	w := &walk{Machine: m, up: up, endpoint: e, from: c.Version, blunt: true}
	f := m.flights.begin(ctx, fmt.Sprintf("%p", w), func(ctx context.Context) (vault.Connection, error) { return w.run(ctx, c) })
	<-f.over
	return f.c, w.token, f.err
}

// Wait returns when no refresh is under way, or ctx has ended: a process that stops with an answer in its hands would lose it.
func (m *Machine) Wait(ctx context.Context) { m.flights.wait(ctx) }

func (m *Machine) good(c vault.Connection) bool {
	return c.Status == vault.Active && (c.Expires.IsZero() || m.Now().Before(c.Expires.Add(-Margin(c))))
}

// alive reports whether the token that is there still works, so that a vendor's bad hour is nobody's.
func (m *Machine) alive(c vault.Connection) bool {
	switch c.Status {
	case vault.Active, vault.Suspect, vault.Uncertain:
		return !c.Expires.IsZero() && m.Now().Before(c.Expires.Add(-5*time.Second))
	}
	return false
}

func survives(up *catalog.Upstream) bool {
	return up.Provider.OAuth != nil && up.Provider.OAuth.Refresh.OldAccessSurvives
}

// fly shares one refresh between all who wait for the same row in this process.
func (m *Machine) fly(ctx context.Context, w *walk, c vault.Connection) *flight {
	key := fmt.Sprintf("%s/%s/%d/%d", c.Tenant, c.ID, c.Generation, w.from)
	return m.flights.begin(ctx, key, func(ctx context.Context) (vault.Connection, error) { return w.run(ctx, c) })
}

func land(ctx context.Context, f *flight, c vault.Connection, up *catalog.Upstream) (vault.Connection, error) {
	select {
	case <-ctx.Done():
		return c, fault.New(fault.Unavailable, up.Title+" took too long to renew its credential; try again", ctx.Err())
	case <-f.over:
		return f.c, f.err
	}
}

// walk begins a way through the machine, for a connection at its own site of the vendor.
func (m *Machine) walk(c vault.Connection, up *catalog.Upstream, method catalog.Method) (*walk, error) {
	there, err := up.At(c.Site.Value)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "nothing may be sent any more to the site of "+up.Title+" that this account is at", err)
	}
	e, err := m.Clients.Endpoint(there, method.Through(c.Client))
	return &walk{Machine: m, up: there, endpoint: e, former: c.Client != "" && c.Client != method.Client, from: -1, siblings: m.Catalog.Siblings(up, method)}, err
}

// end marks a connection that only its user can mend.
func (m *Machine) end(ctx context.Context, c vault.Connection, reason string) error {
	c.Status, c.Reason = vault.NeedsReconnect, reason
	if err := m.Vault.Update(ctx, c); err != nil && fault.KindOf(err) != fault.Conflict {
		return err
	}
	m.Slog.Info("a connection needs its user", "connection", c.ID, "upstream", c.Upstream, "reason", reason)
	return needed(c)
}

func needed(c vault.Connection) error {
	return &catalog.Needed{Missing: []catalog.Missing{{Upstream: c.Upstream, Scopes: c.Scopes, Why: catalog.WhyReconnect, Reason: c.Reason, Connection: string(c.ID)}}}
}
