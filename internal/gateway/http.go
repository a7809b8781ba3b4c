package gateway

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/web"
)

const (
	maxBody  = 4 << 20
	scopeMCP = "mcp"
)

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
	cors(w, r)
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	name := r.PathValue("server")
	resource := g.URL(t, "/mcp/"+name)
	token, err := bearer(r)
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
	if what := g.smuggled(r, s); what != "" {
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

// paramHeader is the header form of an argument (2026-07-28, x-mcp-header).
var paramHeader = regexp.MustCompile(`^(?i)mcp-param-[a-z0-9_-]{1,64}$`)

func cors(w http.ResponseWriter, r *http.Request) {
	o := r.Header.Get("Origin")
	if o == "" {
		return
	}
	h := w.Header() // the front has refused origins that may not speak here
	h.Set("Access-Control-Allow-Origin", o)
	h.Add("Vary", "Origin")
	allowed := "Authorization, Content-Type, Accept, Mcp-Session-Id, MCP-Protocol-Version, Mcp-Method, Mcp-Name, Last-Event-ID"
	for name := range strings.SplitSeq(r.Header.Get("Access-Control-Request-Headers"), ",") {
		if name = strings.TrimSpace(name); paramHeader.MatchString(name) { // the schema of a tool names these
			allowed += ", " + name
		}
	}
	h.Set("Access-Control-Allow-Headers", allowed)
	h.Set("Access-Control-Allow-Methods", "POST, GET, DELETE")
	h.Set("Access-Control-Expose-Headers", "WWW-Authenticate, Mcp-Session-Id")
}

// bearer takes the token from the one place where it may stand (RFC 6750 section 2.1).
func bearer(r *http.Request) (string, error) {
	v := r.Header.Values("Authorization")
	if len(v) == 0 {
		return "", nil
	}
	scheme, token, ok := strings.Cut(v[0], " ")
	if len(v) > 1 || strings.ContainsAny(v[0], ",") {
		return "", fault.New(fault.Invalid, "send one Authorization header with one token", nil)
	}
	if !ok || !strings.EqualFold(scheme, "Bearer") || token == "" || strings.HasPrefix(token, " ") {
		return "", nil
	}
	return token, nil
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

// smuggles are headers with which clients hand servers a credential of their own.
var smuggles = map[string]bool{"X-Api-Key": true, "X-Auth-Token": true, "X-Access-Token": true, "X-Github-Token": true, "Private-Token": true, "X-Gitlab-Token": true, "X-Slack-Token": true,
	"X-Figma-Token": true, "Notion-Token": true, "X-Goog-Api-Key": true, "Txn-Token": true, "Cookie": true, "Proxy-Authorization": true, "X-Forwarded-Access-Token": true, "X-Atlassian-Token-Api": true}

// ordinary headers are not searched for credentials: their values are known kinds.
var ordinary = map[string]bool{"Accept": true, "Accept-Encoding": true, "Accept-Language": true, "Authorization": true, "Connection": true, "Content-Length": true, "Content-Type": true,
	"Host": true, "Last-Event-Id": true, "Mcp-Method": true, "Mcp-Name": true, "Mcp-Protocol-Version": true, "Mcp-Session-Id": true, "Origin": true, "User-Agent": true, "Traceparent": true,
	"Tracestate": true, "Sec-Fetch-Mode": true, "Sec-Fetch-Site": true, "Sec-Fetch-Dest": true, "X-Forwarded-For": true, "X-Forwarded-Proto": true, "X-Forwarded-Host": true, "Cache-Control": true, "Pragma": true}

// smuggled names what in the request is a credential for an upstream; "" if nothing is.
func (g *Gateway) smuggled(r *http.Request, s *catalog.Server) string {
	given := func(values []string) bool { return slices.ContainsFunc(values, func(v string) bool { return v != "" }) }
	for _, name := range s.SmuggleHeaders {
		if given(r.Header.Values(name)) {
			return "header " + name
		}
	}
	for name, values := range r.Header {
		if ordinary[name] {
			continue
		}
		if smuggles[name] && given(values) {
			return "header " + name
		}
		if strings.Contains(name, "_") { // some servers read it as a hyphen
			spelled := http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
			if smuggles[spelled] || spelled == "Authorization" || slices.ContainsFunc(s.SmuggleHeaders, func(n string) bool { return strings.EqualFold(n, spelled) }) {
				return "header " + name
			}
		}
		for _, v := range values {
			if g.Catalog.ShapedLike(v, nil) != nil {
				return "header " + name
			}
		}
	}
	if r.URL.RawQuery != "" {
		if q := r.URL.Query(); q.Has("access_token") || q.Has("token") || q.Has("api_key") || g.Catalog.ShapedLike(r.URL.RawQuery, nil) != nil {
			return "the query"
		}
	}
	return ""
}

// smuggledInside names where in the message a credential stands, as a JSON pointer; "" if nowhere. The client's own access
// token is looked for always: no tool needs it, and whoever gets it can act as the person here. Vendors' credentials are
// looked for where the server's entry says check_arguments, also behind base64.
func (g *Gateway) smuggledInside(body []byte, s *catalog.Server, token string) string {
	if !s.CheckArguments && !bytes.Contains(body, []byte(token)) {
		return ""
	}
	for at, text := range mcp.Strings(body) {
		if strings.Contains(text, token) {
			return at
		}
		if !s.CheckArguments {
			continue
		}
		if g.Catalog.ShapedLike(text, nil) != nil {
			return at
		}
		for _, code := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			if plain, err := code.DecodeString(strings.TrimRight(text, "=")); err == nil && g.Catalog.ShapedLike(string(plain), nil) != nil {
				return at
			}
		}
	}
	if bytes.Contains(body, []byte(token)) {
		return "/"
	}
	return ""
}

// readBody reads the message; an oversized one is refused whole. The front bounds its time.
func readBody(r *http.Request) ([]byte, error) {
	body, err := readAll(http.MaxBytesReader(nil, r.Body, maxBody), r.ContentLength)
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, errTooLarge
	}
	return body, err
}

// readAll is io.ReadAll for what says how long it is: one allocation, where that can be believed.
func readAll(r io.Reader, length int64) ([]byte, error) {
	const believed = 64 << 10 // a promise of more has to be kept before it gets memory
	b := bytes.NewBuffer(make([]byte, 0, min(max(length, 0), believed)+bytes.MinRead))
	_, err := b.ReadFrom(r)
	return b.Bytes(), err
}

var errTooLarge = &mcp.Fault{Code: mcp.CodeRequest, Msg: "the message is larger than 4 MiB"}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b := must(v)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the client went away if this fails
}

// What one caller may hold open here at once, of requests, of streams and of calls that wait for their end, and what may wait for
// people in this process. More is refused, or answered in the form that does not wait.
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
	leave, ok = crowd.Enter(string(c.tenant)+"\x00"+c.caller.Principal(), most)
	if !ok {
		c.w.Header().Set("Retry-After", "1")
		http.Error(c.w, "too many requests of this caller are open; end some first", http.StatusTooManyRequests)
	}
	return leave, ok
}
