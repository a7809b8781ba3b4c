package oauth

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"errors"
	"mime"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"frontdesk.dev/frontdesk/internal/kit/dpop"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// Token is what a token endpoint gave.
type Token struct {
	Access  secret.Text
	Refresh secret.Text // zero: none came
	IDToken secret.Text // unverified; zero: none came, or an unusable one
	Type    string      // as it came, "" if the vendor says none
	Issued  string      // issued_token_type of a token exchange (RFC 8693 s2.2.1); "" if none came

	Expires        time.Time // zero: the vendor does not say, or says never
	RefreshExpires time.Time // zero: the vendor does not say

	Scopes      []string // what the vendor says was granted, in its order
	ScopesKnown bool     // false: it said nothing readable; that 'as asked' was granted is then not proven

	Key *dpop.Key // to which Access is bound; nil: to none

	rest any // the answer without its secrets
}

// Lookup returns another member of the answer (RFC 6901 pointer), for account labels and instance hosts: foreign text
// without control characters, up to 1 KiB. Members whose name speaks of a token or secret are never found.
func (t Token) Lookup(pointer string) (string, bool) {
	s, ok := asText(at(t.rest, pointer))
	if !ok || s == "" || len(s) > 1024 || !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl) {
		return "", false
	}
	return s, true
}

// Pointers say where a vendor's answer has what (RFC 6901). An empty one means RFC 6749's place, but for ExpiresAt and
// ExpiresFromJWT, which have none there. token_type and id_token are looked for beside the access token.
type Pointers struct {
	AccessToken      string `json:"access_token"`
	RefreshToken     string `json:"refresh_token"`
	ExpiresIn        string `json:"expires_in"`               // seconds
	ExpiresAt        string `json:"expires_at"`               // RFC 3339, or seconds since 1970
	ExpiresFromJWT   string `json:"expires_from_jwt"`         // a claim of the access token, seconds since 1970
	RefreshExpiresIn string `json:"refresh_token_expires_in"` // seconds
	Scope            string `json:"scope"`                    // a string, or an array of strings
	Error            string `json:"error"`

	refresh bool // the answer to a refresh may be flat where the first one was nested (Slack)
}

const (
	maxToken = 16 << 10

	// nonsenseLife is the life of a token whose expiry is unreadable: short, because a longer one may be a lie, and not
	// an error, because the refresh token that came with it may be the only one left.
	nonsenseLife = 5 * time.Minute
	maxLife      = 10 * 365 * 24 * time.Hour
)

// read makes a Token of an answer, or says why not. asked is when the request was made, key what the token was to be bound to.
func (e Endpoint) read(r reply, asked time.Time, key *dpop.Key) (Token, *TokenError) {
	doc, err := parseAnswer(r)
	if r.status != 200 && r.status != 201 || !r.whole {
		return Token{}, e.refusal(r, doc)
	}
	malformed := &TokenError{Failure: Malformed, HTTPStatus: r.status, Sent: true}
	if err != nil {
		return Token{}, malformed
	}
	// Some vendors answer 200 and an error: it is looked for before a token.
	if e.Answer.errorIn(doc) != "" || at(doc, "/ok") == false {
		return Token{}, e.refusal(r, doc)
	}
	p := e.Answer.in(doc)
	t := Token{Key: key, rest: doc}
	if !e.readSecrets(p, doc, &t) {
		return Token{}, malformed
	}
	if e.Renews != "" {
		t.Refresh = t.Access
	}
	t.Expires = e.expiry(p, doc, t.Access, asked)
	if life, said := seconds(at(doc, p.RefreshExpiresIn)); said && life > 0 {
		t.RefreshExpires = asked.Add(life)
	}
	t.Scopes, t.ScopesKnown = readScopes(at(doc, p.Scope), cmp.Or(e.ScopeResponseSeparator, e.ScopeSeparator))
	scrub(doc, t) // last: it empties the places that p points to
	return t, nil
}

