package attacks_test

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var enc = base64.RawURLEncoding

// isU1 is the answer to a token that is not good here, which says no more than that.
func isU1(a answer) bool {
	h := a.Header.Get("WWW-Authenticate")
	return a.Status == http.StatusUnauthorized && strings.Contains(h, `error="invalid_token"`) && strings.Contains(h, "resource_metadata=") && !strings.Contains(a.Body, "signature") && !strings.Contains(h, "audience")
}

// isU0 is the answer where no token was presented.
func isU0(a answer) bool {
	h := a.Header.Get("WWW-Authenticate")
	return a.Status == http.StatusUnauthorized && strings.HasPrefix(h, "Bearer ") && strings.Contains(h, "resource_metadata=") && !strings.Contains(h, "error=")
}

func (r *realm) refusesTokens(t *testing.T, tenant string, tests map[string]string) {
	t.Helper()
	before := r.Modern.Count("/mcp")
	for name, token := range tests {
		if got := r.call(t, tenant, "modern", token, callBody("whoami", "{}")); !isU1(got) {
			t.Errorf("%s: %d %s %s", name, got.Status, got.Header.Get("WWW-Authenticate"), got.Body)
		}
	}
	if n := r.Modern.Count("/mcp"); n != before {
		t.Error("a refused token reached the server")
	}
}

