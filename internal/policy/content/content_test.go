package content_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/policy"
	"frontdesk.dev/frontdesk/internal/policy/content"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func upstream(t testing.TB, base string, graphql ...string) *catalog.Upstream {
	t.Helper()
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	return &catalog.Upstream{Name: "github", Origins: []*url.URL{u}, Provider: &catalog.Provider{Egress: catalog.ProviderEgress{GraphQL: graphql}}}
}

// asked decides one request by a forbid beside an allow list, and checks that what is sent is what came.
func asked(t *testing.T, text string, in policy.Input, r *http.Request, up *catalog.Upstream) policy.Decision {
	t.Helper()
	in.Sources = []policy.Source{{Name: "ops.cedar", Text: []byte(text)}}
	in.Allows = []policy.Allow{{Server: "issues", Who: "everyone", From: "servers.issues.allow[0]"}}
	set, problems := policy.Compile(in)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var sent []byte
	if r.Body != nil {
		sent, _ = io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(sent))
	}
	q := policy.Request{Caller: &identity.Caller{Tenant: "default", User: "alice"}, Action: policy.ActionAPI, Server: "issues", Upstream: "github", Method: r.Method, Host: r.URL.Host, Path: r.URL.EscapedPath(), Now: noon}
	q.Content = content.Of(r, r.URL, up, false).Read(set.Wants(q))
	if r.Body != nil {
		if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d bytes came, %d are sent (%v)", len(sent), len(got), err)
		}
	}
	return set.Decide(q)
}

const (
	repoOnly   = `forbid(principal, action == Action::"api", resource in Upstream::"github") when { context.method == "POST" } unless { context.body has repo && context.body.repo == "acme/website" };`
	queryOnly  = `forbid(principal, action == Action::"api", resource) unless { context.query has repo && context.query.repo == "ok" };`
	noMutation = `forbid(principal, action == Action::"api", resource) when { context.graphql.operation == "mutation" };`
	viewerOnly = `forbid(principal, action == Action::"api", resource) unless { ["viewer", "repository"].containsAll(context.graphql.fields) && context.graphql.operation == "query" };`
	noEval     = `forbid(principal, action == Action::"api", resource) when { context.jsonrpc.method like "eval*" };`
	template   = `forbid(principal, action == Action::"api", resource) unless { context.segments.count == 4 && context.segments.s1 == "repos" && context.segments.s2 == "acme" && context.segments.s4 == "issues" };`
)

