package stage_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/pg"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// TestEndedWhileItRenews: connections are ended at one replica, by an operator or by their person, while calls at both renew them as fast as the
// vendor lets tokens end. No refresh token that the vendor ever gave lives on, and what is connected afterwards works.
func TestEndedWhileItRenews(t *testing.T) {
	s := start(t, stage.Options{Replicas: 2, Database: pg.Start(t), Tracker: world.TrackerConfig{AccessLifetime: 2 * time.Second}})
	alive := func(token string) bool {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Tracker.URL()+"/oauth/token", strings.NewReader(url.Values{"grant_type": {"refresh_token"}, "refresh_token": {token}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.SetBasicAuth("frontdesk", world.FrontdeskSecret)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusBadRequest {
			t.Fatal("the vendor cannot be asked: ", resp.Status)
		}
		return resp.StatusCode == http.StatusOK
	}
	connects := func(name string) *world.Agent {
		s.Pin(-1)
		a := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: name, Era: world.Era2026July, Browser: s.Person("alice", "Connect Tracker", "Done")})
		if got := world.Text(call(t, a, "whoami", nil)); !strings.Contains(got, "octo-alice") {
			t.Fatalf("%s: what was connected anew does not work: %s", name, got)
		}
		return a
	}
	for round := range 3 {
		a := connects(fmt.Sprint("round ", round))
		renewed := len(s.Tracker.Redemptions())
		ctx, stop := context.WithCancel(within(t))
		var calls sync.WaitGroup
		for range 4 {
			calls.Go(func() {
				for ctx.Err() == nil {
					_, _ = a.Call(ctx, "whoami", nil) // what it comes to is a matter of luck
				}
			})
		}
		until(t, "a renewal", func() bool { return len(s.Tracker.Redemptions()) > renewed })
		if said, err := s.Desks[round%2].Run("connections", "revoke", "--user", "emp-alice", "--wait"); err != nil || !strings.Contains(said, "1 connection ended here") {
			t.Errorf("round %d: %v %s", round, err, said)
		}
		stop()
		calls.Wait()
		until(t, "the vendor's word that all has ended", func() bool {
			said, err := s.Desk().Run("connections", "endings")
			return err == nil && strings.Contains(said, "all confirmed")
		})
		for _, i := range s.Tracker.Tokens() {
			if i.Kind == "refresh" && alive(i.Value) {
				t.Errorf("round %d: a refresh token of an ended connection lives on", round)
			}
		}
	}
	connects("the last one")
	l := s.Tracker.Tokens()
	for i := len(l) - 1; i >= 0; i-- {
		if l[i].Kind == "refresh" {
			if !alive(l[i].Value) {
				t.Error("the vendor is asked in vain: nor does that live which nobody has ended")
			}
			break
		}
	}
}
