package issuer

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker/visits"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/web"
)

var errGrant = refuse(oauth.CodeInvalidGrant, "the code or refresh token is not valid any more, or was never this client's; sign in again")

// token is the token endpoint (RFC 6749 section 3.2).
func (s *Server) token(w http.ResponseWriter, r *http.Request, t identity.Tenant) error {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	form, err := formOf(r)
	if err != nil {
		return err
	}
	client, err := s.authenticate(r, t, form)
	if err != nil {
		return err
	}
	var answer map[string]any
	switch form.Get("grant_type") {
	case oauth.GrantAuthorizationCode:
		answer, err = s.redeemCode(r.Context(), t, client, form)
	case oauth.GrantRefreshToken:
		answer, err = s.redeemRefresh(r.Context(), t, client, form)
	default:
		err = refuse(oauth.CodeUnsupportedGrantType, "supported are authorization_code and refresh_token")
	}
	if err != nil {
		return err
	}
	w.Header().Set("Pragma", "no-cache")
	writeJSON(w, http.StatusOK, answer)
	return nil
}

func formOf(r *http.Request) (url.Values, error) {
	if err := r.ParseForm(); err != nil {
		return nil, refuse(oauth.CodeInvalidRequest, "the body is not a form")
	}
	for name, v := range r.PostForm {
		if len(v) > 1 && name != "resource" {
			return nil, refuse(oauth.CodeInvalidRequest, "a parameter is said twice")
		}
	}
	return r.PostForm, nil
}

// authenticate proves a confidential client by the one method that it uses, and names a public one (RFC 6749 section 2.3).
func (s *Server) authenticate(r *http.Request, t identity.Tenant, form url.Values) (Client, error) {
	id, presented := form.Get("client_id"), form.Get("client_secret")
	if user, password, ok := r.BasicAuth(); ok {
		u, err1 := url.QueryUnescape(user)
		p, err2 := url.QueryUnescape(password)
		if err1 != nil || err2 != nil || presented != "" || id != "" && id != u {
			return Client{}, refuse(oauth.CodeInvalidClient, "the client proves itself in two ways, or in a malformed one")
		}
		id, presented = u, p
	}
	c, err := s.Clients.Client(r.Context(), t, identity.ClientID(id), web.Address(r))
	if err != nil {
		return Client{}, err
	}
	if len(c.SecretHash) > 0 {
		return c, s.proves(r, c, presented)
	}
	if presented != "" {
		return Client{}, errSecret
	}
	return c, nil
}

var errSecret = refuse(oauth.CodeInvalidClient, "the client's secret is wrong, or it has none")

const (
	guessWindow     = time.Minute
	guessesOfClient = 10 // at one client, from one address
	guesses         = 30 // from one address, whatever the clients
	provenFor       = 24 * time.Hour
)

// guessing counts wrong secrets of clients, by the address that they come from (RFC 6749 section 2.3.1). Never by the client alone: then
// strangers could keep it out.
type guessing struct {
	mu        sync.Mutex // held from the look at the counts until the guess is counted
	ofClient  web.Rate
	addresses web.Rate
	proven    web.Rate // clients that had the right secret, each at its address
}

// proves reports whether the secret is the client's. Where too many wrong ones came from this address, it does not say. A client that was
// right here of late is not kept out by what its neighbours behind the same address guess at others.
func (s *Server) proves(r *http.Request, c Client, presented string) error {
	g, address, now := &s.guessing, web.Address(r), s.Now()
	here := string(c.Tenant) + "\x00" + string(c.ID) + "\x00" + address
	g.mu.Lock()
	defer g.mu.Unlock()
	known := g.proven.Full(here, now, provenFor, 1)
	if g.ofClient.Full(here, now, guessWindow, guessesOfClient) || !known && g.addresses.Full(address, now, guessWindow, guesses) {
		return slow("too many wrong secrets came from this address; try again in a minute", guessWindow)
	}
	if c.secretMatches(presented) {
		g.proven.Allow(here, now, provenFor, 1)
		return nil
	}
	g.ofClient.Allow(here, now, guessWindow, guessesOfClient)
	g.addresses.Allow(address, now, guessWindow, guesses)
	if g.ofClient.Full(here, now, guessWindow, guessesOfClient) {
		s.Log.Warn("the secret of a client is wrong again and again: it was changed on one side alone, or somebody guesses", "tenant", c.Tenant, "client", c.ID, "address", address)
	}
	return errSecret
}

