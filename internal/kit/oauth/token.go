package oauth

import (
	"bytes"
	"context"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"

	"frontdesk.dev/frontdesk/internal/kit/dpop"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// AuthMethod is how a client proves itself at an endpoint (RFC 6749 s2.3).
type AuthMethod string

// The zero AuthMethod is refused: sending no secret by mistake must not look like a public client.
const (
	AuthBasic      AuthMethod = "client_secret_basic"
	AuthPost       AuthMethod = "client_secret_post"
	AuthNone       AuthMethod = "none"
	AuthJWT        AuthMethod = "private_key_jwt" // RFC 7523 section 2.2, by Endpoint.Assert
	AuthSecretUser AuthMethod = "secret_as_user"  // HTTP Basic with the secret as user and no password, at some vendors
	AuthNobody     AuthMethod = "unregistered"    // the grant itself is all the proof there is; no client_id is sent
)

// Body is the coding of a request to the token endpoint.
type Body string

const (
	BodyForm Body = "form" // RFC 6749; the zero Body means it too
	BodyJSON Body = "json"
)

// Endpoint is a token or revocation endpoint with the client's registration there: facts of one vendor, as data.
type Endpoint struct {
	URL                    string
	RefreshURL             string // where a refresh goes instead, then without grant_type; usually empty
	Renews                 string // grant type by which access tokens renew themselves, and the parameter that carries them; empty: refresh tokens do it
	ClientID               string
	Secret                 secret.Text
	Auth                   AuthMethod
	Assert                 func(context.Context) (secret.Text, error) // of AuthJWT: a fresh client assertion
	Request                Body
	Headers                map[string]string // beside, never instead of, our own
	ExtraParams            map[string]string // sent with every call; may not repeat ours
	Answer                 Pointers
	TokenTypes             []string                  // token_type values besides Bearer that are to be used as Bearer
	ScopeSeparator         string                    // in requests; " " if empty
	ScopeResponseSeparator string                    // in answers; as in requests if empty
	ZeroIsNever            bool                      // expires_in 0 means that the token does not expire
	ErrorCodes             map[string]string         // the vendor's error codes in RFC 6749's words
	Key                    func() (*dpop.Key, error) // to which the token is bound (RFC 9449 section 5): dpop.NewKey, or the one that it has; nil: to none
}

// CodeGrant redeems an authorization code.
type CodeGrant struct {
	Code        secret.Text
	Verifier    secret.Text // PKCE; zero only for vendors that reject it
	RedirectURI string      // as in the authorization request; empty for vendors that forbid it here
	Resources   []string    // RFC 8707
}

// RefreshGrant redeems a refresh token.
type RefreshGrant struct {
	Refresh     secret.Text
	RedirectURI string   // for the few that want it again
	Scopes      []string // none: as granted
	Resources   []string
}

// TokenTimeout bounds one call, so that a refresh ends before its lease does.
const TokenTimeout = 20 * time.Second

const maxAnswer = 1 << 20

// Client makes the calls of an OAuth client. HTTP and Now are required; it is safe for concurrent use.
type Client struct {
	HTTP   Doer
	Now    func() time.Time
	Nonces *dpop.Nonces // nil: what servers want in proofs is asked of them each time
}

// Bound is a token that came bound to a key, to be sent with its proofs.
func (c Client) Bound(k *dpop.Key, access secret.Text) *dpop.Token {
	return &dpop.Token{Key: k, Access: access, Nonces: c.Nonces, Now: c.Now}
}

// Exchange redeems an authorization code (RFC 6749 s4.1.3). All errors of a call that was tried hold a *TokenError.
func (c Client) Exchange(ctx context.Context, e Endpoint, g CodeGrant) (Token, error) {
	params := url.Values{"grant_type": {GrantAuthorizationCode}, "code": {g.Code.Expose()}}
	if !g.Verifier.IsZero() {
		params.Set("code_verifier", g.Verifier.Expose())
	}
	if g.RedirectURI != "" {
		params.Set("redirect_uri", g.RedirectURI)
	}
	t, err := c.token(ctx, e, params, g.Resources)
	if err != nil || e.Renews == "" {
		return t, err
	}
	// What a code brings is gone in an hour or two, and cannot be renewed then. Where this fails it is tried again when it is due.
	if long, err := c.Refresh(ctx, e, RefreshGrant{Refresh: t.Access}); err == nil {
		long.Scopes, long.ScopesKnown, long.rest = t.Scopes, t.ScopesKnown, t.rest
		return long, nil
	}
	return t, nil
}

// Refresh redeems a refresh token (RFC 6749 s6), or an access token where the vendor has it renew itself. A Token without Refresh means:
// the old one stays.
func (c Client) Refresh(ctx context.Context, e Endpoint, g RefreshGrant) (Token, error) {
	params := url.Values{"grant_type": {GrantRefreshToken}, "refresh_token": {g.Refresh.Expose()}}
	if e.Renews != "" {
		params = url.Values{"grant_type": {e.Renews}, e.Renews: {g.Refresh.Expose()}}
	}
	if e.RefreshURL != "" {
		e.URL = e.RefreshURL
		params.Del("grant_type")
	}
	if g.RedirectURI != "" {
		params.Set("redirect_uri", g.RedirectURI)
	}
	if len(g.Scopes) > 0 {
		params.Set("scope", JoinScopes(g.Scopes, e.ScopeSeparator))
	}
	e.Answer.refresh = true
	return c.token(ctx, e, params, g.Resources)
}

// ClientCredentials gets a token for the client itself (RFC 6749 s4.4).
func (c Client) ClientCredentials(ctx context.Context, e Endpoint, scopes, resources []string) (Token, error) {
	params := url.Values{"grant_type": {GrantClientCredentials}}
	if len(scopes) > 0 {
		params.Set("scope", JoinScopes(scopes, e.ScopeSeparator))
	}
	return c.token(ctx, e, params, resources)
}

// Revoke ends a token at its vendor (RFC 7009); e.URL is the revocation endpoint, hint "access_token",
// "refresh_token" or empty. A token that the vendor no longer knows counts as ended. Errors as Exchange.
func (c Client) Revoke(ctx context.Context, e Endpoint, token secret.Text, hint string) error {
	params := url.Values{"token": {token.Expose()}}
	if hint != "" {
		params.Set("token_type_hint", hint)
	}
	r, err := c.post(ctx, e, params)
	if err != nil {
		return err
	}
	if r.status >= 200 && r.status < 300 {
		return nil
	}
	doc, _ := parseAnswer(r)
	failed := e.refusal(r, doc)
	if failed.Code == CodeInvalidToken {
		return nil
	}
	return failed.fault(e.URL)
}

func (c Client) token(ctx context.Context, e Endpoint, params url.Values, resources []string) (Token, error) {
	for _, resource := range resources {
		if !isResource(resource) {
			return Token{}, fault.New(fault.Invalid, "a resource is an absolute URI without fragment", nil)
		}
		params.Add("resource", resource)
	}
	var key *dpop.Key
	if e.Key != nil {
		var err error
		if key, err = e.Key(); err != nil {
			return Token{}, err
		}
	}
	asked := c.Now() // life is counted from before the request: a slow answer must not lengthen it
	r, err := c.proved(ctx, e, params, key)
	if err != nil {
		return Token{}, err
	}
	token, failed := e.read(r, asked, key)
	if failed != nil {
		return Token{}, failed.fault(e.URL)
	}
	return token, nil
}

// proved is post with a proof of the key, where there is one. A server that wants its nonce in the proof (RFC 9449 section 8) has done
// nothing yet, and is asked once more, with a client assertion of its own.
func (c Client) proved(ctx context.Context, e Endpoint, params url.Values, key *dpop.Key) (reply, error) {
	if key == nil {
		return c.post(ctx, e, params)
	}
	at, err := url.Parse(e.URL)
	if err != nil {
		return reply{}, fault.New(fault.Invalid, "the endpoint is not a usable https URL", nil)
	}
	nonce := c.Nonces.Of(at)
	for second := false; ; second = true {
		proof, err := key.Proof(http.MethodPost, at, secret.Text{}, nonce, c.Now())
		if err != nil {
			return reply{}, err
		}
		r, err := c.send(ctx, e, maps.Clone(params), func(q *http.Request) { q.Header.Set(dpop.Header, proof) })
		if err != nil {
			return r, err
		}
		next := c.Nonces.Learn(at, r.header)
		if second || next == "" || next == nonce || !e.wantsNonce(r) {
			return r, nil
		}
		nonce = next
	}
}

func (e Endpoint) wantsNonce(r reply) bool {
	doc, err := parseAnswer(r)
	return (r.status == http.StatusBadRequest || r.status == http.StatusUnauthorized) && err == nil && e.Answer.errorIn(doc) == dpop.CodeUseNonce
}

// reply is an answer as it came. now is for reading dates in it.
type reply struct {
	status int
	header http.Header
	body   []byte
	whole  bool
	now    time.Time
}

func (c Client) post(ctx context.Context, e Endpoint, params url.Values) (reply, error) {
	return c.send(ctx, e, params, func(*http.Request) {})
}

// send makes a call; shape may change how it is sent, not to where.
func (c Client) send(ctx context.Context, e Endpoint, params url.Values, shape func(*http.Request)) (reply, error) {
	ctx, cancel := context.WithTimeout(ctx, TokenTimeout)
	defer cancel()
	// WroteHeaders fires before the bytes are flushed: what may have left counts as sent.
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaders: func() { sent.Store(true) },
		WroteRequest: func(httptrace.WroteRequestInfo) { sent.Store(true) },
	})
	req, err := e.request(ctx, params)
	if err != nil {
		return reply{}, err
	}
	shape(req)
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return reply{}, (&TokenError{Failure: Temporary, Sent: sent.Load(), Cause: quiet(err)}).fault(e.URL)
	}
	defer func() { _ = resp.Body.Close() }()
	body, whole, err := readBody(resp.Body, maxAnswer)
	if err != nil {
		return reply{}, (&TokenError{Failure: Temporary, HTTPStatus: resp.StatusCode, Sent: true, Cause: quiet(err)}).fault(e.URL)
	}
	return reply{resp.StatusCode, resp.Header, body, whole, c.Now()}, nil
}

