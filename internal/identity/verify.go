package identity

import (
	"cmp"
	"context"
	"crypto/sha256"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/jwt"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// AccessType is the `typ` of our own access tokens (RFC 9068).
const AccessType = jwt.TypeAccessToken

// AccessClaims is the payload of our own access tokens (RFC 9068 section 2.2). It names the user by his internal id and
// holds no groups: those are read where they are kept.
type AccessClaims struct {
	Issuer   string   `json:"iss"`
	Audience string   `json:"aud"`
	Subject  UserID   `json:"sub"`
	Client   ClientID `json:"client_id"`
	ID       string   `json:"jti"`
	IssuedAt int64    `json:"iat"`
	Expires  int64    `json:"exp"`
	Scope    string   `json:"scope,omitzero"`
	AuthTime int64    `json:"auth_time,omitzero"`
	ACR      string   `json:"acr,omitzero"`
	AMR      []string `json:"amr,omitzero"`
	// Family is the sign-in that this token is of, Micros the time of issue in microseconds: an end of access in the same
	// second must not kill a token that was issued after it.
	Family string `json:"fam"`
	Micros int64  `json:"fus"`
}

// Issuer is one whose access tokens are taken: our own, or a company's IdP.
type Issuer struct {
	Tenant Tenant
	URL    string // exactly the `iss`
	Keys   jwt.Keys
	IDP    string // name in the config; "" is our own issuer

	// Of an IdP:
	Audiences    []string // accepted beside the resource's own URL
	Types        []string // accepted `typ`; nil: at+jwt alone
	SubjectClaim string   // "" is sub
	GroupsClaim  string   // "" is groups
}

// Verifier turns bearer tokens into callers. Make it with NewVerifier.
type Verifier struct {
	Users  Users
	Epochs *Epochs
	Now    func() time.Time
	// Elsewhere verifies where the process is cut in two: in the one that faces run in, nothing of who is asking is found out. Nil: here.
	Elsewhere func(ctx context.Context, t Tenant, resource, token string) (*Caller, error)

	issuers atomic.Pointer[[]Issuer]
	cache   cache
}

// UseIssuers makes these the accepted ones. Tokens that were verified before stay so until they expire, at most 5 minutes,
// unless their issuer is gone: then they are forgotten.
func (v *Verifier) UseIssuers(l []Issuer) {
	v.issuers.Store(&l)
	v.cache.clear()
}

// maxCached bounds how long a verified token is believed without looking at it again.
const maxCached = 5 * time.Minute

// Verify returns who presents the token at the resource (its URL, RFC 8707). Every refusal is fault.Unauthenticated with a
// sentence that says no more than expired or not valid here; fault.Unavailable means that it could not be found out.
// The returned Caller is shared: nobody changes it.
func (v *Verifier) Verify(ctx context.Context, t Tenant, resource, token string) (*Caller, error) {
	key := cacheKey{tenant: t, resource: resource, hash: sha256.Sum256([]byte(token))}
	now := v.Now()
	if c := v.cache.get(key, now); c != nil {
		if !v.Epochs.Alive(c) {
			return nil, errEnded
		}
		return c, nil
	}
	c, err := v.look(ctx, t, resource, token)
	if err != nil {
		return nil, err
	}
	if !v.Epochs.Alive(c) {
		return nil, errEnded
	}
	c.proof = string(key.hash[:])
	until := now.Add(maxCached)
	if c.Expires.Before(until) {
		until = c.Expires
	}
	v.cache.put(key, c, until)
	return c, nil
}

// look finds out whose token it is.
func (v *Verifier) look(ctx context.Context, t Tenant, resource, token string) (*Caller, error) {
	if v.Elsewhere != nil {
		c, err := v.Elsewhere(ctx, t, resource, token)
		if err == nil && (c == nil || c.Tenant != t) {
			err = errNotHere
		}
		if err != nil {
			return nil, err
		}
		c.raw = secret.New(token)
		return c, nil
	}
	iss, err := v.issuerOf(t, token)
	if err != nil {
		return nil, err
	}
	return v.verify(ctx, iss, resource, token)
}

var (
	errEnded   = fault.New(fault.Unauthenticated, "access of this sign-in has ended; sign in again", nil)
	errNotHere = fault.New(fault.Unauthenticated, "the token is not valid here", nil)
)

// issuerOf picks whose token it claims to be, by exact comparison, before anything is fetched.
func (v *Verifier) issuerOf(t Tenant, token string) (Issuer, error) {
	url, err := jwt.UnverifiedIssuer(token)
	if err != nil {
		return Issuer{}, errNotHere
	}
	if l := v.issuers.Load(); l != nil {
		for _, i := range *l {
			if i.Tenant == t && i.URL == url {
				return i, nil
			}
		}
	}
	return Issuer{}, errNotHere
}

func (v *Verifier) verify(ctx context.Context, iss Issuer, resource, token string) (*Caller, error) {
	want := jwt.Expect{Issuer: iss.URL, Audiences: []string{resource}, Types: []string{AccessType}, Now: v.Now(),
		// cnf (RFC 7800): what is bound to a key is no bearer token, and proofs are not taken here.
		Absent: []string{"nonce", "events", "req_wl", "at_hash", "c_hash", "cnf"}}
	if iss.IDP != "" {
		want.Audiences = append(want.Audiences, iss.Audiences...)
		want.Leeway = jwt.MaxLeeway
		if iss.Types != nil {
			want.Types = iss.Types
		}
	}
	claims, err := jwt.Verify(ctx, token, iss.Keys, want)
	if err != nil {
		return nil, err
	}
	var c *Caller
	if iss.IDP == "" {
		c, err = v.own(ctx, iss, claims)
	} else {
		c, err = v.foreign(ctx, iss, claims)
	}
	if err != nil {
		return nil, err
	}
	c.raw = secret.New(token)
	return c, nil
}

// own reads a token that we issued.
func (v *Verifier) own(ctx context.Context, iss Issuer, claims jwt.Claims) (*Caller, error) {
	var a AccessClaims
	if err := claims.Decode(&a); err != nil {
		return nil, err
	}
	u, err := v.Users.User(ctx, iss.Tenant, a.Subject)
	if fault.KindOf(err) == fault.NotFound {
		return nil, errEnded
	}
	if err != nil {
		return nil, err
	}
	if u.Gone != "" {
		return nil, errEnded
	}
	c := &Caller{Tenant: iss.Tenant, User: u.ID, Name: u.Name, IDP: u.IDP, Subject: u.Subject, Groups: u.Groups, Client: a.Client,
		Scopes: scopes(a.Scope), Issued: time.UnixMicro(a.Micros), Expires: claims.Expires, Local: true, Family: a.Family,
		Auth: Authentication{ACR: a.ACR, AMR: a.AMR}}
	if a.AuthTime != 0 {
		c.Auth.Time = time.Unix(a.AuthTime, 0)
	}
	return c, nil
}

// idpClaims are those that we read of a company's access token (RFC 9068; azp and cid where an IdP says it so).
type idpClaims struct {
	ClientID string         `json:"client_id"`
	AZP      string         `json:"azp"`
	CID      string         `json:"cid"`
	Scope    string         `json:"scope"`
	Name     string         `json:"name"`
	Email    string         `json:"email"`
	Verified jsontext.Value `json:"email_verified"`
	AuthTime int64          `json:"auth_time"`
	ACR      string         `json:"acr"`
	AMR      []string       `json:"amr"`
	Username string         `json:"preferred_username"`
	IDType   string         `json:"idtyp"` // Entra: "app" is a workload, where the application asks for this claim
	ObjectID string         `json:"oid"`   // Entra
	Overage  jsontext.Value `json:"_claim_names"`
	Actor    *actor         `json:"act"`
}

// actor is RFC 8693 section 4.1.
type actor struct {
	Subject string `json:"sub"`
	Actor   *actor `json:"act"`
}

// foreign reads a token of the company's IdP. The same person is the same user as by a sign-in at our issuer.
func (v *Verifier) foreign(ctx context.Context, iss Issuer, claims jwt.Claims) (*Caller, error) {
	var k idpClaims
	if err := claims.Decode(&k); err != nil {
		return nil, errNotHere
	}
	var all map[string]jsontext.Value
	if err := claims.Decode(&all); err != nil {
		return nil, errNotHere
	}
	subject, ok := stringClaim(all, iss.SubjectClaim, "sub")
	groups, groupsOK := listClaim(all, iss.GroupsClaim, "groups")
	if !ok || !groupsOK || (k.Overage != nil && groups == nil) {
		return nil, fault.New(fault.Unauthenticated, "the token's subject or groups cannot be used; ask an operator", nil)
	}
	c := &Caller{Tenant: iss.Tenant, IDP: iss.IDP, Subject: subject, Client: ClientID(k.ClientID), Actors: k.Actor.chain(), Scopes: scopes(k.Scope),
		Issued: claims.IssuedAt, Expires: claims.Expires, Auth: Authentication{ACR: k.ACR, AMR: k.AMR}, Groups: groups}
	c.Client = cmp.Or(c.Client, ClientID(k.AZP), ClientID(k.CID))
	if k.AuthTime != 0 {
		c.Auth.Time = time.Unix(k.AuthTime, 0)
	}
	if k.workload(claims.Subject, subject, string(c.Client)) {
		c.Service, c.Name = subject, subject
		return c, nil
	}
	u, err := v.Users.EnsureUser(ctx, User{Tenant: iss.Tenant, IDP: iss.IDP, Subject: subject, Name: k.Name, Email: email(k.Email, k.Verified), Groups: groups})
	if err != nil {
		return nil, err
	}
	if u.Gone != "" { // however fresh the token is: the directory's word stands above it
		return nil, errEnded
	}
	c.User, c.Name, c.Groups = u.ID, u.Name, u.Groups
	return c, nil
}

// workload reports whether a client got the token for itself: it names the client as its subject (RFC 9068 section 5), and never a
// person. Some IdPs give each client an account of its own, and say so in their own way.
func (k idpClaims) workload(sub, subject, client string) bool {
	switch {
	case client != "" && (sub == client || subject == client):
		return true
	case k.IDType == "app", k.ObjectID != "" && k.ObjectID == sub: // Entra: a person's sub is another for each application, an application's is its object id
		return true
	case client != "" && sub == client+"@clients": // Auth0
		return true
	case client != "" && k.Username == "service-account-"+client: // Keycloak
		return true
	case strings.HasSuffix(strings.ToLower(k.Email), ".gserviceaccount.com"): // Google: its subject is a number, as a person's is
		return true
	}
	return false
}

// email is the address, unless the IdP says that it is not proven (OpenID Connect Core, section 5.1): anybody could claim it. Some say
// that as text.
func email(claim string, verified jsontext.Value) string {
	if v := string(verified); v == "false" || v == `"false"` {
		return ""
	}
	return claim
}

// scopes reads a scope claim; one that is malformed grants nothing.
func scopes(claim string) []string {
	l, _ := oauth.ParseScopes(claim, " ")
	return l
}

func (a *actor) chain() []string {
	var l []string
	for ; a != nil && len(l) < 8; a = a.Actor {
		l = append(l, a.Subject)
	}
	return l
}

func stringClaim(all map[string]jsontext.Value, name, otherwise string) (string, bool) {
	if name == "" {
		name = otherwise
	}
	var s string
	return s, json.Unmarshal(all[name], &s) == nil && s != "" && len(s) <= 255
}

// maxGroups bounds what one token can make us keep and look through.
const maxGroups = 2000

// listClaim is true for an absent claim; a string is not a list.
func listClaim(all map[string]jsontext.Value, name, otherwise string) ([]string, bool) {
	if name == "" {
		name = otherwise
	}
	raw, present := all[name]
	if !present {
		return nil, true
	}
	l := []string{}
	if json.Unmarshal(raw, &l) != nil || len(l) > maxGroups {
		return nil, false
	}
	return slices.Clip(l), true
}