func (s *Server) redeemCode(ctx context.Context, t identity.Tenant, client Client, form url.Values) (map[string]any, error) {
	hash := sha256.Sum256([]byte(form.Get("code")))
	c, err := s.Grants.UseCode(ctx, t, hash[:], s.Now())
	if fault.KindOf(err) == fault.NotFound {
		return nil, errGrant
	}
	if err != nil {
		return nil, err
	}
	if !c.Used.IsZero() { // somebody has the code who should not: what the first one got is ended (RFC 6749 section 4.1.2)
		return nil, s.endFamily(ctx, t, c.User, c.Family, client.ID, "an authorization code was used twice")
	}
	redirect := form.Get("redirect_uri")
	resources := form["resource"]
	if c.Client != client.ID || !s.Now().Before(c.Expires) || redirect != "" && redirect != c.Redirect ||
		len(resources) > 0 && !slices.Equal(resources, []string{c.Resource}) || !oauth.VerifierMatches(form.Get("code_verifier"), c.Challenge) {
		return nil, errGrant
	}
	// All that comes of the code is as old as it is: an end that this replica has not heard of yet is later then, and ends it.
	now, made := s.Now(), c.Expires.Add(-codeLife)
	f := Family{Tenant: t, ID: c.Family, Client: client.ID, User: c.User, Resource: c.Resource, Scopes: c.Scopes, Auth: c.Auth, IDP: c.IDP,
		Created: made, Ends: c.Ends, Rotated: now, HomeAt: made}
	refresh, err := newRefresh(f.ID)
	if err != nil {
		return nil, err
	}
	f.Current = digest(refresh)
	standing, err := openUnder(form.Get("code"), ofStanding, c.Standing)
	if err != nil {
		return nil, err
	}
	if f.Standing, err = sealUnder(refresh, ofStanding, standing); err != nil {
		return nil, err
	}
	if err := s.Grants.PutFamily(ctx, f); err != nil {
		return nil, err
	}
	if s.revoked(f) { // ended since the code was made
		_, err := s.Grants.DropFamilies(ctx, t, f.User, f.Client, f.ID)
		return nil, firstOf(err, errGrant)
	}
	if err := s.Clients.Store.TouchClient(ctx, t, client.ID, now); err != nil && fault.KindOf(err) != fault.NotFound {
		return nil, err
	}
	return s.tokens(ctx, f, refresh)
}

// redeemRefresh rotates (RFC 9700 section 4.14). Whoever presents the token before the current one within the grace gets
// the same successor again, because answers get lost; anything older, or later, ends the sign-in.
func (s *Server) redeemRefresh(ctx context.Context, t identity.Tenant, client Client, form url.Values) (map[string]any, error) {
	presented := form.Get("refresh_token")
	id, _, ok := strings.Cut(strings.TrimPrefix(presented, refreshPrefix), ".")
	if !ok || !strings.HasPrefix(presented, refreshPrefix) {
		return nil, errGrant
	}
	f, err := s.Grants.Family(ctx, t, id)
	if fault.KindOf(err) == fault.NotFound || err == nil && f.Client != client.ID {
		return nil, errGrant
	}
	if err != nil {
		return nil, err
	}
	if l := form["resource"]; len(l) > 0 && !slices.Equal(l, []string{f.Resource}) { // not another one's token under its name (RFC 8707 section 2.2)
		return nil, refuse(oauth.CodeInvalidTarget, "this sign-in is for another resource")
	}
	now, hash := s.Now(), digest(presented)
	switch {
	case !now.Before(f.Ends) || s.revoked(f):
		_, err := s.Grants.DropFamilies(ctx, t, f.User, f.Client, f.ID)
		return nil, firstOf(err, errGrant)
	case subtle.ConstantTimeCompare(hash, f.Current) == 1:
		return s.rotate(ctx, f, presented)
	case subtle.ConstantTimeCompare(hash, f.Previous) == 1 && now.Sub(f.Rotated) <= replayGrace:
		next, err := openUnder(presented, ofNext, f.Next)
		if err != nil {
			return nil, err
		}
		return s.tokens(ctx, f, next)
	}
	return nil, s.endFamily(ctx, t, f.User, f.ID, client.ID, "an old refresh token was presented")
}

