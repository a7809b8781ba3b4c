// Package live answers: do vendors behave as their entries say, where that was not seen in a source?
//
// The rooms that speak with a vendor tell it what an answer has shown (of.go reads answers); it keeps, for each unproven fact of an
// entry, when an answer was last seen that fits it, and when one that differs. It changes nothing: an operator reads it, and changes the entry. It
// keeps no word that a vendor has sent.
package live

import (
	"cmp"
	"context"
	"log/slog"
	"regexp"
	"slices"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
)

// Sighting is that an unproven fact was seen in what a vendor answered.
type Sighting struct {
	Tenant   identity.Tenant
	Upstream catalog.UpstreamName
	Fact     string    // as the entry's unproven has it
	Fits     bool      // the entry agrees
	Said     string    // what was seen, in our words
	At       time.Time // when it was last noted; to a day
}

// Store keeps sightings: the newest that fits and the newest that differs, of each fact.
type Store interface {
	// Saw stores s in the place of an older one of its fact and verdict, and forgets those of before then.
	Saw(ctx context.Context, s Sighting, before time.Time) error
	// Sightings lists them, by upstream and fact.
	Sightings(ctx context.Context, t identity.Tenant) ([]Sighting, error)
}

const (
	notedEvery = 24 * time.Hour
	keptFor    = 30 * 24 * time.Hour // what is not seen any more was mended, or the upstream is gone
)

// Register implements catalog.Live. All fields are required.
type Register struct {
	Store Store
	Log   *slog.Logger
	Now   func() time.Time

	mu    sync.Mutex
	noted map[noted]time.Time
}

type noted struct {
	tenant   identity.Tenant
	upstream catalog.UpstreamName
	fact     string
	fits     bool
}

// maxNoted bounds what is remembered: upstreams times facts, and what earlier configs had.
const maxNoted = 10_000

// Showed implements catalog.Live. That something cannot be noted is logged, and nobody's call fails of it.
func (r *Register) Showed(ctx context.Context, up *catalog.Upstream, shown []catalog.Showing) {
	for _, fact := range up.Provider.LowTrust {
		i := slices.IndexFunc(shown, func(s catalog.Showing) bool { return !s.Fits && about(fact, s.Aspect) })
		if i < 0 {
			i = slices.IndexFunc(shown, func(s catalog.Showing) bool { return about(fact, s.Aspect) })
		}
		if i < 0 || !r.due(noted{up.Tenant, up.Name, fact, shown[i].Fits}) {
			continue
		}
		now := r.Now()
		s := Sighting{Tenant: up.Tenant, Upstream: up.Name, Fact: fact, Fits: shown[i].Fits, Said: shown[i].Said, At: now}
		if err := r.Store.Saw(context.WithoutCancel(ctx), s, now.Add(-keptFor)); err != nil {
			r.Log.Warn("what a vendor has shown of itself could not be noted", "upstream", up.Name, "fact", fact, "error", err)
			continue
		}
		if !s.Fits {
			r.Log.Warn("a vendor is not as its entry says, where that was unproven: `frontdesk providers seen` lists what was found", "upstream", up.Name, "provider", up.Provider.ID, "fact", fact, "seen", s.Said)
		}
	}
}

// due reports whether this was not noted for a day, and takes it as noted now.
func (r *Register) due(n noted) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.Now()
	if at, ok := r.noted[n]; ok && now.Sub(at) < notedEvery {
		return false
	}
	if r.noted == nil || len(r.noted) >= maxNoted {
		r.noted = map[noted]time.Time{}
	}
	r.noted[n] = now
	return true
}

