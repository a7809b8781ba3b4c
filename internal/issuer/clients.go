package issuer

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/web"
)

//go:embed redirects.txt
var shippedRedirects string

// Registry knows clients: those of the config, those that registered dynamically, and those whose client_id is the URL of
// their metadata document.
type Registry struct {
	Store   Clients
	Fetch   oauth.Doer // to public addresses only
	Now     func() time.Time
	Dynamic bool

	config    atomic.Pointer[configured]
	mu        sync.Mutex // guards what follows
	documents map[documentKey]document

	hosts     web.Rate // of documents that were asked for
	sources   web.Rate // of addresses that made us ask
	registers web.Rate // of addresses that registered
	tenants   web.Rate // at which was registered: apart, since many addresses make a Rate forget
}

type configured struct {
	clients   map[identity.Tenant]map[identity.ClientID]Client
	redirects []string
}

// UseConfig makes these the operator's clients, and these the redirect URIs that dynamic clients may have beside loopback.
func (g *Registry) UseConfig(clients []Client, redirects []string) {
	c := &configured{clients: map[identity.Tenant]map[identity.ClientID]Client{}, redirects: slices.Clone(redirects)}
	for _, k := range clients {
		if c.clients[k.Tenant] == nil {
			c.clients[k.Tenant] = map[identity.ClientID]Client{}
		}
		k.How = RegisteredConfig
		c.clients[k.Tenant][k.ID] = k
	}
	for line := range strings.Lines(shippedRedirects) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			c.redirects = append(c.redirects, line)
		}
	}
	g.config.Store(c)
}

var errClient = refuse(oauth.CodeInvalidClient, "this client is not known here; register it again, or ask an operator")

// Client finds a client. The address is whose request wants to know: what is fetched for it is counted against it.
func (g *Registry) Client(ctx context.Context, t identity.Tenant, id identity.ClientID, address string) (Client, error) {
	if c := g.config.Load(); c != nil {
		if k, ok := c.clients[t][id]; ok {
			return k, nil
		}
	}
	if strings.HasPrefix(string(id), "https://") {
		return g.document(ctx, t, string(id), address)
	}
	k, err := g.Store.Client(ctx, t, id)
	if fault.KindOf(err) == fault.NotFound {
		return Client{}, errClient
	}
	return k, err
}

// secretMatches reports whether the secret is the confidential client's.
func (c Client) secretMatches(presented string) bool {
	sum := sha256.Sum256([]byte(presented))
	return len(c.SecretHash) > 0 && subtle.ConstantTimeCompare(sum[:], c.SecretHash) == 1
}

// allowsRedirect compares byte for byte; a loopback address may have any port, and nothing else (RFC 8252 section 7.3).
func (c Client) allowsRedirect(uri string) bool {
	return slices.ContainsFunc(c.RedirectURIs, func(registered string) bool {
		return uri == registered || sameButPort(registered, uri)
	})
}

// trusts reports whether a browser may be sent to a client's address before its person has said anything: to this machine, and to where an
// operator, or the shipped list, says. A document names what its publisher likes, and a link to us would lead there (RFC 9700 section 4.11.2).
func (g *Registry) trusts(c Client, redirect string) bool {
	_, here := loopback(redirect)
	return here || c.How == RegisteredConfig || g.listed(redirect)
}

func sameButPort(registered, uri string) bool {
	a, aok := loopback(registered)
	b, bok := loopback(uri)
	return aok && bok && a == b
}

// loopback returns the URI without its port if it is plain http to this machine, spelled as RFC 8252 says.
func loopback(uri string) (string, bool) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "http" || u.User != nil || u.Fragment != "" || strings.Contains(uri, "#") || u.Opaque != "" {
		return "", false
	}
	host := u.Hostname()
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return "", false
	}
	if !strings.HasPrefix(uri, "http://"+u.Host) || strings.ContainsAny(u.EscapedPath(), "\\") || strings.Contains(u.Path, "/..") {
		return "", false
	}
	return host + " " + strings.TrimPrefix(uri, "http://"+u.Host), true
}

