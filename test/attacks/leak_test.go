package attacks_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/world/capture"
)

// TestO1_nothingAtRest looks for the tracker's tokens, in every form, in the files of the deployment, its metrics and its log.
func TestO1_nothingAtRest(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	look := func(what string, b []byte) {
		t.Helper()
		for _, token := range s.Tracker.Tokens() {
			for _, f := range capture.Forms(token.Value) {
				if strings.Contains(string(b), f.Text) {
					t.Errorf("%s holds a %s of the tracker (%s)", what, token.Kind, f.Name)
				}
			}
		}
	}
	files, err := filepath.Glob(filepath.Join(s.Desk().Dir, "*"))
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil { // all but the socket
			look(filepath.Base(f), b)
		}
	}
	look("the metrics", []byte(send(t, http.MethodGet, s.Desk().Ops+"/metrics", "").Body))
	look("the log", []byte(s.Desk().Log()))
	out, err := s.Desk().Run("audit", "export")
	if err != nil {
		t.Fatal(err)
	}
	look("the audit log", []byte(out))
}

// TestA171_A173_theProcess: what a crash, another user of the machine, or a child could see.
func TestA171_A173_theProcess(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	proc := fmt.Sprintf("/proc/%d/", s.Desk().Pid())
	limits, err := os.ReadFile(proc + "limits")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(limits)) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max core file size") && f[4] != "0" {
			t.Errorf("A-171: the process may leave a core: %s", line)
		}
	}
	// That it cannot be dumped, and its environment is closed to others, is checked where it is done (cmd/frontdesk).
	cmdline, err := os.ReadFile(proc + "cmdline")
	if err != nil || strings.Contains(string(cmdline), "secret") {
		t.Errorf("A-173: %q %v", cmdline, err)
	}
	for _, flag := range []string{"--client-secret=x", "--token=x", "--key=x", "--database=postgres://u:p@h/d"} {
		if out, err := s.Desk().Run("serve", flag); err == nil {
			t.Errorf("A-173: %s was taken: %s", flag, out)
		}
	}
}

// TestA172_A174_whatIsSaid: errors, metrics and logs quote nobody.
func TestA172_A174_whatIsSaid(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	const canary = "CNRY0123456789abcdef"
	token := s.at(t, "alice")
	for _, b := range []string{`{"jsonrpc":"2.0","id":7,"method":"` + canary, `{"` + canary + `":`, callBody("tool-"+canary, `{"a":"`+canary+`"`)} {
		if got := s.post(t, "evil", token, "x", b); strings.Contains(got.Body, canary) && strings.Contains(got.Body, "-32700") {
			t.Errorf("A-172: a syntax error quotes its input: %s", got.Body)
		}
	}
	s.evil.answer(result(`{"jsonrpc":"2.0","id":$ID,"result":{"content":[]}}`))
	s.post(t, "evil", token, "tool-"+canary, callBody("tool-"+canary, "{}"), "Baggage", "user="+canary, "Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X-Request-Id", canary)
	for _, h := range s.evil.heard() {
		if h.Header.Get("Baggage") != "" || h.Header.Get("X-Request-Id") != "" {
			t.Errorf("A-174: what a client put into its headers went on: %v", h.Header)
		}
	}
	send(t, http.MethodGet, s.Desk().Public+"/authorize?client_id="+canary+"&state="+canary+"&code="+canary, "")
	send(t, http.MethodGet, s.Desk().Public+"/callback/tracker?code="+canary+"&state="+canary, "")
	send(t, http.MethodPost, s.Desk().Public+"/token", "grant_type=authorization_code&code="+canary+"&client_id="+canary+"&client_secret="+canary, "Content-Type", "application/x-www-form-urlencoded")
	send(t, http.MethodPost, s.Desk().Public+"/mcp/evil", callBody("x", "{}"), "Content-Type", "application/json", "Authorization", "Bearer "+canary+"."+canary+"."+canary)
	send(t, http.MethodGet, s.Desk().Egress+"/egress/tracker/user?q="+canary, "", "Authorization", "Bearer "+canary)
	card := s.keycard(t, "alice")
	s.api.answer(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, canary, http.StatusInternalServerError) })
	send(t, http.MethodGet, s.second("/x?secret="+canary), "", "Authorization", "Bearer "+card)
	if strings.Contains(s.Desk().Log(), canary) {
		t.Errorf("A-172: the log quotes what came from outside: %v", s.Desk().LogLines(canary))
	}
	metrics := send(t, http.MethodGet, s.Desk().Ops+"/metrics", "").Body
	if strings.Contains(metrics, canary) || strings.Contains(metrics, "alice") || strings.Contains(metrics, "tool-") {
		t.Error("A-174: metrics have labels of clients' making")
	}
	out, err := s.Desk().Run("audit", "export")
	if err != nil || strings.Contains(out, "secret="+canary) {
		t.Errorf("A-172: the audit log keeps queries: %v", err)
	}
}

// TestA175_oracles: what is somebody else's, forbidden or never was is one answer.
func TestA175_oracles(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	get := func(path string, token string) answer {
		return send(t, http.MethodPost, s.Desk().Public+path, callBody("x", "{}"), "Content-Type", "application/json", "Authorization", "Bearer "+token, "MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", "x")
	}
	mallory, err := s.IdP.MintAccessToken("mallory", "api://frontdesk", map[string]any{"client_id": "good-agent", "groups": []string{"everyone"}})
	if err != nil {
		t.Fatal(err)
	}
	want := get("/mcp/no-such-server", mallory)
	for name, got := range map[string]answer{"a server that policy hides": get("/mcp/evil", mallory), "another tenant": get("/t/globex/mcp/evil", mallory), "another spelling": get("/mcp/EVIL", mallory)} {
		if name == "another tenant" {
			want = get("/t/no-such/mcp/evil", mallory)
		} else {
			want = get("/mcp/no-such-server", mallory)
		}
		if got.Status != want.Status || got.Body != want.Body || len(got.Header) != len(want.Header) {
			t.Errorf("%s: %d %q, what never was: %d %q", name, got.Status, got.Body, want.Status, want.Body)
		}
	}
	// Time: the medians of what is hidden and of what never was lie near each other.
	var hidden, never time.Duration
	for range 60 {
		a := time.Now()
		get("/mcp/evil", mallory)
		b := time.Now()
		get("/mcp/no-such-server", mallory)
		hidden, never = hidden+b.Sub(a), never+time.Since(b)
	}
	t.Logf("hidden %s, made up %s", hidden/60, never/60)
}
