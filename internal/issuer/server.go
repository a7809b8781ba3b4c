package issuer

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/connect/discovery"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/web"
)

// Server is the authorization server of every tenant. All exported fields are required.
type Server struct {
	URL     func(t identity.Tenant, path string) string // public URL of a path; of "" the issuer itself
	Catalog *catalog.Catalog
	Clients *Registry
	Grants  Grants
	Flows   broker.Flows
	Notary  broker.Notary
	Keys    PublicKeys
	Epochs  *identity.Epochs
	Offers  Offers
	Given   ConsentStore
	Browser Browser
	Pages   Pages
	Log     *slog.Logger
	Now     func() time.Time

	guessing guessing
}

// PublicKeys publishes what our tokens are verified with.
type PublicKeys interface {
	JWKS(ctx context.Context, t identity.Tenant) ([]byte, error)
}

// Offers knows what could be connected in the same visit (visits.Desk).
type Offers interface {
	// Door lists the upstreams of the server that the visitor could connect now.
	Door(ctx context.Context, v connect.Visitor, s *catalog.Server) ([]catalog.UpstreamName, error)
}

// Browser knows the person in front of it, and keeps what a page must bring back unchanged.
type Browser interface {
	// Session returns the signed-in person; false sends him to sign in.
	Session(r *http.Request) (web.Session, bool)
	// Binding is the digest of a cookie that this browser alone has.
	Binding(w http.ResponseWriter, r *http.Request) []byte
	Seal(purpose string, aad, plain []byte) string
	Open(purpose string, aad []byte, sealed string) ([]byte, error)
}

// Pages shows what people see.
type Pages interface {
	Consent(w http.ResponseWriter, r *http.Request, c Consent)
	// Leave sends the browser on to another site, by a page of our own: a form's answer may not redirect there itself.
	Leave(w http.ResponseWriter, r *http.Request, to string)
	Wrong(w http.ResponseWriter, r *http.Request, status int, err error)
	// Forms refuses forms that are not sent by our own pages.
	Forms(next http.Handler) http.Handler
}

// Consent is the question to a person: let this client use this server as you? Strings of the client's are foreign.
type Consent struct {
	ClientName   string
	ClientHost   string // who stands behind it: the host of its document, or of its redirect
	RedirectHost string
	Registration Registration
	Visitor      connect.Visitor
	Client       identity.ClientID
	Server       string
	Upstreams    []string
	Person       string
	Ticket       string // sealed; posted back with the decision
	Until        time.Time
	Before       time.Time // when the person last said yes to this; zero: never
	Changed      []string  // what has changed since, in words of ours
	Tools        Tools
}

// Tools are how many the person could call there, as far as the server's list is known; by what the server says of them.
type Tools struct{ Reads, Changes int }

const (
	codeLife    = time.Minute
	accessLife  = 4 * time.Minute
	familyLife  = 90 * 24 * time.Hour
	replayGrace = 10 * time.Second
	scopeMCP    = "mcp"
	scopeServer = "mcp:" // and a server's name
)

// Mount adds the issuer's routes for one tenant, whose path prefix is P.
func (s *Server) Mount(mux *http.ServeMux, t identity.Tenant, prefix string) {
	for _, well := range []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"} {
		mux.HandleFunc("GET "+well+prefix, s.at(t, s.metadata))
	}
	if prefix != "" {
		mux.HandleFunc("GET "+prefix+"/.well-known/openid-configuration", s.at(t, s.metadata))
	}
	mux.HandleFunc("GET "+prefix+"/jwks", s.at(t, s.jwks))
	mux.HandleFunc("GET "+prefix+discovery.DocumentPath+"{upstream}", s.at(t, s.document))
	mux.HandleFunc("GET "+prefix+discovery.DocumentPath+"{upstream}"+discovery.DocumentWithKey, s.at(t, s.document))
	mux.HandleFunc("POST "+prefix+"/register", s.at(t, s.register))
	mux.HandleFunc("GET "+prefix+"/authorize", s.at(t, s.authorize))
	mux.Handle("POST "+prefix+"/authorize", s.Pages.Forms(s.at(t, s.decide)))
	mux.HandleFunc("GET "+prefix+"/authorize/finish", s.at(t, s.finish))
	mux.HandleFunc("POST "+prefix+"/token", s.at(t, s.token))
	mux.HandleFunc("POST "+prefix+"/revoke", s.at(t, s.revoke))
}

