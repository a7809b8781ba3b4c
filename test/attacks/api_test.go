package attacks_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// rules are for the server `ruled` alone.
const rules = `@id("one-repository") @reason("only acme/website") forbid(principal, action == Action::"api", resource in Server::"ruled")
when { context.path like "/issues*" && context.method == "POST" } unless { context.body has repo && context.body.repo == "acme/website" };
@id("one-page") @reason("only that repository") forbid(principal, action == Action::"api", resource in Server::"ruled")
when { context.path == "/search" } unless { context.query has repo && context.query.repo == "ok" };
@id("no-mutation") @reason("nothing is changed by GraphQL") forbid(principal, action == Action::"api", resource in Server::"ruled")
when { context.graphql.operation == "mutation" || context.graphql.fields.contains("secrets") };
@id("no-eval") @reason("no eval") forbid(principal, action == Action::"api", resource in Server::"ruled")
when { context.path == "/rpc" && context.jsonrpc.method == "eval" };
`

// request sends one request with a keycard to the tracker's second host, and says whether it came through.
func (h *hostile) request(t *testing.T, card, method, path, kind, body string) (answer, bool) {
	t.Helper()
	before := len(h.api.heard())
	headers := []string{"Authorization", "Bearer " + card}
	if kind != "" {
		headers = append(headers, "Content-Type", kind)
	}
	got := send(t, method, h.second(path), body, headers...)
	l := h.api.heard()[before:]
	if len(l) == 1 && string(l[0].Body) != body {
		t.Errorf("%s %s: the API heard %q", method, path, l[0].Body)
	}
	if through := len(l) > 0; through != (got.Status == http.StatusOK) {
		t.Errorf("%s %s: status %d, and the API heard %d requests", method, path, got.Status, len(l))
	}
	return got, len(l) > 0
}

// TestA113_A116_requests: what policy reads of a request is what is sent, and what cannot be read in one way is a no.
func TestA113_A116_requests(t *testing.T) {
	h := foes(t)
	h.oracles(t)
	card := h.keycardAt(t, "ruled", "alice")
	const js = "application/json"
	params := make([]string, 5000)
	for i := range params {
		params[i] = fmt.Sprintf("p%d", i)
	}
	for _, tt := range []struct {
		name, method, path, kind, body string
		want                           bool
	}{
		{"a field", "POST", "/issues", js, `{"repo":"acme/website"}`, true},
		{"another value", "POST", "/issues", js, `{"repo":"acme/secret"}`, false},
		{"a form", "POST", "/issues", "application/x-www-form-urlencoded", `repo=acme%2Fwebsite`, true},
		{"twice", "POST", "/issues", js, `{"repo":"acme/website","repo":"x"}`, false},
		{"gzip", "POST", "/issues", "application/json; x=gzip", "\x1f\x8b", false},
		{"too large", "POST", "/issues", js, `{"repo":"acme/website","x":"` + strings.Repeat("x", 1<<20) + `"}`, false},
		{"large, where nobody looks", "PUT", "/upload", js, strings.Repeat("x", 3<<20), true},
		{"A-113 one", "GET", "/search?repo=ok", "", "", true},
		{"A-113 twice", "GET", "/search?repo=ok&repo=evil", "", "", false},
		{"A-113 folded", "GET", "/search?repo=ok&Repo=evil", "", "", false},
		{"A-113 malformed", "GET", "/search?repo=ok&x=%zz", "", "", false},
		{"A-113 semicolon", "GET", "/search?repo=ok;repo=evil", "", "", false},
		{"A-113 5,000, the forbidden one last", "GET", "/search?" + strings.Join(params, "&") + "&repo=evil", "", "", false},
		{"A-116 a query", "POST", "/graphql", js, `{"query":"{ viewer { login } }"}`, true},
		{"A-116 a mutation beside a query", "POST", "/graphql", js, `{"query":"query A { viewer { login } } mutation B { x }","operationName":"A"}`, false},
		{"A-116 an alias", "POST", "/graphql", js, `{"query":"{ viewer: secrets { x } }"}`, false},
		{"A-116 a batch", "POST", "/graphql", js, `[{"query":"{ viewer { login } }"},{"query":"mutation { x }"}]`, false},
		{"A-116 another name", "POST", "/graphql", js, `{"query":"query A { viewer { login } }","operationName":"B"}`, false},
		{"A-116 GET", "GET", "/graphql?query=mutation%20%7Bx%7D", "", "", false},
		{"A-116 persisted", "POST", "/graphql", js, `{"extensions":{"persistedQuery":{"sha256Hash":"x"}}}`, false},
		{"A-116 by id", "POST", "/graphql", js, `{"id":"x"}`, false},
		{"A-116 another spelling", "POST", "/GRAPHQL", js, `{"query":"mutation { x }"}`, false},
		{"a method", "POST", "/rpc", js, `{"jsonrpc":"2.0","method":"add","id":1}`, true},
		{"a forbidden method", "POST", "/rpc", js, `{"jsonrpc":"2.0","method":"eval","id":1}`, false},
		{"a forbidden method in a batch", "POST", "/rpc", js, `[{"jsonrpc":"2.0","method":"eval","id":1}]`, false},
	} {
		got, through := h.request(t, card, tt.method, tt.path, tt.kind, tt.body)
		if through != tt.want {
			t.Errorf("%s: went through %v, %d %.200s", tt.name, through, got.Status, got.Body)
		}
		if !through && got.Status != http.StatusForbidden && got.Status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", tt.name, got.Status, got.Body)
		}
	}
}

