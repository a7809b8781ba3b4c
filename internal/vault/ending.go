package vault

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/catalog/live"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// Ended is what is true of a credential at its vendor after it was ended here.
type Ended string

const (
	EndedConfirmed Ended = "confirmed" // the vendor confirmed
	EndedHere      Ended = "here"      // the vendor offers no way
	EndedTrying    Ended = "trying"    // the vendor has not answered yet, and will be asked again
)

// Ending is a credential that its vendor has yet to end. Its token is sealed under ID.
type Ending struct {
	Tenant     identity.Tenant
	ID         string // 32 hex digits
	User       identity.UserID
	Upstream   catalog.UpstreamName
	Method     catalog.MethodKind
	Connection ConnectionID
	Created    time.Time
	Next       time.Time // not tried before
	Tries      int
	Sealed     []byte
	GivenUp    time.Time // zero: it is still tried. Afterwards nothing is sealed in it
	Why        string    // of the last try that failed, for operators
}

// EndingStore keeps endings until they are confirmed; those that were given up for a month, to be looked at.
type EndingStore interface {
	AddEnding(ctx context.Context, e Ending) error
	EndingQueue
}

// EndingQueue is what is left to do.
type EndingQueue interface {
	// DueEndings lists those of all tenants whose Next has come, the oldest first.
	DueEndings(ctx context.Context, now time.Time, limit int) ([]Ending, error)
	// TryEnding moves Next on and counts a try, if Tries is still e.Tries: of two processes one gets true.
	TryEnding(ctx context.Context, e Ending, next time.Time) (bool, error)
	// FailEnding keeps e's Why, and with GivenUp that nothing more is tried: what was sealed is gone then.
	FailEnding(ctx context.Context, e Ending) error
	RemoveEnding(ctx context.Context, t identity.Tenant, id string) error
}

// Endings ends credentials at their vendors, by RFC 7009 or the vendor's own call. One that the vendor does not confirm at once
// is kept, and tried again by any process, also after a crash. All fields are required.
type Endings struct {
	Vault   *Vault
	Store   EndingStore
	Catalog *catalog.Catalog
	Clients *Clients
	OAuth   oauth.Client
	Log     *slog.Logger
	Now     func() time.Time
}

const (
	endTimeout = 10 * time.Second
	endFirst   = 15 * time.Second
	endTries   = 12 // the last one some 17 hours after the first
	endEvery   = 5 * time.Second
	endBatch   = 500
	endAtOnce  = 4 // at one upstream: vendors count how often they are asked
)

// toEnd is what is sealed.
type toEnd struct {
	Token, Hint string
	Site        string `json:",omitempty"` // at which it is ended
	Client      string `json:",omitempty"` // to which it was given
}

// End asks the vendor to end a credential, and promises to go on asking. The refresh token comes first: with it the grant ends.
func (e *Endings) End(ctx context.Context, up *catalog.Upstream, c Connection, s Secrets) (Ended, error) {
	token := tokenOf(up, c, s)
	if token.Token == "" {
		return EndedHere, nil
	}
	if alone, err := e.alone(ctx, up, c); err != nil || !alone {
		return EndedHere, err
	}
	row, err := e.row(ctx, c, token)
	if err != nil {
		return "", err
	}
	row.Tries, row.Next = 1, row.Created.Add(endFirst)
	if err := e.Store.AddEnding(ctx, row); err != nil { // before it is tried, so that a crash forgets nothing
		return "", err
	}
	if err := e.ask(ctx, up, row.Method, token); err != nil {
		e.Log.Warn("a vendor has not confirmed that a connection ended; it will be asked again", "upstream", up.Name, "error", err)
		return EndedTrying, nil
	}
	return EndedConfirmed, e.Store.RemoveEnding(ctx, row.Tenant, row.ID)
}

