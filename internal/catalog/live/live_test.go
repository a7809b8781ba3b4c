package live_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/catalog/live"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

var day = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

// shelf keeps sightings as the store does: one of each fact and verdict.
type shelf struct {
	fails error
	rows  []live.Sighting
	saws  int
}

func (s *shelf) Saw(_ context.Context, v live.Sighting, before time.Time) error {
	if s.fails != nil {
		return s.fails
	}
	s.saws++
	s.rows = slices.DeleteFunc(s.rows, func(o live.Sighting) bool {
		return o.At.Before(before) || o.Upstream == v.Upstream && o.Fact == v.Fact && o.Fits == v.Fits
	})
	s.rows = append(s.rows, v)
	return nil
}

func (s *shelf) Sightings(context.Context, identity.Tenant) ([]live.Sighting, error) {
	return s.rows, nil
}

func world(unproven ...string) (*catalog.Catalog, *catalog.Upstream, *shelf, *time.Time) {
	now := day
	kept := &shelf{}
	c := &catalog.Catalog{Live: &live.Register{Store: kept, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }}}
	up := &catalog.Upstream{Tenant: identity.DefaultTenant, Name: "acme", Title: "Acme", Provider: &catalog.Provider{ID: "acme", LowTrust: unproven,
		OAuth: &catalog.ProviderOAuth{Refresh: catalog.Refresh{Rotation: catalog.RotationStrict, ScopeNeeded: "offline", IdleDays: 90}}, TokenShapes: []string{`^acme_[0-9]{4}$`}}}
	c.Set(&catalog.Snapshot{Upstreams: map[identity.Tenant]map[catalog.UpstreamName]*catalog.Upstream{identity.DefaultTenant: {up.Name: up}}})
	return c, up, kept, &now
}

// TestNotedOnce: an answer is held against unproven facts alone, a store is asked once a day for each fact and verdict, and one that does not
// answer is nobody's trouble.
func TestNotedOnce(t *testing.T) {
	c, up, kept, now := world("account.id_pointer", "pkce")
	ctx := t.Context()
	shows := func(fits bool) {
		c.Showed(ctx, up, func() []catalog.Showing {
			return []catalog.Showing{{Aspect: catalog.AspectAccount, Fits: fits, Said: "x"}, {Aspect: catalog.AspectQuotas, Fits: true, Said: "y"}}
		})
	}
	for range 3 {
		shows(true)
	}
	if kept.saws != 1 || kept.rows[0].Fact != "account.id_pointer" || !kept.rows[0].Fits {
		t.Fatalf("%d times: %+v", kept.saws, kept.rows)
	}
	verdict := func() live.Verdict {
		for _, f := range live.Facts(c.Snapshot(), identity.DefaultTenant, kept.rows) {
			if f.Fact == "account.id_pointer" {
				return f.Verdict
			}
		}
		return ""
	}
	shows(false)
	if kept.saws != 2 || verdict() != live.Differs {
		t.Errorf("once it differs: %d, %s", kept.saws, verdict())
	}
	*now = now.Add(25 * time.Hour)
	shows(true) // the entry was mended
	if kept.saws != 3 || verdict() != live.Fits {
		t.Errorf("a day after it differed: %d, %s", kept.saws, verdict())
	}
	*now = now.Add(31 * 24 * time.Hour)
	shows(true)
	if len(kept.rows) != 1 {
		t.Errorf("what was not seen for a month stays: %+v", kept.rows)
	}

	proven, other, never, _ := world()
	proven.Showed(ctx, other, func() []catalog.Showing { t.Error("an entry without doubts is looked at"); return nil })
	if never.saws != 0 {
		t.Error("something was noted")
	}
	(&catalog.Catalog{}).Showed(ctx, up, func() []catalog.Showing { t.Error("nobody wants to know"); return nil })
	kept.fails = errors.New("away")
	*now = now.Add(25 * time.Hour)
	shows(true)
}

