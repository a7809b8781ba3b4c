package authserver

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// Faults are the ways in which this server can be made to misbehave. The zero value is good behaviour.
type Faults struct {
	Path  string `json:"path,omitempty"`  // only requests to this path; all where empty
	Times int    `json:"times,omitempty"` // only so many of them, then all is well; without end where 0

	Down       bool          `json:"down,omitempty"`        // the connection closes without an answer
	Delay      time.Duration `json:"delay,omitempty"`       // nanoseconds before anything else happens
	Status     int           `json:"status,omitempty"`      // this and nothing else
	RetryAfter string        `json:"retry_after,omitempty"` // with Status
	LoseAnswer bool          `json:"lose_answer,omitempty"` // does what was asked, then closes the connection unanswered

	DiscoveryIssuer string `json:"discovery_issuer,omitempty"` // `issuer` in the metadata
	TokenIssuer     string `json:"token_issuer,omitempty"`     // `iss` in ID tokens
	ResponseIssuer  string `json:"response_issuer,omitempty"`  // `iss` in authorization responses (RFC 9207)
	NoIssuer        bool   `json:"no_issuer,omitempty"`        // none there, though the metadata promise it
	NoRefresh       bool   `json:"no_refresh,omitempty"`       // no refresh token in token responses
	NoOffline       bool   `json:"no_offline,omitempty"`       // authorization requests for offline_access are refused

	// EditToken may change a token response that is a success, in this process only.
	EditToken func(body map[string]any) `json:"-"`
}

// SetFaults replaces what was set before.
func (s *Server) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

// faultsFor gives the faults that this request meets, and uses one of their times up.
func (s *Server) faultsFor(r *http.Request) Faults {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.faults
	if f.Path != "" && f.Path != r.URL.Path {
		return Faults{}
	}
	if f.Times == 1 {
		s.faults = Faults{}
	} else if f.Times > 1 {
		s.faults.Times--
	}
	return f
}

// Paths of the protocol endpoints; metadata name them too.
const (
	pathAuthorize = "/authorize"
	pathToken     = "/oauth/token"
	pathRevoke    = "/revoke"
	pathUserinfo  = "/userinfo"
	pathKeys      = "/keys"
)

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	metadata := http.HandlerFunc(s.metadata)
	mux.Handle("GET /.well-known/oauth-authorization-server", metadata)
	if s.cfg.OpenID {
		mux.Handle("GET /.well-known/openid-configuration", metadata)
		mux.Handle(pathUserinfo, s.provider)
	}
	mux.Handle(pathKeys, s.provider)
	mux.Handle(pathRevoke, s.provider)
	mux.HandleFunc("POST "+pathToken, s.token)
	mux.HandleFunc(pathAuthorize, s.authorize)
	mux.HandleFunc(pathAuthorize+"/callback", s.authorize)
	s.pages(mux)
	return s.Misbehave(mux)
}

