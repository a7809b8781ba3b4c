package identity

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"
)

// Epochs knows whose access has ended. It follows the store, so that an end on one replica is one on all within a second;
// while the store cannot be read it goes on with what it knows, and says so through Fresh.
type Epochs struct {
	Store EpochStore
	Now   func() time.Time
	Log   *slog.Logger
	// Changed is called after an epoch became known here, from whichever replica; caches of that user's things forget.
	Changed func(Epoch)

	mu   sync.RWMutex
	seq  int64                  // guarded by mu, as is what follows
	ends map[epochKey]time.Time // what was issued at that time or earlier is dead
	read time.Time              // last successful look at the store
}

// pruneAt is how many ends are kept before those that nobody can need any more are looked for.
const pruneAt = 10_000

type epochKey struct {
	tenant Tenant
	kind   EpochKind
	id     string
}

// pollEpochs is how often the store is asked where nothing wakes us.
const pollEpochs = 500 * time.Millisecond

// keepEnds is how long an end is remembered: longer than any token or browser session lives.
const keepEnds = 48 * time.Hour

// Alive reports whether nothing has ended this caller's access since his token was issued.
func (e *Epochs) Alive(c *Caller) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if len(e.ends) == 0 {
		return true
	}
	return e.after(c, EpochUser, c.Principal()) && e.after(c, EpochUser, Everybody) && e.after(c, EpochClient, string(c.Client)) && !e.ended(c.Tenant, EpochFamily, c.Family)
}

// ended is for what never begins again: whatever was issued for it after its end is dead too. Two who redeem one code at
// once meet here: the second ends what the first has not yet been given.
func (e *Epochs) ended(t Tenant, k EpochKind, id string) bool {
	_, ok := e.ends[epochKey{t, k, id}]
	return ok && id != ""
}

func (e *Epochs) after(c *Caller, k EpochKind, id string) bool {
	end, ok := e.ends[epochKey{c.Tenant, k, id}]
	return !ok || c.Issued.After(end)
}

// Session reports whether a browser session of the user that started then still holds: neither his access nor this session
// has ended.
func (e *Epochs) Session(t Tenant, u UserID, id string, started time.Time) bool {
	e.mu.RLock()
	over := e.ended(t, EpochSession, id)
	e.mu.RUnlock()
	return id != "" && !over && e.Alive(&Caller{Tenant: t, User: u, Issued: started})
}

// SignIn reports whether a sign-in at the IdP, by its name for it, still holds; one without a name does.
func (e *Epochs) SignIn(t Tenant, idp, sid string) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return sid == "" || !e.ended(t, EpochSession, SignInID(idp, sid))
}

// SignInID is the id of the session epoch that ends a sign-in at the IdP.
func SignInID(idp, sid string) string { return "idp:" + idp + "/" + sid }

// End makes an end, or a change, known everywhere: in the store first, then here.
func (e *Epochs) End(ctx context.Context, t Tenant, k EpochKind, id string) error {
	return e.EndAt(ctx, t, k, id, e.Now())
}

// EndAt is End as of a time that has passed: what was issued after it goes on.
func (e *Epochs) EndAt(ctx context.Context, t Tenant, k EpochKind, id string, at time.Time) error {
	ep, err := e.Store.Advance(ctx, Epoch{Tenant: t, Kind: k, ID: id, NotBefore: at})
	if err != nil {
		return err
	}
	e.learn([]Epoch{ep}, false)
	return nil
}

// Fresh reports whether the store was read within the last d.
func (e *Epochs) Fresh(d time.Duration) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.Now().Sub(e.read) <= d
}

// Load reads everything once; a process must not serve before that.
func (e *Epochs) Load(ctx context.Context) error {
	e.mu.RLock()
	seq := e.seq
	e.mu.RUnlock()
	l, err := e.Store.EpochsSince(ctx, seq)
	if err != nil {
		return err
	}
	e.learn(l, true)
	return nil
}

// Run follows the store until ctx ends. A wake makes it look at once; nil is allowed.
func (e *Epochs) Run(ctx context.Context, wake <-chan struct{}) error {
	tick := time.NewTicker(pollEpochs)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-tick.C:
		}
		err := e.Load(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			e.Log.Warn("ends of access cannot be read; going on with those that are known", "error", err)
		}
		failing = err != nil
	}
}

// learn takes over what it is told. Our own ends are learned before the store is read again, so the sequence moves only
// with what was read from it: an end of another replica in between would be missed otherwise.
func (e *Epochs) learn(l []Epoch, fromStore bool) {
	e.mu.Lock()
	if e.ends == nil {
		e.ends = map[epochKey]time.Time{}
	}
	for _, ep := range l {
		k := epochKey{ep.Tenant, ep.Kind, ep.ID}
		if ep.Kind != EpochAccess && ep.NotBefore.After(e.ends[k]) {
			e.ends[k] = ep.NotBefore
		}
		if fromStore && ep.Seq > e.seq {
			e.seq = ep.Seq
		}
	}
	if fromStore {
		e.read = e.Now()
	}
	if len(e.ends) > pruneAt {
		maps.DeleteFunc(e.ends, func(_ epochKey, end time.Time) bool { return e.Now().Sub(end) > keepEnds })
	}
	e.mu.Unlock()
	if e.Changed != nil {
		for _, ep := range l {
			e.Changed(ep)
		}
	}
}
