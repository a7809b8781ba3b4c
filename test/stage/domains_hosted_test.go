package stage_test

import (
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// TestTwoDomainsHosted: a server that Frontdesk runs is run in the gateway's domain, a process for each user, with a keycard that the
// broker gave; a hostile one gets no further than in one process, and ends with its user's access.
func TestTwoDomainsHosted(t *testing.T) {
	a := twoAccounts(t)
	s := start(t, stage.Options{Database: a.broker, Domains: a.domains(t), Servers: ownServer(t)})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Desk().Broker.Log())
		}
	})
	alice, bob := connected(t, s, "alice", "own"), connected(t, s, "bob", "own")
	for range 3 {
		for who, a := range map[string]*world.Agent{"alice": alice, "bob": bob} {
			if text := world.Text(call(t, a, "whoami", nil)); !strings.Contains(text, "octo-"+who) {
				t.Errorf("%s is told: %s", who, text)
			}
		}
	}
	if env := world.Text(call(t, alice, "env", nil)); !strings.Contains(env, "TRACKER_TOKEN=***") || !strings.Contains(env, "SSL_CERT_FILE") {
		t.Errorf("its environment: %s", env)
	}
	both := running(t, s)
	if len(both) != 2 || both[0].User == both[1].User {
		t.Fatalf("want a process each: %v", both)
	}
	logs, err := s.Desk().Run("servers", "logs", "own", "--user", both[0].User)
	if err != nil || strings.Count(logs, "client ") != 1 || !strings.Contains(logs, "starting with token ***") || !strings.Contains(logs, "early: 403") {
		t.Errorf("its log: %v %s", err, logs)
	}
	for _, args := range [][]string{{"servers", "list"}, {"servers", "logs", "own"}, {"servers", "images"}} {
		if said, err := s.Desk().Broker.Run(args...); err == nil || !strings.Contains(said, "ask a gateway's") {
			t.Errorf("%v at the broker: %v %s", args, err, said)
		}
	}
	if said, err := s.Desk().Run("doctor"); err != nil || !strings.Contains(said, "these walls stand here: ") {
		t.Errorf("doctor at the gateway: %v %s", err, said)
	}
	if said, err := s.Desk().Broker.Run("doctor"); err != nil || strings.Contains(said, "sandbox") {
		t.Errorf("doctor at the broker: %v %s", err, said)
	}
	hostile(t, s, alice, bob)
	resp, err := http.PostForm(s.Desk().Public+"/revoke", url.Values{"client_id": {string(both[0].Client)}, "token": {alice.AccessToken()}})
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	gone(t, both[0].Pid, 5*time.Second)
	if text := world.Text(call(t, bob, "whoami", nil)); !strings.Contains(text, "octo-bob") {
		t.Errorf("bob is told: %s", text)
	}
	acts, err := s.Desk().Broker.Run("audit", "tail", "--json")
	if err != nil || !strings.Contains(acts, `"process"`) || !strings.Contains(acts, "the user's access has ended") {
		t.Errorf("the log does not say how alice's process ended: %v %s", err, acts)
	}
}

// hostile is what alice's program tries: its keycard, said in a way that nothing finds, works in its own sandbox alone, and there for
// her alone.
func hostile(t *testing.T, s *stage.Stage, alice, bob *world.Agent) {
	t.Helper()
	said, ok := strings.CutPrefix(text(t, alice, "escape", "token"), "got: ")
	card := strings.ReplaceAll(said, " ", "")
	if !ok || len(card) < 40 {
		t.Fatalf("the program did not say its keycard: %q", said)
	}
	if got := text(t, alice, "escape", "use "+card+" /user"); !strings.Contains(got, "octo-alice") {
		t.Errorf("at home: %s", got)
	}
	before := len(s.Tracker.Calls())
	if got := text(t, bob, "escape", "use "+card+" /user"); !strings.Contains(got, "401 ") || strings.Contains(got, "octo-alice") {
		t.Errorf("in bob's sandbox: %s", got)
	}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Desk().Egress+"/egress/tracker/user", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+card)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Error("from outside:", resp.Status)
	}
	for _, address := range []string{strings.TrimPrefix(s.Desk().Broker.Ops, "http://"), strings.TrimPrefix(s.Desk().Ops, "http://"), strings.TrimPrefix(s.Tracker.URL(), "http://")} {
		if got := text(t, alice, "escape", "tcp "+address); strings.Contains(got, "got: ") {
			t.Errorf("it reaches %s: %s", address, got)
		}
	}
	for _, path := range []string{s.Desk().ConfigPath, filepath.Join(filepath.Dir(s.Desk().ConfigPath), "gateway.key"), s.Desk().Broker.ConfigPath} {
		if got := text(t, alice, "escape", "read "+path); strings.Contains(got, "got: ") {
			t.Errorf("it reads %s", path)
		}
	}
	if n := len(s.Tracker.Calls()); n != before {
		t.Errorf("%d requests reached the tracker", n-before)
	}
}