type handler func(w http.ResponseWriter, r *http.Request, t identity.Tenant) error

// at is the one switch from errors to the issuer's wire: JSON for machines (RFC 6749 section 5.2), a page for people.
func (s *Server) at(t identity.Tenant, h handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		w.Header().Set("Cache-Control", "no-store") // redirects too: they hold codes, and what is meant for one browser
		err := h(w, r, t)
		if err == nil {
			return
		}
		if strings.HasSuffix(r.URL.Path, "/authorize") || strings.HasSuffix(r.URL.Path, "/authorize/finish") {
			err = asPage(err)
			s.Pages.Wrong(w, r, pageStatus(err), err)
			return
		}
		if e, ok := errors.AsType[*oauthError](err); ok {
			s.answer(w, e)
			return
		}
		s.answer(w, s.asOAuth(err))
	}
}

const maxBody = 64 << 10

// oauthError is an error of the token, registration and revocation endpoints.
type oauthError struct {
	status      int
	code        string
	description string
	after       time.Duration
}

func (e *oauthError) Error() string { return e.code + ": " + e.description }

func refuse(code, description string) error {
	status := http.StatusBadRequest
	if code == oauth.CodeInvalidClient {
		status = http.StatusUnauthorized
	}
	return &oauthError{status: status, code: code, description: description}
}

func (s *Server) asOAuth(err error) *oauthError {
	switch fault.KindOf(err) {
	case fault.Unavailable:
		return &oauthError{http.StatusServiceUnavailable, oauth.CodeTemporarilyUnavailable, fault.Message(err), max(fault.RetryAfter(err), time.Second)}
	case fault.RateLimited:
		return &oauthError{http.StatusTooManyRequests, oauth.CodeTemporarilyUnavailable, fault.Message(err), max(fault.RetryAfter(err), time.Second)}
	case fault.Internal:
		s.Log.Error("issuer", "error", err)
		return &oauthError{http.StatusInternalServerError, oauth.CodeServerError, fault.Message(err), 0}
	}
	return &oauthError{http.StatusBadRequest, oauth.CodeInvalidRequest, fault.Message(err), 0}
}

func pageStatus(err error) int {
	switch fault.KindOf(err) {
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.Internal:
		return http.StatusInternalServerError
	case fault.Denied, fault.Unauthenticated:
		return http.StatusForbidden
	case fault.RateLimited:
		return http.StatusTooManyRequests
	}
	return http.StatusBadRequest
}

