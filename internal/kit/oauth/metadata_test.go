package oauth_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
)

func TestMetadataURLs(t *testing.T) {
	for issuer, want := range map[string][]string{
		"https://as.example":  {"https://as.example/.well-known/oauth-authorization-server", "https://as.example/.well-known/openid-configuration"},
		"https://as.example/": {"https://as.example/.well-known/oauth-authorization-server", "https://as.example/.well-known/openid-configuration"},
		"https://as.example/t1": {"https://as.example/.well-known/oauth-authorization-server/t1",
			"https://as.example/.well-known/openid-configuration/t1", "https://as.example/t1/.well-known/openid-configuration"},
		"https://as.example:8443/a%2Fb/c/": {"https://as.example:8443/.well-known/oauth-authorization-server/a%2Fb/c",
			"https://as.example:8443/.well-known/openid-configuration/a%2Fb/c", "https://as.example:8443/a%2Fb/c/.well-known/openid-configuration"},
		"http://localhost:9998/": {"http://localhost:9998/.well-known/oauth-authorization-server", "http://localhost:9998/.well-known/openid-configuration"},
		"http://[::1]:1":         {"http://[::1]:1/.well-known/oauth-authorization-server", "http://[::1]:1/.well-known/openid-configuration"},
	} {
		got, err := oauth.MetadataURLs(issuer)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", issuer, err, diff)
		}
	}
	for _, issuer := range []string{
		"", "as.example", "//as.example", "http://as.example", "http://127.0.0.1.evil.test", "ftp://as.example", "javascript:alert(1)",
		"https://", "https://a@as.example", "https://as.example?x", "https://as.example/#", "https://as.example/ x", `https://as.example\x`, "https://as.example/%zz",
	} {
		if got, err := oauth.MetadataURLs(issuer); fault.KindOf(err) != fault.Invalid || err == nil {
			t.Errorf("%q: got %v, %v", issuer, got, err)
		}
	}
}

func TestResourceMetadataURLs(t *testing.T) {
	const root = "https://r.example/.well-known/oauth-protected-resource"
	for resource, want := range map[string][]string{
		"https://r.example":         {root},
		"https://r.example/":        {root},
		"https://r.example/t/a/mcp": {root + "/t/a/mcp", root},
		"https://r.example/mcp/":    {root + "/mcp/", root},
		"https://r.example/mcp?a=b": {root + "/mcp?a=b", root},
		"https://r.example?a=b":     {root + "?a=b", root},
	} {
		got, err := oauth.ResourceMetadataURLs(resource)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", resource, err, diff)
		}
	}
	for _, resource := range []string{"", "https://r.example/#x", "r.example/mcp", "http://r.example"} {
		if got, err := oauth.ResourceMetadataURLs(resource); err == nil {
			t.Errorf("%q: got %v", resource, got)
		}
	}
}

// site answers by path; unknown paths get 404.
func site(t *testing.T, pages map[string]http.HandlerFunc) (*httptest.Server, *[]string) {
	var asked []string
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Path)
		if page, ok := pages[r.URL.Path]; ok {
			page(w, r)
			return
		}
		http.NotFound(w, r)
	})
	return s, &asked
}

func jsonPage(format string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		io.WriteString(w, strings.ReplaceAll(format, "$O", "http://"+r.Host))
	}
}

const (
	asPath   = "/.well-known/oauth-authorization-server/t1"
	oidcPath = "/t1/.well-known/openid-configuration"
)

