package rehearsal_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/catalog/rehearsal"
)

// samples fill inputs without a default.
var samples = []string{"acme", "acme.example.com", "acme.workday.com", "acme.cloud.databricks.com", "eu-central-1", "us19", "1234567890", "0123456789abcdef0123456789abcdef", "AC0123456789abcdef0123456789abcdef"}

func filled(p *catalog.Provider) map[string]string {
	values := map[string]string{}
	for name, in := range p.Inputs {
		values[name] = in.Default
		for _, v := range samples {
			if ok, err := regexp.MatchString(in.Pattern, v); values[name] == "" && ok && err == nil {
				values[name] = v
			}
		}
	}
	return values
}

// TestEveryVendor is the contract of the catalogue: each entry gets along with what its vendor documents, faults included.
func TestEveryVendor(t *testing.T) {
	entries, err := catalog.Providers()
	if err != nil {
		t.Fatal(err)
	}
	vendors, err := rehearsal.Documented()
	if err != nil {
		t.Fatal(err)
	}
	if len(vendors) != len(entries) {
		t.Errorf("%d vendors are documented, and %d are in the catalogue", len(vendors), len(entries))
	}
	for id, v := range vendors {
		t.Run(id, func(t *testing.T) {
			p := entries[id]
			if p == nil {
				t.Fatal("it is not in the catalogue")
			}
			if v.OAuth != nil && p.OAuth == nil {
				t.Error("the vendor documents OAuth, and the entry has none")
			}
			for fact, page := range v.Sources {
				if slices.Contains(p.LowTrust, fact) || !strings.HasPrefix(page, "https://") {
					t.Errorf("%s was seen at %q, and the entry marks it as unproven", fact, page)
				}
			}
			for _, s := range rehearsal.Play(t.Context(), p, v, filled(p)) {
				if s.Err != nil {
					t.Errorf("%s: %v", s.Name, s.Err)
				}
			}
		})
	}
}