// TestA001ToA007_forms: what a token says of its own keys and algorithms counts for nothing.
func TestA001ToA007_forms(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	p := r.globex
	good := p.access(nil)
	if got := r.call(t, "/t/globex", "modern", good, callBody("whoami", "{}")); got.Status != http.StatusOK || !strings.Contains(got.Body, "/connect/") {
		t.Fatalf("the honest token: %d %s", got.Status, got.Body)
	}
	var fetches atomic.Int64
	lure := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetches.Add(1) }))
	t.Cleanup(lure.Close)
	forged := p.accessClaims(map[string]any{"sub": "emp-forged"})
	unsigned := func(header string) string {
		parts := strings.Split(p.sign(map[string]any{"alg": "none"}, forged), ".")
		return enc.EncodeToString([]byte(header)) + "." + parts[1] + "."
	}
	mac := func(key []byte) string {
		parts := strings.Split(p.sign(map[string]any{"alg": "HS256", "typ": "at+jwt", "kid": "rsa"}, forged), ".")
		h := hmac.New(sha256.New, key)
		h.Write([]byte(parts[0] + "." + parts[1]))
		return parts[0] + "." + parts[1] + "." + enc.EncodeToString(h.Sum(nil))
	}
	der, err := x509.MarshalPKIXPublicKey(&p.rsa.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	theirs, err := newProvider()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(theirs.Close)
	own := func(more map[string]any) string { // signed with keys of the attacker's own
		h := map[string]any{"alg": "ES256", "typ": "at+jwt", "kid": "ec"}
		for k, v := range more {
			h[k] = v
		}
		return theirs.sign(h, forged)
	}
	with := func(more map[string]any) string { // signed rightly, with more in the header
		h := map[string]any{"alg": "ES256", "typ": "at+jwt", "kid": "ec"}
		for k, v := range more {
			h[k] = v
		}
		return p.sign(h, forged)
	}
	tests := map[string]string{
		"A-002 MAC with the PEM":         mac(text),
		"A-002 MAC with the trimmed PEM": mac([]byte(strings.TrimSpace(string(text)))),
		"A-002 MAC with the DER":         mac(der),
		"A-003 no key named":             own(nil),
		"A-003 jwk":                      own(map[string]any{"jwk": theirs.ecJWK("ec")}),
		"A-003 jku":                      own(map[string]any{"jku": lure.URL}),
		"A-003 x5u":                      own(map[string]any{"x5u": lure.URL}),
		"A-003 x5c":                      own(map[string]any{"x5c": []string{base64.StdEncoding.EncodeToString(der)}}),
		"A-003 jku, signed rightly":      with(map[string]any{"jku": lure.URL}),
		"A-004 a path":                   with(map[string]any{"kid": "../../../../dev/null"}),
		"A-004 SQL":                      with(map[string]any{"kid": "' UNION SELECT 'x"}),
		"A-004 NUL":                      with(map[string]any{"kid": "\x00"}),
		"A-004 8 KiB":                    with(map[string]any{"kid": strings.Repeat("a", 8<<10)}),
		"A-004 kid is a number":          with(map[string]any{"kid": 1}),
		"A-005 b64":                      with(map[string]any{"crit": []string{"b64"}, "b64": false}),
		"A-005 unknown":                  with(map[string]any{"crit": []string{"x-unknown"}}),
		"A-005 empty":                    with(map[string]any{"crit": []string{}}),
		"A-006 JWE with zip":             enc.EncodeToString([]byte(`{"alg":"dir","enc":"A128GCM","zip":"DEF"}`)) + ".." + strings.Repeat(enc.EncodeToString([]byte("aaaaaaaaa")), 3) + ".e30.e30",
		"A-006 JWE with p2c":             enc.EncodeToString([]byte(`{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483647,"p2s":"AA"}`)) + ".e30.e30.e30.e30",
		"A-006 JWE without a key":        enc.EncodeToString([]byte(`{"alg":"A128KW","enc":"A128GCM"}`)) + "..e30.e30.e30",
		"A-018 r = s = 0":                strings.Join(strings.Split(good, ".")[:2], ".") + "." + enc.EncodeToString(make([]byte, 64)),
		"A-018 65 bytes":                 good + "AA",
		"A-018 DER":                      strings.Join(strings.Split(good, ".")[:2], ".") + "." + enc.EncodeToString([]byte{0x30, 6, 2, 1, 1, 2, 1, 1}),
		"another spelling of base64":     good[:len(good)-1] + "*",
		"no signature":                   strings.Join(strings.Split(good, ".")[:2], "."),
	}
	for _, alg := range []string{`"alg":"none",`, `"alg":"None",`, `"alg":"NONE",`, `"alg":"nOnE",`, ""} {
		tests["A-001 "+alg] = unsigned(`{` + alg + `"typ":"at+jwt"}`)
	}
	r.refusesTokens(t, "/t/globex", tests)
	// a key of one issuer verifies nothing of another's, under whatever kid.
	r.refusesTokens(t, "/t/initech", map[string]string{"A-004 signed by another issuer's key": p.access(map[string]any{"iss": r.initech.URL})})
	if got := r.call(t, "/t/globex", "modern", `{"payload":"e30","signatures":[]}`, callBody("whoami", "{}")); got.Status != http.StatusBadRequest && !isU1(got) {
		t.Errorf("A-005 JSON serialization: %d", got.Status)
	}
	for name, token := range map[string]string{"A-007 dots": strings.Repeat(".", 60<<10), "A-004 64 KiB": with(map[string]any{"kid": strings.Repeat("a", 64<<10)})} {
		if got := r.call(t, "/t/globex", "modern", token, callBody("whoami", "{}")); !isU1(got) && got.Status != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%s: %d", name, got.Status)
		}
	}
	if n := fetches.Load(); n != 0 {
		t.Errorf("A-003: the attacker's URL was fetched %d times", n)
	}
	if strings.Contains(r.tail(t, "globex"), "emp-forged") || strings.Contains(r.Desk().Log(), "emp-forged") {
		t.Error("A-001: the log names a caller that nobody proved")
	}
}

