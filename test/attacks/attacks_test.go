package attacks_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

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
