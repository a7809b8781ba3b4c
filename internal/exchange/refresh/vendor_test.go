package refresh_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/vault"
)

// vendor is a token endpoint that is strict where vendors are. It never lies about time; those who ask it may.
type vendor struct {
	rotation catalog.Rotation
	grace    time.Duration
	life     time.Duration // of access tokens
	survives bool          // old access tokens outlive a refresh
	late     time.Duration // what an answer takes

	mu      sync.Mutex // guards what follows
	leap    time.Duration
	count   int
	grants  map[vault.ConnectionID]*grant // the newest of each
	refresh map[string]*refreshToken
	access  map[string]*accessToken
	fault   trouble
	reuse   func(vault.ConnectionID) // told of each used token that is used again
	refusal map[vault.ConnectionID]string
	asked   int // requests that arrived
	last    url.Values
	site    string // that token answers name, if any
}

type grant struct {
	id      vault.ConnectionID
	ended   bool
	current string
}

type refreshToken struct {
	grant *grant
	used  time.Time
}

type accessToken struct {
	grant *grant
	until time.Time
	ended bool
}

// trouble is what the vendor does instead of answering.
type trouble string

const (
	fine          trouble = ""
	unreachable   trouble = "unreachable"   // nothing arrives
	busy          trouble = "busy"          // 503
	slowDown      trouble = "slow down"     // 429
	lost          trouble = "lost"          // it is done, and the answer does not come
	half          trouble = "half"          // it is done, and half of the answer comes
	invalidClient trouble = "wrong client"  // it does not know us
	badHour       trouble = "refuses grant" // invalid_grant, for no reason
)

func newVendor(rotation catalog.Rotation) *vendor {
	return &vendor{rotation: rotation, grace: 30 * time.Minute, life: time.Hour, survives: rotation != catalog.RotationStrict, grants: map[vault.ConnectionID]*grant{},
		refresh: map[string]*refreshToken{}, access: map[string]*accessToken{}, refusal: map[vault.ConnectionID]string{}}
}

func (v *vendor) now() time.Time { return time.Now().Add(v.leap) }

// consent begins a grant, as when a person connects.
func (v *vendor) consent(id vault.ConnectionID) (access, refresh string, expires time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	g := &grant{id: id}
	v.grants[id] = g
	delete(v.refusal, id)
	access, refresh = v.pair(g)
	return access, refresh, v.now().Add(v.life)
}

func (v *vendor) pair(g *grant) (access, refresh string) {
	v.count++
	access, refresh = fmt.Sprintf("at-%d", v.count), fmt.Sprintf("rt-%d", v.count)
	v.access[access] = &accessToken{grant: g, until: v.now().Add(v.life)}
	v.refresh[refresh] = &refreshToken{grant: g}
	g.current = refresh
	return access, refresh
}

// withdraw ends a grant at the vendor.
func (v *vendor) withdraw(id vault.ConnectionID) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.grants[id].ended = true
}

func (v *vendor) set(f trouble) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fault = f
}

func (v *vendor) pass(d time.Duration) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.leap += d
}

// serves says whether the API takes an access token, and if not, why.
func (v *vendor) serves(access string) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch t := v.access[access]; {
	case t == nil:
		return "never issued"
	case t.grant.ended:
		return "grant ended"
	case t.ended:
		return "replaced"
	case !v.now().Before(t.until):
		return "expired"
	}
	return ""
}

// Do implements oauth.Doer.
func (v *vendor) Do(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil { // as net/http does, before anything leaves
		return nil, err
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := r.Context().Err(); err != nil { // on a busy machine a lease is over before the lock is free
		return nil, err
	}
	if v.fault == unreachable {
		return nil, context.DeadlineExceeded
	}
	if trace := httptrace.ContextClientTrace(r.Context()); trace != nil && trace.WroteRequest != nil {
		trace.WroteRequest(httptrace.WroteRequestInfo{})
	}
	v.asked, v.last = v.asked+1, form
	v.leap += v.late
	if r.URL.Path == "/revoke" {
		if t := v.refresh[form.Get("token")]; t != nil {
			t.grant.ended = true
		}
		return reply(http.StatusOK, nil), nil
	}
	switch v.fault {
	case busy:
		return reply(http.StatusServiceUnavailable, nil), nil
	case slowDown:
		resp := reply(http.StatusTooManyRequests, nil)
		resp.Header.Set("Retry-After", "2")
		return resp, nil
	case invalidClient:
		return reply(http.StatusUnauthorized, map[string]any{"error": "invalid_client"}), nil
	}
	answer := v.redeem(form.Get("refresh_token"))
	if v.site != "" && answer.StatusCode == http.StatusOK {
		b, _ := io.ReadAll(answer.Body) // from memory
		site, _ := json.Marshal(v.site)
		answer.Body = io.NopCloser(bytes.NewReader(append(b[:len(b)-1], `,"instance_url":`+string(site)+`}`...)))
	}
	switch {
	case v.fault == lost:
		return nil, io.ErrUnexpectedEOF
	case v.fault == half:
		answer.Body = io.NopCloser(bytes.NewReader([]byte(`{"access_token":"at-`)))
	}
	return answer, nil
}

func (v *vendor) redeem(token string) *http.Response {
	refuse := func(id vault.ConnectionID, why string) *http.Response {
		v.refusal[id] = why
		return reply(http.StatusBadRequest, map[string]any{"error": "invalid_grant"})
	}
	t := v.refresh[token]
	switch {
	case t == nil:
		return refuse("", "never issued")
	case v.fault == badHour:
		return refuse(t.grant.id, "a bad hour")
	case t.grant.ended:
		return refuse(t.grant.id, "grant ended")
	}
	if !t.used.IsZero() && v.rotation != catalog.RotationNone {
		if v.grants[t.grant.id] == t.grant && v.reuse != nil { // else a newer grant stands in the row
			v.reuse(t.grant.id)
		}
		if v.rotation == catalog.RotationGrace && v.now().Sub(t.used) <= v.grace {
			return v.grantAgain(t.grant)
		}
		t.grant.ended = true
		return refuse(t.grant.id, "used before")
	}
	t.used = v.now()
	for _, a := range v.access {
		a.ended = a.ended || a.grant == t.grant && !v.survives
	}
	if v.rotation == catalog.RotationNone {
		v.count++
		access := fmt.Sprintf("at-%d", v.count)
		v.access[access] = &accessToken{grant: t.grant, until: v.now().Add(v.life)}
		return reply(http.StatusOK, map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": int(v.life.Seconds())})
	}
	access, refresh := v.pair(t.grant)
	return reply(http.StatusOK, map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": int(v.life.Seconds()), "refresh_token": refresh})
}

// grantAgain gives the successor once more.
func (v *vendor) grantAgain(g *grant) *http.Response {
	v.count++
	access := fmt.Sprintf("at-%d", v.count)
	v.access[access] = &accessToken{grant: g, until: v.now().Add(v.life)}
	return reply(http.StatusOK, map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": int(v.life.Seconds()), "refresh_token": g.current})
}

func reply(status int, doc any) *http.Response {
	body := []byte{}
	if doc != nil {
		body, _ = json.Marshal(doc) // strings and numbers
	}
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body))}
}