// TestA008ToA013_claims: a signed token of a trusted issuer is still not good for everything.
func TestA008ToA013_claims(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	p := r.globex
	now, resource := time.Now(), r.Desk().Public+"/t/globex/mcp/modern"
	typed := func(typ string, change map[string]any) string {
		return p.sign(map[string]any{"alg": "ES256", "typ": typ, "kid": "ec"}, p.accessClaims(change))
	}
	raw := func(payload string) string {
		return p.signRaw(map[string]any{"alg": "ES256", "typ": "at+jwt", "kid": "ec"}, []byte(payload))
	}
	claims := fmt.Sprintf(`"iss":%q,"aud":"api://frontdesk","client_id":"x","iat":%d,"groups":["engineering"]`, p.URL, now.Unix())
	exp := fmt.Sprintf(`,"exp":%d`, now.Add(time.Hour).Unix())
	tests := map[string]string{
		"A-008 another resource":       p.access(map[string]any{"aud": r.Desk().Public + "/t/globex/mcp/other"}),
		"A-008 the issuer":             p.access(map[string]any{"aud": r.Desk().Public + "/t/globex"}),
		"A-008 a slash":                p.access(map[string]any{"aud": resource + "/"}),
		"A-008 upper case":             p.access(map[string]any{"aud": strings.ToUpper(resource)}),
		"A-008 an array":               p.access(map[string]any{"aud": []string{"api://frontdesk", "https://elsewhere"}}),
		"A-008 another tenant":         p.access(map[string]any{"aud": r.Desk().Public + "/t/acme/mcp/modern"}),
		"A-008 none":                   p.access(map[string]any{"aud": nil}),
		"A-009 an ID token":            typed("JWT", map[string]any{"nonce": "x"}),
		"A-009 an ID token as at+jwt":  typed("at+jwt", map[string]any{"nonce": "x"}),
		"A-009 an ID-JAG":              typed("oauth-id-jag+jwt", nil),
		"A-009 a logout token":         typed("logout+jwt", nil),
		"A-009 events":                 typed("at+jwt", map[string]any{"events": map[string]any{}}),
		"A-009 a SET":                  typed("secevent+jwt", nil),
		"A-009 a transaction token":    typed("txntoken+jwt", nil),
		"A-009 a client assertion":     typed("JWT", map[string]any{"sub": "x", "iss": "x"}),
		"A-010 expired":                p.access(map[string]any{"exp": now.Add(-62 * time.Second).Unix()}),
		"A-010 not yet":                p.access(map[string]any{"nbf": now.Add(70 * time.Second).Unix()}),
		"A-010 of tomorrow":            p.access(map[string]any{"iat": now.Add(24 * time.Hour).Unix(), "exp": now.Add(24*time.Hour + time.Minute).Unix()}),
		"A-010 no exp":                 p.access(map[string]any{"exp": nil}),
		"A-010 exp is text":            p.access(map[string]any{"exp": "9999999999"}),
		"A-010 1e400":                  raw(`{"sub":"emp-alice",` + claims + `,"exp":1e400}`),
		"A-010 negative":               p.access(map[string]any{"exp": -1}),
		"A-010 2^63":                   raw(`{"sub":"emp-alice",` + claims + `,"exp":9223372036854775808}`),
		"A-010 ten years":              p.access(map[string]any{"exp": now.AddDate(10, 0, 0).Unix()}),
		"A-011 a slash":                p.access(map[string]any{"iss": p.URL + "/"}),
		"A-011 upper case":             p.access(map[string]any{"iss": strings.Replace(p.URL, "http", "HTTP", 1)}),
		"A-011 the port said twice":    p.access(map[string]any{"iss": strings.Replace(p.URL, "127.0.0.1:", "127.0.0.1:0", 1)}),
		"A-011 encoded":                p.access(map[string]any{"iss": strings.Replace(p.URL, "127", "%3127", 1)}),
		"A-011 a homograph":            p.access(map[string]any{"iss": "https://login.example.cоm"}),
		"A-013 sub twice":              raw(`{"sub":"emp-mallory","sub":"emp-alice",` + claims + exp + `}`),
		"A-013 another case of aud":    raw(`{"sub":"emp-alice",` + strings.Replace(claims, `"aud":"api://frontdesk"`, `"aud":"x","AUD":"api://frontdesk"`, 1) + exp + `}`),
		"A-013 a folded sub":           raw(`{"ſub":"emp-alice",` + claims + exp + `}`),
		"A-013 escaped duplicate":      raw(`{"sub":"emp-mallory","s\u0075b":"emp-alice",` + claims + exp + `}`),
		"A-119 groups are a string":    p.access(map[string]any{"groups": "engineering"}),
		"A-119 more groups than sense": p.access(map[string]any{"groups": strings.Split(strings.Repeat("g,", 2100), ",")}),
		"A-119 overage":                p.access(map[string]any{"groups": nil, "_claim_names": map[string]string{"groups": "src1"}}),
	}
	r.refusesTokens(t, "/t/globex", tests)
	if got := r.call(t, "/t/globex", "modern", p.access(map[string]any{"exp": now.Add(-5 * time.Second).Unix()}), callBody("whoami", "{}")); got.Status != http.StatusOK {
		t.Errorf("A-010: clocks may differ by some seconds: %d", got.Status)
	}
}

