package attacks_test

import (
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/world"
)

func TestA048_somebodyElsesLink(t *testing.T) {
	s := play(t)
	bob, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "bob's", Era: world.Era2026July, Browser: s.Person("bob", "Later: a tool that needs it will ask then")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bob.Close() })
	r, err := bob.Call(t.Context(), "whoami", nil)
	if err != nil {
		t.Fatal(err)
	}
	link := world.Text(r)[strings.LastIndex(world.Text(r), "\n")+1:]
	for name, p := range map[string]*world.Person{"alice, who signs in for it": s.Person("alice", "Continue to Tracker")} {
		err := p.Open(t.Context(), link)
		if err == nil || !strings.Contains(err.Error(), "403") || p.Visited(s.Tracker.URL()) || strings.Contains(p.Page().Text(), "bob") {
			t.Errorf("A-048/A-049 %s: %v\n%s", name, err, p.Page().Text())
		}
	}
	unknown := world.NewPerson().HasAccount(s.IdP.URL(), "alice")
	if err := unknown.Open(t.Context(), s.Desk().Public+"/connect/AAAAAAAAAAAAAAAAAAAAAA"); err == nil {
		t.Error("A-052: a made-up request has a page")
	}
	// an answer with a made-up state, and bob's own authorize URL finished in alice's browser.
	if got := send(t, http.MethodGet, s.Desk().Public+"/callback/tracker?code=x&state=y&iss="+url.QueryEscape(s.Tracker.URL()), ""); got.Status != http.StatusForbidden {
		t.Errorf("A-038: %d", got.Status)
	}
	stops := world.NewPerson("Continue to Tracker").HasAccount(s.IdP.URL(), "bob") // has no account at the tracker: he stops there
	_ = stops.Open(t.Context(), link)
	at := ""
	for _, v := range stops.History() {
		if strings.HasPrefix(v.URL, s.Tracker.URL()+"/authorize?") {
			at = v.URL
		}
	}
	if at == "" {
		t.Fatalf("bob did not get to the tracker: %s", stops.Page().Text())
	}
	before := len(s.Tracker.Tokens())
	victim := s.Person("alice")
	if err := victim.Open(t.Context(), s.Desk().Public+"/portal/"); err != nil {
		t.Fatal(err)
	}
	if err := victim.Open(t.Context(), at); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("A-050: alice finished what bob began: %v", err)
	}
	for _, token := range s.Tracker.Tokens()[before:] {
		if token.Kind != "code" {
			t.Errorf("A-050: the code was exchanged for a %s", token.Kind)
		}
	}
}