// Prepare makes the ending of a credential without asking anybody: one that Run asks for at once, or, with false, one that
// is given up from the start, because its vendor offers no way or is not configured any more (a nil up).
func (e *Endings) Prepare(ctx context.Context, up *catalog.Upstream, c Connection, s Secrets) (Ending, bool, error) {
	token := toEnd{}
	if up != nil {
		token = tokenOf(up, c, s)
	}
	if token.Token != "" {
		row, err := e.row(ctx, c, token)
		return row, true, err
	}
	row, err := newEnding(c, e.Now())
	row.GivenUp, row.Why = row.Created, "the vendor offers no way to end it from here"
	switch {
	case up == nil:
		row.Why = "the upstream is not configured any more"
	case s.Access.IsZero() && s.Refresh.IsZero():
		row.Why = "the stored credential does not open"
	}
	return row, false, err
}

// tokenOf is what the vendor can be asked to end; nothing where it offers no way.
func tokenOf(up *catalog.Upstream, c Connection, s Secrets) toEnd {
	if !up.Provider.OAuth.Ends() || c.Method == catalog.APIKey {
		return toEnd{}
	}
	t := chosen(up.Provider.OAuth.Revoke, s)
	t.Site, t.Client = c.Site.Value, c.Client
	return t
}

func newEnding(c Connection, now time.Time) (Ending, error) {
	id := make([]byte, 16)
	_, err := io.ReadFull(rand.Reader, id)
	return Ending{Tenant: c.Tenant, ID: hex.EncodeToString(id), User: c.User, Upstream: c.Upstream, Method: c.Method, Connection: c.ID, Created: now, Next: now}, err
}

func (e *Endings) row(ctx context.Context, c Connection, token toEnd) (Ending, error) {
	row, err := newEnding(c, e.Now())
	if err != nil {
		return Ending{}, err
	}
	plain, err := json.Marshal(token)
	if err != nil {
		return Ending{}, err
	}
	row.Sealed, err = e.Vault.SealFlow(ctx, row.Tenant, row.flow(), plain)
	return row, err
}

func (e Ending) flow() string { return "ending/" + e.ID }

func (e *Endings) ask(ctx context.Context, up *catalog.Upstream, kind catalog.MethodKind, t toEnd) error {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	up, err := up.At(t.Site)
	if err != nil {
		return err
	}
	at, err := e.Clients.Endpoint(up, up.Method(kind).Through(t.Client))
	if err != nil {
		return err
	}
	o := up.Provider.OAuth
	at.URL = o.Revocation
	if proof := e.Clients.proof(up, kind, up.Provider.Injection, secret.New(t.Token)); proof != "" && o.Ending().Auth == oauth.RevokeBearer {
		at.URL += "?" + withParam("", up.Provider.Injection.Proof, proof)
	}
	err = e.OAuth.RevokeBy(ctx, at, o.Ending(), secret.New(t.Token), t.Hint)
	e.Catalog.Showed(ctx, up, func() []catalog.Showing {
		status := 0
		if refused, ok := errors.AsType[*oauth.TokenError](err); ok {
			status = refused.HTTPStatus
		}
		return live.OfEnding(status, err)
	})
	return err
}

// chosen is the token that the vendor's call wants: the refresh token where it takes one, since with it the grant ends.
func chosen(r catalog.Revoke, s Secrets) toEnd {
	if r.Token == "access" || s.Refresh.IsZero() && r.Token != "refresh" {
		return toEnd{Token: s.Access.Expose(), Hint: "access_token"}
	}
	return toEnd{Token: s.Refresh.Expose(), Hint: "refresh_token"}
}

// alone reports whether nothing else of the person's would end with c. Where the vendor ends a whole grant, his other
// connections through the same client hang on it, unless they are known to be another account's.
func (e *Endings) alone(ctx context.Context, up *catalog.Upstream, c Connection) (bool, error) {
	if up.Provider.OAuth.Revoke.Shared != catalog.SharedGrant {
		return true, nil
	}
	for _, name := range e.Catalog.Through(up, up.Method(c.Method)) {
		l, err := e.Vault.Connections(ctx, c.Tenant, c.User, name)
		if err != nil {
			return false, err
		}
		for _, other := range l {
			living := other.Status != Revoking && other.Status != Revoked
			if living && other.ID != c.ID && other.Method == c.Method && (other.Account == c.Account || other.Account == "" || c.Account == "") {
				return false, nil
			}
		}
	}
	return true, nil
}