func TestA012_whereATokenStands(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	token, body := r.globex.access(nil), callBody("whoami", "{}")
	at := r.Desk().Public + "/t/globex/mcp/modern"
	for name, got := range map[string]answer{
		"query":               send(t, http.MethodPost, at+"?access_token="+token, body, "Content-Type", "application/json"),
		"form body":           send(t, http.MethodPost, at, "access_token="+token, "Content-Type", "application/x-www-form-urlencoded"),
		"cookie":              send(t, http.MethodPost, at, body, "Content-Type", "application/json", "Cookie", "access_token="+token),
		"X-Forwarded":         send(t, http.MethodPost, at, body, "Content-Type", "application/json", "X-Forwarded-Access-Token", token),
		"two spaces":          send(t, http.MethodPost, at, body, "Content-Type", "application/json", "Authorization", "Bearer  "+token),
		"basic":               send(t, http.MethodPost, at, body, "Content-Type", "application/json", "Authorization", "Basic "+token),
		"a hyphen underlined": send(t, http.MethodPost, at, body, "Content-Type", "application/json", "Authorization_", "Bearer "+token),
	} {
		if !isU0(got) {
			t.Errorf("%s: %d %s", name, got.Status, got.Header.Get("WWW-Authenticate"))
		}
	}
	for name, headers := range map[string][]string{
		"two headers": {"Authorization", "Bearer " + token, "Authorization", "Bearer " + token},
		"a list":      {"Authorization", "Bearer " + token + ", Bearer " + token},
	} {
		if got := r.call(t, "/t/globex", "modern", "", body, headers...); got.Status != http.StatusBadRequest {
			t.Errorf("%s: %d", name, got.Status)
		}
	}
	if got := r.call(t, "/t/globex", "modern", "", body, "Authorization", "bEaReR "+token); got.Status != http.StatusOK {
		t.Errorf("the scheme has no case: %d", got.Status)
	}
	if strings.Contains(r.Desk().Log(), token) {
		t.Error("the token stands in the log")
	}
}