func TestRequests(t *testing.T) {
	jsonType, form := "application/json", "application/x-www-form-urlencoded"
	many := make([]string, 5000)
	for i := range many {
		many[i] = fmt.Sprintf("p%d=1", i)
	}
	tests := []struct {
		name, policy, method, target, kind, body string
		allow                                    bool
	}{
		{"a field", repoOnly, "POST", "/issues", jsonType, `{"repo":"acme/website","title":"x"}`, true},
		{"another value", repoOnly, "POST", "/issues", jsonType, `{"repo":"acme/secret"}`, false},
		{"another method reads no body", repoOnly, "PUT", "/issues", "image/png", "\x89PNG", true},
		{"a form", repoOnly, "POST", "/issues", form, `repo=acme%2Fwebsite&title=x`, true},
		{"a form, twice", repoOnly, "POST", "/issues", form, `repo=acme%2Fwebsite&repo=evil`, false},
		{"a form, as an array", repoOnly, "POST", "/issues", form, `repo=acme%2Fwebsite&repo[]=evil`, false},
		{"JSON that says it is a form", repoOnly, "POST", "/issues", form, `{"a":"=&repo=acme/website"}`, false},
		{"twice", repoOnly, "POST", "/issues", jsonType, `{"repo":"acme/website","repo":"evil"}`, false},
		{"twice, escaped", repoOnly, "POST", "/issues", jsonType, `{"repo":"acme/website","rep\u006f":"evil"}`, false},
		{"another case beside it", repoOnly, "POST", "/issues", jsonType, `{"repo":"acme/website","Repo":"evil"}`, false},
		{"escaped alone", repoOnly, "POST", "/issues", jsonType, `{"rep\u006f":"acme/website"}`, true},
		{"in the query too", repoOnly, "POST", "/issues?repo=evil", jsonType, `{"repo":"acme/website"}`, false},
		{"null", repoOnly, "POST", "/issues", jsonType, `{"repo":null}`, false},
		{"an array", repoOnly, "POST", "/issues", jsonType, `[{"repo":"acme/website"}]`, false},
		{"two values", repoOnly, "POST", "/issues", jsonType, `{"repo":"acme/website"}{"repo":"evil"}`, false},
		{"UTF-16", repoOnly, "POST", "/issues", "application/json; charset=utf-16", `{"repo":"acme/website"}`, false},
		{"UTF-8, said so", repoOnly, "POST", "/issues", "application/json; charset=UTF-8", `{"repo":"acme/website"}`, true},
		{"a vendor's JSON", repoOnly, "POST", "/issues", "application/vnd.github+json", `{"repo":"acme/website"}`, true},
		{"no type", repoOnly, "POST", "/issues", "", `{"repo":"acme/website"}`, false},
		{"multipart", repoOnly, "POST", "/issues", "multipart/form-data; boundary=x", "--x--", false},
		{"text", repoOnly, "POST", "/issues", "text/plain", `{"repo":"acme/website"}`, false},
		{"nothing", repoOnly, "POST", "/issues", "", "", false},
		{"too large", repoOnly, "POST", "/issues", jsonType, `{"repo":"acme/website","x":"` + strings.Repeat("x", 1<<20) + `"}`, false},

		{"a parameter", queryOnly, "GET", "/x?repo=ok&page=2", "", "", true},
		{"A-113 twice", queryOnly, "GET", "/x?repo=ok&repo=evil", "", "", false},
		{"A-113 another case beside it", queryOnly, "GET", "/x?repo=ok&REPO=evil", "", "", false},
		{"A-113 brackets", queryOnly, "GET", "/x?repo=ok&repo%5B0%5D=evil", "", "", false},
		{"A-113 escaped, twice", queryOnly, "GET", "/x?repo=ok&r%65po=evil", "", "", false},
		{"A-113 malformed", queryOnly, "GET", "/x?repo=ok&a=%zz", "", "", false},
		{"A-113 semicolons", queryOnly, "GET", "/x?repo=ok;repo=evil", "", "", false},
		{"A-113 5,000 parameters", queryOnly, "GET", "/x?" + strings.Join(many, "&") + "&repo=ok", "", "", false},
		{"absent", queryOnly, "GET", "/x", "", "", false},

		{"a query", noMutation, "POST", "/graphql", jsonType, `{"query":"query Q { viewer { login } }","variables":{"a":1},"operationName":"Q"}`, true},
		{"a mutation", noMutation, "POST", "/graphql", jsonType, `{"query":"mutation { deleteIssue(id:1) { id } }"}`, false},
		{"no GraphQL at all", noMutation, "POST", "/repos", "image/png", "x", true},
		{"A-116 two operations", noMutation, "POST", "/graphql", jsonType, `{"query":"query A { viewer { login } } mutation B { deleteIssue(id:1) { id } }","operationName":"A"}`, false},
		{"A-116 a name that is not there", noMutation, "POST", "/graphql", jsonType, `{"query":"query A { viewer { login } }","operationName":"B"}`, false},
		{"A-116 a batch", noMutation, "POST", "/graphql", jsonType, `[{"query":"{ viewer { login } }"}]`, false},
		{"A-116 persisted", noMutation, "POST", "/graphql", jsonType, `{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"x"}}}`, false},
		{"A-116 persisted beside a document", noMutation, "POST", "/graphql", jsonType, `{"query":"{ viewer { login } }","extensions":{"persistedQuery":{"sha256Hash":"x"}}}`, false},
		{"A-116 persisted, escaped", noMutation, "POST", "/graphql", jsonType, `{"query":"{ viewer { login } }","extensions":{"p\u0065rsistedQuery":{"sha256Hash":"x"}}}`, false},
		{"A-116 by id", noMutation, "POST", "/graphql", jsonType, `{"id":"abc"}`, false},
		{"A-116 a document in the query too", noMutation, "POST", "/graphql?query=mutation%7Bx%7D", jsonType, `{"query":"{ viewer { login } }"}`, false},
		{"A-116 by GET", noMutation, "GET", "/graphql?query=%7Bviewer%7Blogin%7D%7D", "", "", true},
		{"A-116 a mutation by GET", noMutation, "GET", "/graphql?query=mutation%7Bx%7D", "", "", false},
		{"A-116 by GET, twice", noMutation, "GET", "/graphql?query=%7Bviewer%7D&query=mutation%7Bx%7D", "", "", false},
		{"A-116 by GET, another case", noMutation, "GET", "/graphql?query=%7Bviewer%7D&Query=mutation%7Bx%7D", "", "", false},
		{"A-116 another spelling of the path", noMutation, "POST", "/GraphQL/", jsonType, `{"query":"mutation { x }"}`, false},
		{"A-116 as text", noMutation, "POST", "/graphql", "text/plain", `{"query":"mutation { x }"}`, false},
		{"A-116 the bare document", noMutation, "POST", "/graphql", "application/graphql", `mutation { x }`, false},
		{"A-116 multipart", noMutation, "POST", "/graphql", "multipart/form-data; boundary=x", "--x--", false},
		{"A-116 no document", noMutation, "POST", "/graphql", jsonType, `{"query":"query {"}`, false},
		{"fields", viewerOnly, "POST", "/graphql", jsonType, `{"query":"{ viewer { login } repository(name:\"x\") { id } }"}`, true},
		{"A-116 an alias", viewerOnly, "POST", "/graphql", jsonType, `{"query":"{ viewer: organization(login:\"x\") { id } }"}`, false},
		{"A-116 in a fragment", viewerOnly, "POST", "/graphql", jsonType, `{"query":"query { ...F } fragment F on Query { viewer { login } ... on Query { organization { id } } }"}`, false},
		{"A-116 fragments in a circle", viewerOnly, "POST", "/graphql", jsonType, `{"query":"query { ...F } fragment F on Query { viewer { login } ...G } fragment G on Query { ...F }"}`, true},
		{"A-116 a fragment that is not there", viewerOnly, "POST", "/graphql", jsonType, `{"query":"query { viewer { login } ...F }"}`, false},

		{"a method", noEval, "POST", "/rpc", jsonType, `{"jsonrpc":"2.0","id":1,"method":"eth_call"}`, true},
		{"a forbidden method", noEval, "POST", "/rpc", jsonType, `{"jsonrpc":"2.0","id":1,"method":"evaluate"}`, false},
		{"a batch", noEval, "POST", "/rpc", jsonType, `[{"jsonrpc":"2.0","id":1,"method":"evaluate"}]`, false},
		{"another case", noEval, "POST", "/rpc", jsonType, `{"jsonrpc":"2.0","id":1,"method":"eth_call","Method":"evaluate"}`, false},
		{"as text", noEval, "POST", "/rpc", "text/plain", `{"jsonrpc":"2.0","id":1,"method":"eth_call"}`, false},
		{"no JSON-RPC", noEval, "GET", "/rpc", "", "", true},

		{"a template", template, "GET", "/repos/acme/website/issues", "", "", true},
		{"deeper", template, "GET", "/repos/acme/website/issues/1", "", "", false},
		{"another owner", template, "GET", "/repos/evil/website/issues", "", "", false},
		{"shorter", template, "GET", "/repos/acme", "", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var body io.Reader
			if tt.body != "" {
				body = strings.NewReader(tt.body)
			}
			r := httptest.NewRequest(tt.method, "https://api.github.com"+tt.target, body)
			if tt.kind != "" {
				r.Header.Set("Content-Type", tt.kind)
			}
			d := asked(t, tt.policy, policy.Input{}, r, upstream(t, "https://api.github.com"))
			if d.Allow != tt.allow {
				t.Errorf("%+v, want allow %v", d, tt.allow)
			}
			if !d.Allow && d.Reason == "" {
				t.Error("a no without a reason")
			}
		})
	}
}

