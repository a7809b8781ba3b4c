package refresh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/catalog/live"
	"frontdesk.dev/frontdesk/internal/kit/dpop"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

// walk is one process's way through the machine for one connection. Its steps have the numbers of docs/connections.md.
type walk struct {
	*Machine
	up       *catalog.Upstream
	endpoint oauth.Endpoint
	siblings []catalog.UpstreamName
	from     int64 // a forced renewal: go on until the version is beyond this; -1 otherwise
	blunt    bool  // a refusal counts, however many there are
	former   bool  // it was given to another registration of ours than the current one
	token    oauth.Token
}

// Reasons that people read. They stand in a row while it needs its user, or is being recovered.
const (
	reasonRefused     = "the vendor does not accept the renewal any more"
	reasonInterrupted = "a renewal was interrupted, and the vendor had already used up the old token"
	reasonForgotten   = "the vendor has forgotten the registration that this was given to"
	reasonSealed      = "the stored credential does not open any more"
	reasonElsewhere   = "the vendor says that the account has moved to another site than the one that is set up here"
	reasonAstray      = "the vendor says that the account is at a site to which its credential may not go"

	// ReasonRestored is given to store.DB.Restored: it stays with a connection until it has proved to be alive.
	ReasonRestored = "it was restored from a backup, and the vendor had given out a newer token since"
)

// run goes on until the row is good, or nothing more can be done now.
func (w *walk) run(ctx context.Context, c vault.Connection) (vault.Connection, error) {
	redeemed := int64(-1) // the version from which we have done so
	for {
		w.replay(ctx, c.ID)
		row, err := w.Rows.Connection(ctx, c.Tenant, c.ID)
		if err != nil {
			return c, err
		}
		c = row
		if back, err := w.putBack(ctx, c); back || err != nil {
			if err != nil {
				return w.serve(c, err)
			}
			continue
		}
		if over, err := w.over(c); over {
			return w.serve(c, err)
		}
		if redeemed >= 0 && c.Version > redeemed && c.Status == vault.Active { // what its vendor gives is over at once: asking again gives no better
			return c, nil
		}
		if pause := w.settling(); pause > 0 {
			if err := wait(ctx); err != nil {
				return w.serve(c, fault.Later(w.up.Title+" is not renewed while a failover of the database settles; try again", pause, err))
			}
			continue
		}
		if c.Phase != vault.Idle && w.orphans.take(c.Attempt) {
			if err := w.unsent(ctx, c); err != nil {
				return w.serve(c, err)
			}
			continue
		}
		claimed, attempt := w.Now(), w.attempt()
		held, ok, err := w.Steps.Claim(ctx, c, Lease{Attempt: attempt, Owner: w.Owner.String(), Time: w.lease(), Siblings: w.siblings}) // step 1
		switch {
		case err != nil:
			w.orphans.add(attempt, claimed)
			return w.serve(c, err)
		case !ok:
			if err := wait(ctx); err != nil {
				return w.serve(c, fault.New(fault.Unavailable, w.up.Title+" is being renewed elsewhere and takes long; try again", err))
			}
			continue
		}
		redeemed = held.Version
		if err := w.redeem(ctx, held, claimed); err != nil {
			if now, rerr := w.Rows.Connection(ctx, c.Tenant, c.ID); rerr == nil {
				return w.serve(now, err)
			}
			return held, err
		}
	}
}