// TestAnswers: what each kind of answer says of an entry, and that a difference counts before what fits.
func TestAnswers(t *testing.T) {
	_, up, _, _ := world()
	up.Provider.Account = catalog.Account{ID: "/id", Label: "/name"}
	up.Provider.Quotas = []catalog.Quota{{Remaining: "X-Left"}}
	none, grace := *up, *up
	none.Provider, grace.Provider = &catalog.Provider{OAuth: &catalog.ProviderOAuth{Refresh: catalog.Refresh{Rotation: catalog.RotationNone}}}, &catalog.Provider{OAuth: &catalog.ProviderOAuth{Refresh: catalog.Refresh{Rotation: catalog.RotationGrace}}}
	text := secret.New
	for name, c := range map[string]struct {
		shown []catalog.Showing
		want  map[catalog.Aspect]bool
	}{
		"a consent": {live.OfToken(up, []string{"offline"}, oauth.Token{Access: text("acme_1234"), Refresh: text("r"), Expires: day.Add(time.Hour), RefreshExpires: day.Add(90 * 24 * time.Hour)}, day),
			map[catalog.Aspect]bool{catalog.AspectToken: true, catalog.AspectLifetime: true, catalog.AspectRefresh: true, catalog.AspectIdle: true, catalog.AspectShapes: true}},
		"a consent that is not as said": {live.OfToken(up, []string{"offline"}, oauth.Token{Access: text("other_12"), RefreshExpires: day.Add(24 * time.Hour)}, day),
			map[catalog.Aspect]bool{catalog.AspectToken: true, catalog.AspectLifetime: true, catalog.AspectRefresh: false, catalog.AspectIdle: false}},
		"a key":                     {live.OfKey(up, text("acme_1234")), map[catalog.Aspect]bool{catalog.AspectShapes: true}},
		"a key of other looks":      {live.OfKey(up, text("other_12")), map[catalog.Aspect]bool{catalog.AspectShapes: false}},
		"a key, no shapes":          {live.OfKey(&none, text("other_12")), map[catalog.Aspect]bool{}},
		"a consent without offline": {live.OfToken(&none, nil, oauth.Token{Access: text("x")}, day), map[catalog.Aspect]bool{catalog.AspectToken: true, catalog.AspectLifetime: true}},
		"an account": {live.OfAccount(up, http.Header{"X-Left": {"7"}}, "1", "alice"),
			map[catalog.Aspect]bool{catalog.AspectPlace: true, catalog.AspectAccount: true, catalog.AspectLabel: true, catalog.AspectQuotas: true}},
		"an account without an id": {live.OfAccount(up, nil, "", "alice"), map[catalog.Aspect]bool{catalog.AspectPlace: true, catalog.AspectAccount: false, catalog.AspectLabel: true}},
		"sites":                    {live.OfSites(nil), map[catalog.Aspect]bool{catalog.AspectSites: true}},
		"no sites":                 {live.OfSites(errors.New("x")), map[catalog.Aspect]bool{catalog.AspectSites: false}},
		"strict, another one":      {live.OfRenewal(up, text("a"), oauth.Token{Refresh: text("b")}, day), map[catalog.Aspect]bool{catalog.AspectLifetime: true, catalog.AspectRefresh: true}},
		"strict, none":             {live.OfRenewal(up, text("a"), oauth.Token{}, day), map[catalog.Aspect]bool{catalog.AspectLifetime: true, catalog.AspectRefresh: false}},
		"grace, the same":          {live.OfRenewal(&grace, text("a"), oauth.Token{Refresh: text("a")}, day), map[catalog.Aspect]bool{catalog.AspectLifetime: true, catalog.AspectRefresh: false}},
		"none, the same":           {live.OfRenewal(&none, text("a"), oauth.Token{Refresh: text("a")}, day), map[catalog.Aspect]bool{catalog.AspectLifetime: true, catalog.AspectRefresh: true}},
		"none, another one":        {live.OfRenewal(&none, text("a"), oauth.Token{Refresh: text("b")}, day), map[catalog.Aspect]bool{catalog.AspectLifetime: true, catalog.AspectRefresh: false}},
		"ended":                    {live.OfEnding(0, nil), map[catalog.Aspect]bool{catalog.AspectRevocation: true}},
		"not ended":                {live.OfEnding(404, errors.New("x")), map[catalog.Aspect]bool{catalog.AspectRevocation: false}},
		"away":                     {live.OfEnding(503, errors.New("x")), map[catalog.Aspect]bool{}},
		"too often":                {live.OfEnding(429, errors.New("x")), map[catalog.Aspect]bool{}},
		"no answer":                {live.OfEnding(0, errors.New("x")), map[catalog.Aspect]bool{}},
		"dead":                     {live.OfRefusal(401, catalog.MeansDead), map[catalog.Aspect]bool{catalog.AspectDead: true}},
		"a scope":                  {live.OfRefusal(403, catalog.MeansScope), map[catalog.Aspect]bool{catalog.AspectScope: true}},
		"401 for no known reason":  {live.OfRefusal(401, ""), map[catalog.Aspect]bool{catalog.AspectDead: false}},
		"403 for no known reason":  {live.OfRefusal(403, ""), map[catalog.Aspect]bool{}},
	} {
		got := map[catalog.Aspect]bool{}
		for _, s := range c.shown {
			if fits, twice := got[s.Aspect]; twice && fits != s.Fits {
				t.Errorf("%s says both of %s", name, s.Aspect)
			}
			got[s.Aspect] = s.Fits
			for _, foreign := range []string{"acme_1234", "other_12", "alice"} {
				if strings.Contains(s.Said, foreign) || s.Said == "" {
					t.Errorf("%s: %q", name, s.Said)
				}
			}
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		for a, fits := range c.want {
			if v, ok := got[a]; !ok || v != fits {
				t.Errorf("%s: %s is %v (%v), want %v", name, a, v, ok, fits)
			}
		}
	}
}

// TestEveryDoubtIsKnown: each unproven fact of the catalogue is one that answers show, or one of those that no answer shows by itself.
func TestEveryDoubtIsKnown(t *testing.T) {
	all, err := catalog.Providers()
	if err != nil {
		t.Fatal(err)
	}
	shown, byHand := 0, 0
	for id, p := range all {
		up := &catalog.Upstream{Name: catalog.UpstreamName(id), Provider: p}
		s := &catalog.Snapshot{Upstreams: map[identity.Tenant]map[catalog.UpstreamName]*catalog.Upstream{identity.DefaultTenant: {up.Name: up}}}
		for _, f := range live.Facts(s, identity.DefaultTenant, nil) {
			switch f.Verdict {
			case live.Unseen:
				shown++
			case live.ByHand:
				byHand++
				if strings.HasPrefix(f.Fact, "account") || f.Fact == "errors" || f.Fact == "revocation" {
					t.Errorf("%s: nothing shows %q", id, f.Fact)
				}
			}
		}
	}
	t.Logf("%d unproven facts are seen in answers, %d are for people", shown, byHand)
	if shown < byHand {
		t.Errorf("answers show %d of the unproven facts, and not %d", shown, byHand)
	}
}
