// Package inbound answers: what of a client's request may come in?
//
// One token from the one place where it may stand, one message of one type and of a bounded size, and no credential for an upstream,
// wherever it was put. It decides nothing about who is asking.
package inbound

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

const maxBody = 4 << 20

// paramHeader is the header form of an argument (2026-07-28, x-mcp-header).
var paramHeader = regexp.MustCompile(`^(?i)mcp-param-[a-z0-9_-]{1,64}$`)

// CORS answers a browser which headers and methods it may use here; whether its origin may was decided before.
func CORS(w http.ResponseWriter, r *http.Request) {
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

// Bearer takes the token from the one place where it may stand (RFC 6750 section 2.1): "" where there is none, fault.Invalid
// where two stand.
func Bearer(r *http.Request) (string, error) {
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

// PlainJSON reports whether a body is JSON for every reader: one type, and no coding that inflates.
func PlainJSON(h http.Header) bool {
	types := h.Values("Content-Type")
	if len(types) != 1 || h.Get("Content-Encoding") != "" && !strings.EqualFold(h.Get("Content-Encoding"), "identity") {
		return false
	}
	kind, params, err := mime.ParseMediaType(types[0])
	charset, said := params["charset"]
	return err == nil && kind == "application/json" && (!said || strings.EqualFold(charset, "utf-8"))
}

// smuggles are headers with which clients hand servers a credential of their own.
var smuggles = map[string]bool{"X-Api-Key": true, "X-Auth-Token": true, "X-Access-Token": true, "X-Github-Token": true, "Private-Token": true, "X-Gitlab-Token": true, "X-Slack-Token": true,
	"X-Figma-Token": true, "Notion-Token": true, "X-Goog-Api-Key": true, "Txn-Token": true, "Cookie": true, "Proxy-Authorization": true, "X-Forwarded-Access-Token": true, "X-Atlassian-Token-Api": true}

// ordinary headers are not searched for credentials: their values are known kinds.
var ordinary = map[string]bool{"Accept": true, "Accept-Encoding": true, "Accept-Language": true, "Authorization": true, "Connection": true, "Content-Length": true, "Content-Type": true,
	"Host": true, "Last-Event-Id": true, "Mcp-Method": true, "Mcp-Name": true, "Mcp-Protocol-Version": true, "Mcp-Session-Id": true, "Origin": true, "User-Agent": true, "Traceparent": true,
	"Tracestate": true, "Sec-Fetch-Mode": true, "Sec-Fetch-Site": true, "Sec-Fetch-Dest": true, "X-Forwarded-For": true, "X-Forwarded-Proto": true, "X-Forwarded-Host": true, "Cache-Control": true, "Pragma": true}

// Smuggled names what in the request is a credential for an upstream; "" if nothing is.
func Smuggled(cat *catalog.Catalog, r *http.Request, s *catalog.Server) string {
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
			if cat.ShapedLike(v, nil) != nil {
				return "header " + name
			}
		}
	}
	if r.URL.RawQuery != "" {
		if q := r.URL.Query(); q.Has("access_token") || q.Has("token") || q.Has("api_key") || cat.ShapedLike(r.URL.RawQuery, nil) != nil {
			return "the query"
		}
	}
	return ""
}

// SmuggledInside names where in the message a credential stands, as a JSON pointer; "" if nowhere. The client's own access
// token is looked for always: no tool needs it, and whoever gets it can act as the person here. Vendors' credentials are
// looked for where the server's entry says check_arguments, also behind base64.
func SmuggledInside(cat *catalog.Catalog, s *catalog.Server, body []byte, token string) string {
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
		if cat.ShapedLike(text, nil) != nil {
			return at
		}
		for _, code := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			if plain, err := code.DecodeString(strings.TrimRight(text, "=")); err == nil && cat.ShapedLike(string(plain), nil) != nil {
				return at
			}
		}
	}
	if bytes.Contains(body, []byte(token)) {
		return "/"
	}
	return ""
}

// Body reads the message; an oversized one is refused whole, with ErrTooLarge. The front bounds its time.
func Body(r *http.Request) ([]byte, error) {
	body, err := ReadAll(http.MaxBytesReader(nil, r.Body, maxBody), r.ContentLength)
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, ErrTooLarge
	}
	return body, err
}

// ReadAll is io.ReadAll for what says how long it is: one allocation, where that can be believed.
func ReadAll(r io.Reader, length int64) ([]byte, error) {
	const believed = 64 << 10 // a promise of more has to be kept before it gets memory
	b := bytes.NewBuffer(make([]byte, 0, min(max(length, 0), believed)+bytes.MinRead))
	_, err := b.ReadFrom(r)
	return b.Bytes(), err
}

// ErrTooLarge says that a message is too large.
var ErrTooLarge = &mcp.Fault{Code: mcp.CodeRequest, Msg: "the message is larger than 4 MiB"}