func (e Endpoint) readSecrets(p Pointers, doc any, t *Token) bool {
	access, _ := at(doc, p.AccessToken).(string)
	if !visible(access, maxToken) {
		return false
	}
	t.Access = secret.New(access)
	switch refresh := at(doc, p.RefreshToken).(type) {
	case nil:
	case string:
		if refresh != "" && !visible(refresh, maxToken) {
			return false
		}
		t.Refresh = secret.New(refresh)
	default:
		return false
	}
	beside := p.AccessToken[:strings.LastIndexByte(p.AccessToken, '/')]
	if id, _ := at(doc, beside+"/id_token").(string); visible(id, maxToken) {
		t.IDToken = secret.New(id)
	}
	if issued, _ := at(doc, beside+"/issued_token_type").(string); visible(issued, 256) {
		t.Issued = issued
	}
	switch kind := at(doc, beside+"/token_type").(type) {
	case nil:
		return t.Key == nil
	case string:
		// A token of another type (MAC, DPoP) is worthless or dangerous in a Bearer header (RFC 6749 s7.1). And one that was to be
		// bound to a key, and is not, would be good for whoever finds it.
		t.Type = ErrorCode(kind)
		if t.Key != nil {
			return strings.EqualFold(kind, dpop.Scheme) && boundTo(access, t.Key)
		}
		return strings.EqualFold(kind, "Bearer") || t.Type != "" && slices.ContainsFunc(e.TokenTypes, func(v string) bool { return strings.EqualFold(v, kind) })
	}
	return false
}

// boundTo reports that a token does not name another key than ours (RFC 9449 section 6.1). Of one that is no JWT nobody but its
// issuer can tell.
func boundTo(access string, k *dpop.Key) bool {
	named, ok := at(unverifiedClaims(access), "/cnf/jkt").(string)
	return !ok || named == k.Thumbprint()
}

func (e Endpoint) expiry(p Pointers, doc any, access secret.Text, asked time.Time) time.Time {
	usable := func(life time.Duration, ok bool) time.Time {
		if !ok || life <= 0 || life > maxLife {
			life = nonsenseLife
		}
		return asked.Add(life)
	}
	if v := at(doc, p.ExpiresIn); v != nil {
		life, ok := seconds(v)
		if ok && life == 0 && e.ZeroIsNever {
			return time.Time{}
		}
		return usable(life, ok)
	}
	v := at(doc, p.ExpiresAt)
	if v == nil && p.ExpiresFromJWT != "" {
		// The token is not ours to verify; a lie here shortens or lengthens the liar's own token.
		v = at(unverifiedClaims(access.Expose()), "/"+p.ExpiresFromJWT)
	}
	if v == nil {
		return time.Time{}
	}
	if s, ok := v.(string); ok {
		if when, err := time.Parse(time.RFC3339, s); err == nil {
			return usable(when.Sub(asked), true)
		}
	}
	since, ok := secondsUpTo(v, maxUnix)
	return usable(time.Unix(int64(since), 0).Sub(asked), ok)
}

const maxUnix = 253402300799 // the last second of year 9999

// seconds reads a number, or a string of digits as some vendors send it. ok is false for all else, and for what is
// negative or absurd.
func seconds(v any) (time.Duration, bool) {
	n, ok := secondsUpTo(v, float64(maxLife/time.Second))
	return time.Duration(n) * time.Second, ok
}

func secondsUpTo(v any, limit float64) (float64, bool) {
	s, ok := v.(string)
	if n, isNumber := v.(jsontext.Value); isNumber {
		s = string(n)
	} else if !ok || s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil && f >= 0 && f <= limit
}

func readScopes(v any, separator string) ([]string, bool) {
	switch v := v.(type) {
	case string:
		return ParseScopes(v, separator)
	case []any:
		var all []string
		for _, entry := range v {
			s, ok := entry.(string)
			if !ok || !isScope(s) || len(all) == maxScopes {
				return nil, false
			}
			all = UnionScopes(all, []string{s})
		}
		return all, true
	}
	return nil, false
}

// parseAnswer reads JSON or a form by what came, not by what was asked for.
func parseAnswer(r reply) (any, error) {
	media, _, _ := mime.ParseMediaType(r.header.Get("Content-Type"))
	body := bytes.TrimLeft(r.body, " \t\r\n")
	if media == "application/x-www-form-urlencoded" || media == "text/plain" && !bytes.HasPrefix(body, []byte("{")) {
		return parseForm(string(body))
	}
	if !bytes.HasPrefix(body, []byte("{")) {
		return nil, errors.New("neither JSON nor a form")
	}
	doc, err := parseObject(body)
	if err != nil {
		return nil, err
	}
	return doc, nil
}

