package world

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Step is a moment of a refresh at a vendor's token endpoint.
type Step string

const (
	StepArrived Step = "request arrives"
	StepRead    Step = "request is whole"
	StepDone    Step = "token is used up"
	StepFirst   Step = "first byte leaves"
	StepLast    Step = "last byte has left"
)

// Steps are all, in order.
var Steps = []Step{StepArrived, StepRead, StepDone, StepFirst, StepLast}

// Ambush waits at one step of the next refresh. The zero Ambush waits for nobody.
type Ambush struct {
	mu     sync.Mutex
	step   Step
	after  time.Duration
	strike func(peer string)
}

// Lay sets the trap: at the step, and so much later, strike is called once with the address of who refreshes. What the vendor
// does with the request goes on all the same.
func (a *Ambush) Lay(step Step, after time.Duration, strike func(peer string)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.step, a.after, a.strike = step, after, strike
}

// pass is called at each step.
func (a *Ambush) pass(step Step, peer string) {
	a.mu.Lock()
	strike, after := a.strike, a.after
	if a.step != step || strike == nil {
		a.mu.Unlock()
		return
	}
	a.strike = nil
	a.mu.Unlock()
	if after == 0 {
		strike(peer)
		return
	}
	time.AfterFunc(after, func() { strike(peer) })
}

// around puts the trap before a token endpoint.
func (a *Ambush) around(path string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != path {
			next.ServeHTTP(w, r)
			return
		}
		a.pass(StepArrived, r.RemoteAddr)
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // it is dead already
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if form, err := url.ParseQuery(string(body)); err != nil || !strings.HasPrefix(form.Get("grant_type"), "refresh") {
			next.ServeHTTP(w, r)
			return
		}
		a.pass(StepRead, r.RemoteAddr)
		answer := httptest.NewRecorder()
		next.ServeHTTP(answer, r)
		a.pass(StepDone, r.RemoteAddr)
		for k, v := range answer.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(answer.Code)
		out := http.NewResponseController(w)
		text := answer.Body.Bytes()
		for i, part := range [][]byte{text[:min(1, len(text))], text[min(1, len(text)):]} {
			_, _ = w.Write(part) // whoever reads may be dead
			_ = out.Flush()
			a.pass([]Step{StepFirst, StepLast}[i], r.RemoteAddr)
		}
	})
}