func (s *Server) revoked(f Family) bool {
	return !s.Epochs.SignIn(f.Tenant, f.IDP, f.Auth.SID) || !s.Epochs.Alive(&identity.Caller{Tenant: f.Tenant, User: f.User, Client: f.Client, Family: f.ID, Issued: f.HomeAt})
}

func (s *Server) rotate(ctx context.Context, f Family, presented string) (map[string]any, error) {
	err := s.Flows.Renew(ctx, f.Tenant, f.User, f.IDP)
	switch kind := fault.KindOf(err); {
	case kind == fault.Unauthenticated:
		_, err := s.Grants.DropFamilies(ctx, f.Tenant, f.User, "", "")
		return nil, firstOf(err, errGrant)
	case kind == fault.NotFound && !s.Now().Before(f.Created.Add(visits.Life)): // nobody can be asked any more
		_, err := s.Grants.DropFamilies(ctx, f.Tenant, f.User, f.Client, f.ID)
		return nil, firstOf(err, errGrant)
	case err != nil && kind != fault.NotFound:
		return nil, err
	}
	refresh, err := newRefresh(f.ID)
	if err != nil {
		return nil, err
	}
	standing, err := openUnder(presented, ofStanding, f.Standing)
	if err != nil {
		return nil, err
	}
	was := f.Current
	f.Previous, f.Current, f.Rotated, f.HomeAt = was, digest(refresh), s.Now(), s.Now()
	if f.Next, err = sealUnder(presented, ofNext, refresh); err != nil {
		return nil, err
	}
	if f.Standing, err = sealUnder(refresh, ofStanding, standing); err != nil {
		return nil, err
	}
	err = s.Grants.RotateFamily(ctx, f, was)
	if fault.KindOf(err) == fault.Conflict { // another replica rotated in this moment: its successor is the one
		if f, err = s.Grants.Family(ctx, f.Tenant, f.ID); err != nil {
			return nil, err
		}
		if !bytes.Equal(f.Previous, was) {
			return nil, errGrant
		}
		if refresh, err = openUnder(presented, ofNext, f.Next); err != nil {
			return nil, err
		}
		return s.tokens(ctx, f, refresh)
	}
	if fault.KindOf(err) == fault.NotFound { // it ended meanwhile
		return nil, errGrant
	}
	if err != nil {
		return nil, err
	}
	return s.tokens(ctx, f, refresh)
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// endFamily ends one sign-in of one client, on all replicas, and says so in the log.
func (s *Server) endFamily(ctx context.Context, t identity.Tenant, u identity.UserID, family string, client identity.ClientID, why string) error {
	if _, err := s.Grants.DropFamilies(ctx, t, u, client, family); err != nil {
		return err
	}
	if err := s.Epochs.End(ctx, t, identity.EpochFamily, family); err != nil {
		return err
	}
	err := s.Notary.Record(ctx, audit.Record{Kind: audit.KindEvent, Time: s.Now(), Tenant: t, User: u, Client: client, Action: "sign_in.ended", Result: audit.ResultDenied, Detail: why})
	return firstOf(err, errGrant)
}

// tokens signs an access token for the family (RFC 9068), and answers with it.
func (s *Server) tokens(ctx context.Context, f Family, refresh string) (map[string]any, error) {
	now := s.Now()
	life := min(accessLife, f.Ends.Sub(now))
	if life <= 0 {
		return nil, errGrant
	}
	id, err := oauth.Random(rand.Reader)
	if err != nil {
		return nil, err
	}
	c := identity.AccessClaims{Issuer: s.URL(f.Tenant, ""), Audience: f.Resource, Subject: f.User, Client: f.Client, ID: id[:22], IssuedAt: now.Unix(), Expires: now.Add(life).Unix(),
		Scope: oauth.JoinScopes(f.Scopes, " "), ACR: f.Auth.ACR, AMR: f.Auth.AMR, Family: f.ID, Micros: f.HomeAt.UnixMicro()}
	if !f.Auth.Time.IsZero() {
		c.AuthTime = f.Auth.Time.Unix()
	}
	standing, err := openUnder(refresh, ofStanding, f.Standing)
	if err != nil {
		return nil, err
	}
	access, err := s.Notary.Sign(ctx, f.Tenant, standing, c)
	if fault.KindOf(err) == fault.Unauthenticated {
		return nil, s.endFamily(ctx, f.Tenant, f.User, f.ID, f.Client, "its tokens are signed no more")
	}
	if err != nil {
		return nil, err
	}
	return map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": int(life.Seconds()), "refresh_token": refresh, "scope": c.Scope}, nil
}

// revoke is RFC 7009: whatever is presented, the answer is the same.
func (s *Server) revoke(w http.ResponseWriter, r *http.Request, t identity.Tenant) error {
	w.Header().Set("Access-Control-Allow-Origin", "*")
	form, err := formOf(r)
	if err != nil {
		return err
	}
	client, err := s.authenticate(r, t, form)
	if err != nil {
		return err
	}
	if f, ok := s.familyOf(r.Context(), t, client, form.Get("token")); ok {
		if _, err := s.Grants.DropFamilies(r.Context(), t, f.User, f.Client, f.ID); err != nil {
			return err
		}
		if err := s.Epochs.End(r.Context(), t, identity.EpochFamily, f.ID); err != nil {
			return err
		}
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	return nil
}

// familyOf finds the sign-in that a token of this client is of: a refresh token by its digest, an access token by its claim
// (its signature need not be looked at: the family's own client asks for an end, and gets it).
func (s *Server) familyOf(ctx context.Context, t identity.Tenant, c Client, token string) (Family, bool) {
	id, _, ok := strings.Cut(strings.TrimPrefix(token, refreshPrefix), ".")
	isRefresh := ok && strings.HasPrefix(token, refreshPrefix)
	if !isRefresh {
		id = familyClaim(token)
	}
	if id == "" {
		return Family{}, false
	}
	f, err := s.Grants.Family(ctx, t, id)
	if err != nil || f.Client != c.ID || isRefresh && !bytes.Equal(digest(token), f.Current) && !bytes.Equal(digest(token), f.Previous) {
		return Family{}, false
	}
	return f, true
}

// familyClaim reads the family out of one of our access tokens, unverified; "" if it is none.
func familyClaim(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var c identity.AccessClaims
	if err != nil || json.Unmarshal(payload, &c) != nil {
		return ""
	}
	return c.Family
}

const refreshPrefix = "fdr_"

func newRefresh(family string) (string, error) {
	random, err := oauth.Random(rand.Reader)
	return refreshPrefix + family + "." + random, err
}

func digest(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// What is sealed under a token's own key.
const (
	ofNext     = "frontdesk/issuer/next/v1"     // the refresh token that follows it
	ofStanding = "frontdesk/issuer/standing/v1" // by what the tokens are signed that it is exchanged for
)

// sealUnder seals what only whoever holds the token may open: not whoever reads the database, and not this process once the token
// has passed. Nothing stays nothing.
func sealUnder(token, what, plain string) ([]byte, error) {
	if plain == "" {
		return nil, nil
	}
	a, err := underAEAD(token, what)
	if err != nil {
		return nil, err
	}
	// The key is used once, so the nonce may be fixed.
	return a.Seal(nil, make([]byte, a.NonceSize()), []byte(plain), nil), nil
}

// openUnder is the inverse of sealUnder.
func openUnder(token, what string, sealed []byte) (string, error) {
	if len(sealed) == 0 {
		return "", nil
	}
	a, err := underAEAD(token, what)
	if err != nil {
		return "", err
	}
	plain, err := a.Open(nil, make([]byte, a.NonceSize()), sealed, nil)
	return string(plain), err
}

func underAEAD(token, what string) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(token), nil, what, 32)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}
