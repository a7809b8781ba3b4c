package oauth

import (
	"bytes"
	"context"
	"net/http"
	"net/url"
	"strings"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// Revocation is a vendor's own call that ends a token, where it is not RFC 7009's.
type Revocation struct {
	Method string            // POST if empty
	Auth   RevocationAuth    // zero: as at the token endpoint
	Body   Body              // as at the token endpoint if empty; BodyNone
	Params map[string]string // {token}, {client_id} and {client_secret} are filled in; none: as in RFC 7009
}

// RevocationAuth says who asks.
type RevocationAuth string

const (
	RevokeAsClient RevocationAuth = ""
	RevokeBasic    RevocationAuth = "basic"  // client and secret, whatever the token endpoint wants
	RevokeBearer   RevocationAuth = "bearer" // the token itself
	RevokeOpen     RevocationAuth = "none"   // nobody: to know the token is enough
)

// BodyNone is the coding of a request that has no body.
const BodyNone Body = "none"

// RevokeBy ends a token by the vendor's own call; e.URL is its address, in which {client_id} is filled in. A token that the vendor
// no longer knows counts as ended. Errors as Exchange.
func (c Client) RevokeBy(ctx context.Context, e Endpoint, v Revocation, token secret.Text, hint string) error {
	e.URL = strings.ReplaceAll(e.URL, "{client_id}", url.PathEscape(e.ClientID))
	if v.Method == "" && v.Auth == RevokeAsClient && v.Body == "" && len(v.Params) == 0 {
		return c.Revoke(ctx, e, token, hint)
	}
	own := v.Auth == RevokeBearer
	e.ExtraParams = nil
	switch v.Auth {
	case RevokeBearer, RevokeOpen:
		e.Auth = AuthNobody
	case RevokeBasic:
		e.Auth = AuthBasic
	case RevokeAsClient:
	default:
		return fault.New(fault.Invalid, "the way to end a token is unknown", nil)
	}
	fill := strings.NewReplacer("{token}", token.Expose(), "{client_id}", e.ClientID, "{client_secret}", e.Secret.Expose())
	params := url.Values{}
	for name, value := range v.Params {
		params.Set(name, fill.Replace(value))
	}
	if len(v.Params) == 0 && v.Body != BodyNone {
		params.Set("token", token.Expose())
	}
	if e.Auth == AuthNobody {
		e.ClientID, e.Secret = "", secret.Text{}
	}
	if v.Body != "" {
		e.Request = v.Body
	}
	r, err := c.send(ctx, e, params, func(req *http.Request) {
		if v.Method != "" {
			req.Method = v.Method
		}
		if own {
			req.Header.Set("Authorization", "Bearer "+token.Expose())
		}
	})
	if err != nil {
		return err
	}
	return e.ended(r, own, v.Method == http.MethodDelete)
}

// ended reads the answer: whoever asks with the token itself is told by a 401 that it is dead already, and whoever deletes it by a 404. Of
// any other call a 404 says that the address is wrong, and confirms nothing.
func (e Endpoint) ended(r reply, own, deletes bool) error {
	doc, _ := parseAnswer(r)
	switch {
	case deletes && (r.status == http.StatusNotFound || r.status == http.StatusGone), own && r.status == http.StatusUnauthorized:
		return nil
	case r.status >= 200 && r.status < 300:
		if code := e.Answer.errorIn(doc); code == "" && at(doc, "/ok") != false || alreadyDead(code) {
			return nil
		}
	}
	failed := e.refusal(r, doc)
	if alreadyDead(failed.Code) {
		return nil
	}
	return failed.fault(e.URL)
}

// alreadyDead are the words in which endpoints say that there is nothing left to end.
func alreadyDead(code string) bool {
	switch code {
	case CodeInvalidToken, "token_revoked", "invalid_auth", "account_inactive":
		return true
	}
	return false
}

// Texts is what stands at a JSON pointer (RFC 6901) of a document: a string, a number, a truth value, or a list of such. ok is
// false where there is nothing, or where data is no JSON.
func Texts(data []byte, pointer string) (l []string, ok bool) { return Read(data).Texts(pointer) }

// Document is JSON that was read once, to be asked for several things. The zero Document holds nothing.
type Document struct{ root any }

// Read reads a document; what is no JSON holds nothing.
func Read(data []byte) Document {
	doc, err := parseValue(bytes.TrimLeft(data, " \t\r\n"))
	if err != nil {
		return Document{}
	}
	return Document{doc}
}

// IsZero reports whether it holds nothing: what was read was no JSON, or null.
func (d Document) IsZero() bool { return d.root == nil }

// Len is how many entries a list has; -1 where there is none. The empty pointer is the whole document.
func (d Document) Len(pointer string) int {
	v := at(d.root, pointer)
	if pointer == "" {
		v = d.root
	}
	if l, ok := v.([]any); ok {
		return len(l)
	}
	return -1
}

// Texts is what the function of that name says of this document.
func (d Document) Texts(pointer string) (l []string, ok bool) {
	v := at(d.root, pointer)
	all, isList := v.([]any)
	if !isList {
		all = []any{v}
	}
	for _, v := range all {
		s, ok := asText(v)
		if b, isBool := v.(bool); isBool {
			s, ok = map[bool]string{true: "true", false: "false"}[b], true
		}
		if !ok {
			return nil, false
		}
		l = append(l, s)
	}
	return l, len(l) > 0
}
