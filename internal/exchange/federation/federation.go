// Package federation obtains credentials without asking a person: from somebody who knows him already.
//
// One file a method. Each takes what stands for the person at the company's IdP (Subjects) to whoever opens the upstream, in
// one or two steps, and keeps what came for no longer than what it was made of. It trusts the company's IdP and the
// configured endpoints for the person they name, and nothing that an answer says beyond its form. It stores nothing.
package federation

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Federation is what the methods share. All fields are required.
type Federation struct {
	Subjects Subjects
	IdPs     *identity.IdPs
	Clients  *vault.Clients
	Signer   Signer
	OAuth    oauth.Client
	HTTP     oauth.Doer // of calls that are not OAuth's
	Issuer   func(t identity.Tenant) string
	Now      func() time.Time

	steps steps
	found discovered
}

// Signer signs what we state to other authorization servers (keyring.Signer).
type Signer interface {
	// Assert returns a compact JWS of the given `typ` with a key that our JWKS publishes.
	Assert(ctx context.Context, t identity.Tenant, typ string, claims []byte) (string, error)
}

// Methods are all of this package, by kind.
func (f *Federation) Methods() map[catalog.MethodKind]exchange.Method {
	return map[catalog.MethodKind]exchange.Method{
		catalog.IDJAGMethod:     &idJAG{f},
		catalog.TokenExchange:   &tokenExchange{f},
		catalog.JWTBearer:       &jwtBearer{f},
		catalog.GoogleWorkforce: &google{f},
		catalog.EntraOBO:        &entra{f},
		catalog.AWSWebIdentity:  &aws{f},
		catalog.GitHubApp:       &githubApp{f},
		catalog.ServiceKey:      &serviceKey{f},
		catalog.Passthrough:     &passthrough{f},
	}
}

// Forget drops what was obtained for a caller, because his access changed.
func (f *Federation) Forget(t identity.Tenant, principal string) { f.steps.forget(t, principal) }

// settings are the method's own; false means that the config has none, so that it can serve nobody.
func settings[S catalog.Settings](r exchange.Request) (S, error) {
	s, ok := r.Method.Settings.(S)
	if !ok {
		return s, fault.New(fault.NotFound, "is not configured: the config names the method without its settings", nil)
	}
	return s, nil
}

// bearer is a credential of one access token, placed as the provider says, or with proofs of the key that it is bound to.
func (f *Federation) bearer(r exchange.Request, t oauth.Token) *exchange.Credential {
	c := &exchange.Credential{Method: r.Method.Kind, Expires: t.Expires}
	c.Place, c.Marks = vault.Place(r.Upstream.Provider.Injection, t.Access)
	c.Fill = vault.Fill(t.Access)
	if t.Key != nil {
		c.Bind(f.OAuth.Bound(t.Key, t.Access))
	}
	return c
}

// owned reports whether the operator has answered for a credential that is not the caller's own.
func owned(r exchange.Request) error {
	if r.Upstream.Risk == "" {
		return fault.New(fault.NotFound, "is a shared credential, and the config does not accept_risk", nil)
	}
	return nil
}

// endpoint is a token endpoint with our registration there. The provider's facts say how its answers look.
func (f *Federation) endpoint(r exchange.Request, url, issuer string) (oauth.Endpoint, error) {
	e := oauth.Endpoint{Auth: oauth.AuthPost}
	if o := r.Upstream.Provider.OAuth; o != nil {
		e = o.Endpoint()
		url = cmp.Or(url, o.Token)
	}
	if url == "" {
		return e, fault.New(fault.Unavailable, r.Upstream.Title+" has no token endpoint in the config; ask an operator", nil)
	}
	e.URL, e.RefreshURL, e.ClientID = url, "", r.Method.Client
	e.Secret = f.Clients.Secret(r.Upstream, r.Method.Kind, vault.ClientSecret)
	switch {
	case e.ClientID == "":
		e.Auth, e.Secret = oauth.AuthNobody, secret.Text{}
	case r.Method.Auth == catalog.ClientJWT:
		e.Auth, e.Secret = oauth.AuthJWT, secret.Text{}
		e.Assert = func(ctx context.Context) (secret.Text, error) { return f.clientAssertion(ctx, r, cmp.Or(issuer, url)) }
	case r.Method.Auth == catalog.ClientNone, e.Secret.IsZero():
		e.Auth, e.Secret = oauth.AuthNone, secret.Text{}
	case r.Method.Auth != "":
		e.Auth = oauth.AuthMethod(r.Method.Auth)
	}
	return e, nil
}