func TestFetchMetadata(t *testing.T) {
	html := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		io.WriteString(w, "<html>hello</html>")
	}
	s, asked := site(t, map[string]http.HandlerFunc{
		asPath: html, // many hosts answer everything with their start page
		oidcPath: jsonPage(`{"issuer":"$O/t1","token_endpoint":"$O/token","jwks_uri":"$O/jwks","authorization_endpoint":"https://login.example/a",
			"code_challenge_methods_supported":["plain","S256"],"authorization_response_iss_parameter_supported":true,"Issuer":"x","more":{"a":[1]}}`),
	})
	got, err := oauth.FetchMetadata(t.Context(), direct(s), s.URL+"/t1")
	want := oauth.Metadata{Issuer: s.URL + "/t1", TokenEndpoint: s.URL + "/token", JWKSURI: s.URL + "/jwks",
		AuthorizationEndpoint: "https://login.example/a", ChallengeMethods: []string{"plain", "S256"}, IssParameter: true}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Fatalf("%v\n%s", err, diff)
	}
	if !got.SupportsS256() || (oauth.Metadata{ChallengeMethods: []string{"plain"}}).SupportsS256() {
		t.Error("SupportsS256 is wrong")
	}
	if diff := cmp.Diff([]string{asPath, "/.well-known/openid-configuration/t1", oidcPath}, *asked); diff != "" {
		t.Error("the three spellings, in order:", diff)
	}
}

func TestFetchMetadataRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		page http.HandlerFunc
		want fault.Kind
	}{
		"trailing slash":        {jsonPage(`{"issuer":"$O/t1/"}`), fault.Invalid},
		"upper-case path":       {jsonPage(`{"issuer":"$O/T1"}`), fault.Invalid},
		"query":                 {jsonPage(`{"issuer":"$O/t1?x"}`), fault.Invalid},
		"percent-coded":         {jsonPage(`{"issuer":"$O/%741"}`), fault.Invalid},
		"https for http":        {jsonPage(`{"issuer":"https://127.0.0.1/t1"}`), fault.Invalid},
		"no issuer":             {jsonPage(`{"token_endpoint":"$O/token"}`), fault.Invalid},
		"folded issuer":         {jsonPage(`{"Issuer":"$O/t1"}`), fault.Invalid},
		"two issuers":           {jsonPage(`{"issuer":"$O/t1","issuer":"$O/t1"}`), fault.Invalid},
		"issuer a number":       {jsonPage(`{"issuer":1}`), fault.Invalid},
		"array":                 {jsonPage(`["issuer"]`), fault.Invalid},
		"trailing bytes":        {jsonPage(`{"issuer":"$O/t1"} {}`), fault.Invalid},
		"scopes a string":       {jsonPage(`{"issuer":"$O/t1","scopes_supported":"a b"}`), fault.Invalid},
		"invalid UTF-8":         {jsonPage("{\"issuer\":\"$O/t1\",\"x\":\"\xff\"}"), fault.Invalid},
		"javascript endpoint":   {jsonPage(`{"issuer":"$O/t1","authorization_endpoint":"javascript:alert(1)"}`), fault.Invalid},
		"file endpoint":         {jsonPage(`{"issuer":"$O/t1","authorization_endpoint":"file:///etc/passwd"}`), fault.Invalid},
		"shell endpoint":        {jsonPage(`{"issuer":"$O/t1","authorization_endpoint":"https://a.example/$(calc)"}`), fault.Invalid},
		"backtick endpoint":     {jsonPage("{\"issuer\":\"$O/t1\",\"authorization_endpoint\":\"https://a.example/`calc`\"}"), fault.Invalid},
		"http endpoint":         {jsonPage(`{"issuer":"$O/t1","token_endpoint":"http://as.example/token"}`), fault.Invalid},
		"userinfo endpoint":     {jsonPage(`{"issuer":"$O/t1","jwks_uri":"https://up.example@evil.example/"}`), fault.Invalid},
		"relative endpoint":     {jsonPage(`{"issuer":"$O/t1","registration_endpoint":"/register"}`), fault.Invalid},
		"fragment in endpoint":  {jsonPage(`{"issuer":"$O/t1","revocation_endpoint":"https://a.example/#x"}`), fault.Invalid},
		"too long":              {jsonPage(`{"issuer":"$O/t1","x":"` + strings.Repeat("x", 256<<10) + `"}`), fault.Invalid},
		"HTML":                  {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, fault.NotFound},
		"JSON that says text":   {func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, `{"issuer":"http://%s/t1"}`, r.Host) }, fault.NotFound},
		"500":                   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, fault.Unavailable},
		"429":                   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(429) }, fault.Unavailable},
		"redirect to elsewhere": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, fault.NotFound},
	} {
		s, asked := site(t, map[string]http.HandlerFunc{asPath: c.page, "/elsewhere": jsonPage(`{"issuer":"$O/t1"}`)})
		m, err := oauth.FetchMetadata(t.Context(), direct(s), s.URL+"/t1")
		if err == nil || fault.KindOf(err) != c.want {
			t.Errorf("%s: got %+v, %v, want kind %v", name, m, err, c.want)
		}
		if c.want == fault.Invalid && len(*asked) != 1 {
			t.Errorf("%s: a document that must not be used was followed by another try: %v", name, *asked)
		}
	}
}

