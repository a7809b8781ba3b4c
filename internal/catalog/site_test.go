package catalog

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// TestSites: of what a vendor says only that becomes a place for credentials which its entry allows, and it stays within the vendor.
func TestSites(t *testing.T) {
	all, err := Providers()
	if err != nil {
		t.Fatal(err)
	}
	for id, c := range map[string]struct {
		answer string // of the call, or the one value
		want   map[string]string
		base   string
	}{
		"atlassian": {`[{"id":"11223344-a1b2-3b33-c444-def123456789","name":"acme","url":"https://acme.atlassian.net"},{"id":"../../evil","name":"x"},{"id":"https://evil.test","name":"y"},
			{"id":"99999999-a1b2-3b33-c444-def123456789","name":"beta","url":"https://beta.atlassian.net"},{"id":"11223344-a1b2-3b33-c444-def123456789","url":"https://acme.atlassian.net"}]`,
			map[string]string{"11223344-a1b2-3b33-c444-def123456789": "https://acme.atlassian.net", "99999999-a1b2-3b33-c444-def123456789": "https://beta.atlassian.net"}, "https://api.atlassian.com/ex/jira/11223344-a1b2-3b33-c444-def123456789"},
		"docusign":  {`{"accounts":[{"account_id":"a-1","account_name":"Acme","base_uri":"https://na3.docusign.net"},{"account_name":"Nameless","base_uri":"https://na3.docusign.net"},{"account_id":"a-2","account_name":"E","base_uri":"https://evil.test/x.docusign.net"},{"account_name":"F","base_uri":"https://a.docusign.net.evil.test"}]}`, map[string]string{"na3": "Acme"}, "https://na3.docusign.net"},
		"xero":      {`[{"tenantId":"45e4708e-d862-4111-ab3a-dd8cd03913e1","tenantName":"Acme"},{"tenantId":"x\r\ny","tenantName":"E"}]`, map[string]string{"45e4708e-d862-4111-ab3a-dd8cd03913e1": "Acme"}, "https://api.xero.com"},
		"mailchimp": {`{"dc":"us19","accountname":"Acme"}`, map[string]string{"us19": "Acme"}, "https://us19.api.mailchimp.com"},
	} {
		s := with(t, all[id]).Sites
		l, ok := s.In([]byte(c.answer))
		if !ok || len(l) != len(c.want) {
			t.Fatalf("%s: %v, want %v", id, l, c.want)
		}
		for _, one := range l {
			if c.want[one.Value] != one.Label {
				t.Errorf("%s: %v", id, one)
			}
		}
		if at, err := s.At(l[0].Value); err != nil || at.String() != c.base {
			t.Errorf("%s leads to %v (%v), want %s", id, at, err, c.base)
		}
	}
	for id, c := range map[string]struct{ good, base string }{
		"salesforce": {"https://acme.my.salesforce.com", "https://acme.my.salesforce.com"}, "pipedrive": {"https://acme.pipedrive.com", "https://acme.pipedrive.com"},
		"quickbooks": {"1234567890", "https://quickbooks.api.intuit.com/v3/company/1234567890"},
	} {
		s := with(t, all[id]).Sites
		one, ok := s.Of(c.good, "")
		if at, err := s.At(one.Value); !ok || err != nil || at.String() != c.base {
			t.Errorf("%s: %v leads to %v (%v)", id, one, at, err)
		}
		for _, evil := range []string{"", "https://evil.test", "https://acme.my.salesforce.com.evil.test", "https://evil.test/.my.salesforce.com", "https://evil.test#.pipedrive.com", "https://acme.my.salesforce.com@evil.test",
			"https://acme.my.salesforce.com:8443", "http://acme.my.salesforce.com", "https://acme.my.salesforce.com/../x", "https://evil.test\\.pipedrive.com", "//acme.pipedrive.com", "12345678901/../..", "https://a\n.pipedrive.com",
			"https://xn--\u0430cme.my.salesforce.com", "https://127.0.0.1", "https://169.254.169.254"} {
			if one, ok := s.Of(evil, ""); ok {
				t.Errorf("%s takes %q for the site %q", id, evil, one.Value)
			}
		}
	}
	for name, change := range map[string]func(*Sites){
		"a pattern that lets hosts through": func(s *Sites) { s.Pattern = "^.+$" }, "one without an end": func(s *Sites) { s.Pattern = "^[a-z]+" }, "slashes": func(s *Sites) { s.Pattern = "^[a-z/]+$" },
		"no domain behind it": func(s *Sites) { s.Base = "https://{site}" }, "a top-level domain": func(s *Sites) { s.Base = "https://{site}.com" }, "glued": func(s *Sites) { s.Base = "https://{site}salesforce.com" },
		"two sources": func(s *Sites) { s.Param = "site" },
	} {
		s := *all["salesforce"].Sites
		change(&s)
		if s.check() == nil {
			t.Errorf("%s is no mistake", name)
		}
	}
}

