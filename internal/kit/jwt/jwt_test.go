package jwt_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/jwt"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const (
	issuer   = "https://as.example/t1"
	resource = "https://gw.example/t/acme/mcp/jira"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

var (
	ecKey   = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	ec384   = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	ec521   = must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	rsaKey  = must(rsa.GenerateKey(rand.Reader, 2048))
	edKey   = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	evilKey = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
)

// static is the Keys of one issuer, by kid; it counts what it is asked.
type static struct {
	keys  map[string]jose.JSONWebKey
	asked int
}

var errNoKey = errors.New("no such key")

func (s *static) Key(_ context.Context, kid string, _ jose.SignatureAlgorithm) (jose.JSONWebKey, error) {
	s.asked++
	if key, ok := s.keys[kid]; ok {
		return key, nil
	}
	return jose.JSONWebKey{}, errNoKey
}

func keys() *static {
	of := func(kid string, public any, alg jose.SignatureAlgorithm) jose.JSONWebKey {
		return jose.JSONWebKey{KeyID: kid, Key: public, Algorithm: string(alg)}
	}
	return &static{keys: map[string]jose.JSONWebKey{
		"ec": of("ec", ecKey.Public(), jose.ES256), "rsa": of("rsa", rsaKey.Public(), ""), "ed": of("ed", edKey.Public(), ""),
		"ec384": of("ec384", ec384.Public(), ""), "ec521": of("ec521", ec521.Public(), ""), "rs256": of("rs256", rsaKey.Public(), jose.RS256),
	}}
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// sign makes a token of any header and payload, however wrong.
func sign(alg jose.SignatureAlgorithm, key any, header, payload string) string {
	input := b64(header) + "." + b64(payload)
	digest := func(h crypto.Hash) []byte { d := h.New(); d.Write([]byte(input)); return d.Sum(nil) }
	raw := func(k *ecdsa.PrivateKey, h crypto.Hash) []byte {
		r, s, err := ecdsa.Sign(rand.Reader, k, digest(h))
		if err != nil {
			panic(err)
		}
		size := (k.Curve.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	}
	var sig []byte
	switch alg {
	case jose.ES256:
		sig = raw(key.(*ecdsa.PrivateKey), crypto.SHA256)
	case jose.ES384:
		sig = raw(key.(*ecdsa.PrivateKey), crypto.SHA384)
	case jose.ES512:
		sig = raw(key.(*ecdsa.PrivateKey), crypto.SHA512)
	case jose.RS256:
		sig = must(rsa.SignPKCS1v15(rand.Reader, key.(*rsa.PrivateKey), crypto.SHA256, digest(crypto.SHA256)))
	case jose.PS256:
		sig = must(rsa.SignPSS(rand.Reader, key.(*rsa.PrivateKey), crypto.SHA256, digest(crypto.SHA256), nil))
	case jose.EdDSA:
		sig = ed25519.Sign(key.(ed25519.PrivateKey), []byte(input))
	default:
		panic(alg)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func es256(header, payload string) string { return sign(jose.ES256, ecKey, header, payload) }

const goodHeader = `{"alg":"ES256","typ":"at+jwt","kid":"ec"}`

func claims(change ...string) string {
	m := map[string]any{"iss": issuer, "aud": resource, "sub": "alice", "client_id": "agent", "jti": "j1", "iat": now.Unix(), "exp": now.Add(4 * time.Minute).Unix()}
	for i := 0; i < len(change); i += 2 {
		if change[i+1] == "" {
			delete(m, change[i])
			continue
		}
		m[change[i]] = json.RawMessage(change[i+1])
	}
	return string(must(json.Marshal(m)))
}

func accessTokenDoor() jwt.Expect {
	return jwt.Expect{Issuer: issuer, Audiences: []string{resource}, Types: []string{jwt.TypeAccessToken}, Now: now, Leeway: 30 * time.Second}
}

func TestVerify(t *testing.T) {
	for name, token := range map[string]string{
		"ES256":                 es256(goodHeader, claims()),
		"ES384":                 sign(jose.ES384, ec384, `{"alg":"ES384","typ":"at+jwt","kid":"ec384"}`, claims()),
		"ES512":                 sign(jose.ES512, ec521, `{"alg":"ES512","typ":"at+jwt","kid":"ec521"}`, claims()),
		"RS256":                 sign(jose.RS256, rsaKey, `{"alg":"RS256","typ":"at+jwt","kid":"rsa"}`, claims()),
		"PS256":                 sign(jose.PS256, rsaKey, `{"alg":"PS256","typ":"at+jwt","kid":"rsa"}`, claims()),
		"EdDSA":                 sign(jose.EdDSA, edKey, `{"alg":"EdDSA","typ":"at+jwt","kid":"ed"}`, claims()),
		"full media type":       es256(`{"alg":"ES256","typ":"application/AT+jwt","kid":"ec"}`, claims()),
		"aud array of one":      es256(goodHeader, claims("aud", `["`+resource+`"]`)),
		"expired within leeway": es256(goodHeader, claims("exp", fmt.Sprint(now.Unix()-29))),
		"fraction":              es256(goodHeader, claims("exp", fmt.Sprint(now.Unix()+1)+".5", "nbf", fmt.Sprint(now.Unix())+".25")),
		"early within leeway":   es256(goodHeader, claims("nbf", fmt.Sprint(now.Unix()+30), "iat", fmt.Sprint(now.Unix()+30))),
		"no iat":                es256(goodHeader, claims("iat", "")),
		"thumbprint in header":  es256(`{"alg":"ES256","typ":"at+jwt","kid":"ec","x5t":"abc"}`, claims()),
	} {
		got, err := jwt.Verify(t.Context(), token, keys(), accessTokenDoor())
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got.Issuer != issuer || got.Subject != "alice" || got.ID != "j1" || got.Type != "at+jwt" || len(got.Audience) != 1 || got.Audience[0] != resource || got.Expires.IsZero() {
			t.Errorf("%s: got %+v", name, got)
		}
		var more struct {
			Client string `json:"client_id"`
			Folded string `json:"Client_ID"`
		}
		if err := got.Decode(&more); err != nil || more.Client != "agent" || more.Folded != "" {
			t.Errorf("%s: Decode: %+v, %v", name, more, err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	good := es256(goodHeader, claims())
	parts := strings.Split(good, ".")
	at := func(d time.Duration) string { return fmt.Sprint(now.Add(d).Unix()) }
	header := func(extra string) string {
		return es256(`{"alg":"ES256","typ":"at+jwt","kid":"ec",`+extra+`}`, claims())
	}
	hs256 := func(key []byte) string {
		input := b64(`{"alg":"HS256","typ":"at+jwt","kid":"rsa"}`) + "." + b64(claims())
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(input))
		return input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
	}
	der := must(x509.MarshalPKIXPublicKey(rsaKey.Public()))
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	evilJWK := string(must(json.Marshal(jose.JSONWebKey{Key: evilKey.Public()})))
	evil := func(extra string) string {
		return sign(jose.ES256, evilKey, `{"alg":"ES256","typ":"at+jwt",`+extra+`}`, claims())
	}
	sig := must(base64.RawURLEncoding.DecodeString(parts[2]))

	for name, token := range map[string]string{
		//
		"none": b64(`{"alg":"none","typ":"at+jwt"}`) + "." + parts[1] + ".", "None": b64(`{"alg":"None","typ":"at+jwt"}`) + "." + parts[1] + "." + parts[2],
		"nOnE": b64(`{"alg":"nOnE","typ":"at+jwt"}`) + "." + parts[1] + ".", "no alg": b64(`{"typ":"at+jwt","kid":"ec"}`) + "." + parts[1] + "." + parts[2],
		"no signature": parts[0] + "." + parts[1] + ".", "two parts": parts[0] + "." + parts[1],
		//
		"HMAC with PEM": hs256(pemKey), "HMAC with trimmed PEM": hs256([]byte(strings.TrimSpace(string(pemKey)))), "HMAC with DER": hs256(der), "HMAC with nothing": hs256(nil),
		//
		"evil jwk": evil(`"jwk":` + evilJWK), "evil jwk, good kid": evil(`"kid":"ec","jwk":` + evilJWK),
		"jku": header(`"jku":"https://evil.example/jwks"`), "x5u": header(`"x5u":"https://evil.example/c"`), "x5c": header(`"x5c":["AAAA"]`), "jwk": header(`"jwk":` + evilJWK),
		"null jwk": header(`"jwk":null`),
		//
		"kid path": es256(`{"alg":"ES256","typ":"at+jwt","kid":"../../../../dev/null"}`, claims()), "kid SQL": es256(`{"alg":"ES256","typ":"at+jwt","kid":"' UNION SELECT 'x"}`, claims()),
		"kid NUL": es256(`{"alg":"ES256","typ":"at+jwt","kid":"\u0000"}`, claims()), "kid of 64 KiB": es256(`{"alg":"ES256","typ":"at+jwt","kid":"`+strings.Repeat("a", 64<<10)+`"}`, claims()),
		"kid a number": es256(`{"alg":"ES256","typ":"at+jwt","kid":1}`, claims()), "no kid": es256(`{"alg":"ES256","typ":"at+jwt"}`, claims()),
		"good kid, other key": sign(jose.ES256, evilKey, goodHeader, claims()),
		//
		"crit b64": header(`"crit":["b64"],"b64":false`), "crit unknown": header(`"crit":["x-unknown"],"x-unknown":1`), "crit empty": header(`"crit":[]`), "crit null": header(`"crit":null`),
		"b64 alone":          header(`"b64":false`),
		"zip":                header(`"zip":"DEF"`),
		"JSON serialization": `{"protected":"` + parts[0] + `","payload":"` + parts[1] + `","signature":"` + parts[2] + `"}`,
		//
		"JWE": "eyJhbGciOiJBMTI4S1ciLCJlbmMiOiJBMTI4R0NNIiwiemlwIjoiREVGIn0..AAAA.AAAA.AAAA", "dots": strings.Repeat(".", 60<<10), "two dots": "..", "nothing": "", "too long": es256(goodHeader, claims("x", `"`+strings.Repeat("a", 12<<10)+`"`)),
		//
		"other audience": es256(goodHeader, claims("aud", `"https://gw.example/t/acme/mcp/other"`)), "the tenant": es256(goodHeader, claims("aud", `"https://gw.example/t/acme"`)),
		"trailing slash": es256(goodHeader, claims("aud", `"`+resource+`/"`)), "upper-case host": es256(goodHeader, claims("aud", `"https://GW.example/t/acme/mcp/jira"`)),
		"several audiences": es256(goodHeader, claims("aud", `["`+resource+`","https://other.example"]`)), "no aud": es256(goodHeader, claims("aud", "")), "aud empty": es256(goodHeader, claims("aud", `""`)),
		"aud empty array": es256(goodHeader, claims("aud", `[]`)), "aud null": es256(goodHeader, claims("aud", `null`)), "aud an object": es256(goodHeader, claims("aud", `{"`+resource+`":1}`)), "aud nested": es256(goodHeader, claims("aud", `[["`+resource+`"]]`)),
		//
		"expired": es256(goodHeader, claims("exp", at(-31*time.Second))), "expired at the edge": es256(goodHeader, claims("exp", at(-30*time.Second))), "not yet": es256(goodHeader, claims("nbf", at(31*time.Second))),
		"issued tomorrow": es256(goodHeader, claims("iat", at(24*time.Hour))), "no exp": es256(goodHeader, claims("exp", "")), "exp a string": es256(goodHeader, claims("exp", `"9999999999"`)),
		"exp 1e400": es256(goodHeader, claims("exp", `1e400`)), "exp negative": es256(goodHeader, claims("exp", `-1`)), "exp 2^63": es256(goodHeader, claims("exp", `9223372036854775808`)),
		"exp in 10 years": es256(goodHeader, claims("exp", at(10*365*24*time.Hour))), "exp null": es256(goodHeader, claims("exp", `null`)), "nbf a string": es256(goodHeader, claims("nbf", `"1"`)), "iat true": es256(goodHeader, claims("iat", `true`)),
		//
		"iss slash": es256(goodHeader, claims("iss", `"`+issuer+`/"`)), "iss case": es256(goodHeader, claims("iss", `"https://AS.example/t1"`)), "iss port": es256(goodHeader, claims("iss", `"https://as.example:443/t1"`)),
		"iss percent": es256(goodHeader, claims("iss", `"https://as.example/%741"`)), "iss homograph": es256(goodHeader, claims("iss", `"https://аs.example/t1"`)), "no iss": es256(goodHeader, claims("iss", "")), "iss null": es256(goodHeader, claims("iss", `null`)), "iss array": es256(goodHeader, claims("iss", `["`+issuer+`"]`)),
		//
		"sub twice":     es256(goodHeader, strings.Replace(claims(), `{`, `{"sub":"mallory",`, 1)),
		"nested twice":  es256(goodHeader, claims("act", `{"sub":"a","sub":"b"}`)),
		"alg twice":     es256(`{"alg":"none","typ":"at+jwt","kid":"ec","alg":"ES256"}`, claims()),
		"typ twice":     es256(`{"alg":"ES256","typ":"JWT","kid":"ec","typ":"at+jwt"}`, claims()),
		"AUD for aud":   es256(goodHeader, strings.Replace(claims("aud", `"x"`), `{`, `{"AUD":"`+resource+`",`, 1)),
		"EXP for exp":   es256(goodHeader, claims("exp", "", "EXP", at(time.Minute))),
		"TYP for typ":   es256(`{"alg":"ES256","TYP":"at+jwt","kid":"ec"}`, claims()),
		"sub an object": es256(goodHeader, claims("sub", `{}`)),
		"invalid UTF-8": es256(goodHeader, strings.Replace(claims(), "alice", "\xff", 1)),
		"payload array": es256(goodHeader, `[]`), "payload null": es256(goodHeader, `null`), "trailing bytes": es256(goodHeader, claims()+"{}"), "header array": es256(`[]`, claims()),
		//
		"zero signature": parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)), "65 bytes": parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(append([]byte{0}, sig...)),
		"DER signature": parts[0] + "." + parts[1] + "." + base64.RawURLEncoding.EncodeToString(must(ecKey.Sign(rand.Reader, make([]byte, 32), crypto.SHA256))),
		// one token, one spelling
		"padding": good + "=", "line break": parts[0] + ".\n" + parts[1] + "." + parts[2], "space": " " + good, "standard alphabet": parts[0] + "." + parts[1] + ".++" + parts[2][2:],
		"loose last bits": parts[0] + "." + parts[1] + "." + parts[2][:85] + string(parts[2][85]+1),
		// an algorithm that is not the key's
		"key says RS256": sign(jose.PS256, rsaKey, `{"alg":"PS256","typ":"at+jwt","kid":"rs256"}`, claims()), "RSA key for ES256": es256(`{"alg":"ES256","typ":"at+jwt","kid":"rsa"}`, claims()),
		"P-384 key for ES256": sign(jose.ES256, ecKey, `{"alg":"ES256","typ":"at+jwt","kid":"ec384"}`, claims()), "altered": parts[0] + "." + b64(claims("sub", `"mallory"`)) + "." + parts[2],
		// RFC 7515 A.1: a valid MAC is still none of ours
		"RFC 7515 A.1": "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
	} {
		got, err := jwt.Verify(t.Context(), token, keys(), accessTokenDoor())
		if err == nil || fault.KindOf(err) != fault.Unauthenticated || got.Subject != "" {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
		if err != nil && len(err.Error()) > 120 {
			t.Errorf("%s: quotes the token: %.200s", name, err)
		}
	}
}

// What is refused without keys must not cause a fetch of them.
func TestVerifyAsksForKeysLast(t *testing.T) {
	for name, token := range map[string]string{
		"other issuer": es256(goodHeader, claims("iss", `"https://evil.example"`)),
		"other typ":    es256(`{"alg":"ES256","typ":"JWT","kid":"ec"}`, claims()),
		"HS256":        b64(`{"alg":"HS256","typ":"at+jwt"}`) + "." + b64(claims()) + ".AAAA",
		"jku":          es256(`{"alg":"ES256","typ":"at+jwt","jku":"https://evil.example"}`, claims()),
	} {
		k := keys()
		if _, err := jwt.Verify(t.Context(), token, k, accessTokenDoor()); err == nil || k.asked != 0 {
			t.Errorf("%s: %v, asked %d times", name, err, k.asked)
		}
	}
}

func TestExpectZeroRefuses(t *testing.T) {
	for name, change := range map[string]func(*jwt.Expect){
		"zero":         func(e *jwt.Expect) { *e = jwt.Expect{} },
		"no issuer":    func(e *jwt.Expect) { e.Issuer = "" },
		"no audiences": func(e *jwt.Expect) { e.Audiences = nil },

		"no types":   func(e *jwt.Expect) { e.Types = nil },
		"no clock":   func(e *jwt.Expect) { e.Now = time.Time{} },
		"no algs":    func(e *jwt.Expect) { e.Algs = []jose.SignatureAlgorithm{} },
		"other alg":  func(e *jwt.Expect) { e.Algs = []jose.SignatureAlgorithm{jose.RS256} },
		"short life": func(e *jwt.Expect) { e.MaxLife = time.Minute },
		"a claim":    func(e *jwt.Expect) { e.Absent = []string{"client_id"} },
	} {
		e := accessTokenDoor()
		change(&e)
		if _, err := jwt.Verify(t.Context(), es256(goodHeader, claims()), keys(), e); fault.KindOf(err) != fault.Unauthenticated || err == nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
	empty := accessTokenDoor()
	empty.Audiences = []string{""}
	if _, err := jwt.Verify(t.Context(), es256(goodHeader, claims("aud", `""`)), keys(), empty); err == nil {
		t.Error("an empty audience was accepted")
	}
	wide := accessTokenDoor()
	wide.Leeway = time.Hour
	if _, err := jwt.Verify(t.Context(), es256(goodHeader, claims("exp", fmt.Sprint(now.Unix()-61))), keys(), wide); err == nil {
		t.Error("a leeway above a minute was honoured")
	}
	many := accessTokenDoor()
	many.ManyAudiences = true
	if _, err := jwt.Verify(t.Context(), es256(goodHeader, claims("aud", `["https://other.example","`+resource+`"]`)), keys(), many); err != nil {
		t.Errorf("ManyAudiences: %v", err)
	}
	symmetric := accessTokenDoor()
	symmetric.Algs = []jose.SignatureAlgorithm{jose.HS256}
	if _, err := jwt.Verify(t.Context(), b64(`{"alg":"HS256","typ":"at+jwt","kid":"ec"}`)+"."+b64(claims())+".AAAA", keys(), symmetric); err == nil {
		t.Error("HS256 was accepted because the door said so")
	}
}

func TestKeysAway(t *testing.T) {
	k := keysFunc(func() error { return fault.New(fault.Unavailable, "away", nil) })
	if _, err := jwt.Verify(t.Context(), es256(goodHeader, claims()), k, accessTokenDoor()); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("got %v", err)
	}
}

type keysFunc func() error

func (f keysFunc) Key(context.Context, string, jose.SignatureAlgorithm) (jose.JSONWebKey, error) {
	return jose.JSONWebKey{}, f()
}

// Each kind of token opens its own door and no other, though one issuer signed them all with one key (RFC 8725 s2.8).
func TestConfusionMatrix(t *testing.T) {
	const us, trustDomain, clientID, receiver = "https://gw.example/t/acme", "acme.egress.gw.example", "frontdesk", "https://gw.example/t/acme/ssf"
	aud := func(s string) string { return `"` + s + `"` }
	artifacts := map[string]string{
		"access token":     es256(goodHeader, claims()),
		"ID-JAG":           es256(`{"alg":"ES256","typ":"oauth-id-jag+jwt","kid":"ec"}`, claims("aud", aud(us), "resource", aud(resource))),
		"client assertion": es256(`{"alg":"ES256","typ":"client-authentication+jwt","kid":"ec"}`, claims("aud", aud(us))),
		"tool ticket":      es256(`{"alg":"ES256","typ":"txntoken+jwt","kid":"ec"}`, claims("aud", aud(trustDomain), "txn", `"t1"`, "req_wl", `"w"`)),
		"logout token":     es256(`{"alg":"ES256","typ":"logout+jwt","kid":"ec"}`, claims("aud", aud(clientID), "events", `{"http://schemas.openid.net/event/backchannel-logout":{}}`)),
		"SET":              es256(`{"alg":"ES256","typ":"secevent+jwt","kid":"ec"}`, claims("aud", aud(receiver), "sub", "", "exp", "", "events", `{}`)),
		"DPoP proof":       es256(`{"alg":"ES256","typ":"dpop+jwt"}`, claims("aud", "", "htm", `"POST"`, "htu", `"https://gw.example/token"`)),
		"ID token":         es256(`{"alg":"ES256","typ":"JWT","kid":"ec"}`, claims("aud", aud(clientID), "nonce", `"n1"`)),
		"untyped ID token": es256(`{"alg":"ES256","kid":"ec"}`, claims("aud", aud(clientID), "nonce", `"n1"`)),
	}
	door := func(typ, audience string) jwt.Expect {
		return jwt.Expect{Issuer: issuer, Audiences: []string{audience}, Types: []string{typ}, Now: now, MaxLife: 5 * time.Minute}
	}
	idToken := door(jwt.TypeJWT, clientID)
	idToken.Types = append(idToken.Types, "")
	idToken.Absent = []string{"events"}
	doors := map[string]struct {
		want  jwt.Expect
		opens []string
	}{
		"MCP endpoint": {door(jwt.TypeAccessToken, resource), []string{"access token"}},
		"ID-JAG grant": {door("oauth-id-jag+jwt", us), []string{"ID-JAG"}},
		"client auth":  {door(jwt.TypeClientAssertion, us), []string{"client assertion"}},
		"egress":       {door(jwt.TypeTransactionToken, trustDomain), []string{"tool ticket"}},
		"logout":       {door(jwt.TypeLogoutToken, clientID), []string{"logout token"}},
		"portal":       {idToken, []string{"ID token", "untyped ID token"}},
		"DPoP":         {door("dpop+jwt", resource), nil},            // not a token: there is no audience
		"SSF":          {door(jwt.TypeSecurityEvent, receiver), nil}, // has no exp, so it never passes here
		"IdP's own AT": {func() jwt.Expect {
			e := door(jwt.TypeJWT, clientID)
			e.Absent = []string{"nonce", "events", "req_wl"}
			return e
		}(), nil},
		"audience only": {door("", resource), nil},
	}
	for name, d := range doors {
		opened := map[string]bool{}
		for _, kind := range d.opens {
			opened[kind] = true
		}
		for kind, token := range artifacts {
			_, err := jwt.Verify(t.Context(), token, keys(), d.want)
			if (err == nil) != opened[kind] {
				t.Errorf("%s at %s: %v", kind, name, err)
			}
		}
	}
	// The type alone keeps them apart, even where issuer and audience are the same.
	for kind, token := range artifacts {
		wide := door(jwt.TypeAccessToken, resource)
		wide.Audiences = []string{resource, us, trustDomain, clientID, receiver}
		if _, err := jwt.Verify(t.Context(), token, keys(), wide); (err == nil) != (kind == "access token") {
			t.Errorf("%s as an access token: %v", kind, err)
		}
	}
}

func TestPublishedVectors(t *testing.T) {
	jwk := func(s string) jose.JSONWebKey {
		var k jose.JSONWebKey
		if err := k.UnmarshalJSON([]byte(s)); err != nil {
			t.Fatal(err)
		}
		return k
	}
	// draft-ietf-oauth-identity-chaining-17, example of an authorization grant; exp 1695287752.
	const chained = "eyJhbGciOiJFUzI1NiIsImtpZCI6IjI4MTMzMDgwMDQifQ.eyJpc3MiOiJodHRwczovL2FzLmEuZXhhbXBsZS9hdXRoIiwiZXhwIjoxNjk1Mjg3NzUyLCJpYXQiOjE2OTUyODc2OTIsInN1YiI6ImpvaG5kb2VAYS5leGFtcGxlIiwiYXVkIjoiaHR0cHM6Ly9hcy5iLmV4YW1wbGUvYXV0aCJ9.Li8Rh-c-R0xirbuXlX8x6sQkZRqJIms9U8Rk8cL7uh1Mm232O6mwz1osPEMNef4OFUW-qTfA0C9QdeIl-e0KsA"
	k := &static{keys: map[string]jose.JSONWebKey{"2813308004": jwk(`{"kty":"EC","crv":"P-256","x":"MXfMrj_tgPJHxkfmDAx0m74E-T-DuLYCNdmuqtpfP_E","y":"YX82bI52OPBED1h_1HpsxAyWzrQ7DChAAVX9Q9E8uYQ"}`)}}
	door := jwt.Expect{Issuer: "https://as.a.example/auth", Audiences: []string{"https://as.b.example/auth"}, Types: []string{""}, Now: time.Unix(1695287700, 0)}
	got, err := jwt.Verify(t.Context(), chained, k, door)
	if err != nil || got.Subject != "johndoe@a.example" {
		t.Errorf("identity chaining: %+v, %v", got, err)
	}
	door.Now = time.Unix(1695287752, 0)
	if _, err := jwt.Verify(t.Context(), chained, k, door); err == nil {
		t.Error("identity chaining: accepted at its exp")
	}

	// RFC 7515 A.3: verifies, and fails only for its missing audience once all else fits.
	const a3 = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
	k.keys[""] = jwk(`{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`)
	if _, err := jwt.Verify(t.Context(), a3, k, jwt.Expect{Issuer: "joe", Types: []string{""}, Now: time.Unix(1300819370, 0)}); err == nil || err.Error() != "the token names no audience" {
		t.Errorf("RFC 7515 A.3: %v", err)
	}

	// OpenID Connect Core A.3 and A.4.
	for value, want := range map[string]string{"jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y": "77QmUPtjPfzWtF2AnpK9RQ", "Qcb0Orv1zh30vL1MPRsbm-diHiMwcLyZvn1arpZv-Jxf_11jnpEX3Tgfvk": "LDktKdoQak3Pk0cnXxCltA"} {
		if got, err := jwt.TokenHash(jose.RS256, secret.New(value)); err != nil || got != want {
			t.Errorf("TokenHash(%s) = %s, %v", value, got, err)
		}
	}
	for alg, length := range map[jose.SignatureAlgorithm]int{jose.ES384: 32, jose.PS512: 43, jose.EdDSA: 43} {
		if got, err := jwt.TokenHash(alg, secret.New("x")); err != nil || len(got) != length {
			t.Errorf("TokenHash with %s: %s, %v", alg, got, err)
		}
	}
	if _, err := jwt.TokenHash(jose.HS256, secret.New("x")); err == nil {
		t.Error("TokenHash with HS256")
	}
}

func TestUnverifiedIssuer(t *testing.T) {
	if got, err := jwt.UnverifiedIssuer(sign(jose.ES256, evilKey, goodHeader, claims())); got != issuer || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	for _, token := range []string{"", "a.b.c", es256(goodHeader, claims("iss", "")), es256(goodHeader, `{"iss":"a","iss":"b"}`)} {
		if got, err := jwt.UnverifiedIssuer(token); err == nil {
			t.Errorf("%.20s: got %q", token, got)
		}
	}
}

func FuzzVerify(f *testing.F) {
	valid := sign(jose.EdDSA, edKey, `{"alg":"EdDSA","typ":"at+jwt","kid":"ed"}`, claims()) // the same in each process
	f.Add(valid)
	f.Add(b64(`{"alg":"none","typ":"at+jwt"}`) + "." + b64(claims()) + ".")
	f.Add(sign(jose.EdDSA, edKey, `{"alg":"EdDSA","typ":"at+jwt","kid":"ed","crit":[]}`, claims()))
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		_, _ = jwt.UnverifiedIssuer(token)
		if _, err := jwt.Verify(context.Background(), token, keys(), accessTokenDoor()); (err == nil) != (token == valid) {
			t.Fatalf("%q: %v", token, err)
		}
	})
}
