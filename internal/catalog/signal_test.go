package catalog_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/internal/catalog"
)

// TestSignals: what an answer means is read as its vendor documents it; what names nothing new is no question, and what is too long,
// or somebody's data, is no signal.
func TestSignals(t *testing.T) {
	all, err := catalog.Providers()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		vendor string
		status int
		header http.Header
		body   string
		have   string
		want   catalog.Meaning
		scopes string
	}{
		"by RFC 6750":                    {vendor: "asana", status: 403, header: http.Header{"Www-Authenticate": {`Bearer error="insufficient_scope", scope="a b"`}}, have: "a", want: catalog.MeansScope, scopes: "b"},
		"dead by RFC 6750":               {vendor: "asana", status: 401, header: http.Header{"Www-Authenticate": {`Bearer error="invalid_token"`}}, want: catalog.MeansDead},
		"another scheme's word":          {vendor: "asana", status: 401, header: http.Header{"Www-Authenticate": {`DPoP error="invalid_token"`}}},
		"Slack under 200":                {vendor: "slack", status: 200, body: `{"ok": false, "error": "missing_scope", "needed": "channels:history,users:read"}`, have: "users:read", want: catalog.MeansScope, scopes: "channels:history"},
		"Slack, dead":                    {vendor: "slack", status: 200, body: `{"ok":false,"error":"token_revoked"}`, want: catalog.MeansDead},
		"Slack, a message that says so":  {vendor: "slack", status: 200, body: `{"ok":true,"message":{"error":"token_revoked"}}`},
		"Slack, text that looks like it": {vendor: "slack", status: 200, body: `{"ok":true,"text":"\"error\":\"token_revoked\""}`},
		"Atlassian's 401 is a scope":     {vendor: "atlassian", status: 401, body: `{"code":401,"message":"Unauthorized; scope does not match"}`, want: catalog.MeansRight},
		"Atlassian's 401 is dead":        {vendor: "atlassian", status: 401, body: `{"code":401,"message":"Unauthorized"}`, want: catalog.MeansDead},
		"Zoom's 400":                     {vendor: "zoom", status: 400, body: `{"code":4711,"message":"Invalid access token, does not contain scopes:[meeting:read]"}`, want: catalog.MeansScope, scopes: "meeting:read"},
		"Zoom, already allowed":          {vendor: "zoom", status: 400, body: `{"code":4711,"message":"Invalid access token, does not contain scopes:[meeting:read]"}`, have: "meeting:read", want: catalog.MeansRight},
		"GitHub, one would do":           {vendor: "github", status: 404, header: http.Header{"X-Accepted-Oauth-Scopes": {"repo"}}, have: "read:user", want: catalog.MeansScope, scopes: "repo"},
		"GitHub, any of many":            {vendor: "github", status: 403, header: http.Header{"X-Accepted-Oauth-Scopes": {"admin:org, read:org"}}, want: catalog.MeansRight},
		"GitHub, has it":                 {vendor: "github", status: 404, header: http.Header{"X-Accepted-Oauth-Scopes": {"repo"}}, have: "repo", want: catalog.MeansRight},
		"GitHub, needs no scope":         {vendor: "github", status: 404, header: http.Header{"X-Accepted-Oauth-Scopes": {""}}, want: catalog.MeansRight},
		"GitHub, single sign-on":         {vendor: "github", status: 403, header: http.Header{"X-Github-Sso": {"required; url=https://x"}, "X-Accepted-Oauth-Scopes": {"repo"}}, want: catalog.MeansRight},
		"HubSpot's list":                 {vendor: "hubspot", status: 403, body: `{"category":"MISSING_SCOPES","errors":[{"context":{"requiredGranularScopes":["crm.a","crm.b"]}}]}`, want: catalog.MeansScope, scopes: "crm.a crm.b"},
		"Vercel's truth value":           {vendor: "vercel", status: 403, body: `{"error":{"code":"forbidden","invalidToken":true}}`, want: catalog.MeansDead},
		"not JSON":                       {vendor: "slack", status: 200, body: `<html>token_revoked`},
		"twice the same member":          {vendor: "slack", status: 200, body: `{"error":"token_revoked","error":"x"}`},
		"too many scopes":                {vendor: "slack", status: 200, body: `{"error":"missing_scope","needed":"` + manyScopes() + `"}`, want: catalog.MeansRight},
		"a scope that is none":           {vendor: "slack", status: 200, body: `{"error":"missing_scope","needed":"a\\b"}`, want: catalog.MeansRight},
	} {
		t.Run(name, func(t *testing.T) {
			means, scopes := all[c.vendor].Says(c.status, c.header, func() []byte { return []byte(c.body) }, strings.Fields(c.have))
			if d := cmp.Diff(strings.Fields(c.scopes), scopes); means != c.want || len(scopes) > 0 && d != "" {
				t.Errorf("it means %q and asks for %q", means, scopes)
			}
		})
	}
}

