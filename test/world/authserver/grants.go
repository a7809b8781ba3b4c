package authserver

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// Issued is a value that this server once gave out, kept for searches after leaks.
type Issued struct {
	Kind  string `json:"kind"` // access, refresh, code
	User  string `json:"user"`
	Value string `json:"value"`
}

// Redemption is one attempt to use a refresh token.
type Redemption struct {
	Token   string    `json:"token"`
	User    string    `json:"user"`
	At      time.Time `json:"at"`
	Outcome Outcome   `json:"outcome"`
}

// Outcome says what a redemption came to.
type Outcome string

const (
	Renewed    Outcome = "renewed"     // a new access token, and with rotation a new refresh token
	GraceAgain Outcome = "grace again" // used before, inside the grace
	Reused     Outcome = "reused"      // used before; the family is ended
	Ended      Outcome = "ended"       // the family had been ended, or the token had expired
	Unknown    Outcome = "unknown"     // never issued here
	Forced     Outcome = "forced"      // FailNextRefresh said so
)

// Credential is what an access token stands for.
type Credential struct {
	User   string
	Client string
	Scopes []string
}

// family is what began with one consent: every token that descends from it.
type family struct {
	client, subject  string
	scopes, audience []string
	amr              []string
	authTime         time.Time
	current          string // the refresh token that is good now
	ended            bool
}

type accessToken struct {
	id, value string
	family    *family
	scopes    []string
	expires   time.Time
	ended     bool
}

type refreshToken struct {
	value   string
	family  *family
	expires time.Time
	usedAt  time.Time // zero: not yet
}

// ledger is every token there ever was, and what became of it.
type ledger struct {
	access   map[string]*accessToken  // by id
	opaque   map[string]string        // what zitadel/oidc had encrypted, by the random value given out for it
	refresh  map[string]*refreshToken // by value
	failNext map[string]bool          // subjects whose next refresh fails
	issued   []Issued
	redeemed []Redemption
}

func newLedger() ledger {
	return ledger{access: map[string]*accessToken{}, opaque: map[string]string{}, refresh: map[string]*refreshToken{}, failNext: map[string]bool{}}
}

// refreshRequest is a refresh in the shape that zitadel/oidc asks for.
type refreshRequest struct {
	*family
	asked []string
}

func (r *refreshRequest) GetAMR() []string            { return r.amr }
func (r *refreshRequest) GetAudience() []string       { return r.audience }
func (r *refreshRequest) GetAuthTime() time.Time      { return r.authTime }
func (r *refreshRequest) GetClientID() string         { return r.client }
func (r *refreshRequest) GetScopes() []string         { return r.asked }
func (r *refreshRequest) GetSubject() string          { return r.subject }
func (r *refreshRequest) SetCurrentScopes(s []string) { r.asked = s }

// familyOf is what this request's tokens belong to, begun here by a code. A second redemption of one code ends what
// the first one got (RFC 6749 section 4.1.2). The caller holds mu.
func (s *Server) familyOf(request op.TokenRequest) (*family, []string, error) {
	switch r := request.(type) {
	case *authRequest:
		if r.family != nil {
			s.end(r.family)
			return nil, nil, oidc.ErrInvalidGrant().WithDescription("the code was used before")
		}
		r.family = &family{
			client: r.ClientID, subject: r.subject, scopes: r.scopes, audience: []string{r.ClientID},
			amr: r.GetAMR(), authTime: r.authTime,
		}
		return r.family, r.scopes, nil
	case *refreshRequest:
		return r.family, r.asked, nil
	}
	return nil, nil, fmt.Errorf("tokens for a %T are not given here", request)
}

// newAccess records an access token; its value is set when zitadel/oidc has it encrypted. The caller holds mu.
func (s *Server) newAccess(f *family, scopes []string) (string, time.Time) {
	t := &accessToken{id: random(), family: f, scopes: scopes, expires: s.cfg.Now().Add(s.cfg.AccessLifetime)}
	s.access[t.id] = t
	return t.id, time.Now().UTC().Add(s.cfg.AccessLifetime)
}

// newRefresh records a refresh token as the family's good one. The caller holds mu.
func (s *Server) newRefresh(f *family) string {
	t := &refreshToken{value: s.cfg.Prefix + "_rt_" + random(), family: f, expires: s.cfg.Now().Add(s.cfg.RefreshLifetime)}
	s.refresh[t.value] = t
	f.current = t.value
	s.issued = append(s.issued, Issued{Kind: "refresh", User: f.subject, Value: t.value})
	return t.value
}

var errNoGrant = errors.New("not a refresh token that is good here")

