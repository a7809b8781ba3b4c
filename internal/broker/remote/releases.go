package remote

import (
	"context"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Releases bounds how many credentials may be released in a minute: of one caller, and of all; 0 is no bound. What is over is refused,
// before anything is decided: it is what a gateway does that somebody else steers. The first refusal of a caller in a minute is said in
// the log, and stands on record. Safe for concurrent use.
type Releases struct {
	User, All int
	Told      func(r Release) // metrics, called for each; may be nil

	mu      sync.Mutex
	minute  time.Time // guarded by mu, as is what follows
	of      map[who]int
	told    map[who]bool
	all     int
	refused int
	last    time.Time
}

// Release is what was said to one more release.
type Release string

const (
	Released   Release = "released"
	OverPerson Release = "person" // the bound for one person
	OverAll    Release = "all"    // the bound for all
)

type who struct {
	tenant    identity.Tenant
	principal string
}

// take counts one. news: it is refused, and the first of this caller in this minute that is.
func (l *Releases) take(c *identity.Caller, now time.Time) (said Release, news bool, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if m := now.Truncate(time.Minute); !m.Equal(l.minute) {
		l.minute, l.of, l.told, l.all = m, map[who]int{}, map[who]bool{}, 0
	}
	k := who{c.Tenant, c.Principal()}
	switch {
	case l.User > 0 && l.of[k] >= l.User:
		said = OverPerson
	case l.All > 0 && l.all >= l.All:
		said, k = OverAll, who{}
	default:
		l.of[k]++
		l.all++
		return Released, false, 0
	}
	news = !l.told[k]
	l.told[k] = true
	l.refused++
	l.last = now
	return said, news, l.minute.Add(time.Minute).Sub(now)
}

// Refused is how many were, since this process began, and when the last one was.
func (l *Releases) Refused() (n int, last time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused, l.last
}

// release says whether a credential may leave for an act.
func (s *Server) release(ctx context.Context, a *decided) error {
	said, news, wait := s.Releases.take(a.caller, s.Now())
	if s.Releases.Told != nil {
		s.Releases.Told(said)
	}
	if said == Released {
		return nil
	}
	over := fault.Later("too much is asked for at once; try again in a minute", wait, nil)
	if !news {
		return over
	}
	s.Log.Error("more credentials were asked for in a minute than domains.releases allows; the rest is refused", "bound", said, "tenant", a.caller.Tenant, "principal", a.caller.Principal(), "client", a.caller.Client, "server", a.Server.Name)
	r := audit.Record{Kind: audit.KindEvent, Time: s.Now(), Tenant: a.Server.Tenant, Action: "releases.bounded", Server: string(a.Server.Name), Result: audit.ResultDenied, Detail: "the bound for " + string(said) + " in a minute"}
	r.By(a.caller)
	if err := s.Desk.Log.Event(ctx, r); err != nil {
		s.Log.Error("that the bound of domains.releases was reached could not be recorded", "error", err)
	}
	return over
}
