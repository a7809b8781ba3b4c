package attacks_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/test/world"
)

var adminRoutes = []string{"GET /status", "POST /reload", "POST /explain", "GET /connections?user=emp-alice", "POST /connections/x/revoke", "GET /audit"}

// TestA148A154_whereAdminIs: what operators ask stands on a socket of their own, and on no listener.
func TestA148A154_whereAdminIs(t *testing.T) {
	r := theRealm(t)
	alice := r.person("alice")
	open(t, alice, r.Desk().Public+"/portal/")
	_, k := r.connected(t, "modern")
	never := send(t, http.MethodGet, r.Desk().Public+"/never-existed", "")
	routes := append([]string{"GET /debug/pprof/", "GET /debug/pprof/heap", "GET /debug/vars", "GET /metrics", "GET /healthz", "GET /readyz", "GET /admin", "GET /admin/status", "POST /grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "GET /.git/config", "GET /frontdesk.yaml"}, adminRoutes...)
	for _, route := range routes {
		method, path, _ := strings.Cut(route, " ")
		for name, headers := range map[string][]string{"nobody": nil, "an access token": {"Authorization", "Bearer " + k.Access}, "a portal cookie": {"Cookie", cookies(alice, r.Desk().Public)}} {
			for _, tenant := range []string{"", "/t/acme"} {
				if got := send(t, method, r.Desk().Public+tenant+path, "", headers...); got.Status != http.StatusNotFound || got.Body != never.Body {
					t.Errorf("%s with %s at %q: %d %s", route, name, tenant, got.Status, got.Body)
				}
			}
		}
		if got := send(t, method, r.Desk().Egress+path, "", "Authorization", "Bearer "+k.Access); got.Status < 400 {
			t.Errorf("%s at egress: %d", route, got.Status)
		}
	}
	for _, route := range adminRoutes {
		method, path, _ := strings.Cut(route, " ")
		if got := send(t, method, r.Desk().Ops+path, ""); got.Status < 400 {
			t.Errorf("%s at ops: %d", route, got.Status)
		}
	}
	info, err := os.Stat(r.socket(t))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	for _, at := range []string{r.Desk().Ops, r.Desk().Egress} {
		if host, _, _ := net.SplitHostPort(strings.TrimPrefix(at, "http://")); !net.ParseIP(host).IsLoopback() {
			t.Errorf("listens on %s", host)
		}
	}
}

func (r *realm) socket(t *testing.T) string {
	t.Helper()
	l, err := filepath.Glob(filepath.Join(r.Desk().Dir, "*.sock"))
	if err != nil || len(l) != 1 {
		t.Fatal(l, err)
	}
	return l[0]
}

// admin speaks to the socket.
func (r *realm) admin(t *testing.T, method, path, body string) answer {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.socket(t))
	}}}
	defer c.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://admin"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

// TestA149A150_requests: a question says what there is to say, once, and names things of one tenant.
func TestA149A150_requests(t *testing.T) {
	r := theRealm(t)
	r.connected(t, "modern")
	const good = `"user":"emp-alice","server":"modern","tool":"whoami"`
	if got := r.admin(t, http.MethodPost, "/explain", `{`+good+`}`); got.Status != http.StatusOK || !strings.Contains(got.Body, `"allow":true`) {
		t.Fatalf("the honest question: %d %s", got.Status, got.Body)
	}
	for name, body := range map[string]string{"an unknown member": `{` + good + `,"role":"owner"}`, "a sealed one": `{` + good + `,"sealed":"x"}`, "twice": `{` + good + `,"user":"emp-bob"}`, "another case": `{` + good + `,"Tenant":"globex"}`, "case alone": `{"User":"emp-alice","server":"modern","tool":"whoami"}`,
		"two values": `{` + good + `}{}`, "a list": `[]`, "nothing": ``} {
		if got := r.admin(t, http.MethodPost, "/explain", body); got.Status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	for path, want := range map[string]int{"/connections?user=emp-alice&tenant=nobody": http.StatusNotFound, "/connections?user=": http.StatusNotFound, "/connections?user=%25": http.StatusNotFound, "/audit?user=nobody": http.StatusNotFound, "/audit?since=yesterday": http.StatusBadRequest, "/audit?before=%27%3B--": http.StatusNotFound} {
		if got := r.admin(t, http.MethodGet, path, ""); got.Status != want {
			t.Errorf("%s: %d %s", path, got.Status, got.Body)
		}
	}
	for _, id := range []string{"none", "%2e%2e", "x%27--"} {
		if got := r.admin(t, http.MethodPost, "/connections/"+id+"/revoke", `{"id":"other"}`); got.Status != http.StatusNotFound {
			t.Errorf("revoke %s: %d %s", id, got.Status, got.Body)
		}
	}
}

// TestA151_nothingReadsBack: whatever an operator asks, no secret is in the answer.
func TestA151_nothingReadsBack(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	_, k := r.connected(t, "modern")
	var said strings.Builder
	for _, args := range [][]string{{"audit", "tail"}, {"audit", "export"}, {"connections", "list", "--user", "emp-alice"}, {"connections", "list", "--user", "emp-alice", "--json"}, {"explain", "--user", "emp-alice", "--server", "modern", "--tool", "whoami"},
		{"explain", "--user", "emp-alice", "--server", "modern", "--tool", "whoami", "--json"}, {"doctor"}, {"check", r.Desk().ConfigPath}, {"reload"}, {"version"}} {
		out, err := r.Desk().Run(args...)
		if err != nil && args[0] != "doctor" {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
		fmt.Fprintln(&said, out)
	}
	for _, route := range adminRoutes {
		method, path, _ := strings.Cut(route, " ")
		said.WriteString(r.admin(t, method, path, `{"user":"emp-alice","server":"modern","tool":"whoami"}`).Body)
	}
	said.WriteString(send(t, http.MethodGet, r.Desk().Ops+"/metrics", "").Body)
	said.WriteString(r.Desk().Log())
	secrets := []string{world.FrontdeskSecret, k.Access, k.Refresh}
	for _, token := range r.Tracker.Tokens() {
		secrets = append(secrets, token.Value)
	}
	for _, name := range []string{"vault.key", "faces.key"} {
		b, err := os.ReadFile(filepath.Join(r.Desk().Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, strings.TrimSpace(string(b)))
	}
	for _, s := range secrets {
		if strings.Contains(said.String(), s) {
			t.Errorf("a secret was read back: %.12s…", s)
		}
	}
}