// redeemable looks a refresh token up and writes down every refusal. The caller holds mu.
func (s *Server) redeemable(value string) (*refreshToken, error) {
	t, ok := s.refresh[value]
	if !ok {
		s.redeemed = append(s.redeemed, Redemption{Token: value, At: s.cfg.Now(), Outcome: Unknown})
		return nil, errNoGrant
	}
	if s.failNext[t.family.subject] {
		delete(s.failNext, t.family.subject)
		s.count(t, Forced)
		return nil, errNoGrant
	}
	if t.family.ended || s.cfg.Now().After(t.expires) {
		s.count(t, Ended)
		return nil, errNoGrant
	}
	return t, nil
}

// redeem uses a refresh token and gives the one to use next. The caller holds mu.
func (s *Server) redeem(value string) (string, error) {
	t, err := s.redeemable(value)
	if err != nil {
		return "", oidc.ErrInvalidGrant().WithParent(err)
	}
	now := s.cfg.Now()
	switch {
	case s.cfg.Rotation == RotationNone:
		s.count(t, Renewed)
		return value, nil
	case t.usedAt.IsZero():
		t.usedAt = now
		s.count(t, Renewed)
		if s.cfg.OldAccessDies {
			s.endAccess(t.family)
		}
		return s.newRefresh(t.family), nil
	case s.cfg.Rotation == RotationGrace && now.Sub(t.usedAt) <= s.cfg.Grace:
		s.count(t, GraceAgain)
		return t.family.current, nil
	default:
		s.count(t, Reused)
		s.end(t.family)
		return "", oidc.ErrInvalidGrant().WithDescription("the refresh token was used before")
	}
}

func (s *Server) count(t *refreshToken, o Outcome) {
	s.redeemed = append(s.redeemed, Redemption{Token: t.value, User: t.family.subject, At: s.cfg.Now(), Outcome: o})
}

func (s *Server) end(f *family) {
	f.ended = true
	s.endAccess(f)
}

func (s *Server) endAccess(f *family) {
	for _, t := range s.access {
		if t.family == f {
			t.ended = true
		}
	}
}

func (s *Server) endUser(subject string) {
	for _, t := range s.refresh {
		if t.family.subject == subject {
			s.end(t.family)
		}
	}
	for _, t := range s.access {
		if t.family.subject == subject {
			t.ended = true
		}
	}
}

// FailNextRefresh makes the next refresh of this user fail once with invalid_grant, whatever its token.
func (s *Server) FailNextRefresh(user string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(user)
	if err != nil {
		return err
	}
	s.failNext[a.ID] = true
	return nil
}

// Authenticate says whose access token this is, or that it is none that is good now.
func (s *Server) Authenticate(value string) (Credential, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, _, ok := strings.Cut(s.opaque[value], ":")
	t := s.access[id]
	if !ok || t == nil || t.ended || !s.cfg.Now().Before(t.expires) {
		return Credential{}, false
	}
	return Credential{User: t.family.subject, Client: t.family.client, Scopes: t.scopes}, true
}

// ExpireAccess lets every access token of a user expire now; refresh tokens stay.
func (s *Server) ExpireAccess(user string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(user)
	if err != nil {
		return err
	}
	for _, t := range s.access {
		if t.family.subject == a.ID {
			t.expires = s.cfg.Now()
		}
	}
	return nil
}

// Withdraw ends every token of a user, as when he takes the consent back at the vendor.
func (s *Server) Withdraw(user string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(user)
	if err != nil {
		return err
	}
	s.endUser(a.ID)
	return nil
}

// Tokens is every code, access and refresh token ever given out, in order.
func (s *Server) Tokens() []Issued {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.issued)
}

// Redemptions is every attempt to use a refresh token, in order.
func (s *Server) Redemptions() []Redemption {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.redeemed)
}

func (s *Server) note(i Issued) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.issued = append(s.issued, i)
}

// vendorTokens gives out random values where zitadel/oidc would encrypt "token id:subject" or an authorization
// request's id: they look like a vendor's, and each is on record.
type vendorTokens struct{ s *Server }

func (v *vendorTokens) Encrypt(plain string) (string, error) {
	s := v.s
	s.mu.Lock()
	defer s.mu.Unlock()
	id, subject, isToken := strings.Cut(plain, ":")
	value, kind := s.cfg.Prefix+"_code_"+random(), "code"
	if isToken {
		value, kind = s.cfg.Prefix+"_at_"+random(), "access"
		if t := s.access[id]; t != nil {
			t.value = value
		}
	} else if r := s.requests[id]; r != nil {
		subject = r.subject
	}
	s.opaque[value] = plain
	s.issued = append(s.issued, Issued{Kind: kind, User: subject, Value: value})
	return value, nil
}

func (v *vendorTokens) Decrypt(value string) (string, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	plain, ok := v.s.opaque[value]
	if !ok {
		return "", errors.New("not issued here")
	}
	return plain, nil
}