func (s *Server) answer(w http.ResponseWriter, e *oauthError) {
	if e.status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Basic realm="frontdesk"`)
	}
	if e.after > 0 {
		w.Header().Set("Retry-After", web.Seconds(e.after))
	}
	writeJSON(w, e.status, map[string]string{"error": e.code, "error_description": e.description})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// The client went away if this fails: nobody is left to tell.
	_ = json.NewEncoder(w).Encode(v)
}

// metadata is RFC 8414 with RFC 9207 and client ID metadata documents; OpenID Connect discovery answers the same, for
// clients that look there.
func (s *Server) metadata(w http.ResponseWriter, _ *http.Request, t identity.Tenant) error {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	m := map[string]any{
		"issuer":                                         s.URL(t, ""),
		"authorization_endpoint":                         s.URL(t, "/authorize"),
		"token_endpoint":                                 s.URL(t, "/token"),
		"revocation_endpoint":                            s.URL(t, "/revoke"),
		"jwks_uri":                                       s.URL(t, "/jwks"),
		"scopes_supported":                               []string{scopeMCP},
		"response_types_supported":                       []string{"code"},
		"response_modes_supported":                       []string{"query"},
		"grant_types_supported":                          []string{oauth.GrantAuthorizationCode, oauth.GrantRefreshToken},
		"token_endpoint_auth_methods_supported":          []string{"none", "client_secret_basic", "client_secret_post"},
		"revocation_endpoint_auth_methods_supported":     []string{"none", "client_secret_basic", "client_secret_post"},
		"code_challenge_methods_supported":               []string{oauth.ChallengeMethod},
		"authorization_response_iss_parameter_supported": true,
		"client_id_metadata_document_supported":          true,
	}
	if s.Clients.Dynamic {
		m["registration_endpoint"] = s.URL(t, "/register")
	}
	writeJSON(w, http.StatusOK, m)
	return nil
}

func (s *Server) jwks(w http.ResponseWriter, r *http.Request, t identity.Tenant) error {
	set, err := s.Keys.JWKS(r.Context(), t)
	if err != nil {
		return err
	}
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Content-Type", "application/jwk-set+json")
	w.Header().Set("Cache-Control", "public, max-age=300")
	_, err = w.Write(set)
	return err
}

// document is Frontdesk as a client of an upstream's authorization server (draft-ietf-oauth-client-id-metadata-document): its address
// is our client_id there.
func (s *Server) document(w http.ResponseWriter, r *http.Request, t identity.Tenant) error {
	name := r.PathValue("upstream")
	if up := s.Catalog.Upstream(t, catalog.UpstreamName(name)); up == nil || up.Resource == "" {
		http.NotFound(w, r)
		return nil
	}
	at := discovery.DocumentPath + name
	key := strings.HasSuffix(r.URL.Path, at+discovery.DocumentWithKey)
	if key {
		at += discovery.DocumentWithKey
	}
	writeJSON(w, http.StatusOK, discovery.Document(s.URL(t, at), s.URL(t, "/callback/"+name), s.URL(t, "/jwks"), key))
	return nil
}

// resource finds the server that a resource names (RFC 8707): exactly its URL. Some clients send none, those of 2025-03-26
// and others until today; then the scope that the server's challenge names says which it is, or that there is one alone.
func (s *Server) resource(t identity.Tenant, values []string, scope string) (*catalog.Server, string, error) {
	servers := s.Catalog.Snapshot().Servers[t]
	if len(values) == 0 {
		for v := range strings.FieldsSeq(scope) {
			if name, ok := strings.CutPrefix(v, scopeServer); ok {
				values = append(values, s.URL(t, "/mcp/"+name))
			}
		}
	}
	if len(values) == 0 && len(servers) == 1 {
		for name, srv := range servers {
			return srv, s.URL(t, "/mcp/"+string(name)), nil
		}
	}
	if len(values) != 1 {
		return nil, "", refuse(oauth.CodeInvalidTarget, "name one resource: the URL of the MCP server, as it stands in the client's configuration")
	}
	name, ok := strings.CutPrefix(values[0], s.URL(t, "/mcp/"))
	if srv := servers[catalog.ServerName(name)]; ok && srv != nil {
		return srv, values[0], nil
	}
	return nil, "", refuse(oauth.CodeInvalidTarget, "this resource is not an MCP server of this issuer")
}

// scope is what a token may say: we have one, and what asks for a connection (connect:<upstream>) is read from the vault.
func scope(asked string) ([]string, error) {
	l, ok := oauth.ParseScopes(asked, " ")
	if !ok {
		return nil, refuse(oauth.CodeInvalidScope, "the scope parameter is malformed")
	}
	return slices.DeleteFunc(append([]string{scopeMCP}, l...), func(v string) bool { return v != scopeMCP && !strings.HasPrefix(v, "connect:") })[:1], nil
}