// over says whether there is nothing to do for now, and why.
func (w *walk) over(c vault.Connection) (bool, error) {
	switch now := w.Now(); {
	case c.Status == vault.NeedsReconnect:
		return true, needed(c)
	case c.Status == vault.Revoking || c.Status == vault.Revoked:
		return true, &catalog.Needed{Missing: []catalog.Missing{{Upstream: c.Upstream, Scopes: c.Scopes, Why: catalog.WhyNotConnected}}}
	case w.from >= 0 && c.Version > w.from && c.Status == vault.Active, w.from < 0 && w.good(c):
		return true, nil
	case !c.Refreshes:
		return true, fault.New(fault.Unavailable, w.up.Title+" gave no token to renew this credential with", nil)
	case now.Before(c.NotBefore) && c.NotBefore.Before(now.Add(2*maxBackoff)): // one further away was written by a clock that was wrong
		return true, fault.Later(w.up.Title+" could not renew its credential just now; try again later", c.NotBefore.Sub(now), nil)
	default:
		pause, trouble := w.health.enter(w.up, now)
		if trouble == "" {
			return false, nil
		}
		return true, fault.Later(w.up.Title+" cannot renew credentials now ("+string(trouble)+"); operators have been told, try again later", pause, nil)
	}
}

// serve is what becomes of a refresh that failed for now: the token that is there, while it lives.
func (w *walk) serve(c vault.Connection, err error) (vault.Connection, error) {
	if err == nil || w.from >= 0 || !w.alive(c) {
		return c, err
	}
	if _, final := errors.AsType[*catalog.Needed](err); final {
		return c, err
	}
	spent := c.Phase == vault.Sent || c.Status == vault.Uncertain // a refresh may have gone through, and killed the old token with it
	if spent && !survives(w.up) {
		return c, err
	}
	return c, nil // step 7a, or a vendor's bad hour
}

func (w *walk) attempt() string { return fmt.Sprintf("%s-%08x", w.Owner.Run, rand.Uint32()) }

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

// redeem is the one place that redeems a refresh token. It holds the lease since the given time. nil means: look at the row
// again.
func (w *walk) redeem(ctx context.Context, held vault.Connection, claimed time.Time) error {
	secrets, err := w.Vault.Open(ctx, held)
	if errors.Is(err, vault.ErrSealed) {
		held.Status, held.Reason = vault.NeedsReconnect, reasonSealed
		return w.giveBack(ctx, held)
	}
	if err != nil {
		return errors.Join(err, w.unsent(ctx, held))
	}
	id, err := w.Log.Begin(ctx, w.record(held, audit.KindIntent))
	if err != nil {
		return errors.Join(err, w.unsent(ctx, held))
	}
	if ok, err := w.Steps.Sent(ctx, held); err != nil || !ok { // step 2
		w.finish(ctx, id, held, audit.ResultFailed, "the lease was lost before anything was sent")
		if err != nil {
			err = errors.Join(err, w.unsent(ctx, held))
		}
		return err
	}
	endpoint, err := w.at(secrets)
	if err != nil {
		w.finish(ctx, id, held, audit.ResultFailed, "the key that the token is bound to cannot be read")
		held.Status, held.Reason = vault.NeedsReconnect, reasonSealed
		return w.giveBack(ctx, held)
	}
	left := w.lease() - w.Now().Sub(claimed)
	if left < w.lease()/2 { // we were stopped: what is left of the lease may not do for the request
		w.finish(ctx, id, held, audit.ResultFailed, "given up before anything was sent: the lease was nearly over")
		return w.giveBack(ctx, held)
	}
	send, cancel := context.WithTimeout(ctx, left*2/3)                      // over before the lease is, even if we are stopped just here
	token, err := w.OAuth.Refresh(send, endpoint, w.grant(secrets.Refresh)) // steps 3 and 4
	cancel()
	if err != nil {
		return w.refused(ctx, id, held, err)
	}
	w.health.served(w.up, held, w.Now())
	return w.settle(ctx, id, held, secrets, token)
}

// at is the token endpoint for this credential: what was bound to a key stays bound to it, and what was not stays so until its user
// connects again.
func (w *walk) at(s vault.Secrets) (oauth.Endpoint, error) {
	e := w.endpoint
	e.Key = nil
	if s.Proof.IsZero() {
		return e, nil
	}
	key, err := dpop.ParseKey(s.Proof)
	if err == nil {
		e.Key = key.Itself
	}
	return e, err
}