// TestA121_slowAPIBody: a field that a policy reads is decided on the bytes that are sent, however slowly they come.
func TestA121_slowAPIBody(t *testing.T) {
	h := foes(t)
	h.oracles(t)
	card := h.keycardAt(t, "ruled", "alice")
	pr, pw := io.Pipe()
	go func() {
		_, _ = io.WriteString(pw, `{"repo":"acme/`)
		_, _ = io.WriteString(pw, `secret"}`)
		_ = pw.Close()
	}()
	before := len(h.api.heard())
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, h.second("/issues"), pr)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+card)
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden || len(h.api.heard()) != before {
		t.Errorf("%d", resp.StatusCode)
	}
}

// TestReadOnlyAndObserved: one word keeps a server from changing anything; another lets it, and says so.
func TestReadOnlyAndObserved(t *testing.T) {
	h := foes(t)
	h.oracles(t)
	reader, tried := h.keycardAt(t, "reader", "alice"), h.keycardAt(t, "tried", "alice")
	for _, tt := range []struct {
		method, path, body string
		want               bool
	}{{"GET", "/x", "", true}, {"POST", "/x", `{}`, false}, {"DELETE", "/x", "", false}, {"POST", "/graphql", `{"query":"{ a }"}`, true}, {"POST", "/graphql", `{"query":"mutation { a }"}`, false}} {
		kind := ""
		if tt.body != "" {
			kind = "application/json"
		}
		if got, through := h.request(t, reader, tt.method, tt.path, kind, tt.body); through != tt.want || !through && !strings.Contains(got.Body, "this server may only read from the API") {
			t.Errorf("%s %s: %v %s", tt.method, tt.path, through, got.Body)
		}
		if got, through := h.request(t, tried, tt.method, tt.path, kind, tt.body); !through {
			t.Errorf("observed %s %s: %d %s", tt.method, tt.path, got.Status, got.Body)
		}
	}
	if n := h.gauge(t, `frontdesk_would_deny_total{server="tried"}`); n != 3 {
		t.Errorf("%v refusals were observed, want 3", n)
	}
	out, err := h.Desk().Run("audit", "tail")
	if err != nil || strings.Count(out, `"decision":"would_deny"`) < 3 || !strings.Contains(out, "servers.tried.read_only") {
		t.Errorf("%v: the log does not say what would have been refused", err)
	}
	if _, through := h.request(t, tried, "GET", "/x", "", ""); !through {
		t.Error("what policy allows does not pass")
	}
}