func manyScopes() string {
	var b strings.Builder
	for c := 'a'; c <= 'z'; c++ {
		b.WriteString(string(c) + " ")
	}
	return b.String()
}

// FuzzSignals: no answer of a vendor breaks the reading, and none makes a person be asked for what is no scope.
func FuzzSignals(f *testing.F) {
	all, err := catalog.Providers()
	if err != nil {
		f.Fatal(err)
	}
	f.Add("slack", 200, "", `{"error":"missing_scope","needed":"a,b"}`)
	f.Add("github", 404, "repo", "")
	f.Add("zoom", 400, `Bearer error="insufficient_scope", scope="x"`, `{"code":4711,"message":"does not contain scopes:[a]"}`)
	f.Fuzz(func(t *testing.T, vendor string, status int, header, body string) {
		p := all[vendor]
		if p == nil {
			return
		}
		_, scopes := p.Says(status, http.Header{"Www-Authenticate": {header}, "X-Accepted-Oauth-Scopes": {header}}, func() []byte { return []byte(body) }, []string{"have"})
		for _, s := range scopes {
			if s == "have" || s == "" || strings.ContainsAny(s, "\"\\ \r\n") {
				t.Errorf("it asks for %q", s)
			}
		}
	})
}

// TestFactsAreValues: a sentence in the place of a value is refused when the entry is read, wherever code would take it at its word.
func TestFactsAreValues(t *testing.T) {
	good := func() *catalog.Provider {
		return &catalog.Provider{Name: "X", Hosts: []string{"api.x.example"}, OAuth: &catalog.ProviderOAuth{Authorization: "https://x.example/a", Token: "https://x.example/t", Revocation: "https://x.example/r"}}
	}
	if err := good().Check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*catalog.Provider){
		"token_auth":        func(p *catalog.Provider) { p.OAuth.TokenAuth = "basic (about a third)" },
		"revocation method": func(p *catalog.Provider) { p.OAuth.Revoke.Method = "PATCH" },
		"revocation auth":   func(p *catalog.Provider) { p.OAuth.Revoke.Auth = "the token itself" },
		"revocation shared": func(p *catalog.Provider) { p.OAuth.Revoke.Shared = "all of them" },
		"a token in a URL":  func(p *catalog.Provider) { p.OAuth.Revocation = "https://x.example/tokens/{token}" },
		"signal meaning":    func(p *catalog.Provider) { p.Signals = []catalog.Signal{{Means: "maybe", Status: 401, Like: "x"}} },
		"signal by status":  func(p *catalog.Provider) { p.Signals = []catalog.Signal{{Means: catalog.MeansDead, Status: 401}} },
		"signal of trouble": func(p *catalog.Provider) {
			p.Signals = []catalog.Signal{{Means: catalog.MeansDead, Status: 503, Like: "x"}}
		},
		"signal pointer": func(p *catalog.Provider) {
			p.Signals = []catalog.Signal{{Means: catalog.MeansDead, Status: 401, Pointer: "error"}}
		},
		"signal pattern": func(p *catalog.Provider) {
			p.Signals = []catalog.Signal{{Means: catalog.MeansDead, Status: 401, Like: "("}}
		},
		"signal group": func(p *catalog.Provider) {
			p.Signals = []catalog.Signal{{Means: catalog.MeansScope, Status: 403, Like: "x", ScopesLike: "a"}}
		},
		"confirm of nothing": func(p *catalog.Provider) { p.OAuth.Confirm = []catalog.Confirm{{Is: "x"}} },
		"account method":     func(p *catalog.Provider) { p.Account = catalog.Account{URL: "https://x.example/me", Method: "DELETE"} },
		"par endpoint":       func(p *catalog.Provider) { p.OAuth.Pushed = "http://x.example/par" },
	} {
		p := good()
		if change(p); p.Check() == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