// doubts say what of an entry the names in its unproven are about, so that what an answer shows is told of the right ones.
var doubts = []doubt{
	{regexp.MustCompile(`^account(\.id_pointer)?$`), []catalog.Aspect{catalog.AspectAccount}},
	{regexp.MustCompile(`^(account_label|account\.or_pointer|account\.pointer)$`), []catalog.Aspect{catalog.AspectLabel}},
	{regexp.MustCompile(`^(errors|revoked_token)$`), []catalog.Aspect{catalog.AspectDead}},
	{regexp.MustCompile(`^(errors|insufficient_scope.*)$`), []catalog.Aspect{catalog.AspectScope}},
	{regexp.MustCompile(`^(access_token_)?lifetimes?( default)?$`), []catalog.Aspect{catalog.AspectLifetime}},
	{regexp.MustCompile(`^refresh( single use)?$`), []catalog.Aspect{catalog.AspectRefresh}},
	{regexp.MustCompile(`^(refresh\.(idle_)?lifetime|refresh lifetimes|lifetimes)$`), []catalog.Aspect{catalog.AspectIdle}},
	{regexp.MustCompile(`(?i)(^oauth\.token_auth|^token_endpoint|oauth endpoints|everything about OAuth)$`), []catalog.Aspect{catalog.AspectToken}},
	{regexp.MustCompile(`^(token_shapes|refresh token shape)$`), []catalog.Aspect{catalog.AspectShapes}},
	{regexp.MustCompile(`^(injection|api_key)$`), []catalog.Aspect{catalog.AspectPlace}},
	{regexp.MustCompile(`^sites`), []catalog.Aspect{catalog.AspectSites}},
	{regexp.MustCompile(`^(quotas|rate_limit)$`), []catalog.Aspect{catalog.AspectQuotas}},
	{regexp.MustCompile(`^revocation$`), []catalog.Aspect{catalog.AspectRevocation}},
}

type doubt struct {
	fact    *regexp.Regexp
	aspects []catalog.Aspect
}

func about(fact string, a catalog.Aspect) bool {
	for _, d := range doubts {
		if slices.Contains(d.aspects, a) && d.fact.MatchString(fact) {
			return true
		}
	}
	return false
}

// Verdict is how an unproven fact stands.
type Verdict string

const (
	Differs Verdict = "differs"  // an answer was not as the entry says, whatever others were on that day or before
	Fits    Verdict = "fits"     // an answer was as the entry says, and for a day none was not
	Unseen  Verdict = "not seen" // no answer that would show it has come
	ByHand  Verdict = "by hand"  // no answer shows it by itself: an operator has to look
)

// Fact is an unproven fact of a configured upstream, with what was seen of it.
type Fact struct {
	Upstream catalog.UpstreamName `json:"upstream"`
	Fact     string               `json:"fact"`
	Verdict  Verdict              `json:"verdict"`
	Said     string               `json:"said,omitzero"`
	At       time.Time            `json:"at,omitzero"`
}

// Facts lists the unproven facts of a tenant's upstreams, those that differ first.
func Facts(s *catalog.Snapshot, t identity.Tenant, seen []Sighting) []Fact {
	l := []Fact{}
	for _, up := range s.Upstreams[t] {
		for _, name := range up.Provider.LowTrust {
			f := Fact{Upstream: up.Name, Fact: name, Verdict: ByHand}
			if slices.ContainsFunc(doubts, func(d doubt) bool { return d.fact.MatchString(name) }) {
				f.Verdict = Unseen
			}
			for _, s := range seen {
				switch {
				case s.Upstream != up.Name || s.Fact != name:
				case s.Fits && (f.Verdict != Differs || s.At.Sub(f.At) > notedEvery):
					f.Verdict, f.Said, f.At = Fits, s.Said, s.At
				case !s.Fits && (f.Verdict != Fits || f.At.Sub(s.At) <= notedEvery):
					f.Verdict, f.Said, f.At = Differs, s.Said, s.At
				}
			}
			l = append(l, f)
		}
	}
	order := []Verdict{Differs, Fits, Unseen, ByHand}
	slices.SortFunc(l, func(a, b Fact) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Verdict), slices.Index(order, b.Verdict)), cmp.Compare(a.Upstream, b.Upstream), cmp.Compare(a.Fact, b.Fact))
	})
	return l
}