// TestA014A015_whoSomebodyIs: an e-mail address or a name is nobody.
func TestA014A015_whoSomebodyIs(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	alice := r.app(t, "/t/acme", "good-agent")
	k := alice.signedIn(t, r.person("alice", "Connect Tracker", "Done"))
	if got := r.call(t, "/t/acme", "modern", k.Access, callBody("whoami", "{}")); !strings.Contains(got.Body, "octo-alice") {
		t.Fatalf("alice is not connected: %s", got.Body)
	}
	for name, token := range map[string]string{
		"A-014 her e-mail": r.globex.access(map[string]any{"sub": "emp-mallory", "email": "alice@acme.example", "preferred_username": "alice"}),
		"A-135 her sub":    r.globex.access(nil),
	} {
		got := r.call(t, "/t/globex", "modern", token, callBody("whoami", "{}"))
		if strings.Contains(got.Body, "octo-alice") || got.Status != http.StatusOK {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
		if got := r.call(t, "/t/acme", "modern", token, callBody("whoami", "{}")); !isU1(got) {
			t.Errorf("%s at acme: %d", name, got.Status)
		}
	}
	workload, err := r.acme.Sign("at+jwt", map[string]any{"iss": r.acme.URL(), "aud": "api://frontdesk", "sub": "emp-alice", "client_id": "emp-alice", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "groups": []string{"engineering"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.call(t, "/t/acme", "modern", workload, callBody("whoami", "{}")); strings.Contains(got.Body, "octo-alice") {
		t.Errorf("A-015: a workload acted as alice: %s", got.Body)
	}
}

// TestA016_keyFlood: kids that nobody knows fetch nothing, and hold up nobody.
func TestA016_keyFlood(t *testing.T) {
	r := theRealm(t)
	p := r.globex
	if got := r.call(t, "/t/globex", "modern", p.access(nil), callBody("whoami", "{}")); got.Status != http.StatusOK {
		t.Fatal(got.Status)
	}
	hang := make(chan struct{})
	p.during(t, hooks{jwks: func(http.ResponseWriter) bool { <-hang; return true }})
	t.Cleanup(func() { close(hang) })
	before := p.fetched.Load()
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var served atomic.Int64
	for range 8 {
		wg.Go(func() {
			for range 50 {
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.Desk().Public+"/t/globex/mcp/modern", strings.NewReader("{}"))
				if err != nil {
					return
				}
				req.Header.Set("Authorization", "Bearer "+p.sign(map[string]any{"alg": "ES256", "typ": "at+jwt", "kid": rand.Text()}, p.accessClaims(nil)))
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					continue
				}
				if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusServiceUnavailable {
					served.Add(1)
				}
				_ = resp.Body.Close()
				if ctx.Err() != nil {
					return
				}
			}
		})
	}
	for range 20 { // O4: known keys verify on
		if got := r.call(t, "/t/globex", "modern", p.access(nil), callBody("whoami", "{}")); got.Status != http.StatusOK {
			t.Errorf("an honest call during the flood: %d %s", got.Status, got.Body)
		}
	}
	cancel()
	wg.Wait()
	if n := p.fetched.Load() - before; n > 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

// TestA017_hostileKeys: bad keys are left out, the good one beside them works.
func TestA017_hostileKeys(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	p := r.initech
	small, off := p.rsaJWK("small"), p.ecJWK("off-curve")
	small["n"] = b64(new(big.Int).SetBytes(make([]byte, 64)).SetBit(new(big.Int), 511, 1).Bytes())
	off["x"] = b64(make([]byte, 32))
	forEncryption := p.ecJWK("enc")
	forEncryption["use"] = "enc"
	keys := []any{map[string]any{"kty": "oct", "kid": "oct", "k": b64([]byte("0123456789abcdef0123456789abcdef")), "alg": "HS256"}, small, off, forEncryption, p.rsaJWK("rsa"), p.ecJWK("ec"), "nonsense"}
	p.during(t, hooks{jwks: func(w http.ResponseWriter) bool { reply(w, map[string]any{"keys": keys[:6]}); return true }})
	if got := r.call(t, "/t/initech", "modern", p.access(nil), callBody("whoami", "{}")); got.Status != http.StatusOK {
		t.Errorf("the good key beside bad ones: %d %s", got.Status, got.Body)
	}
	signed := func(kid, alg string) string {
		return p.sign(map[string]any{"alg": alg, "typ": "at+jwt", "kid": kid}, p.accessClaims(nil))
	}
	r.refusesTokens(t, "/t/initech", map[string]string{"a key for encryption": signed("enc", "ES256"), "oct": signed("oct", "HS256"), "a short key": signed("small", "RS256"), "off the curve": signed("off-curve", "ES256"),
		"an EC key's kid with RSA": signed("ec", "RS256")})
}

// TestA019_endOfAccess: what was issued before the end is dead, an open stream closes, and what comes after works.
func TestA019_endOfAccess(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	a := r.app(t, "", "good-agent").at("issues")
	alice := r.person("alice", later)
	k := a.signedIn(t, alice)
	init := send(t, http.MethodPost, a.resource, `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`,
		"Content-Type", "application/json", "Accept", "application/json, text/event-stream", "Authorization", "Bearer "+k.Access)
	session := init.Header.Get("Mcp-Session-Id")
	if init.Status != http.StatusOK || session == "" {
		t.Fatalf("%d %s", init.Status, init.Body)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, a.resource, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]string{"Accept": "text/event-stream", "Authorization": "Bearer " + k.Access, "Mcp-Session-Id": session, "Mcp-Protocol-Version": "2025-11-25"} {
		req.Header.Set(name, v)
	}
	stream, err := http.DefaultClient.Do(req)
	if err != nil || stream.StatusCode != http.StatusOK {
		t.Fatalf("no stream: %v %v", stream, err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _, _ = io.Copy(io.Discard, stream.Body); _ = stream.Body.Close() }()
	got := send(t, http.MethodPost, r.Desk().Public+"/revoke", url.Values{"client_id": {a.id}, "token": {k.Refresh}}.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	if got.Status != http.StatusOK {
		t.Fatalf("%d %s", got.Status, got.Body)
	}
	if got := r.call(t, "", "issues", k.Access, callBody("whoami", "{}")); !isU1(got) {
		t.Errorf("the access token lives on: %d", got.Status)
	}
	if again := a.refresh(t, k.Refresh); again.Error != "invalid_grant" {
		t.Errorf("the refresh token lives on: %+v", again)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the stream is still open")
	}
	if k := a.at("modern").signedIn(t, alice); r.call(t, "", "modern", k.Access, callBody("whoami", "{}")).Status != http.StatusOK {
		t.Error("a sign-in after the end does not work")
	}
}