// TestSitesOfOneName: a person can tell apart what he chooses from, and is shown no more than a page's address has room for.
func TestSitesOfOneName(t *testing.T) {
	s := &Sites{Host: "api.example.com", Base: "https://{site}.example.com", Pattern: "^[a-z0-9]+$", Call: SiteCall{Value: "/id", Label: "/name"}}
	l, ok := s.In([]byte(`[{"id":"a1","name":"Acme"},{"id":"a2","name":"Acme"},{"id":"b","name":"Beta"}]`))
	if got := fmt.Sprint(l); !ok || got != "[{a1 Acme (a1) } {a2 Acme (a2) } {b Beta }]" {
		t.Errorf("%s, %v", got, ok)
	}
	var all []string
	for i := range 3 * MaxSites {
		all = append(all, fmt.Sprintf(`{"id":"a%d","name":"%d"}`, i, i))
	}
	if l, ok := s.In([]byte("[" + strings.Join(all, ",") + "]")); !ok || len(l) != MaxSites {
		t.Errorf("%d sites, %v", len(l), ok)
	}
	for _, bad := range []string{"", "null", "<html>", `[{"id":"a1"`, strings.Repeat("[", 100_000)} {
		if l, ok := s.In([]byte(bad)); ok || len(l) > 0 {
			t.Errorf("%.20q is read as %v", bad, l)
		}
	}
	if l, ok := s.In([]byte(`[{"id":["a1","a2"]},{"id":{"id":"a1"}},7,null]`)); !ok || len(l) > 0 {
		t.Errorf("what is no text is read as %v, %v", l, ok)
	}
}

