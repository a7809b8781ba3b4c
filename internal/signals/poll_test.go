package signals_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/signals"
)

// transmitter gives events to who asks (RFC 8936), and can be asked about its stream.
type transmitter struct {
	t *testing.T
	w *world

	mu       sync.Mutex
	sets     map[string]string // guarded by mu, as what follows: not acknowledged yet
	acked    []string
	refused  map[string]string
	sent     map[string]int
	states   []string
	fail     int // so many questions are answered with an error
	disabled bool
	silent   bool // it never sends the verification that it was asked for
}

func (x *transmitter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer access" {
		x.t.Errorf("%s %s with %q", r.Method, r.URL, r.Header.Get("Authorization"))
	}
	switch r.URL.Path {
	case "/poll":
		var q struct {
			Ack  []string                                     `json:"ack"`
			Errs map[string]struct{ Err, Description string } `json:"setErrs"`
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			x.t.Error(err)
		}
		if x.fail > 0 {
			x.fail--
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		for _, id := range q.Ack {
			x.acked = append(x.acked, id)
			delete(x.sets, id)
		}
		for id, e := range q.Errs {
			x.refused[id] = e.Err
			delete(x.sets, id)
		}
		for id := range x.sets {
			x.sent[id]++
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"sets": x.sets, "moreAvailable": false})
	case "/status":
		_ = json.NewEncoder(w).Encode(map[string]string{"status": map[bool]string{false: "enabled", true: "paused"}[x.disabled], "reason": "someone did"})
	case "/verify":
		var q struct{ State, Stream_id string }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Stream_id != "stream-1" {
			x.t.Error(err, q)
		}
		x.states = append(x.states, q.State)
		if !x.silent {
			x.sets["v"+q.State] = sign(x.t, x.w.key, jose.ES256, "secevent+jwt", claims{"iss": idp, "aud": "https://desk.test", "iat": time.Now().Unix(), "jti": "v" + q.State,
				"sub_id": claims{"format": "opaque", "id": "stream-1"}, "events": claims{"https://schemas.openid.net/secevent/ssf/event-type/verification": claims{"state": q.State}}})
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

func (x *transmitter) add(id string, c claims) {
	token := sign(x.t, x.w.key, jose.ES256, "secevent+jwt", claims{"iss": idp, "aud": "https://desk.test", "iat": x.w.now.Unix(), "jti": id, "sub_id": claims{"format": "iss_sub", "iss": idp, "sub": "emp-alice"},
		"events": claims{"https://schemas.openid.net/secevent/caep/event-type/session-revoked": claims{}}}.with(c))
	x.mu.Lock()
	defer x.mu.Unlock()
	x.sets[id] = token
}

// asked is a receiver that asks the transmitter; run runs it until the test ends.
func asked(t *testing.T, w *world, id string) (x *transmitter, run func()) {
	t.Helper()
	x = &transmitter{t: t, w: w, sets: map[string]string{}, refused: map[string]string{}, sent: map[string]int{}}
	server := httptest.NewServer(x)
	t.Cleanup(server.Close)
	w.Events.Stream = &signals.Stream{Poll: server.URL + "/poll", ID: id, Token: func() (string, error) { return "access", nil }, HTTP: http.DefaultTransport, Turns: w.db, Owner: "a",
		Facts: &oauth.Transmitter{Issuer: idp, HTTP: facts{w, server.URL}, Now: time.Now, Log: w.Log}}
	w.Events.Stream.Short(20 * time.Millisecond)
	return x, func() {
		var l signals.Listening
		l.Use([]*signals.Receiver{w.Receiver})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		t.Cleanup(func() { cancel(); <-ended })
	}
}

// facts is the transmitter's configuration.
type facts struct {
	w  *world
	at string
}

func (f facts) Do(r *http.Request) (*http.Response, error) {
	if r.URL.Path != "/.well-known/ssf-configuration" {
		return f.w.Do(r)
	}
	rec := httptest.NewRecorder()
	rec.Header().Set("Content-Type", "application/json")
	err := json.NewEncoder(rec).Encode(map[string]any{"issuer": idp, "jwks_uri": idp + "/keys", "status_endpoint": f.at + "/status", "verification_endpoint": f.at + "/verify"})
	return rec.Result(), err
}

func (x *transmitter) until(what string, ok func() bool) {
	x.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		x.mu.Lock()
		done := ok()
		x.mu.Unlock()
		if done {
			return
		}
		if time.Now().After(end) {
			x.t.Fatal("never: " + what)
		}
	}
}

// TestPolled: an event that was asked for ends what it names, is acknowledged afterwards, and counts once; what is none is refused
// with its reason, and what could not be done comes again.
func TestPolled(t *testing.T) {
	w := newWorld(t)
	x, run := asked(t, w, "")
	x.fail = 2
	x.add("good", nil)
	x.add("foreign", claims{"aud": "https://other.test"})
	x.add("renamed", claims{"jti": "another"})
	run()
	x.until("acknowledged and refused", func() bool { return slices.Contains(x.acked, "good") && len(x.refused) == 2 })
	if w.alive(w.now.Add(-time.Minute)) {
		t.Error("her access did not end")
	}
	if x.refused["foreign"] != "invalid_audience" || x.refused["renamed"] != "invalid_request" {
		t.Errorf("refused with %v", x.refused)
	}
	x.mu.Lock()
	x.acked = nil
	x.mu.Unlock()
	x.add("good", nil) // the transmitter did not hear that we had it
	x.until("acknowledged again", func() bool { return slices.Contains(x.acked, "good") })
	if !w.alive(w.now.Add(time.Minute)) {
		t.Error("the same event ended what began after it")
	}
}

// TestStreamIsLookedAfter: a stream that is paused, or through which nothing comes, is told to the operator.
func TestStreamIsLookedAfter(t *testing.T) {
	w := newWorld(t)
	var log strings.Builder
	lines := &locked{b: &log}
	w.Log = lines.logger()
	x, run := asked(t, w, "stream-1")
	run()
	x.until("what was asked for came", func() bool { return len(x.states) > 1 && slices.Contains(x.acked, "v"+x.states[0]) })
	if said := lines.String(); strings.Contains(said, "nothing comes through") {
		t.Errorf("a stream that works is complained about: %s", said)
	}
	x.mu.Lock()
	x.disabled = true
	x.mu.Unlock()
	x.until("the paused stream is told", func() bool {
		return strings.Contains(lines.String(), `its status is \"paused\", because \"someone did\"`)
	})
	x.mu.Lock()
	x.disabled, x.silent = false, true
	x.mu.Unlock()
	x.until("the silent stream is told", func() bool { return strings.Contains(lines.String(), "nothing comes through the stream") })
}

// TestOneReplicaAsks: while one has the turn the other one does not ask, and follows it when it ends.
func TestOneReplicaAsks(t *testing.T) {
	w := newWorld(t)
	if ok, err := w.db.Turn(t.Context(), "poll:default:login", "other", 300*time.Millisecond); err != nil || !ok {
		t.Fatal(err)
	}
	x, run := asked(t, w, "")
	x.add("good", nil)
	run()
	x.until("it follows", func() bool { return slices.Contains(x.acked, "good") })
	if n := x.sent["good"]; n != 1 {
		t.Errorf("it was sent %d times", n)
	}
}
