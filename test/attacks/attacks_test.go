package attacks_test

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/world"
)

var enc = base64.RawURLEncoding

// reheader gives a token another header.
func reheader(token, header string) string {
	parts := strings.Split(token, ".")
	return enc.EncodeToString([]byte(header)) + "." + parts[1] + "." + parts[2]
}

func TestA001ToA012_tokens(t *testing.T) {
	s := play(t)
	good := s.mcp(t, s.token, "whoami", callBody("whoami", "{}"))
	if good.Status != http.StatusOK || !strings.Contains(good.Body, "octo-alice") {
		t.Fatalf("the honest call: %d %s", good.Status, good.Body)
	}
	parts := strings.Split(s.token, ".")
	claims := func(change map[string]any) map[string]any {
		m := map[string]any{"iss": s.IdP.URL(), "aud": "api://frontdesk", "sub": "emp-alice", "client_id": "evil", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "groups": []string{"engineering"}}
		for k, v := range change {
			m[k] = v
		}
		return m
	}
	signed := func(typ string, change map[string]any) string {
		v, err := s.IdP.Sign(typ, claims(change))
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	tests := map[string]string{
		"A-001 alg none":             enc.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt"}`)) + "." + parts[1] + ".",
		"A-001 alg nOnE":             reheader(s.token, `{"alg":"nOnE","typ":"at+jwt"}`),
		"A-002 alg HS256":            reheader(s.token, `{"alg":"HS256","typ":"at+jwt"}`),
		"A-003 jwk":                  reheader(s.token, `{"alg":"ES256","typ":"at+jwt","jwk":{"kty":"EC"}}`),
		"A-003 jku":                  reheader(s.token, `{"alg":"ES256","typ":"at+jwt","jku":"http://127.0.0.1:1/"}`),
		"A-004 kid as a path":        reheader(s.token, `{"alg":"ES256","typ":"at+jwt","kid":"../../../../dev/null"}`),
		"A-005 crit":                 reheader(s.token, `{"alg":"ES256","typ":"at+jwt","crit":["b64"],"b64":false}`),
		"A-006 five parts":           "a.b.c.d.e",
		"A-007 dots":                 strings.Repeat(".", 50_000),
		"A-008 another audience":     signed("at+jwt", map[string]any{"aud": "https://elsewhere"}),
		"A-008 several audiences":    signed("at+jwt", map[string]any{"aud": []string{"api://frontdesk", "https://elsewhere"}}),
		"A-009 an ID token":          signed("JWT", map[string]any{"nonce": "x"}),
		"A-009 a logout token":       signed("logout+jwt", nil),
		"A-009 a transaction token":  signed("txntoken+jwt", nil),
		"A-010 expired":              signed("at+jwt", map[string]any{"exp": time.Now().Add(-2 * time.Minute).Unix()}),
		"A-010 exp as text":          signed("at+jwt", map[string]any{"exp": "9999999999"}),
		"A-010 lives for ten years":  signed("at+jwt", map[string]any{"exp": time.Now().AddDate(10, 0, 0).Unix()}),
		"A-011 issuer with a slash":  signed("at+jwt", map[string]any{"iss": s.IdP.URL() + "/"}),
		"A-119 groups as a string":   signed("at+jwt", map[string]any{"groups": "engineering"}),
		"a payload of somebody else": parts[0] + "." + enc.EncodeToString([]byte(`{"sub":"x"}`)) + "." + parts[2],
	}
	before := s.calls()
	for name, token := range tests {
		got := s.mcp(t, token, "whoami", callBody("whoami", "{}"))
		if name == "A-007 dots" && got.Status == http.StatusRequestHeaderFieldsTooLarge {
			continue
		}
		if got.Status != http.StatusUnauthorized || !strings.Contains(got.Header.Get("WWW-Authenticate"), `error="invalid_token"`) || !strings.Contains(got.Header.Get("WWW-Authenticate"), "resource_metadata=") {
			t.Errorf("%s: %d %s %s", name, got.Status, got.Header.Get("WWW-Authenticate"), got.Body)
		}
	}
	// a token anywhere else is no token.
	for name, got := range map[string]answer{
		"query":  send(t, http.MethodPost, s.Desk().MCP("modern")+"?access_token="+s.token, callBody("whoami", "{}"), "Content-Type", "application/json"),
		"cookie": send(t, http.MethodPost, s.Desk().MCP("modern"), callBody("whoami", "{}"), "Content-Type", "application/json", "Cookie", "token="+s.token),
	} {
		if got.Status != http.StatusUnauthorized || strings.Contains(got.Header.Get("WWW-Authenticate"), "error=") {
			t.Errorf("A-012 %s: %d %s", name, got.Status, got.Header.Get("WWW-Authenticate"))
		}
	}
	if got := s.mcp(t, "", "whoami", callBody("whoami", "{}"), "Authorization", "Bearer "+s.token, "Authorization", "Bearer "+s.token); got.Status != http.StatusBadRequest {
		t.Errorf("A-012 two headers: %d", got.Status)
	}
	if s.calls() != before {
		t.Error("a refused token reached the tracker's API")
	}
	// a workload is no person, whatever its name; an honest workload's token of alice works.
	if got := s.mcp(t, signed("at+jwt", map[string]any{"client_id": "emp-alice"}), "whoami", callBody("whoami", "{}")); strings.Contains(got.Body, "octo-alice") {
		t.Errorf("A-015: a workload acted as alice: %s", got.Body)
	}
	s.noLeak(t)
}

func TestA058_smuggledCredentials(t *testing.T) {
	s := play(t)
	for name, value := range map[string]string{"X-Api-Key": "abc", "X-Github-Token": "abc", "Cookie": "a=b", "X-Anything": "trk_0123456789abcdef0123", "Private-Token": "x"} {
		if got := s.mcp(t, s.token, "whoami", callBody("whoami", "{}"), name, value); got.Status != http.StatusBadRequest || !strings.Contains(got.Body, "credential") {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
}

func TestA031_registration(t *testing.T) {
	s := play(t)
	for name, redirect := range map[string]string{"javascript": "javascript:alert(1)", "data": "data:text/html,x", "public http": "http://public.test/cb", "another host": "http://localhost.evil.test/cb",
		"custom scheme": "com.app:/cb", "a byte more": "https://vscode.dev/redirect/", "userinfo": "http://127.0.0.1@evil.test/cb", "loopback with dots": "http://127.0.0.1:1/a/../b"} {
		got := send(t, http.MethodPost, s.Desk().Public+"/register", fmt.Sprintf(`{"client_name":"x","redirect_uris":[%q]}`, redirect), "Content-Type", "application/json")
		if got.Status != http.StatusBadRequest || !strings.Contains(got.Body, "invalid_redirect_uri") {
			t.Errorf("A-026 %s: %d %s", name, got.Status, got.Body)
		}
	}
	got := send(t, http.MethodPost, s.Desk().Public+"/register", `{"client_id":"https://chosen","redirect_uris":["http://127.0.0.1:1/cb"],"token_endpoint_auth_method":"client_secret_basic"}`, "Content-Type", "application/json")
	if got.Status != http.StatusBadRequest {
		t.Errorf("A-031 confidential: %d %s", got.Status, got.Body)
	}
}

// client registers one, and gives its id.
func (s *scene) client(t *testing.T, redirect string) string {
	t.Helper()
	got := send(t, http.MethodPost, s.Desk().Public+"/register", fmt.Sprintf(`{"client_name":"evil-agent","redirect_uris":[%q]}`, redirect), "Content-Type", "application/json")
	var c struct {
		ID string `json:"client_id"`
	}
	if err := json.Unmarshal([]byte(got.Body), &c); err != nil || c.ID == "" {
		t.Fatalf("%d %s", got.Status, got.Body)
	}
	return c.ID
}

func TestA025_authorize(t *testing.T) {
	s := play(t)
	id := s.client(t, "http://127.0.0.1:4711/cb")
	ask := func(change map[string]string) answer {
		q := url.Values{"client_id": {id}, "redirect_uri": {"http://127.0.0.1:4711/cb"}, "response_type": {"code"}, "state": {"st"}, "code_challenge": {strings.Repeat("c", 43)},
			"code_challenge_method": {"S256"}, "resource": {s.Desk().MCP("modern")}}
		for k, v := range change {
			if v == "" {
				q.Del(k)
			} else {
				q.Set(k, v)
			}
		}
		return send(t, http.MethodGet, s.Desk().Public+"/authorize?"+q.Encode(), "")
	}
	for name, uri := range map[string]string{"dots": "http://127.0.0.1:4711/cb/../x", "query": "http://127.0.0.1:4711/cb?x=1", "fragment": "http://127.0.0.1:4711/cb#f", "slash": "http://127.0.0.1:4711/cb/",
		"userinfo": "http://127.0.0.1:4711@evil.test/cb", "host": "http://evil.test/cb", "https": "https://127.0.0.1:4711/cb"} {
		if got := ask(map[string]string{"redirect_uri": uri}); got.Status != http.StatusBadRequest || got.Header.Get("Location") != "" {
			t.Errorf("A-025 %s: %d %s", name, got.Status, got.Header.Get("Location"))
		}
	}
	if got := ask(map[string]string{"redirect_uri": "http://127.0.0.1:9999/cb"}); got.Status != http.StatusSeeOther {
		t.Errorf("A-025 another port of loopback is allowed: %d", got.Status)
	}
	for name, tt := range map[string]struct {
		change map[string]string
		code   string
	}{
		"A-032 no challenge":      {map[string]string{"code_challenge": ""}, "invalid_request"},
		"A-032 plain":             {map[string]string{"code_challenge_method": "plain"}, "invalid_request"},
		"A-035 another resource":  {map[string]string{"resource": "https://elsewhere/mcp/x"}, "invalid_target"},
		"A-035 no resource":       {map[string]string{"resource": ""}, "invalid_target"},
		"a response type of yore": {map[string]string{"response_type": "token"}, "unsupported_response_type"},
	} {
		got := ask(tt.change)
		to, _ := url.Parse(got.Header.Get("Location"))
		if to == nil || to.Query().Get("error") != tt.code || to.Query().Get("iss") != s.Desk().Public || to.Query().Get("code") != "" {
			t.Errorf("%s: %d %s", name, got.Status, got.Header.Get("Location"))
		}
	}
	if got := send(t, http.MethodGet, s.Desk().Public+"/authorize?client_id="+id+"&client_id=x", ""); got.Status != http.StatusBadRequest {
		t.Errorf("a parameter twice: %d", got.Status)
	}
}

// TestA033_codes gets a real code, and tries what others would do with it.
func TestA033_codes(t *testing.T) {
	s := play(t)
	const redirect = "http://127.0.0.1:4712/cb"
	id, other := s.client(t, redirect), s.client(t, redirect)
	b := make([]byte, 32)
	_, _ = rand.Read(b)
	verifier := enc.EncodeToString(b)
	sum := sha256.Sum256([]byte(verifier))
	code := func() string {
		q := url.Values{"client_id": {id}, "redirect_uri": {redirect}, "response_type": {"code"}, "state": {"st"}, "code_challenge": {enc.EncodeToString(sum[:])}, "code_challenge_method": {"S256"}, "resource": {s.Desk().MCP("modern")}}
		p := world.NewPerson("Allow", "Later: a tool that needs it will ask then").HasAccount(s.IdP.URL(), "alice")
		_ = p.Open(t.Context(), s.Desk().Public+"/authorize?"+q.Encode()) // nobody listens where it ends
		found := regexp.MustCompile(`code=([A-Za-z0-9_-]{43})`).FindStringSubmatch(fmt.Sprint(p.History(), p.Page().Links))
		if found == nil {
			t.Fatalf("no code: %s", p.Page().Text())
		}
		return found[1]
	}
	redeem := func(code string, change map[string]string) answer {
		f := url.Values{"grant_type": {"authorization_code"}, "client_id": {id}, "redirect_uri": {redirect}, "code": {code}, "code_verifier": {verifier}, "resource": {s.Desk().MCP("modern")}}
		for k, v := range change {
			f.Set(k, v)
		}
		return send(t, http.MethodPost, s.Desk().Public+"/token", f.Encode(), "Content-Type", "application/x-www-form-urlencoded")
	}
	for name, change := range map[string]map[string]string{"another client": {"client_id": other}, "another redirect": {"redirect_uri": "http://127.0.0.1:4712/other"},
		"another verifier": {"code_verifier": strings.Repeat("v", 43)}, "another resource": {"resource": s.Desk().MCP("issues")}} {
		c := code()
		if got := redeem(c, change); got.Status != http.StatusBadRequest || !strings.Contains(got.Body, "invalid_grant") {
			t.Errorf("A-033 %s: %d %s", name, got.Status, got.Body)
		}
		if got := redeem(c, nil); got.Status == http.StatusOK {
			t.Errorf("A-033 %s: the code lived on", name)
		}
	}
	c := code()
	var tokens struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	if got := redeem(c, nil); json.Unmarshal([]byte(got.Body), &tokens) != nil || tokens.Refresh == "" {
		t.Fatalf("the honest redemption: %d %s", got.Status, got.Body)
	}
	refresh := func(token string) (string, int) {
		got := send(t, http.MethodPost, s.Desk().Public+"/token", url.Values{"grant_type": {"refresh_token"}, "client_id": {id}, "refresh_token": {token}}.Encode(), "Content-Type", "application/x-www-form-urlencoded")
		var n struct {
			Refresh string `json:"refresh_token"`
		}
		_ = json.Unmarshal([]byte(got.Body), &n)
		return n.Refresh, got.Status
	}
	second, _ := refresh(tokens.Refresh)
	again, status := refresh(tokens.Refresh)
	if second == "" || again != second || status != http.StatusOK {
		t.Errorf("A-034: a lost answer gets the same successor: %q %q %d", second, again, status)
	}
	third, _ := refresh(second)
	if _, status := refresh(tokens.Refresh); status != http.StatusBadRequest {
		t.Errorf("A-034: the token before the last one: %d", status)
	}
	if _, status := refresh(third); status != http.StatusBadRequest {
		t.Errorf("A-034: the family lives on: %d", status)
	}
	if got := s.mcp(t, tokens.Access, "whoami", callBody("whoami", "{}")); got.Status != http.StatusUnauthorized {
		t.Errorf("A-034: the family's access token lives on: %d", got.Status)
	}
}

func TestA048_somebodyElsesLink(t *testing.T) {
	s := play(t)
	bob, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "bob's", Era: world.Era2026July, Browser: s.Person("bob", "Later: a tool that needs it will ask then")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = bob.Close() })
	r, err := bob.Call(t.Context(), "whoami", nil)
	if err != nil {
		t.Fatal(err)
	}
	link := world.Text(r)[strings.LastIndex(world.Text(r), "\n")+1:]
	for name, p := range map[string]*world.Person{"alice, who signs in for it": s.Person("alice", "Continue to Tracker")} {
		err := p.Open(t.Context(), link)
		if err == nil || !strings.Contains(err.Error(), "403") || p.Visited(s.Tracker.URL()) || strings.Contains(p.Page().Text(), "bob") {
			t.Errorf("A-048/A-049 %s: %v\n%s", name, err, p.Page().Text())
		}
	}
	unknown := world.NewPerson().HasAccount(s.IdP.URL(), "alice")
	if err := unknown.Open(t.Context(), s.Desk().Public+"/connect/AAAAAAAAAAAAAAAAAAAAAA"); err == nil {
		t.Error("A-052: a made-up request has a page")
	}
	// an answer with a made-up state, and bob's own authorize URL finished in alice's browser.
	if got := send(t, http.MethodGet, s.Desk().Public+"/callback/tracker?code=x&state=y&iss="+url.QueryEscape(s.Tracker.URL()), ""); got.Status != http.StatusForbidden {
		t.Errorf("A-038: %d", got.Status)
	}
	stops := world.NewPerson("Continue to Tracker").HasAccount(s.IdP.URL(), "bob") // has no account at the tracker: he stops there
	_ = stops.Open(t.Context(), link)
	at := ""
	for _, v := range stops.History() {
		if strings.HasPrefix(v.URL, s.Tracker.URL()+"/authorize?") {
			at = v.URL
		}
	}
	if at == "" {
		t.Fatalf("bob did not get to the tracker: %s", stops.Page().Text())
	}
	before := len(s.Tracker.Tokens())
	victim := s.Person("alice")
	if err := victim.Open(t.Context(), s.Desk().Public+"/portal/"); err != nil {
		t.Fatal(err)
	}
	if err := victim.Open(t.Context(), at); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("A-050: alice finished what bob began: %v", err)
	}
	for _, token := range s.Tracker.Tokens()[before:] {
		if token.Kind != "code" {
			t.Errorf("A-050: the code was exchanged for a %s", token.Kind)
		}
	}
}