// TestReadOnly: read_only in one word.
func TestReadOnly(t *testing.T) {
	in := policy.Input{ReadOnly: []policy.ReadOnly{{Server: "issues", From: "servers.issues.read_only"}}}
	tests := []struct {
		method, target, body string
		header               http.Header
		allow                bool
	}{
		{"GET", "/issues", "", nil, true},
		{"HEAD", "/issues", "", nil, true},
		{"OPTIONS", "/issues", "", nil, true},
		{"POST", "/issues", `{}`, nil, false},
		{"DELETE", "/issues/1", "", nil, false},
		{"PROPFIND", "/issues", "", nil, false},
		{"POST", "/graphql", `{"query":"{ viewer { login } }"}`, nil, true},
		{"POST", "/graphql", `{"query":"subscription { x }"}`, nil, false},
		{"POST", "/graphql", `{"query":"mutation { x }"}`, nil, false},
		{"GET", "/graphql?query=mutation%7Bx%7D", "", nil, false},
		{"POST", "/repos/x/graphql", `{"query":"{ viewer { login } }"}`, nil, false},
		{"GET", "/socket", "", http.Header{"Upgrade": {"websocket"}}, false},
	}
	for _, tt := range tests {
		r := httptest.NewRequest(tt.method, "https://api.github.com"+tt.target, strings.NewReader(tt.body))
		for n, v := range tt.header {
			r.Header[n] = v
		}
		if tt.body != "" {
			r.Header.Set("Content-Type", "application/json")
		}
		d := asked(t, "", in, r, upstream(t, "https://api.github.com"))
		if d.Allow != tt.allow || !d.Allow && len(d.Errors) == 0 && d.Reason != "this server may only read from the API" {
			t.Errorf("%s %s %s: %+v", tt.method, tt.target, tt.body, d)
		}
	}
}