// settle stores the new pair before anybody gets it (step 5).
func (w *walk) settle(ctx context.Context, id audit.CallID, held vault.Connection, old vault.Secrets, t oauth.Token) error {
	c, from := held, held.Version
	c.Version, c.Status, c.Reason, c.Phase, c.Failures, c.Recoveries = from+1, vault.Active, "", vault.Idle, 0, 0
	c.Expires, c.Renewed, c.NotBefore = t.Expires, w.Now(), time.Time{}
	if t.ScopesKnown {
		c.Scopes = t.Scopes
	}
	said := w.whereabouts(&c, t)
	next := vault.Secrets{Access: t.Access, Refresh: t.Refresh, Previous: old.Refresh, Identity: old.Identity, Proof: old.Proof}
	if !old.Identity.IsZero() && !t.IDToken.IsZero() {
		next.Identity = t.IDToken
	}
	if t.Refresh.IsZero() {
		next.Refresh, next.Previous = old.Refresh, secret.Text{}
	}
	if err := w.Vault.Seal(ctx, &c, next); err != nil {
		w.finish(ctx, id, held, audit.ResultUnknown, "the new credential could not be sealed")
		return err
	}
	switch ok, err := w.store(ctx, c, from); {
	case err != nil:
		w.finish(ctx, id, held, audit.ResultUnknown, "the new credential could not be stored in time"+said)
		return err
	case !ok: // step 11: the user ended or reconnected meanwhile, or a recovery was faster: this pair is nobody's
		w.discard(ctx, w.up, held, next)
		w.finish(ctx, id, held, audit.ResultOK, "renewed too late: the connection had changed, and the new credential was thrown away")
		return nil
	}
	w.token = t
	if said != "" {
		w.Slog.Warn("an account has moved at its vendor", "connection", c.ID, "upstream", c.Upstream, "from", held.Site.Value, "to", c.Site.Value, "reason", c.Reason)
	}
	w.stored(ctx, id, c, said)
	w.Catalog.Showed(ctx, w.up, func() []catalog.Showing { return live.OfRenewal(w.up, old.Refresh, t, w.Now()) })
	return nil
}

// whereabouts looks at what a renewal says of the account's site, as at the consent (Salesforce names another one after a migration).
// Where the site is each connection's own, it moves with the account, within what the entry allows. Else the new credential is kept, since
// the old one is spent, and goes nowhere: it would be good at a place that nobody has set up. What it comes to is returned for the log.
func (w *walk) whereabouts(c *vault.Connection, t oauth.Token) (said string) {
	if w.up == nil || w.up.Provider == nil || w.up.Provider.OAuth == nil {
		return ""
	}
	if w.up.Provider.OAuth.Elsewhere(t.Lookup) {
		c.Status, c.Reason = vault.NeedsReconnect, reasonElsewhere
		return "; " + reasonElsewhere
	}
	s := w.up.Sites
	if s == nil || s.Pointer == "" {
		return ""
	}
	value, ok := t.Lookup(s.Pointer)
	if !ok {
		return ""
	}
	site, ok := s.Of(value, "")
	switch {
	case !ok:
		c.Status, c.Reason = vault.NeedsReconnect, reasonAstray
		return "; " + reasonAstray
	case site.Value == c.Site.Value:
		return ""
	}
	said = "; the account has moved from the site " + c.Site.Value + " to " + site.Value
	c.Account, c.Label = c.Site.Moved(site, c.Account, c.Label)
	c.Site = site
	return said
}

// stored ends a refresh with what it left in the vault, so that the log and the vault can be compared.
func (m *Machine) stored(ctx context.Context, id audit.CallID, c vault.Connection, detail string) {
	m.kept.keep(c, m.Now())
	rec := m.record(c, audit.KindOutcome)
	rec.Call, rec.Result, rec.Sealed, rec.Detail = id, audit.ResultOK, vault.Fingerprint(c), strings.TrimPrefix(detail, "; ")
	m.Log.End(context.WithoutCancel(ctx), id, rec)
}

