package issuer

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/identity"
)

// guessed is a token endpoint with two confidential clients and one that registered itself.
type guessed struct {
	t   *testing.T
	now time.Time
	mux *http.ServeMux

	registry *Registry
}

// bare is pages for a server that shows none.
type bare struct{ Pages }

func (bare) Forms(next http.Handler) http.Handler { return next }

func newGuessed(t *testing.T) *guessed {
	g := &guessed{t: t, now: time.Now(), mux: http.NewServeMux()}
	clock := func() time.Time { return g.now }
	g.registry = &Registry{Now: clock}
	var clients []Client
	for _, id := range []string{"backend", "other"} {
		sum := sha256.Sum256([]byte("right of " + id))
		clients = append(clients, Client{Tenant: "acme", ID: identity.ClientID(id), SecretHash: sum[:]})
	}
	g.registry.UseConfig(append(clients, Client{Tenant: "acme", ID: "public"}), nil)
	s := &Server{Clients: g.registry, Pages: bare{}, Log: slog.New(slog.DiscardHandler), Now: clock}
	s.Mount(g.mux, "acme", "")
	return g
}

// ask presents a secret. What it comes to is the status and error; a client that was let in has asked for a grant that there is none of.
func (g *guessed) ask(path, client, secret, address string, basic bool) (string, http.Header) {
	form := url.Values{"grant_type": {"none"}, "token": {"none"}}
	if !basic {
		form.Set("client_id", client)
		form.Set("client_secret", secret)
	}
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.RemoteAddr = address
	if basic {
		r.SetBasicAuth(url.QueryEscape(client), url.QueryEscape(secret))
	}
	w := httptest.NewRecorder()
	g.mux.ServeHTTP(w, r)
	var e struct{ Error string }
	if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil && w.Body.Len() > 0 {
		g.t.Errorf("the answer is no JSON: %s", w.Body)
	}
	return fmt.Sprint(w.Code, " ", e.Error), w.Header()
}

const (
	letIn    = "400 unsupported_grant_type"
	wrong    = "401 invalid_client"
	tooMuch  = "429 temporarily_unavailable"
	stranger = "198.51.100.7:1"
	backend  = "192.0.2.1:1"
)

// TestGuesses: wrong secrets of a client have a rate by where they come from, in every form and at both endpoints together, however many come
// at once. Beyond it the right one says nothing either. It keeps out neither the client itself elsewhere, nor others.
func TestGuesses(t *testing.T) {
	g := newGuessed(t)
	var answered [3]atomic.Int32
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			got, h := g.ask([]string{"/token", "/revoke"}[i%2], "backend", fmt.Sprint("guess ", i), stranger, i%4 < 2)
			switch {
			case got == wrong && h.Get("WWW-Authenticate") != "":
				answered[0].Add(1)
			case got == tooMuch && h.Get("Retry-After") == "60":
				answered[1].Add(1)
			default:
				t.Errorf("%s %v", got, h)
			}
		})
	}
	all.Wait()
	if n := answered[0].Load(); n != guessesOfClient {
		t.Errorf("%d guesses were answered", n)
	}
	for what, c := range map[string]struct{ client, secret, address, want string }{
		"the right guess":                      {"backend", "right of backend", stranger, tooMuch},
		"from another port of that address":    {"backend", "right of backend", "198.51.100.7:2", tooMuch},
		"the client itself":                    {"backend", "right of backend", backend, letIn},
		"another client at the address":        {"other", "right of other", stranger, letIn},
		"one without a secret, at the address": {"public", "", stranger, letIn},
	} {
		if got, _ := g.ask("/token", c.client, c.secret, c.address, false); got != c.want {
			t.Errorf("%s: %s, want %s", what, got, c.want)
		}
	}
	g.now = g.now.Add(guessWindow + time.Second)
	if got, _ := g.ask("/token", "backend", "right of backend", stranger, false); got != letIn {
		t.Errorf("a minute later: %s", got)
	}
}

// TestGuessesOfAnAddress: one address guesses at all clients together no faster than so, and yet keeps out none that is known there.
func TestGuessesOfAnAddress(t *testing.T) {
	g := newGuessed(t)
	many := make([]Client, 50)
	for i := range many {
		sum := sha256.Sum256([]byte("right"))
		many[i] = Client{Tenant: "acme", ID: identity.ClientID(fmt.Sprint(i)), SecretHash: sum[:]}
	}
	g.registry.UseConfig(many, nil)
	const inside, outside = "[2001:db8::1]:1", "[2001:db8::ffff:2]:1" // one network of 64 bits
	if got, _ := g.ask("/token", "49", "right", inside, false); got != letIn {
		t.Fatal(got)
	}
	answered := 0
	for i := range many {
		if got, _ := g.ask("/token", fmt.Sprint(i%49), "guess", outside, true); got == wrong {
			answered++
		}
	}
	if answered != guesses {
		t.Errorf("%d guesses were answered", answered)
	}
	if got, _ := g.ask("/token", "49", "right", inside, false); got != letIn {
		t.Errorf("a client that is known at the address: %s", got)
	}
	if got, _ := g.ask("/token", "48", "right", inside, false); got != tooMuch {
		t.Errorf("one that is not: %s", got)
	}
}