// Run asks vendors again until they confirm, or it is given up, with a line in the log either way.
func (e *Endings) Run(ctx context.Context) error {
	tick := time.NewTicker(endEvery)
	defer tick.Stop()
	for {
		if err := e.Round(ctx); err != nil && ctx.Err() == nil {
			e.Log.Warn("vendors could not be asked again to end connections; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Round is one look of Run: it ends when nothing is due any more. Upstreams do not wait for each other, and none is asked for
// many at once.
func (e *Endings) Round(ctx context.Context) error {
	for {
		due, err := e.Store.DueEndings(ctx, e.Now(), endBatch)
		if err != nil || len(due) == 0 {
			return err
		}
		var all errgroup.Group
		lanes := map[catalog.UpstreamName]*errgroup.Group{}
		for _, row := range due {
			if lanes[row.Upstream] == nil {
				lanes[row.Upstream] = new(errgroup.Group)
				lanes[row.Upstream].SetLimit(endAtOnce)
			}
		}
		for up, lane := range lanes {
			all.Go(func() error {
				for _, row := range due {
					if row.Upstream == up {
						lane.Go(func() error { return e.again(ctx, row) })
					}
				}
				return lane.Wait()
			})
		}
		if err := all.Wait(); err != nil || len(due) < endBatch || ctx.Err() != nil {
			return err
		}
	}
}

func (e *Endings) again(ctx context.Context, row Ending) error {
	mine, err := e.Store.TryEnding(ctx, row, e.Now().Add(endFirst<<row.Tries))
	if err != nil || !mine {
		return err
	}
	up := e.Catalog.Upstream(row.Tenant, row.Upstream)
	if up == nil || !up.Provider.OAuth.Ends() {
		return e.giveUp(ctx, row, fault.New(fault.NotFound, "the upstream is not configured any more", nil))
	}
	plain, err := e.Vault.OpenFlow(ctx, row.Tenant, row.flow(), row.Sealed)
	if err != nil {
		return e.giveUp(ctx, row, err)
	}
	var t toEnd
	if err := json.Unmarshal(plain, &t); err != nil {
		return e.giveUp(ctx, row, err)
	}
	// Asked now, not when the list was made: of several that ended together each finds the others ended.
	alone, err := e.alone(ctx, up, Connection{Tenant: row.Tenant, ID: row.Connection, User: row.User, Upstream: row.Upstream, Method: row.Method})
	switch {
	case err != nil:
		return err
	case !alone:
		return e.giveUp(ctx, row, fault.New(fault.Conflict, "another connection of this person hangs on the same grant; the vendor is asked when that ends", nil))
	}
	switch err := e.ask(ctx, up, row.Method, t); {
	case err == nil:
		e.Log.Info("a vendor confirmed that a connection ended", "upstream", row.Upstream, "connection", row.Connection, "tries", row.Tries+1)
		return e.Store.RemoveEnding(ctx, row.Tenant, row.ID)
	case row.Tries+1 >= endTries:
		return e.giveUp(ctx, row, err)
	default:
		row.Why = fault.Message(err)
		return e.Store.FailEnding(ctx, row)
	}
}

func (e *Endings) giveUp(ctx context.Context, row Ending, why error) error {
	e.Log.Error("a vendor never confirmed that a connection ended; end it there by hand", "upstream", row.Upstream, "connection", row.Connection, "user", row.User, "error", why)
	row.GivenUp, row.Why = e.Now(), fault.Message(why)
	return e.Store.FailEnding(ctx, row)
}
