package vault

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/jwt"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
)

// ClientKey names a secret of ours at an upstream.
type ClientKey struct {
	Tenant   identity.Tenant
	Upstream catalog.UpstreamName
	Method   catalog.MethodKind // "": of every method that has none of its own
	Part     Part
}

// Part says which secret of a registration.
type Part string

const (
	ClientSecret Part = ""            // client_secret
	PrivateKey   Part = "private_key" // PEM, with which assertions are signed
	StaticKey    Part = "key"         // of service_key
)

// Clients holds the secrets of our own registrations at upstreams, from the config. The zero Clients has none, and proves itself
// by no key.
type Clients struct {
	Signer *keyring.Signer  // of private_key_jwt
	Now    func() time.Time // required with Signer

	now atomic.Pointer[map[ClientKey]secret.Text]
}

// Use makes these the current ones.
func (c *Clients) Use(m map[ClientKey]secret.Text) { c.now.Store(&m) }

// Secret is the method's own, else the upstream's; empty where the config has none.
func (c *Clients) Secret(up *catalog.Upstream, k catalog.MethodKind, p Part) secret.Text {
	m := c.now.Load()
	if m == nil {
		return secret.Text{}
	}
	if own, ok := (*m)[ClientKey{up.Tenant, up.Name, k, p}]; ok {
		return own
	}
	return (*m)[ClientKey{up.Tenant, up.Name, "", p}]
}

// Place is the function Place for a credential that was given through the upstream's own client: where the vendor wants to see with each
// request that it is this client who sends it, it says so. The client's secret goes no further than into that proof.
func (c *Clients) Place(up *catalog.Upstream, k catalog.MethodKind, in catalog.Injection, s secret.Text) (Placer, [][]byte) {
	put, marks := Place(in, s)
	proof := c.proof(up, k, in, s)
	if proof == "" {
		return put, marks
	}
	return func(r *http.Request) error {
		r.URL.RawQuery = withParam(r.URL.RawQuery, in.Proof, proof)
		return put(r)
	}, append(marks, []byte(proof))
}

func (c *Clients) proof(up *catalog.Upstream, k catalog.MethodKind, in catalog.Injection, s secret.Text) string {
	key := c.Secret(up, k, ClientSecret)
	if in.Proof == "" || k == catalog.APIKey || key.IsZero() || s.IsZero() {
		return ""
	}
	mac := hmac.New(sha256.New, []byte(key.Expose()))
	_, _ = mac.Write([]byte(s.Expose())) // a hash takes everything
	return hex.EncodeToString(mac.Sum(nil))
}

// withParam puts a parameter behind a query, in the place of all that have its name. The rest stays as policy saw it.
func withParam(query, name, value string) string {
	parts := slices.DeleteFunc(strings.Split(query, "&"), func(p string) bool {
		n, _, _ := strings.Cut(p, "=")
		plain, err := url.QueryUnescape(n)
		return p == "" || err == nil && plain == name
	})
	return strings.Join(append(parts, url.QueryEscape(name)+"="+url.QueryEscape(value)), "&")
}

// Endpoint is the upstream's token endpoint with our registration there.
func (c *Clients) Endpoint(up *catalog.Upstream, m catalog.Method) (oauth.Endpoint, error) {
	if up.Provider.OAuth == nil || m.Client == "" {
		return oauth.Endpoint{}, fault.New(fault.Unavailable, up.Title+" has no OAuth client configured; ask an operator", nil)
	}
	e := up.Provider.OAuth.Endpoint()
	e.ClientID, e.Secret = m.Client, c.Secret(up, m.Kind, ClientSecret)
	if m.Auth != "" {
		e.Auth = oauth.AuthMethod(m.Auth)
	}
	switch {
	case e.Auth == oauth.AuthJWT:
		e.Secret = secret.Text{}
		e.Assert = func(ctx context.Context) (secret.Text, error) { return c.assert(ctx, up, m) }
	case e.Secret.IsZero(), e.Auth == oauth.AuthNone:
		e.Auth, e.Secret = oauth.AuthNone, secret.Text{}
	}
	return e, nil
}

// assertLife is how long a client assertion is good: the time that a request takes, with clocks that differ.
const assertLife = time.Minute

// assert proves our client to the upstream's authorization server, and to no other: the audience is its issuer alone, or its token
// endpoint where it has none (RFC 7523 section 3, as draft-ietf-oauth-rfc7523bis narrows it).
func (c *Clients) assert(ctx context.Context, up *catalog.Upstream, m catalog.Method) (secret.Text, error) {
	if c.Signer == nil {
		return secret.Text{}, fault.New(fault.Internal, "", errors.New("no signer for client assertions"))
	}
	id, err := oauth.Random(rand.Reader)
	if err != nil {
		return secret.Text{}, err
	}
	o, now := up.Provider.OAuth, c.Now()
	claims, err := json.Marshal(map[string]any{"iss": m.Client, "sub": m.Client, "aud": cmp.Or(o.Issuer, o.Token), "jti": id, "iat": now.Unix(), "exp": now.Add(assertLife).Unix()})
	if err != nil {
		return secret.Text{}, err
	}
	jws, err := c.Signer.Assert(ctx, up.Tenant, jwt.TypeClientAssertion, claims)
	return secret.New(jws), err
}
