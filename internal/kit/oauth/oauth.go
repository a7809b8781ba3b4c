// Package oauth holds the words and the wire calls of OAuth 2 for rooms on either side of it: client toward IdPs
// and upstreams, authorization server. Signed tokens are kit/jwt's.
//
// It decides nothing and stores nothing but fetched public keys. It trusts no byte that comes from the other side:
// every answer is bounded, checked for shape, and never quoted in an error, except for an error code that consists
// of harmless characters. Endpoints come from the caller; whether they may be dialled is the Doer's business.
package oauth

import (
	"context"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"
)

// Doer sends a request. It must not follow redirects (the body of a token request holds secrets), must hand the
// request's context to its transport (httptrace tells whether anything left), and must be safe for concurrent use.
type Doer interface {
	Do(*http.Request) (*http.Response, error)
}

// Grant types (RFC 6749, 7523, 8628, 8693).
const (
	GrantAuthorizationCode = "authorization_code"
	GrantRefreshToken      = "refresh_token"
	GrantClientCredentials = "client_credentials"
	GrantDeviceCode        = "urn:ietf:params:oauth:grant-type:device_code"
	GrantJWTBearer         = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	GrantTokenExchange     = "urn:ietf:params:oauth:grant-type:token-exchange"
)

// Error codes (RFC 6749 s4.1.2.1 and s5.2, RFC 6750 s3.1, RFC 7009 s2.2.1, RFC 8707 s2).
const (
	CodeAccessDenied           = "access_denied"
	CodeInsufficientScope      = "insufficient_scope"
	CodeInvalidClient          = "invalid_client"
	CodeInvalidGrant           = "invalid_grant"
	CodeInvalidRequest         = "invalid_request"
	CodeInvalidScope           = "invalid_scope"
	CodeInvalidTarget          = "invalid_target"
	CodeInvalidToken           = "invalid_token"
	CodeServerError            = "server_error"
	CodeTemporarilyUnavailable = "temporarily_unavailable"
	CodeUnauthorizedClient     = "unauthorized_client"
	CodeUnsupportedGrantType   = "unsupported_grant_type"
	CodeUnsupportedResponse    = "unsupported_response_type"
	CodeUnsupportedTokenType   = "unsupported_token_type"
)

// ErrorCode returns code if it may stand in messages, logs and metrics, else "". Everything else that a vendor says
// about an error is dropped: an error_description may echo the code, the secret or the refresh token.
func ErrorCode(code string) string {
	if code == "" || len(code) > 64 {
		return ""
	}
	for i := range len(code) {
		switch c := code[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '-', c == '.':
		default:
			return ""
		}
	}
	return code
}

// decode reads exactly one JSON value. Duplicate members, invalid UTF-8 and trailing bytes are errors, and names
// match exactly: encoding/json would take the last duplicate and fold "AUD" into aud.
func decode(data []byte, into any) error { return json.Unmarshal(data, into) }

// readBody reads at most limit bytes; whole is false if there were more.
func readBody(r io.Reader, limit int64) (body []byte, whole bool, err error) {
	body, err = io.ReadAll(io.LimitReader(r, limit+1))
	if int64(len(body)) > limit {
		return nil, false, err
	}
	return body, true, err
}

// document is what a GET for public JSON came back with.
type document struct {
	status int
	isJSON bool
	whole  bool
	body   []byte
}

func get(ctx context.Context, doer Doer, url string, limit int64) (document, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return document{}, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := doer.Do(req)
	if err != nil {
		return document{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, whole, err := readBody(resp.Body, limit)
	if err != nil {
		return document{}, err
	}
	return document{status: resp.StatusCode, isJSON: isJSON(resp.Header), whole: whole, body: body}, nil
}

func isJSON(h http.Header) bool {
	media, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && (media == "application/json" || strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json"))
}

// endpointExtra are the characters besides letters and digits that an endpoint may have. Those of RFC 3986 that mean
// something to a shell or a template stay out, since some day something will hand a URL to one (CVE-2025-6514).
const endpointExtra = "-._~:/?@&=+,%[]!"

// UsableEndpoint reports whether a browser or a secret may be sent to this URL: https, or http on loopback.
func UsableEndpoint(raw string) bool {
	_, ok := checkEndpoint(raw)
	return ok
}

// checkEndpoint accepts absolute https URLs, and http ones on loopback, without user info and fragment.
func checkEndpoint(raw string) (*url.URL, bool) {
	u, ok := checkURL(raw)
	if !ok || strings.ContainsFunc(raw, func(r rune) bool { return !isAlnum(r) && !strings.ContainsRune(endpointExtra, r) }) {
		return nil, false
	}
	return u, true
}

func checkURL(raw string) (*url.URL, bool) {
	if raw == "" || len(raw) > 2048 || strings.ContainsAny(raw, "#\\ ") {
		return nil, false
	}
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" || u.User != nil || u.Hostname() == "" {
		return nil, false
	}
	return u, u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname())
}

func isAlnum(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
}

// visible reports whether s is 1 to limit characters of printable ASCII without space, so that it can stand in a
// header and a form without splitting either (RFC 6749 appendix A says VSCHAR).
func visible(s string, limit int) bool {
	if s == "" || len(s) > limit {
		return false
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
