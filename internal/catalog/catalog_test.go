package catalog_test

import (
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
)

func TestBuiltInProviders(t *testing.T) {
	all, err := catalog.Providers()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 68 {
		t.Errorf("only %d providers", len(all))
	}
	for id, p := range all {
		if p.ID != id || p.Docs == "" {
			t.Errorf("%s: id %q, docs %q", id, p.ID, p.Docs)
		}
		values := map[string]string{}
		for name, in := range p.Inputs {
			values[name] = in.Default
			if in.Default == "" {
				values[name] = sample(in.Pattern)
			}
		}
		full, err := p.With(values)
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		for _, h := range full.Hosts {
			if u, err := url.Parse("https://" + h); err != nil || u.Host != h || strings.ContainsAny(h, "{}*/@") {
				t.Errorf("%s: host %q", id, h)
			}
		}
		if o := full.OAuth; o != nil {
			for _, u := range []string{o.Authorization, o.Token} {
				if !strings.HasPrefix(u, "https://") || strings.ContainsAny(u, "{}") {
					t.Errorf("%s: endpoint %q", id, u)
				}
			}
			if _, err := (oauth.AuthorizationRequest{Endpoint: o.Authorization, ClientID: "c", RedirectURI: "https://desk/callback/x", State: strings.Repeat("s", 43),
				CodeChallenge: strings.Repeat("c", 43), Scopes: []string{"a"}, ScopeParam: o.ScopeParam, ScopeSeparator: o.Separator, Extra: o.Authorize}).URL(); err != nil {
				t.Errorf("%s: %v", id, err)
			}
		}
	}
}

// sample gives a value for the few patterns without a default.
func sample(pattern string) string {
	for _, v := range []string{"acme", "acme.example.com", "acme.myshopify.com", "acme.workday.com", "acme.cloud.databricks.com", "acme-org", "eu-central-1", "us19", "1234567890", "0123456789abcdef0123456789abcdef", "AC0123456789abcdef0123456789abcdef"} {
		if ok, err := regexp.MatchString(pattern, v); ok && err == nil {
			return v
		}
	}
	return ""
}

func TestInputsAreASecurityControl(t *testing.T) {
	all, err := catalog.Providers()
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"evil.com/", "a.evil.com#", "x@evil.com", "", "a b"} {
		if p, err := all["zendesk"].With(map[string]string{"subdomain": v}); err == nil {
			t.Errorf("subdomain %q was taken: %v", v, p.Hosts)
		}
	}
}

func TestNeeds(t *testing.T) {
	s := &catalog.Server{Needs: []catalog.Need{{Upstream: "a"}, {Upstream: "b", Tools: []string{"get_*"}}, {Upstream: "c", Optional: true}}}
	names := func(l []catalog.Need) (n []catalog.UpstreamName) {
		for _, x := range l {
			n = append(n, x.Upstream)
		}
		return n
	}
	for tool, want := range map[string][]catalog.UpstreamName{"get_x": {"a", "b"}, "put_x": {"a"}} {
		if d := cmp.Diff(want, names(s.NeedsOf(tool))); d != "" {
			t.Errorf("%s: %s", tool, d)
		}
	}
	if d := cmp.Diff([]catalog.UpstreamName{"c"}, names(s.Need("c"))); d != "" {
		t.Error(d)
	}
}

func TestPlacesOfTokens(t *testing.T) {
	for name, c := range map[string]struct {
		in   catalog.TokenPlaces
		want string
	}{
		"a subprotocol":               {catalog.TokenPlaces{Protocols: []string{"key.{token}"}}, ""},
		"a subprotocol without it":    {catalog.TokenPlaces{Protocols: []string{"key."}}, "does not hold {token} once"},
		"two subprotocols in one":     {catalog.TokenPlaces{Protocols: []string{"a, {token}"}}, "no name of a subprotocol"},
		"a member":                    {catalog.TokenPlaces{JSON: []string{"/api_key"}}, ""},
		"a member without a slash":    {catalog.TokenPlaces{JSON: []string{"api_key"}}, "no JSON pointer to a member"},
		"the whole body":              {catalog.TokenPlaces{JSON: []string{""}}, "no JSON pointer to a member"},
		"a message":                   {catalog.TokenPlaces{Messages: []catalog.MessagePlace{{Token: "/d/token", Greeting: `{"op":10}`, GreetingAt: "/op"}}}, ""},
		"no pointer":                  {catalog.TokenPlaces{Messages: []catalog.MessagePlace{{Token: "token"}}}, "want a JSON pointer"},
		"a greeting without its mark": {catalog.TokenPlaces{Messages: []catalog.MessagePlace{{Token: "/a", Greeting: "{}"}}}, "greeting_at"},
		"a greeting that is no JSON":  {catalog.TokenPlaces{Messages: []catalog.MessagePlace{{Token: "/a", Greeting: "hello", GreetingAt: "/op"}}}, "no JSON"},
	} {
		p := catalog.Provider{Name: "V", Hosts: []string{"v.test"}, APIKey: &catalog.ProviderAPIKey{}, Egress: catalog.ProviderEgress{TokenIn: c.in}}
		if err := p.Check(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
