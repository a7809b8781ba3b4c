// Package signals hears from the company whose access has ended: logouts and security events of its IdP, and the removal of
// people by its directory.
//
// It speaks OpenID Connect Back-Channel Logout 1.0, security event tokens pushed by RFC 8935 or asked for by RFC 8936 (CAEP and RISC events), and
// of SCIM 2.0 what deprovisioning needs. It believes a token that the configured issuer signed for us, once, and a
// directory that knows the configured bearer token, whose digest alone is held here. What ends is package ending's business.
package signals

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/ending"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/jwt"
	"frontdesk.dev/frontdesk/internal/kit/web"
)

// Office ends (ending.Office).
type Office interface {
	Departures
	Access(ctx context.Context, t identity.Tenant, w ending.Whose, until time.Time, why string) error
	Revoke(ctx context.Context, t identity.Tenant, w ending.Whose, why string) (int, error)
	SignIn(ctx context.Context, t identity.Tenant, idp, sid, why string) error
}

// Departures are people who go, and come back.
type Departures interface {
	Depart(ctx context.Context, u identity.User, gone identity.Gone, at time.Time, why string) error
	Return(ctx context.Context, u identity.User, at time.Time, why string) error
}

// Events are security event tokens (RFC 8417) that a transmitter pushes, or gives when it is asked.
type Events struct {
	Issuer   string // exactly the `iss`
	Audience string // exactly the `aud`
	Keys     jwt.Keys
	Token    [32]byte // SHA-256 of the bearer token that it presents
	Email    bool     // subjects named by their e-mail address alone are believed
	Revoke   bool     // connections end at vendors too
	Stream   *Stream  // nil: they are pushed, and nobody looks after the stream
}

// Directory is who may remove people by SCIM.
type Directory struct {
	Token [32]byte // SHA-256 of the bearer token
	// UserName says what of a person `userName` is: "email" or "subject".
	UserName string
	Revoke   bool // connections of somebody who is only disabled end too
}

// Receiver hears for one tenant and its IdP. All fields are required but Events and Directory.
type Receiver struct {
	Tenant    identity.Tenant
	IDP       *identity.IdP
	Logout    bool // back-channel logout is heard
	Events    *Events
	Directory *Directory
	Office    Office
	People    ending.People
	Users     identity.Users
	Messages  ending.Messages
	URL       func(path string) string // public URL of a path of this tenant
	Log       *slog.Logger
	Now       func() time.Time

	asked web.Rate
}

// Mount adds the routes under the tenant's prefix.
func (s *Receiver) Mount(mux *http.ServeMux, prefix string) {
	if s.Logout {
		mux.HandleFunc("POST "+prefix+"/backchannel-logout/"+s.IDP.Name, s.limited(s.logout))
	}
	if s.Events != nil && s.Events.Token != [32]byte{} {
		mux.HandleFunc("POST "+prefix+"/events/"+s.IDP.Name, s.limited(s.push))
	}
	if s.Directory != nil {
		s.mountSCIM(mux, prefix+"/scim/v2")
	}
}

const (
	perMinute   = 1200 // of one address: a directory that removes a department
	maxBody     = 64 << 10
	keepLogouts = 25 * time.Hour // longer than a logout token may live
)

// limited counts before anything is read or verified.
func (s *Receiver) limited(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		if !s.asked.Allow(web.Address(r), s.Now(), time.Minute, perMinute) {
			w.Header().Set("Retry-After", "60")
			http.Error(w, "too many requests", http.StatusTooManyRequests)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		h(w, r)
	}
}

// bears compares the request's bearer token with the one whose digest is known. No digest is equal to none.
func bears(r *http.Request, want [32]byte) bool {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	got := sha256.Sum256([]byte(token))
	return ok && strings.EqualFold(scheme, "Bearer") && token != "" && want != [32]byte{} && len(r.Header.Values("Authorization")) == 1 && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}

// message is the key under which a token is remembered: who sent it, and his name for it.
func message(kind, issuer, id string) []byte {
	h := sha256.Sum256([]byte(kind + "\x00" + issuer + "\x00" + id))
	return h[:]
}

// Listening runs what receivers do by themselves. A new config replaces them. Its zero value is ready for use.
type Listening struct {
	mu      sync.Mutex
	to      []*Receiver   // guarded by mu
	changed chan struct{} // guarded by mu: closed when to changes
}

// Use makes these the ones that run.
func (l *Listening) Use(to []*Receiver) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to = to; l.changed != nil {
		close(l.changed)
	}
	l.changed = make(chan struct{})
}

// Run runs them until ctx ends.
func (l *Listening) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		l.mu.Lock()
		to, changed := l.to, l.changed
		l.mu.Unlock()
		round, stop := context.WithCancel(ctx)
		var g sync.WaitGroup
		for _, r := range to {
			g.Go(func() { r.Run(round) })
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
		stop()
		g.Wait()
	}
	return nil
}