// store settles. While the database is away the pair lies in the spool (step 5′), where it outlives this process.
func (w *walk) store(ctx context.Context, c vault.Connection, from int64) (bool, error) {
	ok, err := w.Steps.Settle(ctx, c, from)
	if err == nil {
		return ok, nil
	}
	if perr := w.Spool.Put(c); perr != nil {
		w.Slog.Error("a renewed credential can be stored neither in the database nor in the spool; do not stop this process", "connection", c.ID, "upstream", c.Upstream, "error", perr)
	}
	for err != nil {
		if werr := wait(ctx); werr != nil {
			w.Slog.Error("a renewed credential could not be stored in time; the spool keeps it", "connection", c.ID, "upstream", c.Upstream, "error", err)
			return false, err
		}
		ok, err = w.Steps.Settle(ctx, c, from)
	}
	w.Spool.Drop(c)
	if !ok { // the answer to the first try may be what was lost
		row, err := w.Rows.Connection(ctx, c.Tenant, c.ID)
		ok = err == nil && row.Generation == c.Generation && row.Version == c.Version && bytes.Equal(row.Access, c.Access)
	}
	return ok, nil
}

// discard ends a pair that must not be used at the vendor, where its connection was ended. In the place of one that was made
// anew, or renewed by a recovery, it is left alone: to end it could end its siblings too.
func (m *Machine) discard(ctx context.Context, up *catalog.Upstream, c vault.Connection, s vault.Secrets) {
	row, err := m.Rows.Connection(ctx, c.Tenant, c.ID)
	if err != nil || row.Status != vault.Revoked && row.Status != vault.Revoking {
		return
	}
	if _, err := m.Endings.End(ctx, up, c, s); err != nil {
		m.Slog.Warn("a credential that nobody uses could not be ended at its vendor", "upstream", c.Upstream, "error", err)
	}
}

// refused reads a failed redemption by the rules above.
func (w *walk) refused(ctx context.Context, id audit.CallID, held vault.Connection, err error) error {
	te, ok := errors.AsType[*oauth.TokenError](err)
	if !ok {
		te = &oauth.TokenError{}
	}
	w.finish(ctx, id, held, audit.ResultFailed, "the vendor refused: "+te.Failure.String())
	now := w.Now()
	held.Failures++
	after := backoff(held.Failures, te.RetryAfter)
	switch {
	case te.Failure == oauth.GrantRefused && held.Status == vault.Active: // the first witness
		held.Status = vault.Suspect
		return w.fail(ctx, held, 0)
	case te.Failure == oauth.GrantRefused: // the second one: step 8, or step 9a
		return w.dead(ctx, held)
	case te.Failure == oauth.ClientRefused && w.former && held.Status == vault.Active: // of a forgotten registration: as a refused grant
		held.Status = vault.Suspect
		return w.fail(ctx, held, 0)
	case te.Failure == oauth.ClientRefused && w.former:
		held.Status, held.Reason = vault.NeedsReconnect, reasonForgotten
		w.Slog.Info("a connection needs its user", "connection", held.ID, "upstream", held.Upstream, "reason", held.Reason)
		return w.fail(ctx, held, 0)
	case te.Failure == oauth.ClientRefused: // step 10: no connection is touched
		held.Failures--
		if ferr := w.giveBack(ctx, held); ferr != nil {
			return ferr
		}
		if w.Unknown != nil && w.Unknown(ctx, w.up, w.endpoint.ClientID) {
			w.former = true // whoever connects from now on does so through another one; this one is looked at again
			return nil
		}
		if w.health.misconfigured(w.up, now) {
			w.Slog.Error("the vendor refuses our OAuth client: check client_id and client_secret; until then nothing is renewed there", "upstream", held.Upstream, "code", te.Code)
		}
		return fault.Later(w.up.Title+" refuses Frontdesk's own registration; operators have been told, try again later", probeEvery, err)
	case te.Sent && te.HTTPStatus == 0, te.Failure == oauth.Malformed && te.HTTPStatus == 200, te.Failure == oauth.Oversized: // the token may be spent: step 7
		held.Status, held.Recoveries = vault.Uncertain, held.Recoveries+1
	}
	if ferr := w.fail(ctx, held, after); ferr != nil {
		return ferr
	}
	return fault.Later(w.up.Title+" could not renew its credential; try again later", after, err)
}