// TestA098_egress speaks to egress with a keycard of an open call.
func TestA098_egress(t *testing.T) {
	s := play(t)
	ticket := s.ticket(t)
	base := s.Desk().Egress + "/egress/tracker"
	if got := send(t, http.MethodGet, base+"/user", "", "Authorization", "Bearer "+ticket); got.Status != http.StatusOK || !strings.Contains(got.Body, "octo-alice") {
		t.Fatalf("the honest request: %d %s", got.Status, got.Body)
	}
	before := s.calls()
	for name, path := range map[string]string{"dots": "/issues/../../admin", "encoded dots": "/issues/%2e%2e/admin", "encoded slash": "/issues/..%2fadmin", "twice encoded": "/issues/%252e%252e/admin",
		"doubled slash": "//admin", "dot": "/./admin", "parameters": "/issues;x=1/..;/admin", "backslash": `/issues/..%5cadmin`, "nul": "/issues%00", "overlong": "/%c0%ae%c0%ae/admin", "slash in a segment": "/a%2fb"} {
		r, err := http.NewRequest(http.MethodGet, s.Desk().Egress, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.URL.Opaque = "/egress/tracker" + path
		r.Header.Set("Authorization", "Bearer "+ticket)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest {
			t.Errorf("A-101 %s: %d", name, resp.StatusCode)
		}
	}
	for name, got := range map[string]answer{
		"A-098 another upstream":     send(t, http.MethodGet, s.Desk().Egress+"/egress/evil/user", "", "Authorization", "Bearer "+ticket),
		"A-098 another host":         send(t, http.MethodGet, base+"/@evil.test/user", "", "Authorization", "Bearer "+ticket),
		"A-109 no token":             send(t, http.MethodGet, base+"/user", ""),
		"A-109 token in the query":   send(t, http.MethodGet, base+"/user?t="+ticket, "", "Authorization", "Bearer "+ticket),
		"A-109 token twice":          send(t, http.MethodGet, base+"/user", "", "Authorization", "Bearer "+ticket, "X-Again", ticket),
		"A-110 an access token":      send(t, http.MethodGet, base+"/user", "", "Authorization", "Bearer "+s.token),
		"A-110 tampered":             send(t, http.MethodGet, base+"/user", "", "Authorization", "Bearer "+ticket[:len(ticket)-2]+"AA"),
		"A-112 a second credential":  send(t, http.MethodGet, base+"/user?access_token=x", "", "Authorization", "Bearer "+ticket),
		"A-114 TRACE":                send(t, "TRACE", base+"/user", "", "Authorization", "Bearer "+ticket),
		"A-114 lower case":           send(t, "get", base+"/user", "", "Authorization", "Bearer "+ticket),
		"A-108 upgrade":              send(t, http.MethodGet, base+"/user", "", "Authorization", "Bearer "+ticket, "Connection", "Upgrade", "Upgrade", "websocket"),
		"the ticket as access token": s.mcp(t, ticket, "whoami", callBody("whoami", "{}")),
	} {
		if got.Status < 400 || got.Status == http.StatusBadGateway {
			t.Errorf("%s: %d %s", name, got.Status, got.Body)
		}
	}
	if s.calls() != before {
		t.Error("something that was refused reached the tracker")
	}
	// the API says its credential back; what arrives is clean.
	got := send(t, http.MethodGet, base+"/echo", "", "Authorization", "Bearer "+ticket)
	for _, token := range s.Tracker.Tokens() {
		if strings.Contains(got.Body, token.Value) {
			t.Errorf("A-104: the credential came back: %s", got.Body)
		}
	}
	if got.Status != http.StatusOK || !strings.Contains(got.Body, "****") {
		t.Errorf("A-104: %d %s", got.Status, got.Body)
	}
	// redirects are handed back, never followed.
	if got := send(t, http.MethodGet, base+"/redirect?to=http://127.0.0.1:1/", "", "Authorization", "Bearer "+ticket); got.Status >= 500 {
		t.Errorf("A-107: %d %s", got.Status, got.Body)
	}
	s.noLeak(t)
}

// ticket opens a slow call, and takes its keycard from what the MCP server received. The call stays open for the test.
func (s *scene) ticket(t *testing.T) string {
	t.Helper()
	before := len(s.Modern.Recorder.Entries())
	go func() {
		_, _ = s.alice.Call(t.Context(), "slow", map[string]any{"steps": 300, "every_ms": 100})
	}()
	find := regexp.MustCompile(`Bearer (eyJ[\w-]+\.[\w-]+\.[\w-]+)`)
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		for _, e := range s.Modern.Recorder.Entries()[before:] {
			text := fmt.Sprint(e.Header) + string(e.Body)
			if m := find.FindStringSubmatch(text); m != nil && strings.Contains(text, "slow") {
				return m[1]
			}
		}
	}
	t.Fatal("the server never got a keycard")
	return ""
}