// TestA098_egress speaks to egress with a keycard of an open call.
func TestA098_egress(t *testing.T) {
	s := play(t)
	ticket := s.ticket(t)
	base := s.Desk().Egress + "/egress/tracker"
	if got := send(t, http.MethodGet, base+"/user", "", "Authorization", "Bearer "+ticket); got.Status != http.StatusOK || !strings.Contains(got.Body, "octo-alice") {
		t.Fatalf("the honest request: %d %s", got.Status, got.Body)
	}
	before := s.calls()
	for name, path := range map[string]string{"dots": "/issues/../../admin", "encoded dots": "/issues/%2e%2e/admin", "encoded slash": "/issues/..%2fadmin", "twice encoded": "/issues/%252e%252e/admin",
		"doubled slash": "//admin", "dot": "/./admin", "parameters": "/issues;x=1/..;/admin", "backslash": `/issues/..%5cadmin`, "nul": "/issues%00", "overlong": "/%c0%ae%c0%ae/admin", "slash in a segment": "/a%2fb"} {
		r, err := http.NewRequest(http.MethodGet, s.Desk().Egress, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Opaque = "/egress/tracker" + path
		r.Header.Set("Authorization", "Bearer "+ticket)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("A-101 %s: %d", name, resp.StatusCode)
		}
	}
	for name, got := range map[string]answer{
		"A-098 another upstream":     send(t, http.MethodGet, s.Desk().Egress+"/egress/evil/user", "", "Authorization", "Bearer "+ticket),
		"A-098 another host":         send(t, http.MethodGet, base+"/@evil.test/user", "", "Authorization", "Bearer "+ticket),
		"A-109 no token":             send(t, http.MethodGet, base+"/user", ""),
		"A-109 token in the query":   send(t, http.MethodGet, base+"/user?t="+ticket, "", "Authorization", "Bearer "+ticket),
		"A-109 token twice":          send(t, http.MethodGet, base+"/user", "", "Authorization", "Bearer "+ticket, "X-Again", ticket),
		"A-110 an access token":      send(t, http.MethodGet, base+"/user", "", "Authorization", "Bearer "+s.token),
		"A-110 tampered":             send(t, http.MethodGet, base+"/user", "", "Authorization", "Bearer "+ticket[:len(ticket)-2]+"AA"),
		"A-112 a second credential":  send(t, http.MethodGet, base+"/user?access_token=x", "", "Authorization", "Bearer "+ticket),
		"A-114 TRACE":                send(t, "TRACE", base+"/user", "", "Authorization", "Bearer "+ticket),
		"A-114 lower case":           send(t, "get", base+"/user", "", "Authorization", "Bearer "+ticket),
		"A-108 upgrade":              send(t, http.MethodGet, base+"/user", "", "Authorization", "Bearer "+ticket, "Connection", "Upgrade", "Upgrade", "websocket"),
		"the ticket as access token": s.mcp(t, ticket, "whoami", callBody("whoami", "{}")),
	} {
		if got.Status < 400 || got.Status == http.StatusBadGateway {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	if s.calls() != before {
		t.Error("something that was refused reached the tracker")
	}
	// the API says its credential back; what arrives is clean.
	got := send(t, http.MethodGet, base+"/echo", "", "Authorization", "Bearer "+ticket)
	for _, token := range s.Tracker.Tokens() {
		if strings.Contains(got.Body, token.Value) {
			t.Errorf("A-104: the credential came back: %s", got.Body)
		}
	}
	if got.Status != http.StatusOK || !strings.Contains(got.Body, "****") {
		t.Errorf("A-104: %d %s", got.Status, got.Body)
	}
	// redirects are handed back, never followed.
	if got := send(t, http.MethodGet, base+"/redirect?to=http://127.0.0.1:1/", "", "Authorization", "Bearer "+ticket); got.Status >= 500 {
		t.Errorf("A-107: %d %s", got.Status, got.Body)
	}
	s.noLeak(t)
}

// ticket opens a slow call, and takes its keycard from what the MCP server received. The call stays open for the test.
func (s *scene) ticket(t *testing.T) string {
	t.Helper()
	before := len(s.Modern.Recorder.Entries())
	go func() {
		_, _ = s.alice.Call(t.Context(), "slow", map[string]any{"steps": 300, "every_ms": 100})
	}()
	find := regexp.MustCompile(`Bearer (eyJ[\w-]+\.[\w-]+\.[\w-]+)`)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, e := range s.Modern.Recorder.Entries()[before:] {
			text := fmt.Sprint(e.Header) + string(e.Body)
			if m := find.FindStringSubmatch(text); m != nil && strings.Contains(text, "slow") {
				return m[1]
			}
		}
	}
	t.Fatal("the server never got a keycard")
	return ""
}

func TestA110_aKeycardEndsWithItsCall(t *testing.T) {
	s := play(t)
	find := regexp.MustCompile(`Bearer (eyJ[\w-]+\.[\w-]+\.[\w-]+)`)
	if r, err := s.alice.Call(t.Context(), "list_issues", nil); err != nil || r.IsError {
		t.Fatal(r, err)
	}
	last := ""
	for _, e := range s.Modern.Recorder.Entries() {
		if text := fmt.Sprint(e.Header) + string(e.Body); strings.Contains(text, "list_issues") {
			if m := find.FindStringSubmatch(text); m != nil {
				last = m[1]
			}
		}
	}
	if last == "" {
		t.Fatal("no keycard was seen")
	}
	if got := send(t, http.MethodGet, s.Desk().Egress+"/egress/tracker/user", "", "Authorization", "Bearer "+last); got.Status != http.StatusUnauthorized {
		t.Errorf("the call has ended, and its keycard still opens: %d %s", got.Status, got.Body)
	}
}

// TestO1_nothingAtRest looks for the tracker's tokens in the files of the deployment.
func TestO1_nothingAtRest(t *testing.T) {
	s := play(t)
	files, err := filepath.Glob(filepath.Join(s.Desk().Dir, "*"))
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the socket
		}
		for _, token := range s.Tracker.Tokens() {
			if contains(b, token.Value) {
				t.Errorf("%s holds a %s of the tracker in the clear", filepath.Base(f), token.Kind)
			}
		}
	}
	if out, err := s.Desk().Run("audit", "verify"); err != nil {
		t.Errorf("O2: %v\n%s", err, out)
	}
	s.noLeak(t)
}