// TestRehearsalDisagrees: each fact that is wrong in an entry is found.
func TestRehearsalDisagrees(t *testing.T) {
	vendors, err := rehearsal.Documented()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		vendor string
		change func(*catalog.Provider)
	}{
		"the client's proof":       {"slack", func(p *catalog.Provider) { p.OAuth.TokenAuth = "basic" }},
		"the coding":               {"atlassian", func(p *catalog.Provider) { p.OAuth.TokenRequest = "" }},
		"the separator":            {"linear", func(p *catalog.Provider) { p.OAuth.Separator = "" }},
		"the answer's separator":   {"github", func(p *catalog.Provider) { p.OAuth.Response.ScopeSeparator = "" }},
		"a parameter":              {"google", func(p *catalog.Provider) { delete(p.OAuth.Authorize, "access_type") }},
		"a parameter of tokens":    {"shopify", func(p *catalog.Provider) { delete(p.OAuth.TokenParams, "expiring") }},
		"PKCE":                     {"asana", func(p *catalog.Provider) { p.OAuth.NoPKCE = true }},
		"scopes where none belong": {"clickup", func(p *catalog.Provider) { p.OAuth.ScopeParam = "" }},
		"the end":                  {"square", func(p *catalog.Provider) { p.OAuth.Response.ExpiresAt = "" }},
		"the refresh endpoint":     {"figma", func(p *catalog.Provider) { p.OAuth.Refreshing = "" }},
		"who revokes":              {"dropbox", func(p *catalog.Provider) { p.OAuth.Revoke.Auth = "" }},
		"how it is revoked":        {"github", func(p *catalog.Provider) { p.OAuth.Revoke.Method = "" }},
		"revoked for all":          {"intercom", func(p *catalog.Provider) { p.OAuth.Revoke.Shared = "" }},
		"the place":                {"anthropic", func(p *catalog.Provider) { p.Injection = catalog.Injection{} }},
		"what is sent again":       {"stripe", func(p *catalog.Provider) { p.Retries.Key = "" }},
		"a hint that is gone":      {"notion", func(p *catalog.Provider) { p.Hints = p.Hints[1:] }},
		"a hint before another":    {"xero", func(p *catalog.Provider) { slices.Reverse(p.Hints) }},
		"a hint for nothing":       {"slack", func(p *catalog.Provider) { p.Hints[0].Name = "x" }},
		"whose account it is":      {"asana", func(p *catalog.Provider) { p.Account.ID = "/data/email" }},
		"the account's scopes":     {"google", func(p *catalog.Provider) { p.OAuth.Beside = nil }},
		"another name":             {"notion", func(p *catalog.Provider) { p.Account.Or = "" }},
		"a proof by a key":         {"okta", func(p *catalog.Provider) { p.OAuth.TokenAuth = "basic" }},
		"the host of sign-in": {"salesforce", func(p *catalog.Provider) {
			p.Sites.Endpoint.Authorization = "https://test.salesforce.com/services/oauth2/authorize"
		}},
		"one half of a key":      {"datadog", func(p *catalog.Provider) { p.APIKey.Injection.Second = "X-Other" }},
		"a key as a token":       {"gitlab", func(p *catalog.Provider) { p.APIKey.Injection = nil }},
		"the account's call":     {"slack", func(p *catalog.Provider) { p.Account.Method = "" }},
		"a key's place":          {"freshdesk", func(p *catalog.Provider) { p.APIKey.Injection = nil }},
		"the call for sites":     {"atlassian", func(p *catalog.Provider) { p.Sites.Call.URL = "https://api.atlassian.com/me" }},
		"the proof of that call": {"mailchimp", func(p *catalog.Provider) { p.Sites.Call.Injection = nil }},
		"the list of sites":      {"docusign", func(p *catalog.Provider) { p.Sites.Call.List = "" }},
		"accounts of a site":     {"docusign", func(p *catalog.Provider) { p.Sites.Call.Account, p.Sites.Accounts = "", "" }},
		"another account's path": {"docusign", func(p *catalog.Provider) { p.Sites.Accounts = "/account/([^/]+)" }},
		"sites' names":           {"xero", func(p *catalog.Provider) { p.Sites.Call.Label = "" }},
		"the header of a site":   {"xero", func(p *catalog.Provider) { p.Sites.Headers = nil }},
		"a site that is all":     {"xero", func(p *catalog.Provider) { p.Sites.Whole = false }},
		"where a site is said":   {"salesforce", func(p *catalog.Provider) { p.Sites.Pointer = "/id" }},
		"the endpoints of sites": {"salesforce", func(p *catalog.Provider) {
			p.Sites.Endpoint = catalog.SiteEndpoints{Authorization: "https://login.salesforce.com/x"}
		}},
		"a callback's parameter": {"quickbooks", func(p *catalog.Provider) { p.Sites.Param = "realm" }},
		"a path at a site":       {"quickbooks", func(p *catalog.Provider) { p.Sites.Base = "https://quickbooks.api.intuit.com/v3/{site}" }},
		"the account at a site":  {"pipedrive", func(p *catalog.Provider) { p.Sites.Account = "https://{site}.pipedrive.com/api/v1/users" }},
		"any host for a site":    {"docusign", func(p *catalog.Provider) { p.Sites.Extract = `^https://([a-z0-9-]+)\.` }},
		"any scheme for a site":  {"pipedrive", func(p *catalog.Provider) { p.Sites.Extract = `([a-z0-9-]+)\.pipedrive\.com$` }},
		"any name by a person": {"databricks", func(p *catalog.Provider) {
			p.Inputs = map[string]catalog.Input{"workspace_host": {Pattern: `^[a-z0-9.-]+$`}}
		}},
		"a dot before a name": {"databricks", func(p *catalog.Provider) {
			p.Inputs = map[string]catalog.Input{"workspace_host": {Pattern: `^[a-z0-9.-]+\.cloud\.databricks\.com$`}}
		}},
		"what stands before a key":  {"zendesk", func(p *catalog.Provider) { p.APIKey.Injection.Format = "{first}:{token}" }},
		"keys at another host":      {"atlassian", func(p *catalog.Provider) { p.APIKey.Hosts = nil }},
		"a key's own account":       {"hubspot", func(p *catalog.Provider) { p.APIKey.Account = nil }},
		"a token in a form":         {"hubspot", func(p *catalog.Provider) { p.Account.Form["client_secret"] = "" }},
		"what an account is within": {"miro", func(p *catalog.Provider) { p.Account.WithinID = "" }},
		"our client's proof":        {"facebook", func(p *catalog.Provider) { p.Injection.Proof = "" }},
		"a signal":                  {"figma", func(p *catalog.Provider) { p.Signals = nil }},
	} {
		t.Run(name, func(t *testing.T) {
			entries, err := catalog.Providers()
			if err != nil {
				t.Fatal(err)
			}
			p := entries[c.vendor]
			c.change(p)
			for _, s := range rehearsal.Play(t.Context(), p, vendors[c.vendor], filled(p)) {
				if s.Err != nil {
					return
				}
			}
			t.Error("nothing is said to be wrong")
		})
	}
}