// TestNobodyAsks: where no policy for this request reads a body, it is not touched.
func TestNobodyAsks(t *testing.T) {
	for _, text := range []string{``, `forbid(principal, action == Action::"api", resource in Upstream::"other") when { context.body.x == 1 };`,
		`forbid(principal, action == Action::"api", resource in Server::"other") when { context.body.x == 1 };`, `forbid(principal in Group::"other", action == Action::"api", resource) when { context.body.x == 1 };`} {
		r := httptest.NewRequest("POST", "https://api.github.com/upload", nil)
		r.Body, r.ContentLength = untouchable{t}, -1
		set, problems := policy.Load([]policy.Source{{Name: "ops.cedar", Text: []byte(text)}}, nil)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		q := policy.Request{Caller: &identity.Caller{User: "alice"}, Action: policy.ActionAPI, Server: "issues", Upstream: "github", Method: "POST"}
		if c := content.Of(r, r.URL, upstream(t, "https://api.github.com"), false).Read(set.Wants(q)); c != nil {
			t.Errorf("%s: %+v", text, c)
		}
	}
}

type untouchable struct{ t *testing.T }

func (u untouchable) Read([]byte) (int, error) {
	u.t.Error("the body was read")
	return 0, io.EOF
}
func (u untouchable) Close() error { return nil }

func TestGraphQLEndpoints(t *testing.T) {
	tests := []struct {
		base, target string
		paths        []string
		want         catalog.Endpoint
	}{
		{"https://a.test", "https://a.test/graphql", nil, catalog.SpeaksGraphQL},
		{"https://a.test/v1", "https://a.test/v1/api/graphql", nil, catalog.SpeaksGraphQL},
		{"https://a.test", "https://a.test/graphql;x", nil, catalog.LooksLikeGraphQL},
		{"https://a.test", "https://a.test/v2", []string{"/v2"}, catalog.SpeaksGraphQL},
		{"https://a.test", "https://a.test/graphql", []string{"/v2"}, catalog.NotGraphQL},
		{"https://a.test", "https://a.test/repos/graphql", nil, catalog.NotGraphQL},
	}
	for _, tt := range tests {
		u, err := url.Parse(tt.target)
		if err != nil {
			t.Fatal(err)
		}
		if got := upstream(t, tt.base, tt.paths...).GraphQL(u); got != tt.want {
			t.Errorf("%+v: got %v", tt, got)
		}
	}
}

// FuzzFields: what policy sees of a field is what encoding/json sees, for whom names differ by case too.
func FuzzFields(f *testing.F) {
	f.Add([]byte(`{"repo":"a","x":[1,{"y":null}]}`), "repo=1")
	f.Add([]byte(`{"Repo":"a","repo":"b"}`), "REPO=1&x=%20")
	set, problems := policy.Load([]policy.Source{{Name: "o", Text: []byte(`permit(principal, action == Action::"api", resource) when { context.body.repo == "a" && context.query.page == "1" && context.graphql.operation == "query" && context.jsonrpc.method == "m" && context.reads };`)}}, nil)
	if len(problems) > 0 {
		f.Fatal(problems)
	}
	q := policy.Request{Caller: &identity.Caller{User: "alice"}, Action: policy.ActionAPI, Server: "issues", Upstream: "github", Method: "POST"}
	f.Fuzz(func(t *testing.T, body []byte, query string) {
		for _, path := range []string{"/x", "/graphql"} {
			r := httptest.NewRequest("POST", "https://api.github.com"+path, bytes.NewReader(body))
			r.URL.RawQuery = query
			r.Header.Set("Content-Type", "application/json")
			c := content.Of(r, r.URL, upstream(t, "https://api.github.com"), false).Read(set.Wants(q))
			if got, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(got, body) {
				t.Fatal("the body changed")
			}
			if c.Body == nil {
				continue
			}
			var folded struct{ Repo json.RawMessage }
			if len(body) > 0 && json.Unmarshal(body, &folded) != nil {
				t.Fatalf("%q was read", body)
			}
			if !bytes.Equal(bytes.TrimSpace(folded.Repo), bytes.TrimSpace(c.Body["repo"])) {
				t.Fatalf("%q: policy sees %q, another reader %q", body, c.Body["repo"], folded.Repo)
			}
		}
	})
}
