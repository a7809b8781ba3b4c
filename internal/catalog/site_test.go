package catalog

import (
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
			{"id":"99999999-a1b2-3b33-c444-def123456789","name":"beta","url":"https://beta.atlassian.net"},{"id":"11223344-a1b2-3b33-c444-def123456789","name":"twice"}]`,
			map[string]string{"11223344-a1b2-3b33-c444-def123456789": "acme", "99999999-a1b2-3b33-c444-def123456789": "beta"}, "https://api.atlassian.com/ex/jira/11223344-a1b2-3b33-c444-def123456789"},
		"docusign":  {`{"accounts":[{"account_name":"Acme","base_uri":"https://na3.docusign.net"},{"account_name":"E","base_uri":"https://evil.test/x.docusign.net"},{"account_name":"F","base_uri":"https://a.docusign.net.evil.test"}]}`, map[string]string{"na3": "Acme"}, "https://na3.docusign.net"},
		"xero":      {`[{"tenantId":"45e4708e-d862-4111-ab3a-dd8cd03913e1","tenantName":"Acme"},{"tenantId":"x\r\ny","tenantName":"E"}]`, map[string]string{"45e4708e-d862-4111-ab3a-dd8cd03913e1": "Acme"}, "https://api.xero.com"},
		"mailchimp": {`{"dc":"us19","accountname":"Acme"}`, map[string]string{"us19": "Acme"}, "https://us19.api.mailchimp.com"},
	} {
		s := with(t, all[id]).Sites
		l := s.In([]byte(c.answer))
		if len(l) != len(c.want) {
			t.Errorf("%s: %v, want %v", id, l, c.want)
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
