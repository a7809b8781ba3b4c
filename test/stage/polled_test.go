package stage_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/pg"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// outbox is a transmitter that cannot reach Frontdesk: it gives its events to who asks, and holds a question while there is none.
type outbox struct {
	mu    sync.Mutex
	sets  map[string]string // guarded by mu
	acked []string          // guarded by mu
	given int               // guarded by mu: how often an event was handed out
}

func (o *outbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Ack []string `json:"ack"`
		Now bool     `json:"returnImmediately"`
	}
	if json.NewDecoder(r.Body).Decode(&q) != nil || r.Header.Get("Authorization") != "Bearer "+senderToken {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	o.mu.Lock()
	for _, id := range q.Ack {
		delete(o.sets, id)
		o.acked = append(o.acked, id)
	}
	o.mu.Unlock()
	for end := time.Now().Add(time.Second); ; time.Sleep(10 * time.Millisecond) {
		o.mu.Lock()
		if len(o.sets) > 0 || q.Now || time.Now().After(end) || r.Context().Err() != nil {
			o.given += len(o.sets)
			_ = json.NewEncoder(w).Encode(map[string]any{"sets": o.sets}) // who asked may be gone: then he asks again
			o.mu.Unlock()
			return
		}
		o.mu.Unlock()
	}
}

// TestEndsWhenAsked: an event that waits at the IdP ends the person's access at every replica within five seconds, is given out once, and
// also where the replica that asks has just been killed.
func TestEndsWhenAsked(t *testing.T) {
	t.Parallel() // it waits for the turn of a dead replica to end
	o := &outbox{sets: map[string]string{}}
	server := httptest.NewServer(o)
	t.Cleanup(server.Close)
	s := start(t, stage.Options{Replicas: 2, Database: pg.Start(t), Files: map[string]string{"ssf.token": senderToken + "\n"}})
	for _, d := range s.Desks {
		rewrite(t, d, `audiences: ["api://frontdesk"]}`, `audiences: ["api://frontdesk"], events: {audience: "urn:desk", poll: "`+server.URL+`/poll", access: file:ssf.token}}`)
		if said, err := d.Run("reload"); err != nil {
			t.Fatal(err, said)
		}
	}
	for n, within5 := range []bool{true, false} {
		s.Pin(0)
		alice := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", later)})
		if _, err := alice.Tools(within(t)); err != nil {
			t.Fatal(err)
		}
		replicas := []int{0, 1}
		if !within5 { // the first one heard of the config first, so it is the one that asks
			if err := s.Desks[0].Kill(); err != nil {
				t.Fatal(err)
			}
			replicas = []int{1}
		}
		for _, i := range replicas {
			if !works(t, s, i, alice.AccessToken()) {
				t.Fatal("it does not work to begin with")
			}
		}
		id := []string{"first", "second"}[n]
		token, err := s.IdP.Sign("secevent+jwt", map[string]any{"iss": s.IdP.URL(), "aud": "urn:desk", "iat": time.Now().Unix(), "jti": id,
			"sub_id": map[string]any{"format": "iss_sub", "iss": s.IdP.URL(), "sub": "emp-alice"}, "events": map[string]any{"https://schemas.openid.net/secevent/caep/event-type/session-revoked": map[string]any{}}})
		if err != nil {
			t.Fatal(err)
		}
		o.mu.Lock()
		o.sets[id] = token
		o.mu.Unlock()
		patience := 5 * time.Second
		if !within5 {
			patience = time.Minute // the turn of the dead one has to end
		}
		over := time.After(patience)
		for _, i := range replicas {
			for works(t, s, i, alice.AccessToken()) {
				select {
				case <-over:
					t.Fatalf("replica %d lets her token in after %s", i, patience)
				case <-time.After(20 * time.Millisecond):
				}
			}
		}
		until(t, "it is acknowledged", func() bool {
			o.mu.Lock()
			defer o.mu.Unlock()
			return slices.Contains(o.acked, id)
		})
	}
	if said, err := s.Desks[1].Run("audit", "verify", "--vault"); err != nil || !strings.Contains(said, "whole: ") || !strings.Contains(said, "vault: ") { // of PostgreSQL, while a server runs on it
		t.Errorf("%v %s", err, said)
	}
	if o.given != 2 {
		t.Errorf("2 events were given out %d times: both replicas ask", o.given)
	}
}
