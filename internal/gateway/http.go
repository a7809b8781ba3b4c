package gateway

import (
	"net/http"
	"net/url"
	"strings"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/gateway/inbound"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/web"
)

const scopeMCP = "mcp"

// Mount adds the endpoints of one tenant, whose path prefix is P.
func (g *Gateway) Mount(mux *http.ServeMux, t identity.Tenant, prefix string) {
	mux.HandleFunc(prefix+"/mcp/{server}", func(w http.ResponseWriter, r *http.Request) { g.serve(w, r, t) })
	mux.HandleFunc("GET /.well-known/oauth-protected-resource"+prefix+"/mcp/{server}", func(w http.ResponseWriter, r *http.Request) { g.resource(w, r, t) })
}

// resource is RFC 9728: which authorization server opens this endpoint.
func (g *Gateway) resource(w http.ResponseWriter, r *http.Request, t identity.Tenant) {
	name := r.PathValue("server")
	s := g.Catalog.Server(t, catalog.ServerName(name))
	if s == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Access-Control-Allow-Origin", "*")
	writeJSON(w, http.StatusOK, map[string]any{"resource": g.URL(t, "/mcp/"+name), "authorization_servers": []string{g.URL(t, "")},
		"scopes_supported": scopes(name), "bearer_methods_supported": []string{"header"}, "resource_name": s.Title})
}

// serve is the way of every request: who is asking, does this exist for him, then what he asks.
func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, t identity.Tenant) {
	inbound.CORS(w, r)
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	name := r.PathValue("server")
	resource := g.URL(t, "/mcp/"+name)
	token, err := inbound.Bearer(r)
	if err != nil {
		http.Error(w, fault.Message(err), http.StatusBadRequest)
		return
	}
	if token == "" {
		g.challenge(w, t, name, "")
		return
	}
	caller, err := g.Verifier.Verify(r.Context(), t, resource, token)
	if err != nil {
		g.unverified(w, t, name, token, err)
		return
	}
	s := g.Catalog.Server(t, catalog.ServerName(name))
	if s == nil || !g.Policies.Set(t).Reaches(caller, name) {
		http.NotFound(w, r)
		return
	}
	if what := inbound.Smuggled(g.Catalog, r, s); what != "" {
		http.Error(w, what+" looks like a credential: Frontdesk obtains credentials itself, so send none along", http.StatusBadRequest)
		return
	}
	c := &call{g: g, w: w, r: r, tenant: t, server: s, caller: caller, token: token}
	leave, ok := c.room()
	if !ok {
		return
	}
	defer leave()
	switch r.Method {
	case http.MethodPost:
		c.post()
	case http.MethodGet:
		c.get()
	case http.MethodDelete:
		c.delete()
	default:
		w.Header().Set("Allow", "POST, GET, DELETE")
		http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
	}
}

// scopes are what a client asks for. The second one says which server it wants, for clients that send no `resource`.
func scopes(server string) []string {
	return []string{scopeMCP, scopeMCP + ":" + server}
}

// metadataURL is where resource answers: the well-known path goes between host and path (RFC 9728 section 3.1).
func (g *Gateway) metadataURL(t identity.Tenant, name string) string {
	u, err := url.Parse(g.URL(t, "/mcp/"+url.PathEscape(name)))
	if err != nil {
		return "" // a public_url that does not parse is refused with the config
	}
	u.RawPath, u.Path = "", "/.well-known/oauth-protected-resource"+u.Path
	return u.String()
}

// challenge is the 401 from which a client discovers how to sign in.
func (g *Gateway) challenge(w http.ResponseWriter, t identity.Tenant, name, code string) {
	params := []oauth.Param{{Name: "resource_metadata", Value: g.metadataURL(t, name)}, {Name: "scope", Value: strings.Join(scopes(name), " ")}}
	said := "sign in: this endpoint needs an access token"
	if code != "" {
		said = "the access token has expired, or is not valid here"
		params = append([]oauth.Param{{Name: "error", Value: code}, {Name: "error_description", Value: said}}, params...)
	}
	w.Header().Set("WWW-Authenticate", oauth.BearerChallenge(params...).String())
	writeJSON(w, http.StatusUnauthorized, map[string]string{"error": said})
}

func (g *Gateway) unverified(w http.ResponseWriter, t identity.Tenant, name, token string, err error) {
	if fault.KindOf(err) != fault.Unauthenticated {
		g.Log.Warn("a token could not be verified", "error", err)
		w.Header().Set("Retry-After", web.Seconds(fault.RetryAfter(err)))
		http.Error(w, fault.Message(err), http.StatusServiceUnavailable)
		return
	}
	if p := g.Catalog.ShapedLike(token, nil); p != nil {
		g.Log.Warn("a client sent a vendor's credential in place of an access token; its owner should revoke it", "vendor", p.Name)
	}
	g.challenge(w, t, name, oauth.CodeInvalidToken)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b := must(v)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the client went away if this fails
}

// What one caller may hold open here at once, of requests and of streams, and what may wait for people in this process. More is
// refused, or answered in the form that does not wait.
const (
	maxOpen    = 1000
	maxStreams = 100
	maxWaiting = 5000
)

// room lets a request in, or answers that its caller has too many open.
func (c *call) room() (leave func(), ok bool) {
	crowd, most := &c.g.open, maxOpen
	if c.r.Method == http.MethodGet {
		crowd, most = &c.g.listening, maxStreams
	}
	leave, ok = crowd.Enter(c.who(), most)
	if !ok {
		c.w.Header().Set("Retry-After", "1")
		http.Error(c.w, "too many requests of this caller are open; end some first", http.StatusTooManyRequests)
	}
	return leave, ok
}

// who is whose the request is, among those of every tenant.
func (c *call) who() string { return string(c.tenant) + "\x00" + c.caller.Principal() }
