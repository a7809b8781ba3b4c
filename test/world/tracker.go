package world

import (
	"net/http"
	"slices"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/test/world/authserver"
)

// Scopes of the tracker's API.
const (
	ScopeRead  = "issues:read"
	ScopeWrite = "issues:write"
)

// TrackerConfig describes the vendor. Its zero value works, but for the redirect URI of Frontdesk, which may be given
// later by Register.
type TrackerConfig struct {
	Listen       string   // address; any free loopback port where empty
	RedirectURIs []string // of the client `frontdesk`
	Secret       string   // of the client `frontdesk`; FrontdeskSecret where empty

	Rotation       authserver.Rotation // strict where empty
	Grace          time.Duration       // 30 s where 0
	OldAccessDies  bool                // a refresh ends the access token it replaces
	AccessLifetime time.Duration       // 5 min where 0
	Now            func() time.Time
}

// Tracker is a vendor: an issue tracker with its own users, its own authorization server at its root, and an API for
// each user at /api. The methods of authserver.Server count redemptions, expire tokens and set faults, which the API
// meets too.
type Tracker struct {
	*authserver.Server
	*party
	Ambush Ambush // at the token endpoint
	secret string

	mu     sync.Mutex // owns what follows
	issues map[string][]Issue
	next   int
	keys   map[string]authserver.Credential
	calls  []APICall
}

// APICall is one request to the API, as the vendor saw it.
type APICall struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	User   string `json:"user"` // "" where the credential was refused
	Status int    `json:"status"`
}

// Issue is what the tracker tracks. Each belongs to one user, and nobody else sees it.
type Issue struct {
	Number int    `json:"number"`
	Title  string `json:"title"`
	Body   string `json:"body,omitempty"`
	Author string `json:"author"`
}

// NewTracker starts one, with two issues for each user.
func NewTracker(cfg TrackerConfig) (*Tracker, error) {
	p, err := listen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	if cfg.Secret == "" {
		cfg.Secret = FrontdeskSecret
	}
	server, err := authserver.New(authserver.Config{
		Issuer: p.url, Brand: "Tracker", Users: Customers(), Consent: true, Prefix: "tro",
		Scopes: []authserver.Scope{
			{Name: ScopeRead, Words: "Read your issues"},
			{Name: ScopeWrite, Words: "Create and delete your issues"},
		},
		Rotation: cfg.Rotation, Grace: cfg.Grace, OldAccessDies: cfg.OldAccessDies,
		AccessLifetime: cfg.AccessLifetime, Now: cfg.Now,
	})
	if err != nil {
		_ = p.ln.Close()
		return nil, err
	}
	t := &Tracker{
		Server: server, party: p, secret: cfg.Secret,
		issues: map[string][]Issue{}, next: 1, keys: map[string]authserver.Credential{},
	}
	t.Register(cfg.RedirectURIs...)
	for _, u := range Customers() {
		t.add(u.ID, "Printer on floor 3 is on fire", "It was not me.")
		t.add(u.ID, "Coffee machine answers 418", "Seen by "+u.FullName+".")
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", server.Misbehave(t.api()))
	mux.Handle("/", t.Ambush.around("/oauth/token", server))
	p.serve(mux)
	return t, nil
}

// Register says to which addresses the client `frontdesk` may be sent back; it replaces what was said before.
func (t *Tracker) Register(redirectURIs ...string) {
	t.AddClient(authserver.Client{ID: FrontdeskClient, Secret: t.secret, Name: "Frontdesk", RedirectURIs: redirectURIs})
}

// URL is the vendor's base URL and its issuer.
func (t *Tracker) URL() string { return t.party.URL() }

// API is the base URL of the REST API.
func (t *Tracker) API() string { return t.URL() + "/api" }

// NewAPIKey makes a key (trk_…) with which anybody acts as this user until EndAPIKey.
func (t *Tracker) NewAPIKey(user string, scopes ...string) string {
	key := "trk_" + random()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keys[key] = authserver.Credential{User: user, Client: "api key", Scopes: scopes}
	return key
}

// EndAPIKey makes a key worthless.
func (t *Tracker) EndAPIKey(key string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.keys, key)
}

// Calls is every request to the API so far.
func (t *Tracker) Calls() []APICall {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.calls)
}

// Issues are a user's, as he would see them.
func (t *Tracker) Issues(user string) []Issue {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.issues[user])
}

// add files an issue.
func (t *Tracker) add(user, title, body string) Issue {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := Issue{Number: t.next, Title: title, Body: body, Author: user}
	t.next++
	t.issues[user] = append(t.issues[user], i)
	return i
}
