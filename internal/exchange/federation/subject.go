package federation

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/jwt"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Subjects finds what stands for a caller elsewhere.
type Subjects struct {
	Home  *exchange.Home
	Users identity.Users
}

// subject is a token that stands for a person.
type subject struct {
	token secret.Text
	kind  string // token type URN (RFC 8693 section 3)
	until time.Time
}

// mark is what a step's key has of it: the token itself is no key of anything.
func (s subject) mark() string {
	sum := sha256.Sum256([]byte(s.token.Expose()))
	return hex.EncodeToString(sum[:])
}

// ready reports whether there will be a subject, without getting it.
func (f *Federation) ready(ctx context.Context, c *identity.Caller, want catalog.Subject) error {
	switch {
	case want == catalog.SubjectSelf:
		if c.User == "" {
			return fault.New(fault.NotFound, "speaks for people; this caller is a service", nil)
		}
		return nil
	case !c.Local && !c.Raw().IsZero():
		return nil
	}
	_, err := f.Subjects.Home.Connection(ctx, c)
	return err
}

// of returns what stands for the caller: his own token where the company's IdP issued it, else one of his home credential.
func (f *Federation) of(ctx context.Context, c *identity.Caller, want catalog.Subject) (subject, error) {
	if !c.Local && !c.Raw().IsZero() {
		return subject{c.Raw(), oauth.TokenTypeAccess, c.Expires}, nil
	}
	id := want == catalog.SubjectID
	token, until, err := f.Subjects.Home.Token(ctx, c, id)
	if err != nil {
		return subject{}, err
	}
	kind := oauth.TokenTypeAccess
	if id {
		kind = oauth.TokenTypeID
	}
	return subject{token, kind, until}, nil
}

const (
	// assertionLife is that of what we sign: it is used at once. Salesforce takes three minutes at most, GitHub ten.
	assertionLife = 3 * time.Minute
	clientLife    = time.Minute
)

// person is the caller's name for the other side, by the claim that the config chose. What the company's IdP says of him
// identifies him there, because the operator says so; it never does here.
func (f *Federation) person(ctx context.Context, c *identity.Caller, claim string) (string, error) {
	u, err := f.Subjects.Users.User(ctx, c.Tenant, c.User)
	if err != nil {
		return "", err
	}
	v := ""
	switch claim {
	case "", "subject":
		v = u.Subject
	case "email":
		v = u.Email
	case "name":
		v = u.Name
	case "user":
		v = string(u.ID)
	}
	if v == "" {
		return "", fault.New(fault.Denied, "the company's sign-in says no "+claim+" of this person, and the upstream knows people by it; ask an operator", nil)
	}
	return v, nil
}

// statement is what we sign.
type statement map[string]any

// sign makes a JWT of it: with the key of the config where there is one, else with a key of ours.
func (f *Federation) sign(ctx context.Context, r exchange.Request, typ, kid string, life time.Duration, s statement) (secret.Text, error) {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return secret.Text{}, err
	}
	now := f.Now()
	s["jti"], s["iat"], s["exp"] = hex.EncodeToString(id), now.Unix(), now.Add(life).Unix()
	claims, err := json.Marshal(s)
	if err != nil {
		return secret.Text{}, err
	}
	own := f.Clients.Secret(r.Upstream, r.Method.Kind, vault.PrivateKey)
	if own.IsZero() {
		jwt, err := f.Signer.Assert(ctx, r.Upstream.Tenant, typ, claims)
		return secret.New(jwt), err
	}
	signer, err := signerOf(own, typ, kid)
	if err != nil {
		return secret.Text{}, fault.New(fault.Unavailable, r.Upstream.Title+" could not be opened: its private_key cannot be used; ask an operator", err)
	}
	jws, err := signer.Sign(claims)
	if err != nil {
		return secret.Text{}, err
	}
	jwt, err := jws.CompactSerialize()
	return secret.New(jwt), err
}

// signerOf reads a PEM key: RSA signs RS256, P-256 ES256.
func signerOf(key secret.Text, typ, kid string) (jose.Signer, error) {
	block, _ := pem.Decode([]byte(key.Expose()))
	if block == nil {
		return nil, fmt.Errorf("no PEM block")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		if parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
			if parsed, err = x509.ParseECPrivateKey(block.Bytes); err != nil {
				return nil, fmt.Errorf("neither PKCS #8, PKCS #1 nor SEC 1")
			}
		}
	}
	alg := jose.ES256
	if _, ok := parsed.(*rsa.PrivateKey); ok {
		alg = jose.RS256
	}
	return jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: parsed, KeyID: kid}}, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
}

// clientAssertion proves our client to an authorization server (RFC 7523 section 2.2): for its issuer alone, for a minute.
func (f *Federation) clientAssertion(ctx context.Context, r exchange.Request, audience string) (secret.Text, error) {
	return f.sign(ctx, r, jwt.TypeClientAssertion, "", clientLife, statement{"iss": r.Method.Client, "sub": r.Method.Client, "aud": audience})
}