func TestA110_aKeycardEndsWithItsCall(t *testing.T) {
	s := play(t)
	find := regexp.MustCompile(`Bearer (eyJ[\w-]+\.[\w-]+\.[\w-]+)`)
	if r, err := s.alice.Call(t.Context(), "list_issues", nil); err != nil || r.IsError {
		t.Fatal(r, err)
	}
	last := ""
	for _, e := range s.Modern.Recorder.Entries() {
		if text := fmt.Sprint(e.Header) + string(e.Body); strings.Contains(text, "list_issues") {
			if m := find.FindStringSubmatch(text); m != nil {
				last = m[1]
			}
		}
	}
	if last == "" {
		t.Fatal("no keycard was seen")
	}
	if got := send(t, http.MethodGet, s.Desk().Egress+"/egress/tracker/user", "", "Authorization", "Bearer "+last); got.Status != http.StatusUnauthorized {
		t.Errorf("the call has ended, and its keycard still opens: %d %s", got.Status, got.Body)
	}
}

// TestO1_nothingAtRest looks for the tracker's tokens in the files of the deployment.
func TestO1_nothingAtRest(t *testing.T) {
	s := play(t)
	files, err := filepath.Glob(filepath.Join(s.Desk().Dir, "*"))
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the socket
		}
		for _, token := range s.Tracker.Tokens() {
			if contains(b, token.Value) {
				t.Errorf("%s holds a %s of the tracker in the clear", filepath.Base(f), token.Kind)
			}
		}
	}
	if out, err := s.Desk().Run("audit", "verify"); err != nil {
		t.Errorf("O2: %v\n%s", err, out)
	}
	s.noLeak(t)
}
