package attacks_test

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
)

// trackerAPI describes a part of the tracker's API, on its first host.
const trackerAPI = `openapi: 3.0.3
info: {title: Tracker, version: "1"}
paths:
  /issues/{id}:
    delete: {operationId: issues.delete, responses: {"200": {description: ok}}}
    get: {operationId: issues.get, responses: {"200": {description: ok}}}
  /user:
    get: {operationId: user.get, responses: {"200": {description: ok}}}
  /search:
    post: {operationId: search, x-frontdesk-reads: true, responses: {"200": {description: ok}}}
`

// rules are for the server `ruled` alone.
const rules = `@id("one-repository") @reason("only acme/website") forbid(principal, action == Action::"api", resource in Server::"ruled")
when { context.path like "/issues*" && context.method == "POST" } unless { context.body has repo && context.body.repo == "acme/website" };
@id("one-page") @reason("only that repository") forbid(principal, action == Action::"api", resource in Server::"ruled")
when { context.path == "/search" } unless { context.query has repo && context.query.repo == "ok" };
@id("no-mutation") @reason("nothing is changed by GraphQL") forbid(principal, action == Action::"api", resource in Server::"ruled")
when { context.graphql.operation == "mutation" || context.graphql.fields.contains("secrets") };
@id("no-eval") @reason("no eval") forbid(principal, action == Action::"api", resource in Server::"ruled")
when { context.path == "/rpc" && context.jsonrpc.method == "eval" };
@id("no-delete") @reason("nothing is deleted") forbid(principal, action == Action::"api", resource in Operation::"tracker/issues.delete");
@id("masked") @mask("/email /items/*/email") permit(principal, action == Action::"api", resource in Server::"ruled") when { context.path == "/people" };
@id("named-only") @reason("only what the description names") forbid(principal, action == Action::"api", resource in Server::"reader") when { context.operation == "" && context.path like "*/named*" };
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

// TestOperations: policy names what the upstream's description names, and refuses what it does not.
func TestOperations(t *testing.T) {
	h := foes(t)
	h.oracles(t)
	card := h.keycardAt(t, "reader", "alice")
	for _, tt := range []struct{ method, path, said string }{
		{"GET", "/user", "octo-alice"}, // by the tracker itself
		{"DELETE", "/issues/1", "this server may only read from the API|nothing is deleted"},
		{"POST", "/search", ""}, // marked as reading: it goes on, whatever the tracker makes of it
		{"GET", "/named/x", "only what the description names"},
	} {
		got := send(t, tt.method, h.Desk().Egress+"/egress/tracker"+tt.path, "", "Authorization", "Bearer "+card)
		denied := strings.Contains(got.Body, `"error":"denied"`)
		found := false
		for s := range strings.SplitSeq(tt.said, "|") {
			found = found || strings.Contains(got.Body, s)
		}
		if !found || denied != strings.Contains(tt.said, " ") {
			t.Errorf("%s %s: %d %s", tt.method, tt.path, got.Status, got.Body)
		}
	}
	out, err := h.Desk().Run("audit", "tail")
	if err != nil || !strings.Contains(out, `"tool":"tracker/issues.delete"`) || !strings.Contains(out, `"tool":"tracker/user.get"`) {
		t.Errorf("%v: the log does not name the operations", err)
	}
}

// TestExplainOfRequestsIsTheLiveCode: for random requests explain says what egress does.
func TestExplainOfRequestsIsTheLiveCode(t *testing.T) {
	h := foes(t)
	h.oracles(t)
	rng := rand.New(rand.NewPCG(7, 8))
	pick := func(l ...string) string { return l[rng.IntN(len(l))] }
	said := map[bool]int{}
	for _, server := range []string{"ruled", "reader", "tried"} {
		card := h.keycardAt(t, server, "alice")
		for range 25 {
			method := pick("GET", "POST", "PUT", "DELETE", "HEAD", "TRACE")
			path := pick("/issues", "/issues/1", "/search?repo=ok", "/search?repo=ok&REPO=x", "/graphql", "/rpc", "/forbidden", "/x/%2e%2e/y", "/user", "/named", "/a?b=%zz", "/graphql/")
			body := ""
			if method == "POST" || method == "PUT" {
				body = pick(`{"repo":"acme/website"}`, `{"repo":"acme/secret"}`, `{"query":"{ a }"}`, `{"query":"mutation { a }"}`, `{"method":"eval"}`, `[]`, `{`, "")
			}
			host := h.api.URL
			before := len(h.api.heard())
			got := send(t, method, h.second(path), body, "Authorization", "Bearer "+card, "Content-Type", "application/json")
			through := len(h.api.heard()) > before
			args := []string{"explain", "--json", "--user", "emp-alice", "--client", "good-agent", "--server", server, "--api", method, "--url", host + path}
			if body != "" {
				args = append(args, "--body", body)
			}
			out, err := h.Desk().Run(args...)
			var e struct {
				Allow           bool
				Reason, Refused string
			}
			if err == nil && json.Unmarshal([]byte(out), &e) != nil {
				t.Fatalf("%s", out)
			}
			says := err == nil && e.Allow && e.Refused == ""
			if says != through || err == nil && !through && !strings.Contains(got.Body, e.Reason) && method != "HEAD" {
				t.Errorf("%s: %s %s %s: went through %v (%d %s), explain says %v: %v %s", server, method, path, body, through, got.Status, got.Body, says, err, out)
			}
			said[through]++
		}
	}
	if said[true] < 10 || said[false] < 10 {
		t.Errorf("the requests are one-sided: %v", said)
	}
}

// TestMaskedAnswers: what a permit keeps back does not come through, in whatever form the API answers.
func TestMaskedAnswers(t *testing.T) {
	h := foes(t)
	h.oracles(t)
	card := h.keycardAt(t, "ruled", "alice")
	for name, tt := range map[string]struct {
		kind, body string
		want       string
	}{
		"JSON":    {"application/json", `{"email":"a@b.test","items":[{"email":"c@d.test","id":1}]}`, `{"email":null,"items":[{"email":null,"id":1}]}`},
		"twice":   {"application/json", `{"email":"a@b.test","email":"a@b.test"}`, ""},
		"text":    {"text/plain", `{"email":"a@b.test"}`, ""},
		"no type": {"", `{"email":"a@b.test"}`, ""},
		"events":  {"text/event-stream", "data: {\"email\":\"a@b.test\"}\n\n", "data: {\"email\":null}\n\n"},
		"lines":   {"application/x-ndjson", "{\"email\":\"a@b.test\"}\n{\"id\":1}\n", "{\"email\":null}\n{\"id\":1}\n"},
		"gRPC":    {"application/grpc", "\x00\x00\x00\x00\x08a@b.test", ""},
		"broken":  {"application/json", `{"email":"a@b.test"`, ""},
	} {
		h.api.answer(func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = []string{tt.kind}
			_, _ = io.WriteString(w, tt.body)
		})
		got := send(t, http.MethodGet, h.second("/people"), "", "Authorization", "Bearer "+card)
		if strings.Contains(got.Body, "test") || tt.want != "" && (got.Status != http.StatusOK || got.Body != tt.want) || tt.want == "" && got.Status != http.StatusBadGateway {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
		if got := send(t, http.MethodGet, h.second("/other"), "", "Authorization", "Bearer "+card); got.Body != tt.body {
			t.Errorf("%s, where nothing is kept back: %d %s", name, got.Status, got.Body)
		}
	}
}