// Misbehave makes a handler meet the faults that are set, so that an API beside this server can fail with it.
func (s *Server) Misbehave(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f := s.faultsFor(r)
		r = r.WithContext(context.WithValue(r.Context(), faultsKey{}, f))
		if f.Delay > 0 {
			select {
			case <-time.After(f.Delay):
			case <-r.Context().Done():
			}
		}
		switch {
		case f.Down:
			panic(http.ErrAbortHandler) // net/http closes the connection
		case f.Status != 0:
			if f.RetryAfter != "" {
				w.Header().Set("Retry-After", f.RetryAfter)
			}
			http.Error(w, http.StatusText(f.Status), f.Status)
		case f.LoseAnswer:
			next.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// faultsKey carries a request's faults to where zitadel/oidc asks for the issuer, with nothing but the request in hand.
type faultsKey struct{}

func faultsOf(r *http.Request) Faults {
	f, _ := r.Context().Value(faultsKey{}).(Faults)
	return f
}

// issuerForTokens is what zitadel/oidc takes as its issuer.
func (s *Server) issuerForTokens(bool) (op.IssuerFromRequest, error) {
	return func(r *http.Request) string {
		if f := faultsOf(r); f.TokenIssuer != "" {
			return f.TokenIssuer
		}
		return s.cfg.Issuer
	}, nil
}

// metadata is RFC 8414 and OpenID discovery in one. zitadel/oidc would promise grants that are not served here.
func (s *Server) metadata(w http.ResponseWriter, r *http.Request) {
	issuer := s.cfg.Issuer
	if f := faultsOf(r); f.DiscoveryIssuer != "" {
		issuer = f.DiscoveryIssuer
	}
	scopes := []string{oidc.ScopeOfflineAccess}
	for _, sc := range s.cfg.Scopes {
		scopes = append(scopes, sc.Name)
	}
	methods := []string{"client_secret_basic", "client_secret_post", "none"}
	doc := map[string]any{
		"issuer":                                         issuer,
		"authorization_endpoint":                         s.cfg.Issuer + pathAuthorize,
		"token_endpoint":                                 s.cfg.Issuer + pathToken,
		"revocation_endpoint":                            s.cfg.Issuer + pathRevoke,
		"jwks_uri":                                       s.cfg.Issuer + pathKeys,
		"response_types_supported":                       []string{"code"},
		"response_modes_supported":                       []string{"query"},
		"grant_types_supported":                          []string{"authorization_code", "refresh_token", "client_credentials"},
		"code_challenge_methods_supported":               []string{"S256"},
		"token_endpoint_auth_methods_supported":          methods,
		"revocation_endpoint_auth_methods_supported":     methods,
		"authorization_response_iss_parameter_supported": true,
	}
	if s.cfg.OpenID {
		scopes = append(scopes, oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeEmail)
		doc["userinfo_endpoint"] = s.cfg.Issuer + pathUserinfo
		doc["subject_types_supported"] = []string{"public"}
		doc["id_token_signing_alg_values_supported"] = []string{"RS256"}
		doc["grant_types_supported"] = []string{"authorization_code", "refresh_token", "client_credentials", grantExchange}
		doc["identity_chaining_requested_token_types_supported"] = []string{typeIDJAG}
		doc["claims_supported"] = []string{"sub", "name", "preferred_username", "email", "groups", "auth_time"}
	}
	doc["scopes_supported"] = scopes
	writeJSON(w, http.StatusOK, doc)
}

// authorize adds `iss` to every response that goes back to the client (RFC 9207), which zitadel/oidc does not.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) {
	if faultsOf(r).NoOffline && slices.Contains(strings.Fields(r.FormValue("scope")), oidc.ScopeOfflineAccess) {
		s.mu.Lock()
		known := slices.Contains(s.clients[r.FormValue("client_id")].RedirectURIs, r.FormValue("redirect_uri"))
		s.mu.Unlock()
		if known {
			q := url.Values{"error": {"invalid_scope"}, "state": {r.FormValue("state")}, "iss": {s.cfg.Issuer}}
			http.Redirect(w, r, r.FormValue("redirect_uri")+"?"+q.Encode(), http.StatusFound)
			return
		}
	}
	s.provider.ServeHTTP(&issWriter{ResponseWriter: w, s: s, f: faultsOf(r)}, r)
}

type issWriter struct {
	http.ResponseWriter
	s *Server
	f Faults
}

func (w *issWriter) WriteHeader(status int) {
	to, err := url.Parse(w.Header().Get("Location"))
	if err == nil && to.Host != "" && !w.f.NoIssuer { // our own pages are named without a host
		issuer := w.s.cfg.Issuer
		if w.f.ResponseIssuer != "" {
			issuer = w.f.ResponseIssuer
		}
		q := to.Query()
		q.Set("iss", issuer)
		to.RawQuery = q.Encode()
		w.Header().Set("Location", to.String())
	}
	w.ResponseWriter.WriteHeader(status)
}

// token lets zitadel/oidc answer, and corrects what it does not know: plain OAuth has no ID token, and a workload's
// token is a JWT with an audience of its own.
func (s *Server) token(w http.ResponseWriter, r *http.Request) {
	switch r.PostFormValue("grant_type") {
	case "client_credentials":
		s.clientCredentials(w, r)
		return
	case grantExchange:
		s.stateIdentity(w, r)
		return
	}
	answer := httptest.NewRecorder()
	s.provider.ServeHTTP(answer, r)
	body := answer.Body.Bytes()
	if answer.Code == http.StatusOK {
		body = s.editToken(body, faultsOf(r))
	}
	maps.Copy(w.Header(), answer.Header())
	w.Header().Del("Content-Length")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(answer.Code)
	_, _ = w.Write(body)
}

func (s *Server) editToken(body []byte, f Faults) []byte {
	var doc map[string]any
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	if dec.Decode(&doc) != nil {
		return body
	}
	scope, _ := doc["scope"].(string)
	if !s.cfg.OpenID || !slices.Contains(strings.Fields(scope), oidc.ScopeOpenID) {
		delete(doc, "id_token")
	}
	if f.NoRefresh {
		delete(doc, "refresh_token")
	}
	if f.EditToken != nil {
		f.EditToken(doc)
	}
	edited, err := json.Marshal(doc)
	if err != nil {
		return body
	}
	return edited
}

// clientCredentials gives a workload a JWT for an audience (RFC 9068), named by `audience` or `resource`.
func (s *Server) clientCredentials(w http.ResponseWriter, r *http.Request) {
	id, ok := s.confidential(w, r)
	if !ok {
		return
	}
	s.mu.Lock()
	allowed := s.clients[id].Audiences
	s.mu.Unlock()
	audience := r.PostFormValue("audience")
	if audience == "" {
		audience = r.PostFormValue("resource")
	}
	if len(allowed) == 0 {
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": "unauthorized_client"})
		return
	}
	if audience == "" {
		audience = allowed[0]
	}
	if !slices.Contains(allowed, audience) {
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_target"})
		return
	}
	claims := s.accessClaims(id, audience)
	claims["client_id"] = id
	if scope := r.PostFormValue("scope"); scope != "" {
		claims["scope"] = scope
	}
	token, err := s.signAccess(claims)
	if err != nil {
		writeJSON(w, http.StatusInternalServerError, map[string]any{"error": "server_error"})
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, map[string]any{
		"access_token": token, "token_type": "Bearer", "expires_in": int(s.cfg.AccessLifetime.Seconds()),
	})
}

// confidential says which client asks, by its secret; false where it was refused.
func (s *Server) confidential(w http.ResponseWriter, r *http.Request) (id string, ok bool) {
	id, secret, basic := r.BasicAuth()
	if basic { // RFC 6749 section 2.3.1: both are form-encoded first
		id, _ = url.QueryUnescape(id)
		secret, _ = url.QueryUnescape(secret)
	} else {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	}
	if (&storage{s}).AuthorizeClientIDSecret(r.Context(), id, secret) != nil {
		writeJSON(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return "", false
	}
	return id, true
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