func parseForm(body string) (any, error) {
	values, err := url.ParseQuery(strings.TrimRight(body, "\r\n"))
	if err != nil {
		return nil, err
	}
	doc := make(map[string]any, len(values))
	for name, all := range values {
		if len(all) != 1 {
			return nil, errors.New("repeated parameter")
		}
		doc[name] = all[0]
	}
	return doc, nil
}

// parseObject keeps numbers as they were written: 1e309 must not make the whole answer unreadable.
func parseObject(body []byte) (map[string]any, error) {
	var doc map[string]any
	if err := parseInto(body, &doc); err != nil {
		return nil, err // and not what was read until then
	}
	return doc, nil
}

// parseValue is the same for a document of any kind.
func parseValue(body []byte) (any, error) {
	var doc any
	if err := parseInto(body, &doc); err != nil {
		return nil, err
	}
	return doc, nil
}

func parseInto(body []byte, doc any) error {
	return json.Unmarshal(body, doc, jsontext.AllowInvalidUTF8(true), json.WithUnmarshalers(
		json.UnmarshalFromFunc(func(dec *jsontext.Decoder, v *any) error {
			if dec.PeekKind() == '0' {
				*v = jsontext.Value(nil)
			}
			return errors.ErrUnsupported
		})))
}

// in returns the pointers to use for this answer, none of them empty that has a standard place.
func (p Pointers) in(doc any) Pointers {
	if p.refresh && at(doc, p.AccessToken) == nil {
		p = Pointers{ExpiresAt: p.ExpiresAt, ExpiresFromJWT: p.ExpiresFromJWT}
	}
	p.AccessToken = cmp.Or(p.AccessToken, "/access_token")
	p.RefreshToken = cmp.Or(p.RefreshToken, "/refresh_token")
	p.ExpiresIn = cmp.Or(p.ExpiresIn, "/expires_in")
	p.RefreshExpiresIn = cmp.Or(p.RefreshExpiresIn, "/refresh_token_expires_in")
	p.Scope = cmp.Or(p.Scope, "/scope")
	return p
}

// errorIn returns the vendor's error code, "" if there is none. At some vendors it is a number, and 0 is none.
func (p Pointers) errorIn(doc any) string {
	for _, pointer := range []string{p.Error, "/error"} { // a proxy of the vendor's may speak as the standard does
		if code, ok := asText(at(doc, pointer)); ok && code != "0" {
			return code
		}
	}
	return ""
}

func asText(v any) (string, bool) {
	switch v := v.(type) {
	case string:
		return v, true
	case jsontext.Value:
		return string(v), true
	}
	return "", false
}

// at evaluates a JSON pointer; nil if there is nothing, or null. The empty pointer finds nothing.
func at(doc any, pointer string) any {
	if !strings.HasPrefix(pointer, "/") {
		return nil
	}
	for name := range jsontext.Pointer(pointer).Tokens() {
		switch node := doc.(type) {
		case map[string]any:
			doc = node[name]
		case []any:
			i, err := strconv.ParseUint(name, 10, 16)
			if err != nil || int(i) >= len(node) {
				return nil
			}
			doc = node[i]
		default:
			return nil
		}
	}
	return doc
}

// scrub removes what may be a credential: the tokens that t took, and those that nobody asked for, like the bot's half
// of a Slack answer.
func scrub(doc any, t Token) {
	switch node := doc.(type) {
	case map[string]any:
		for name, v := range node {
			if s, ok := v.(string); isSecretName(name) || ok && (s == t.Access.Expose() || s == t.Refresh.Expose()) {
				delete(node, name)
				continue
			}
			scrub(v, t)
		}
	case []any:
		for _, v := range node {
			scrub(v, t)
		}
	}
}

func isSecretName(name string) bool {
	name = strings.ToLower(name)
	return strings.Contains(name, "token") || strings.Contains(name, "secret") || strings.Contains(name, "password")
}

// unverifiedClaims decodes the payload of a JWT, nil if it is none.
func unverifiedClaims(jwt string) any {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return nil
	}
	claims, err := parseObject(payload)
	if err != nil {
		return nil
	}
	return claims
}