func with(t *testing.T, p *Provider) *Provider {
	t.Helper()
	q, err := p.PerConnection()
	if err == nil {
		q, err = q.With(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// TestOntoASite: path, query and coding stay as policy saw them, behind the site's own path.
func TestOntoASite(t *testing.T) {
	s := &Sites{Host: "api.example.com", Base: "https://{site}.example.com/v1", Pattern: "^[a-z]+$", Headers: map[string]string{"X-Site": "{site}"}}
	at, err := s.At("acme")
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest(http.MethodGet, "https://api.example.com/a%20b/c?d=e%2Ff", nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Onto(r, at, "acme")
	if got := r.URL.String(); got != "https://acme.example.com/v1/a%20b/c?d=e%2Ff" || r.Host != "acme.example.com" || r.Header.Get("X-Site") != "acme" {
		t.Errorf("it goes to %s, as %s", got, r.Host)
	}
	if got := s.Below(r.URL.EscapedPath()); got != "/a%20b/c" {
		t.Errorf("the way back is %s", got)
	}
	if strings.Contains(r.URL.Host, "api") {
		t.Error("the name of all sites was dialled")
	}
}

// TestNamedSites: where people name the site of their account, nothing that they can write becomes an address outside of the vendor's,
// of any entry of the catalogue; and entries that any host would fit need a list.
func TestNamedSites(t *testing.T) {
	all, err := Providers()
	if err != nil {
		t.Fatal(err)
	}
	given := map[string]map[string]string{"github-enterprise": {"subdomain": "acme"}}
	bounded := map[string]string{"zendesk": "acme.zendesk.com", "shopify": "acme.myshopify.com", "freshdesk": "acme.freshdesk.com", "servicenow": "acme.service-now.com", "salesforce": "acme.my.salesforce.com",
		"snowflake": "acme.snowflakecomputing.com", "databricks": "acme.cloud.databricks.com"}
	open := []string{"gitlab", "okta", "auth0", "grafana", "github-enterprise", "sentry"}
	for _, id := range open {
		if _, err := all[id].PerPerson(given[id], nil); err == nil || !strings.Contains(err.Error(), "any host") {
			t.Errorf("%s: any host may be named: %v", id, err)
		}
		if _, err := all[id].PerPerson(given[id], []string{"acme.example", "evil.test/"}); err == nil {
			t.Errorf("%s: a list holds what is no host", id)
		}
	}
	for id, host := range bounded {
		p, err := all[id].PerPerson(nil, nil)
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		if p, err = p.With(nil); err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		name := host
		if id != "databricks" {
			name = "acme"
		}
		for _, written := range []string{name, " " + strings.ToUpper(name), host, "https://" + host, "https://" + host + "/agent?x=1#y"} {
			if got, ok := p.Sites.Named(written); !ok || got != name {
				t.Errorf("%s: %q is %q, %v", id, written, got, ok)
			}
		}
		for _, written := range append([]string{"evil.test", "http://" + host, host + ".evil.test", "https://" + host + "@evil.test", "https://evil.test/" + host, "https://evil.test#." + host, "evil.test?" + host, "https://x:y@" + host,
			"https://" + host + ":8443", "127.0.0.1", "localhost", "169.254.169.254", "acme\x00", "acme%2eevil.test", "аcme", "{site}"}, hostile...) {
			if site, ok := p.Sites.Named(written); ok {
				if at, err := p.Sites.At(site); err != nil || !strings.HasSuffix(at.Host, host[strings.Index(host, "."):]) || at.Port() != "" || at.User != nil {
					t.Errorf("%s: %q leads to %v, %v", id, written, at, err)
				}
			}
		}
		up := &Upstream{Provider: p, Sites: p.Sites}
		there, err := up.At(name)
		if err != nil {
			t.Errorf("%s: %v", id, err)
			continue
		}
		if o := there.Provider.OAuth; o != nil && (!strings.Contains(o.Authorization, "//"+host+"/") || !strings.Contains(o.Token, "//"+host+"/") || strings.ContainsAny(o.Revocation, " \\")) {
			t.Errorf("%s: %s, %s, %s", id, o.Authorization, o.Token, o.Revocation)
		}
		if _, err := up.At("evil.test/"); err == nil {
			t.Errorf("%s: an upstream at no site", id)
		}
		if up.Provider.OAuth != nil && strings.Contains(up.Provider.OAuth.Token, host) {
			t.Errorf("%s: one person's site became everybody's", id)
		}
	}
	if _, err := all["github"].PerPerson(nil, nil); err == nil {
		t.Error("github has one host, and asks")
	}
	listed, err := all["gitlab"].PerPerson(nil, []string{"gitlab.acme.example", "git.globex.example"})
	if err != nil {
		t.Fatal(err)
	}
	for written, want := range map[string]bool{"gitlab.acme.example": true, "https://gitlab.acme.example/x": true, "gitlab.com": false, "gitlab.acme.example.evil.test": false, "": false} {
		if _, ok := listed.Sites.Named(written); ok != want {
			t.Errorf("of a list, %q: %v", written, ok)
		}
	}
}

// TestKeysElsewhere: a key of Atlassian works at the site's own host, one with scopes at another under the site's id; a token of OAuth at neither.
func TestKeysElsewhere(t *testing.T) {
	all, err := Providers()
	if err != nil {
		t.Fatal(err)
	}
	const id = "11223344-a1b2-3b33-c444-def123456789"
	for want, values := range map[string]map[string]string{
		"[acme.atlassian.net] /rest/api/3/myself []":                                                                                            {"site": "acme"},
		"[https://api.atlassian.com/ex/jira/" + id + "] /rest/api/3/myself []":                                                                  {"cloud_id": id},
		"[https://api.atlassian.com/ex/jira/" + id + "] /rest/api/3/myself [{acme.atlassian.net https://api.atlassian.com/ex/jira/" + id + "}]": {"site": "acme", "cloud_id": id},
		"[acme.atlassian.net] /wiki/rest/api/user/current []":                                                                                   {"site": "acme", "product": "confluence", "whoami": "wiki/rest/api/user/current"},
	} {
		p, err := all["atlassian"].ByKey().With(values)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := fmt.Sprint(p.Hosts, " ", p.AccountOf(APIKey).URL, " ", p.Egress.Aliases); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if p.OAuth != nil || p.Sites != nil {
			t.Error("a token of OAuth could come along")
		}
	}
	if _, err := all["atlassian"].ByKey().With(nil); err == nil || !strings.Contains(err.Error(), "inputs of one of its hosts") {
		t.Errorf("nobody knows at which site: %v", err)
	}
	p, err := all["atlassian"].With(map[string]string{"site": "acme"})
	if err != nil || fmt.Sprint(p.Hosts) != "[api.atlassian.com]" {
		t.Errorf("OAuth is at %v, %v", p.Hosts, err)
	}
	asked, err := all["atlassian"].ByKey().PerPerson(nil, nil)
	if err == nil {
		asked, err = asked.With(nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	if name, ok := asked.Sites.Named("https://acme.atlassian.net/jira"); !ok || name != "acme" {
		t.Errorf("a person names his site: %q", name)
	}
	for name, change := range map[string]func(k *ProviderAPIKey){
		"a colon in what stands before": func(k *ProviderAPIKey) { k.First.Pattern = "^.+$" }, "no name": func(k *ProviderAPIKey) { k.First.Name = "" }, "nothing before": func(k *ProviderAPIKey) { k.First = nil },
		"an open end": func(k *ProviderAPIKey) { k.First.Pattern = "^[a-z]+" }, "a token answer": func(k *ProviderAPIKey) { k.Account = &Account{InToken: true} },
	} {
		k, first := *all["zendesk"].APIKey, *all["zendesk"].APIKey.First
		k.First = &first
		change(&k)
		if k.check() == nil {
			t.Errorf("%s is no mistake", name)
		}
	}
}

// TestAccountsOfASite: of several accounts behind one host each is offered by its name, and a request for another one than the
// connection's is found, however its path writes it.
func TestAccountsOfASite(t *testing.T) {
	all, err := Providers()
	if err != nil {
		t.Fatal(err)
	}
	s := with(t, all["docusign"]).Sites
	l, ok := s.In([]byte(`{"accounts":[{"account_id":"a-1","account_name":"Acme","base_uri":"https://na3.docusign.net"},{"account_id":"a-2","account_name":"Acme Labs","base_uri":"https://na3.docusign.net"},
		{"account_id":"a-3","account_name":"Acme","base_uri":"https://na3.docusign.net"},{"account_id":"a-1","account_name":"Acme","base_uri":"https://na3.docusign.net"},{"account_id":"a-1","account_name":"Beta","base_uri":"https://eu.docusign.net"}]}`))
	if got := fmt.Sprint(l); !ok || got != "[{na3 Acme (na3/a-1) a-1} {na3 Acme Labs a-2} {na3 Acme (na3/a-3) a-3} {eu Beta a-1}]" {
		t.Errorf("%s, %v", got, ok)
	}
	if account, label := l[1].Of("7", "alice"); account != "7@na3/a-2" || label != "alice (Acme Labs)" {
		t.Errorf("%s, %s", account, label)
	}
	for path, want := range map[string]string{"/restapi/v2.1/accounts/a-1/envelopes": "", "/restapi/v2.1/accounts/A-1": "", "/oauth/userinfo": "", "/restapi/v2.1/accounts": "", "/restapi/v2.1/accounts/a-2/envelopes": "a-2",
		"/restapi/v2.1/Accounts/a-2": "a-2", "/restapi/v2.1/accounts//a-2/x": "a-2", "/restapi/v2.1/accounts/a-1/../accounts/a-2": "a-2", "/clickapi/v1/accounts/a-2/clickwraps": "a-2", "/restapi/v2.1/accounts/a-1;x/envelopes": "", "/restapi/v2.1/accounts/a-12": "a-12"} {
		if got := s.Foreign("a-1")(path); got != want {
			t.Errorf("%s is about %q, want %q", path, got, want)
		}
	}
	if got := s.Foreign("")("/restapi/v2.1/accounts/a-2"); got != "" {
		t.Errorf("a connection of before, for whichever: %q", got)
	}
}