// registrationRequest is what we read of RFC 7591 section 2; the rest has no meaning here.
type registrationRequest struct {
	Name         string   `json:"client_name"`
	URI          string   `json:"client_uri"`
	RedirectURIs []string `json:"redirect_uris"`
	AuthMethod   string   `json:"token_endpoint_auth_method"`
	GrantTypes   []string `json:"grant_types"`
	Responses    []string `json:"response_types"`
}

const (
	maxRedirects      = 10
	registersPerHour  = 30   // of one address
	registersOfTenant = 1000 // an hour; those that are never used die within a day, so that no flood fills the database
	documentsPerMin   = 10   // of one host, and for one address
	maxName           = 256  // bytes that are kept of a client's name
	maxURI            = 2048
	unusedLife        = 24 * time.Hour
	documentTimeout   = 5 * time.Second
	maxDocument       = 5 << 10
	documentFreshMin  = 5 * time.Minute
	documentFreshMax  = 24 * time.Hour
	documentCooldown  = 10 * time.Second
	maxDocuments      = 10_000
	invalidMetadata   = "invalid_client_metadata"
	invalidRedirect   = "invalid_redirect_uri"
	registrationHelp  = "an operator can add it under clients.redirects in the config, or register the client under clients.registered"
	registrationPlace = "clients.dynamic"
)

// register is RFC 7591 for public clients alone. What is registered proves nothing: consent shows it as unverified.
func (s *Server) register(w http.ResponseWriter, r *http.Request, t identity.Tenant) error {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	if !s.Clients.Dynamic {
		return refuse(invalidMetadata, "dynamic registration is off here ("+registrationPlace+"); use a client ID metadata document, or ask an operator")
	}
	if !s.Clients.registers.Allow(web.Address(r), s.Now(), time.Hour, registersPerHour) || !s.Clients.tenants.Allow(string(t), s.Now(), time.Hour, registersOfTenant) {
		return slow("too many registrations from this address, or here; try again later", time.Hour/registersPerHour)
	}
	var q registrationRequest
	if err := json.UnmarshalRead(r.Body, &q); err != nil { // exact names, no duplicates
		return refuse(invalidMetadata, "the body is not a JSON object of client metadata")
	}
	if q.AuthMethod != "" && q.AuthMethod != "none" {
		return refuse(invalidMetadata, "only public clients can register: token_endpoint_auth_method must be none; an operator can register others under clients.registered")
	}
	if len(q.RedirectURIs) == 0 || len(q.RedirectURIs) > maxRedirects {
		return refuse(invalidRedirect, "name 1 to 10 redirect_uris")
	}
	for _, u := range q.RedirectURIs {
		if _, ok := loopback(u); (!ok && !s.Clients.listed(u)) || len(u) > maxURI {
			return refuse(invalidRedirect, "a redirect URI is neither loopback nor on the list of known clients; "+registrationHelp)
		}
	}
	if len(q.URI) > maxURI {
		return refuse(invalidMetadata, "client_uri is too long")
	}
	q.Name = strings.ToValidUTF8(q.Name[:min(len(q.Name), maxName)], "")
	id := make([]byte, 16)
	if _, err := io.ReadFull(rand.Reader, id); err != nil {
		return err
	}
	c := Client{Tenant: t, ID: identity.ClientID("dyn-" + base64.RawURLEncoding.EncodeToString(id)), Name: q.Name, URI: q.URI, RedirectURIs: q.RedirectURIs,
		How: RegisteredDynamic, Created: s.Now()}
	if err := s.Clients.Store.PutClient(r.Context(), c); err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, map[string]any{"client_id": c.ID, "client_id_issued_at": c.Created.Unix(), "client_name": c.Name, "redirect_uris": c.RedirectURIs,
		"token_endpoint_auth_method": "none", "grant_types": []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken}, "response_types": []string{"code"}, "scope": scopeMCP})
	return nil
}

// listed reports whether a redirect URI is, byte for byte, one of the known clients'.
func (g *Registry) listed(uri string) bool { return slices.Contains(g.config.Load().redirects, uri) }

func slow(said string, after time.Duration) error {
	return &fault.Error{Kind: fault.RateLimited, Msg: said, RetryAfter: after}
}

// Run drops dynamic clients that were never used.
func (g *Registry) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if _, err := g.Store.DropUnused(ctx, g.Now().Add(-unusedLife)); err != nil && ctx.Err() == nil && fault.KindOf(err) != fault.Unavailable {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
