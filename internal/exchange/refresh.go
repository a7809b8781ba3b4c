package exchange

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/singleflight"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Refresher keeps stored credentials good. Four rules carry everything:
//
//  1. The lease only avoids duplicates, the version decides truth: a result is stored if and only if generation and
//     version are those it was obtained from.
//  2. Nothing leaves before its intent is durable (phase sent), nothing is released before its result is durable.
//  3. Death needs two witnesses: one invalid_grant makes a connection suspect, the next one ends it.
//  4. A refresh token lives in one row and is redeemed in one function: redeem.
//
// All fields are required.
type Refresher struct {
	Vault   Vault
	Machine Machine
	Rows    Rows
	Clients *vault.Clients
	OAuth   oauth.Client
	Log     Log
	Slog    *slog.Logger
	Owner   string // this process, for leases
	Now     func() time.Time

	flights singleflight.Group
}

// Rows reads one connection.
type Rows interface {
	Connection(ctx context.Context, t identity.Tenant, id vault.ConnectionID) (vault.Connection, error)
}

// Log records refreshes (audit.Log).
type Log interface {
	Begin(ctx context.Context, r audit.Record) (audit.CallID, error)
	End(ctx context.Context, id audit.CallID, r audit.Record)
}

// The times stand in this order, so that a request ends before its lease, and a lease before the patience of who waits.
const (
	leaseTime     = 30 * time.Second
	patience      = 35 * time.Second
	waitStep      = 50 * time.Millisecond
	maxRecoveries = 3
	maxBackoff    = 5 * time.Minute
)

// margin is how long before its expiry a token is no longer given out: a fifth of its life, spread by connection so that
// not all of a fleet come due at once.
func margin(c vault.Connection) time.Duration {
	life := c.Expires.Sub(c.Renewed)
	if c.Renewed.IsZero() || life <= 0 {
		return time.Minute
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(c.ID))
	return min(life/5, 10*time.Minute) * time.Duration(80+h.Sum32()%21) / 100
}

// Fresh returns the connection with a token that is good, refreshing it if it is due. Errors: *catalog.Needed where only
// the user can mend it; fault.Unavailable where it may work later.
func (f *Refresher) Fresh(ctx context.Context, c vault.Connection, up *catalog.Upstream, m catalog.Method) (vault.Connection, error) {
	if f.good(c) {
		return c, nil
	}
	if !c.Refreshes {
		return c, f.end(ctx, c, up, "the vendor's token has expired and there is none to renew it with")
	}
	return f.fly(ctx, c, up, m)
}

// Renew redeems the refresh token though nothing is due: to learn whether the vendor still lets the person in.
func (f *Refresher) Renew(ctx context.Context, c vault.Connection, e oauth.Endpoint, up *catalog.Upstream) (vault.Connection, oauth.Token, error) {
	r := &refresh{Refresher: f, up: up, endpoint: e, from: c.Version}
	c, err := r.run(context.WithoutCancel(ctx), c)
	return c, r.token, err
}

func (f *Refresher) good(c vault.Connection) bool {
	return c.Status == vault.Active && (c.Expires.IsZero() || f.Now().Before(c.Expires.Add(-margin(c))))
}

// alive reports whether the token that is there still works, so that a vendor's bad hour is nobody's.
func (f *Refresher) alive(c vault.Connection) bool {
	return !c.Expires.IsZero() && f.Now().Before(c.Expires.Add(-5*time.Second)) && c.Status != vault.NeedsReconnect
}

// fly shares one refresh between all who wait for the same row in this process. It belongs to none of them: a caller who
// leaves does not end it.
func (f *Refresher) fly(ctx context.Context, c vault.Connection, up *catalog.Upstream, m catalog.Method) (vault.Connection, error) {
	e, err := f.Clients.Endpoint(up, m)
	if err != nil {
		return c, err
	}
	key := fmt.Sprintf("%s/%s/%d", c.Tenant, c.ID, c.Generation)
	ch := f.flights.DoChan(key, func() (any, error) {
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		defer cancel()
		r := &refresh{Refresher: f, up: up, endpoint: e, from: -1}
		return r.run(own, c)
	})
	select {
	case <-ctx.Done():
		return c, fault.New(fault.Unavailable, up.Title+" took too long to renew its credential; try again", ctx.Err())
	case res := <-ch:
		if fresh, ok := res.Val.(vault.Connection); ok {
			return fresh, res.Err
		}
		return c, res.Err
	}
}

// refresh is one process's way through the machine for one connection.
type refresh struct {
	*Refresher
	up       *catalog.Upstream
	endpoint oauth.Endpoint
	from     int64 // a forced renewal: go on until the version is beyond this; -1 otherwise
	token    oauth.Token
}

func (r *refresh) done(c vault.Connection) bool {
	if r.from >= 0 {
		return c.Version > r.from && c.Status == vault.Active
	}
	return r.good(c)
}

