// Package authserver is the authorization server of the test world: an OpenID provider for the company and an
// OAuth server for vendors, from one code with two brandings. It stands on zitadel/oidc with a storage of its own,
// is strict where the specifications are (PKCE with S256, exact redirect URIs, single-use codes, rotation that ends
// the whole family on reuse) and can be made to misbehave on purpose. It keeps everything it ever issued, so that a
// test can look for it elsewhere. It trusts nobody's clock but its own and is no place for real users.
package authserver

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"
)

// User is an account of this server.
type User struct {
	ID       string // the subject; the user name where empty
	Name     string // what is typed at sign-in
	Password string
	FullName string
	Email    string
	Groups   []string
}

// Client is a registered client. One without a secret is public.
type Client struct {
	ID           string
	Secret       string
	Name         string   // shown on the consent page; the id where empty
	RedirectURIs []string // compared exactly (RFC 9700 section 2.1)
	Audiences    []string // what client_credentials may ask tokens for; empty: this grant is refused
}

// Scope is something a client may ask for, with the words that the consent page uses.
type Scope struct {
	Name  string
	Words string
}

// Rotation says what becomes of a refresh token that was used.
type Rotation string

const (
	RotationNone   Rotation = "none"   // it stays as it is
	RotationGrace  Rotation = "grace"  // it is replaced, and within the grace gives its successor again
	RotationStrict Rotation = "strict" // it is replaced, and used again it ends the whole family (RFC 9700 section 4.14.2)
)

// Config describes a server. Zero values are replaced by the stated defaults.
type Config struct {
	Issuer  string // base URL, without a slash at the end; required
	Brand   string // name on the pages
	Users   []User
	Clients []Client
	Scopes  []Scope // beyond those of OpenID Connect

	Consent bool   // ask the user before a code is given out
	OpenID  bool   // ID tokens and userinfo; without it this is plain OAuth
	Prefix  string // of opaque tokens, for the look of a vendor: "tro" gives tro_at_…, tro_rt_…

	Rotation        Rotation      // default strict
	Grace           time.Duration // default 30 s, for RotationGrace
	OldAccessDies   bool          // a refresh ends the access token it replaces
	AccessLifetime  time.Duration // default 5 min
	RefreshLifetime time.Duration // default 12 h
	Now             func() time.Time
}

// Server is an authorization server. Its methods are safe for concurrent use.
type Server struct {
	cfg      Config
	provider *op.Provider
	keys     *keyring
	handler  http.Handler

	// mu owns everything below.
	mu       sync.Mutex
	faults   Faults
	users    map[string]*account // by subject
	clients  map[string]Client
	sessions map[string]string       // cookie -> subject
	requests map[string]*authRequest // by id
	codes    map[string]*authRequest
	partners map[string]string // issuer of another authorization server -> how clients of this one are called there
	ledger
}

type account struct {
	User
	dismissed bool
}

// New makes a server; it listens on nothing by itself.
func New(cfg Config) (*Server, error) {
	if u, err := url.Parse(cfg.Issuer); err != nil || u.Host == "" {
		return nil, fmt.Errorf("issuer %q is no absolute URL", cfg.Issuer)
	}
	cfg = withDefaults(cfg)
	keys, err := newKeyring()
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, keys: keys,
		users: map[string]*account{}, clients: map[string]Client{}, sessions: map[string]string{},
		requests: map[string]*authRequest{}, codes: map[string]*authRequest{}, partners: map[string]string{}, ledger: newLedger(),
	}
	for _, u := range cfg.Users {
		s.AddUser(u)
	}
	for _, c := range cfg.Clients {
		s.AddClient(c)
	}
	s.provider, err = op.NewProvider(&op.Config{CodeMethodS256: true, AuthMethodPost: true, GrantTypeRefreshToken: true},
		&storage{s}, s.issuerForTokens, op.WithAllowInsecure(), op.WithCrypto(&vendorTokens{s}))
	if err != nil {
		return nil, fmt.Errorf("set up the OpenID provider: %w", err)
	}
	s.handler = s.routes()
	return s, nil
}

func withDefaults(cfg Config) Config {
	if cfg.Brand == "" {
		cfg.Brand = "Login"
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "tok"
	}
	if cfg.Rotation == "" {
		cfg.Rotation = RotationStrict
	}
	if cfg.Grace == 0 {
		cfg.Grace = 30 * time.Second
	}
	if cfg.AccessLifetime == 0 {
		cfg.AccessLifetime = 5 * time.Minute
	}
	if cfg.RefreshLifetime == 0 {
		cfg.RefreshLifetime = 12 * time.Hour
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return cfg
}

// ServeHTTP answers the protocol endpoints and the pages.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// AddUser adds or replaces an account.
func (s *Server) AddUser(u User) {
	if u.ID == "" {
		u.ID = u.Name
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users[u.ID] = &account{User: u}
}

// AddClient adds or replaces a client, so that one can be registered whose address was not known at the start.
func (s *Server) AddClient(c Client) {
	if c.Name == "" {
		c.Name = c.ID
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients[c.ID] = c
}

// SetGroups replaces a user's groups; the next ID token and userinfo tell.
func (s *Server) SetGroups(user string, groups ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(user)
	if err != nil {
		return err
	}
	a.Groups = groups
	return nil
}

// Dismiss ends a user: browser sessions and refresh tokens stop at once, sign-in is refused. An access token that is
// a JWT lives to its expiry, as everywhere.
func (s *Server) Dismiss(user string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(user)
	if err != nil {
		return err
	}
	a.dismissed = true
	for cookie, subject := range s.sessions {
		if subject == a.ID {
			delete(s.sessions, cookie)
		}
	}
	s.endUser(a.ID)
	return nil
}

// Reinstate undoes Dismiss; what was ended stays so.
func (s *Server) Reinstate(user string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(user)
	if err != nil {
		return err
	}
	a.dismissed = false
	return nil
}

// SignOut ends the browser sessions of a user, so that the next visit asks for the password again.
func (s *Server) SignOut(user string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, err := s.account(user)
	if err != nil {
		return err
	}
	for cookie, subject := range s.sessions {
		if subject == a.ID {
			delete(s.sessions, cookie)
		}
	}
	return nil
}

// account finds a user by subject or name. The caller holds mu.
func (s *Server) account(user string) (*account, error) {
	if a, ok := s.users[user]; ok {
		return a, nil
	}
	for _, a := range s.users {
		if a.Name == user {
			return a, nil
		}
	}
	return nil, fmt.Errorf("%s has no user %q", s.cfg.Brand, user)
}

// scopeKnown reports whether a client may ask for this scope.
func (s *Server) scopeKnown(name string) bool {
	return slices.ContainsFunc(s.cfg.Scopes, func(sc Scope) bool { return sc.Name == name })
}

// random is an unguessable value of 26 letters and digits.
func random() string { return rand.Text() }