// refused words a step that failed: which one, at whom, and who can do something about it.
func refused(r exchange.Request, step string, err error) error {
	te, ok := errors.AsType[*oauth.TokenError](err)
	if !ok {
		return err
	}
	code := ""
	if te.Code != "" {
		code = " (" + te.Code + ")"
	}
	switch te.Failure {
	case oauth.Temporary:
		return fault.Later(r.Upstream.Title+" could not be opened now: "+step+" did not answer; try again later", te.RetryAfter, err)
	case oauth.ClientRefused:
		return fault.New(fault.Unavailable, r.Upstream.Title+" could not be opened: "+step+" refuses Frontdesk's registration"+code+"; ask an operator", err)
	case oauth.GrantRefused, oauth.RequestRefused:
		return fault.New(fault.Denied, r.Upstream.Title+" could not be opened: "+step+" does not allow it for this person"+code+"; sign in again, or ask an operator", err)
	}
	return fault.New(fault.Unavailable, r.Upstream.Title+" could not be opened: "+step+" gave an answer that cannot be used; ask an operator", err)
}

const (
	callTimeout = 15 * time.Second
	maxAnswer   = 256 << 10
)

// call makes one request that is not OAuth's and reads its answer, bounded.
func (f *Federation) call(ctx context.Context, r *http.Request) (status int, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := f.HTTP.Do(r.WithContext(ctx))
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = errors.New("the answer is too large")
	}
	return resp.StatusCode, body, err
}

// tokenCall asks a vendor's own API, which is not OAuth's, for a token.
type tokenCall struct {
	step, url string
	bearer    secret.Text
	body      []byte // JSON
	want      int    // the status of success
	read      func(answer []byte) (token string, expires time.Time, err error)
}

func (f *Federation) token(ctx context.Context, r exchange.Request, c tokenCall) (oauth.Token, error) {
	q, err := http.NewRequest(http.MethodPost, c.url, bytes.NewReader(c.body))
	if err != nil {
		return oauth.Token{}, fault.New(fault.Unavailable, r.Upstream.Title+" could not be opened: the address of "+c.step+" is none; ask an operator", err)
	}
	q.Header.Set("Authorization", "Bearer "+c.bearer.Expose())
	q.Header.Set("Accept", "application/json")
	q.Header.Set("Content-Type", "application/json")
	status, answer, err := f.call(ctx, q)
	if err != nil || status != c.want {
		return oauth.Token{}, answered(r, c.step, status, err)
	}
	token, expires, err := c.read(answer)
	if err != nil || !usable(token) {
		return oauth.Token{}, answered(r, c.step, status, nil)
	}
	return oauth.Token{Access: secret.New(token), Expires: expires}, nil
}

// answered words the answer of a call that gave no credential.
func answered(r exchange.Request, step string, status int, err error) error {
	switch {
	case err != nil || status == http.StatusTooManyRequests || status >= 500:
		return fault.New(fault.Unavailable, r.Upstream.Title+" could not be opened now: "+step+" did not answer; try again later", err)
	case status == http.StatusForbidden || status == http.StatusUnauthorized || status == http.StatusBadRequest || status == http.StatusNotFound || status == http.StatusUnprocessableEntity:
		return fault.New(fault.Denied, r.Upstream.Title+" could not be opened: "+step+" refused; ask an operator", nil)
	}
	return fault.New(fault.Unavailable, r.Upstream.Title+" could not be opened: "+step+" gave an answer that cannot be used; ask an operator", nil)
}