// run goes on until the row is good, or nothing more can be done.
func (r *refresh) run(ctx context.Context, c vault.Connection) (vault.Connection, error) {
	for {
		var err error
		if c, err = r.Rows.Connection(ctx, c.Tenant, c.ID); err != nil {
			return c, err
		}
		switch now := r.Now(); {
		case r.done(c):
			return c, nil
		case c.Status == vault.NeedsReconnect:
			return c, needed(c)
		case c.Status == vault.Revoking || c.Status == vault.Revoked:
			return c, &catalog.Needed{Missing: []catalog.Missing{{Upstream: c.Upstream, Scopes: c.Scopes, Why: catalog.WhyNotConnected}}}
		case c.Phase == vault.Sent && c.LeaseUntil.Before(now) && c.Recoveries >= maxRecoveries:
			return c, r.end(ctx, c, r.up, "a renewal was interrupted, and could not be recovered")
		case now.Before(c.NotBefore):
			return r.make(c, fault.Later(r.up.Title+" could not renew its credential just now; try again later", c.NotBefore.Sub(now), nil))
		}
		held, ok, err := r.Machine.Claim(ctx, c, r.attempt(), r.Owner, leaseTime)
		if err != nil {
			return r.make(c, err)
		}
		if !ok {
			if err := wait(ctx); err != nil {
				return r.make(c, fault.New(fault.Unavailable, r.up.Title+" is being renewed elsewhere and takes long; try again", err))
			}
			continue
		}
		if err := r.redeem(ctx, held, c); err != nil {
			return r.make(held, err)
		}
	}
}

// make is what becomes of a refresh that failed for now: the token that is there, while it lives.
func (r *refresh) make(c vault.Connection, err error) (vault.Connection, error) {
	_, final := errors.AsType[*catalog.Needed](err)
	spent := c.Phase == vault.Sent || c.Status == vault.Uncertain // a refresh may have gone through, and killed the old token with it
	if final || r.from >= 0 || !r.alive(c) || spent && !r.up.Provider.OAuth.Refresh.OldAccessSurvives {
		return c, err
	}
	return c, nil
}

func (r *refresh) attempt() string { return fmt.Sprintf("%s-%08x", r.Owner, rand.Uint32()) }