// request writes the call. Its errors are the operator's to mend, and nothing has been sent.
func (e Endpoint) request(ctx context.Context, params url.Values) (*http.Request, error) {
	if _, ok := checkEndpoint(e.URL); !ok {
		return nil, fault.New(fault.Invalid, "the endpoint is not a usable https URL", nil)
	}
	if err := merge(params, e.ExtraParams); err != nil {
		return nil, err
	}
	if err := e.authenticate(ctx, params); err != nil {
		return nil, err
	}
	body, media, err := e.Request.encode(params)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.URL, bytes.NewReader(body))
	if err != nil {
		return nil, fault.New(fault.Invalid, "the endpoint is not a usable https URL", nil)
	}
	for name, value := range e.Headers {
		req.Header.Set(name, value)
	}
	req.Header.Del("Authorization")
	req.Header.Set("Accept", "application/json")
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	if e.Auth == AuthBasic {
		// Form-coded first (RFC 6749 s2.3.1): a ':' or '%' in either would otherwise be read as another pair.
		req.SetBasicAuth(url.QueryEscape(e.ClientID), url.QueryEscape(e.Secret.Expose()))
	}
	if e.Auth == AuthSecretUser {
		req.SetBasicAuth(e.Secret.Expose(), "")
	}
	return req, nil
}