func TestFetchMetadataServerAway(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	client := direct(s)
	s.Close()
	if _, err := oauth.FetchMetadata(t.Context(), client, s.URL); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := oauth.FetchMetadata(ctx, client, s.URL); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestFetchMetadataHTTPSStaysHTTPS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"issuer":"https://%s","token_endpoint":"http://127.0.0.1/token"}`, r.Host)
	}))
	defer s.Close()
	if m, err := oauth.FetchMetadata(t.Context(), direct(s), s.URL); fault.KindOf(err) != fault.Invalid || err == nil {
		t.Errorf("an https issuer sent us to http on loopback: %+v, %v", m, err)
	}
}

func TestFetchResourceMetadata(t *testing.T) {
	good := jsonPage(`{"resource":"$O/mcp","authorization_servers":["https://as.example/t1"],"scopes_supported":["a"],"bearer_methods_supported":["header"]}`)
	s, _ := site(t, map[string]http.HandlerFunc{"/.well-known/oauth-protected-resource": good, "/here": good})
	want := oauth.ResourceMetadata{Resource: s.URL + "/mcp", AuthorizationServers: []string{"https://as.example/t1"}, ScopesSupported: []string{"a"}}
	for _, metadataURL := range []string{"", s.URL + "/here"} {
		got, err := oauth.FetchResourceMetadata(t.Context(), direct(s), s.URL+"/mcp", metadataURL)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v\n%s", err, diff)
		}
	}
	// The same document does not speak for a neighbour.
	for _, resource := range []string{"/mcp/", "/mcp2", "/MCP", ""} {
		if _, err := oauth.FetchResourceMetadata(t.Context(), direct(s), s.URL+resource, ""); fault.KindOf(err) != fault.Invalid || err == nil {
			t.Errorf("%s: got %v", resource, err)
		}
	}
	for _, metadataURL := range []string{"http://r.example/x", "javascript:x", "/x"} {
		if _, err := oauth.FetchResourceMetadata(t.Context(), direct(s), s.URL+"/mcp", metadataURL); fault.KindOf(err) != fault.Invalid || err == nil {
			t.Errorf("%s: got %v", metadataURL, err)
		}
	}
	bad, _ := site(t, map[string]http.HandlerFunc{"/.well-known/oauth-protected-resource": jsonPage(`{"resource":"$O","authorization_servers":["http://as.example"]}`)})
	if _, err := oauth.FetchResourceMetadata(t.Context(), direct(bad), bad.URL, ""); fault.KindOf(err) != fault.Invalid || err == nil {
		t.Errorf("got %v", err)
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add([]byte(`{"issuer":"https://as.example","token_endpoint":"https://as.example/token"}`))
	f.Add([]byte(`{"issuer":"https://as.example","issuer":"x"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		doer := doerFunc(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(string(body)))}, nil
		})
		m, err := oauth.FetchMetadata(context.Background(), doer, "https://as.example")
		if err != nil {
			return
		}
		for _, u := range []string{m.AuthorizationEndpoint, m.TokenEndpoint, m.JWKSURI, m.RegistrationEndpoint, m.RevocationEndpoint, m.DeviceEndpoint} {
			if m.Issuer != "https://as.example" || u != "" && !strings.HasPrefix(strings.ToLower(u), "https://") {
				t.Fatalf("accepted %q of %s", u, m.Issuer)
			}
		}
	})
}