func wait(ctx context.Context) error {
	t := time.NewTimer(waitStep + rand.N(waitStep))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// redeem is the one place that redeems a refresh token. It holds the lease. nil means: look at the row again.
func (r *refresh) redeem(ctx context.Context, held, before vault.Connection) error {
	if before.Phase == vault.Sent { // somebody died, or lost the answer, between sending and storing: the token may be spent
		held.Status, held.Recoveries = vault.Uncertain, before.Recoveries+1
	}
	secrets, err := r.Vault.Open(ctx, held)
	if err != nil {
		return errors.Join(err, r.fail(ctx, held, 0))
	}
	id, err := r.Log.Begin(ctx, r.record(held, audit.KindIntent))
	if err != nil {
		return errors.Join(err, r.fail(ctx, held, 0))
	}
	if ok, err := r.Machine.Sent(ctx, held); err != nil || !ok {
		r.finish(ctx, id, held, audit.ResultFailed, "the lease was lost before anything was sent")
		return err
	}
	token, err := r.OAuth.Refresh(ctx, r.endpoint, oauth.RefreshGrant{Refresh: secrets.Refresh})
	if err != nil {
		return r.refused(ctx, id, held, err)
	}
	return r.settle(ctx, id, held, secrets, token)
}

// settle stores the new pair before anybody gets it. While the store is away it goes on trying: the pair exists nowhere else.
func (r *refresh) settle(ctx context.Context, id audit.CallID, held vault.Connection, old vault.Secrets, t oauth.Token) error {
	now, from := r.Now(), held.Version
	c := held
	c.Version, c.Status, c.Reason, c.Phase, c.Failures, c.Recoveries = from+1, vault.Active, "", vault.Idle, 0, 0
	c.Expires, c.Renewed, c.NotBefore = t.Expires, now, time.Time{}
	if t.ScopesKnown {
		c.Scopes = t.Scopes
	}
	next := vault.Secrets{Access: t.Access, Refresh: t.Refresh, Previous: old.Refresh}
	if t.Refresh.IsZero() {
		next.Refresh, next.Previous = old.Refresh, secret.Text{}
	}
	if err := r.Vault.Seal(ctx, &c, next); err != nil {
		r.finish(ctx, id, held, audit.ResultFailed, "the new credential could not be sealed")
		return err
	}
	ok, err := r.Machine.Settle(ctx, c, from)
	for err != nil {
		if werr := wait(ctx); werr != nil {
			r.Slog.Error("a renewed credential could not be stored in time; it will be recovered, or marked for reconnection", "connection", c.ID, "upstream", c.Upstream, "error", err)
			r.finish(ctx, id, held, audit.ResultUnknown, "the new credential could not be stored in time")
			return err
		}
		ok, err = r.Machine.Settle(ctx, c, from)
	}
	if !ok { // the user ended or reconnected meanwhile, or a recovery was faster: this pair is nobody's
		r.discard(ctx, held, next)
		r.finish(ctx, id, held, audit.ResultOK, "renewed too late: the connection had changed; the new credential was revoked")
		return nil
	}
	r.token = t
	r.finish(ctx, id, c, audit.ResultOK, "")
	return nil
}

// discard ends a pair that must not be used, at the vendor, as far as it lets us.
func (r *refresh) discard(ctx context.Context, held vault.Connection, s vault.Secrets) {
	row, err := r.Rows.Connection(ctx, held.Tenant, held.ID)
	if err != nil || row.Generation == held.Generation || r.up.Provider.OAuth == nil || r.up.Provider.OAuth.Revocation == "" {
		return // the same generation: a recovery stored a sibling of this pair, which a revocation could kill too
	}
	e := r.endpoint
	e.URL = r.up.Provider.OAuth.Revocation
	if err := r.OAuth.Revoke(ctx, e, s.Refresh, "refresh_token"); err != nil {
		r.Slog.Warn("a credential that nobody uses could not be revoked at its vendor", "upstream", held.Upstream, "error", err)
	}
}

// refused reads a failed redemption by the rules above.
func (r *refresh) refused(ctx context.Context, id audit.CallID, held vault.Connection, err error) error {
	te, ok := errors.AsType[*oauth.TokenError](err)
	if !ok {
		te = &oauth.TokenError{}
	}
	after := time.Duration(0)
	switch {
	case te.Failure == oauth.GrantRefused && held.Status == vault.Active: // the first witness
		held.Status = vault.Suspect
	case te.Failure == oauth.GrantRefused: // the second one
		reason := "the vendor does not accept the renewal any more"
		if held.Status == vault.Uncertain {
			reason = "a renewal was interrupted, and the vendor had already used up the old token"
		}
		held.Status, held.Reason = vault.NeedsReconnect, reason
	case te.Failure == oauth.ClientRefused:
		r.Slog.Error("the vendor refuses our OAuth client: check client_id and client_secret", "upstream", held.Upstream, "code", te.Code)
		after = time.Minute
	case te.Sent && te.HTTPStatus == 0, te.Failure == oauth.Malformed && te.HTTPStatus == 200, te.Failure == oauth.Oversized:
		held.Status, held.Recoveries = vault.Uncertain, held.Recoveries+1 // the answer was lost: the token may be spent
		if held.Recoveries > maxRecoveries {
			held.Status, held.Reason = vault.NeedsReconnect, "the vendor's answers to the renewal were lost"
		}
		after = backoff(held.Failures, te.RetryAfter)
	default:
		after = backoff(held.Failures, te.RetryAfter)
	}
	r.finish(ctx, id, held, audit.ResultFailed, "the vendor refused: "+te.Failure.String())
	if ferr := r.fail(ctx, held, after); ferr != nil {
		return ferr
	}
	if te.Failure == oauth.GrantRefused {
		return nil // the row says what comes next
	}
	return fault.Later(r.up.Title+" could not renew its credential; try again later", after, err)
}

func backoff(failures int, asked time.Duration) time.Duration {
	d := min(time.Second<<min(failures, 10), maxBackoff)
	return max(d/2+rand.N(d/2+1), min(asked, maxBackoff))
}

// fail gives the lease back.
func (r *refresh) fail(ctx context.Context, c vault.Connection, after time.Duration) error {
	c.Phase, c.Failures = vault.Idle, c.Failures+1
	c.NotBefore = time.Time{}
	if after > 0 {
		c.NotBefore = r.Now().Add(after)
	}
	_, err := r.Machine.Fail(context.WithoutCancel(ctx), c)
	return err
}

// end marks a connection that only its user can mend.
func (f *Refresher) end(ctx context.Context, c vault.Connection, up *catalog.Upstream, reason string) error {
	c.Status, c.Reason = vault.NeedsReconnect, reason
	if err := f.Vault.Update(ctx, c); err != nil && fault.KindOf(err) != fault.Conflict {
		return err
	}
	f.Slog.Info("a connection needs its user", "connection", c.ID, "upstream", up.Name, "reason", reason)
	return needed(c)
}

func needed(c vault.Connection) error {
	return &catalog.Needed{Missing: []catalog.Missing{{Upstream: c.Upstream, Scopes: c.Scopes, Why: catalog.WhyReconnect, Reason: c.Reason}}}
}

func (r *refresh) record(c vault.Connection, k audit.Kind) audit.Record {
	return audit.Record{Kind: k, Time: r.Now(), Tenant: c.Tenant, User: c.User, Action: "refresh", Upstream: string(c.Upstream), Connection: string(c.ID)}
}

func (r *refresh) finish(ctx context.Context, id audit.CallID, c vault.Connection, result audit.Result, detail string) {
	rec := r.record(c, audit.KindOutcome)
	rec.Call, rec.Result, rec.Detail = id, result, detail
	r.Log.End(context.WithoutCancel(ctx), id, rec)
}

func tokenRetry(err error) time.Duration {
	if te, ok := errors.AsType[*oauth.TokenError](err); ok {
		return te.RetryAfter
	}
	return 0
}
