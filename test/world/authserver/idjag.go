package authserver

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	grantExchange = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeIDToken   = "urn:ietf:params:oauth:token-type:id_token"
	typeIDJAG     = "urn:ietf:params:oauth:token-type:id-jag"

	idJAGLife = 5 * time.Minute
)

// Partner lets clients get ID-JAGs for another authorization server, by its issuer; there they are the client with this id.
func (s *Server) Partner(issuer, client string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.partners[issuer] = client
}

// stateIdentity gives an ID-JAG: this server's word to another authorization server on who the person is, for the ID token that
// the client got here (draft-ietf-oauth-identity-assertion-authz-grant section 4.3; RFC 8693).
func (s *Server) stateIdentity(w http.ResponseWriter, r *http.Request) {
	client, ok := s.confidential(w, r)
	if !ok {
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	refuse := func(code string) { writeJSON(w, http.StatusBadRequest, map[string]any{"error": code}) }
	form := r.PostForm
	if !s.cfg.OpenID || form.Get("requested_token_type") != typeIDJAG || form.Get("subject_token_type") != typeIDToken || len(form["audience"]) != 1 {
		refuse("invalid_request")
		return
	}
	subject, ok := s.readIDToken(form.Get("subject_token"), client)
	if !ok {
		refuse("invalid_grant")
		return
	}
	s.mu.Lock()
	there := s.partners[form.Get("audience")]
	s.mu.Unlock()
	resources := form["resource"]
	if there == "" || slices.ContainsFunc(resources, func(v string) bool { u, err := url.Parse(v); return err != nil || u.Host == "" || u.Fragment != "" }) {
		refuse("invalid_target")
		return
	}
	now := s.cfg.Now()
	claims := map[string]any{"iss": s.cfg.Issuer, "sub": subject, "aud": form.Get("audience"), "client_id": there, "jti": random(), "iat": now.Unix(), "exp": now.Add(idJAGLife).Unix()}
	answer := map[string]any{"issued_token_type": typeIDJAG, "token_type": "N_A", "expires_in": int(idJAGLife.Seconds())}
	if scope := strings.Join(strings.Fields(form.Get("scope")), " "); scope != "" {
		claims["scope"], answer["scope"] = scope, scope
	}
	if len(resources) > 0 {
		claims["resource"], answer["resource"] = resources, resources
	}
	token, err := s.Sign("oauth-id-jag+jwt", claims)
	if err != nil {
		writeJSON(w, http.StatusInternalServerError, map[string]any{"error": "server_error"})
		return
	}
	s.note(Issued{Kind: "id-jag", User: subject, Value: token})
	answer["access_token"] = token
	writeJSON(w, http.StatusOK, answer)
}

// readIDToken says whom an ID token names that this client got here, and who is still somebody here.
func (s *Server) readIDToken(token, client string) (subject string, ok bool) {
	t, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return "", false
	}
	if typ, said := t.Headers[0].ExtraHeaders[jose.HeaderType]; said && typ != "JWT" { // other kinds are signed with the same key
		return "", false
	}
	var claims jwt.Claims
	for _, k := range s.keys.published() {
		if k.ID() == t.Headers[0].KeyID {
			err = t.Claims(k.Key(), &claims)
			ok = err == nil
		}
	}
	if !ok || claims.ValidateWithLeeway(jwt.Expected{Issuer: s.cfg.Issuer, AnyAudience: jwt.Audience{client}, Time: s.cfg.Now()}, 0) != nil || claims.Expiry == nil {
		return "", false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.users[claims.Subject]
	return claims.Subject, a != nil && !a.dismissed
}