// authenticate adds who is asking to the parameters; AuthBasic goes into a header.
func (e Endpoint) authenticate(ctx context.Context, params url.Values) error {
	shared := e.Auth == AuthBasic || e.Auth == AuthPost || e.Auth == AuthSecretUser
	if (e.ClientID == "") != (e.Auth == AuthNobody) || e.Secret.IsZero() == shared || (e.Assert == nil) == (e.Auth == AuthJWT) {
		return fault.New(fault.Invalid, "client id, client secret and authentication method do not fit together", nil)
	}
	switch e.Auth {
	case AuthBasic, AuthSecretUser, AuthNobody:
	case AuthPost:
		params.Set("client_id", e.ClientID)
		params.Set("client_secret", e.Secret.Expose())
	case AuthNone:
		params.Set("client_id", e.ClientID)
	case AuthJWT:
		assertion, err := e.Assert(ctx)
		if err != nil {
			return err
		}
		params.Set("client_id", e.ClientID)
		params.Set("client_assertion_type", assertionType)
		params.Set("client_assertion", assertion.Expose())
	default:
		return fault.New(fault.Invalid, "the client authentication method is unknown", nil)
	}
	return nil
}

func (b Body) encode(params url.Values) (body []byte, media string, err error) {
	switch b {
	case "", BodyForm:
		return []byte(params.Encode()), "application/x-www-form-urlencoded", nil
	case BodyNone:
		return nil, "", nil
	case BodyJSON:
		object := make(map[string]any, len(params))
		for name, values := range params {
			object[name] = values[0]
			if len(values) > 1 {
				object[name] = values
			}
		}
		body, err = json.Marshal(object, json.Deterministic(true))
		if err != nil {
			return nil, "", fault.New(fault.Invalid, "a parameter cannot be written as JSON", nil)
		}
		return body, "application/json", nil
	}
	return nil, "", fault.New(fault.Invalid, "the request coding is neither form nor json", nil)
}