// dead ends a connection, unless so many end at once that the vendor is the likelier one to be wrong.
func (w *walk) dead(ctx context.Context, held vault.Connection) error {
	if !w.blunt {
		open, earlier := w.health.refused(w.up, held, w.Now())
		for _, c := range earlier {
			c.Status, c.Reason = vault.Suspect, ""
			if err := w.Vault.Update(ctx, c); err != nil && fault.KindOf(err) != fault.Conflict {
				w.Slog.Warn("a connection could not be taken back from its user", "connection", c.ID, "upstream", c.Upstream, "error", err)
			}
		}
		if len(earlier) > 0 {
			w.Slog.Error("a vendor refuses many renewals at once; nobody is asked to reconnect, and one is tried each minute", "upstream", held.Upstream)
		}
		if open {
			return w.fail(ctx, held, probeEvery)
		}
	}
	switch {
	case held.Status == vault.Uncertain && held.Reason == "":
		held.Reason = reasonInterrupted
	case held.Status != vault.Uncertain:
		held.Reason = reasonRefused
	}
	held.Status = vault.NeedsReconnect
	w.Slog.Info("a connection needs its user", "connection", held.ID, "upstream", held.Upstream, "reason", held.Reason)
	return w.fail(ctx, held, 0)
}

const maxBackoff = 5 * time.Minute

// backoff grows with the failures; the vendor may ask for more, up to a bound.
func backoff(failures int, asked time.Duration) time.Duration {
	d := min(time.Second<<min(failures, 10), maxBackoff)
	return max(d/2+rand.N(d/2+1), min(asked, maxBackoff))
}

// fail gives the lease back, not to be taken again for a while.
func (w *walk) fail(ctx context.Context, c vault.Connection, after time.Duration) error {
	c.NotBefore = time.Time{}
	if after > 0 {
		c.NotBefore = w.Now().Add(after)
	}
	return w.giveBack(ctx, c)
}

// unsent gives the lease back of an attempt of ours that has sent nothing.
func (w *walk) unsent(ctx context.Context, c vault.Connection) error {
	err := w.giveBack(ctx, c)
	if err != nil {
		w.orphans.add(c.Attempt, w.Now())
	}
	return err
}

func (w *walk) giveBack(ctx context.Context, c vault.Connection) error {
	c.Phase = vault.Idle
	_, err := w.Steps.Fail(context.WithoutCancel(ctx), c) // where the lease is over, the next one finds what we leave
	return err
}

func (m *Machine) record(c vault.Connection, k audit.Kind) audit.Record {
	return audit.Record{Kind: k, Time: m.Now(), Tenant: c.Tenant, User: c.User, Action: "refresh", Upstream: string(c.Upstream), Connection: string(c.ID)}
}

func (w *walk) finish(ctx context.Context, id audit.CallID, c vault.Connection, result audit.Result, detail string) {
	rec := w.record(c, audit.KindOutcome)
	rec.Call, rec.Result, rec.Detail = id, result, detail
	w.Log.End(context.WithoutCancel(ctx), id, rec)
}

// grant is what is redeemed, with what its vendor wants beside it: what the token is for, as when it was first asked for (RFC 8707 section 2.2).
func (w *walk) grant(token secret.Text) oauth.RefreshGrant {
	g := oauth.RefreshGrant{Refresh: token}
	if w.up == nil || w.up.Provider == nil || w.up.Provider.OAuth == nil {
		return g
	}
	o := w.up.Provider.OAuth
	if g.Resources = o.Resources(); o.Refresh.RedirectURI && w.Callback != nil {
		g.RedirectURI = w.Callback(w.up.Tenant, w.up.Name)
	}
	return g
}
