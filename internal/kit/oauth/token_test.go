package oauth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// What a caller hands in; none of it may come back in an error.
const (
	canarySecret   = "canary-secret-5d1e"
	canaryCode     = "canary-code-91aa"
	canaryVerifier = "canary-verifier-77c0"
	canaryRefresh  = "canary-refresh-b3f4"
)

func endpoint(u string) oauth.Endpoint {
	return oauth.Endpoint{URL: u, ClientID: "desk", Secret: secret.New(canarySecret), Auth: oauth.AuthPost}
}

func client(s *httptest.Server) oauth.Client { return oauth.Client{HTTP: direct(s), Now: clock} }

func refresh(t *testing.T, c oauth.Client, e oauth.Endpoint) (oauth.Token, error) {
	t.Helper()
	return c.Refresh(t.Context(), e, oauth.RefreshGrant{Refresh: secret.New(canaryRefresh)})
}

// answer serves one fixed answer.
func answer(t testing.TB, status int, media, body string) *httptest.Server {
	return serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", media)
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
}

func TestRequests(t *testing.T) {
	type call struct{ method, path, media, accept, authorization, extra, body string }
	var got call
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = call{r.Method, r.URL.RequestURI(), r.Header.Get("Content-Type"), r.Header.Get("Accept"), r.Header.Get("Authorization"), r.Header.Get("X-Version"), string(body)}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token":"a1","token_type":"bearer"}`)
	})
	c := client(s)
	grant := oauth.CodeGrant{Code: secret.New("c1"), Verifier: secret.New("v1"), RedirectURI: "https://gw.example/cb", Resources: []string{"https://r.example/mcp"}}
	const form, js = "application/x-www-form-urlencoded", "application/json"
	for name, tc := range map[string]struct {
		change func(*oauth.Endpoint)
		do     func(oauth.Endpoint) error
		want   call
	}{
		"code, post": {func(e *oauth.Endpoint) {}, func(e oauth.Endpoint) error { _, err := c.Exchange(t.Context(), e, grant); return err },
			call{"POST", "/token", form, js, "", "", "client_id=desk&client_secret=" + canarySecret + "&code=c1&code_verifier=v1&grant_type=authorization_code&redirect_uri=https%3A%2F%2Fgw.example%2Fcb&resource=https%3A%2F%2Fr.example%2Fmcp"}},
		"code, basic with odd characters": {func(e *oauth.Endpoint) {
			e.Auth, e.ClientID, e.Secret = oauth.AuthBasic, "a:b c", secret.New("s%:+ü")
		}, func(e oauth.Endpoint) error {
			_, err := c.Exchange(t.Context(), e, oauth.CodeGrant{Code: secret.New("c1")})
			return err
		},
			// base64 of "a%3Ab+c:s%25%3A%2B%C3%BC", RFC 6749 s2.3.1
			call{"POST", "/token", form, js, "Basic YSUzQWIrYzpzJTI1JTNBJTJCJUMzJUJD", "", "code=c1&grant_type=authorization_code"}},
		"refresh, public, form": {func(e *oauth.Endpoint) {
			e.Auth, e.Secret, e.ExtraParams = oauth.AuthNone, secret.Text{}, map[string]string{"expires_in": "1800"}
			e.Headers = map[string]string{"X-Version": "7", "Accept": "application/vnd.x+json", "Authorization": "Bearer x"}
		}, func(e oauth.Endpoint) error {
			_, err := c.Refresh(t.Context(), e, oauth.RefreshGrant{Refresh: secret.New("r1"), Scopes: []string{"a", "b"}, RedirectURI: "https://gw.example/cb"})
			return err
		}, call{"POST", "/token", form, js, "", "7", "client_id=desk&expires_in=1800&grant_type=refresh_token&redirect_uri=https%3A%2F%2Fgw.example%2Fcb&refresh_token=r1&scope=a+b"}},
		"refresh, JSON, Basic": {func(e *oauth.Endpoint) { e.Request, e.Auth = oauth.BodyJSON, oauth.AuthBasic }, func(e oauth.Endpoint) error {
			_, err := c.Refresh(t.Context(), e, oauth.RefreshGrant{Refresh: secret.New("r1"), Resources: []string{"https://a.example", "https://b.example"}})
			return err
		}, call{"POST", "/token", js, js, "Basic ZGVzazpjYW5hcnktc2VjcmV0LTVkMWU=", "", `{"grant_type":"refresh_token","refresh_token":"r1","resource":["https://a.example","https://b.example"]}`}},
		"refresh elsewhere": {func(e *oauth.Endpoint) { e.RefreshURL = s.URL + "/refresh"; e.Auth = oauth.AuthBasic }, func(e oauth.Endpoint) error {
			_, err := c.Refresh(t.Context(), e, oauth.RefreshGrant{Refresh: secret.New("r1")})
			return err
		}, call{"POST", "/refresh", form, js, "Basic ZGVzazpjYW5hcnktc2VjcmV0LTVkMWU=", "", "refresh_token=r1"}},
		"refresh by an access token": {func(e *oauth.Endpoint) { e.Renews = "fb_exchange_token" }, func(e oauth.Endpoint) error {
			_, err := c.Refresh(t.Context(), e, oauth.RefreshGrant{Refresh: secret.New("a1")})
			return err
		}, call{"POST", "/token", form, js, "", "", "client_id=desk&client_secret=" + canarySecret + "&fb_exchange_token=a1&grant_type=fb_exchange_token"}},
		"client credentials, comma": {func(e *oauth.Endpoint) { e.ScopeSeparator = "," }, func(e oauth.Endpoint) error {
			_, err := c.ClientCredentials(t.Context(), e, []string{"a", "b"}, nil)
			return err
		}, call{"POST", "/token", form, js, "", "", "client_id=desk&client_secret=" + canarySecret + "&grant_type=client_credentials&scope=a%2Cb"}},
		"revoke": {func(e *oauth.Endpoint) { e.URL = s.URL + "/revoke" }, func(e oauth.Endpoint) error {
			return c.Revoke(t.Context(), e, secret.New("r1"), "refresh_token")
		}, call{"POST", "/revoke", form, js, "", "", "client_id=desk&client_secret=" + canarySecret + "&token=r1&token_type_hint=refresh_token"}},
	} {
		e := endpoint(s.URL + "/token")
		tc.change(&e)
		got = call{}
		if err := tc.do(e); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(tc.want, got, cmp.AllowUnexported(call{})); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestUnusableEndpointSendsNothing(t *testing.T) {
	var asked atomic.Int32
	s := serve(t, func(http.ResponseWriter, *http.Request) { asked.Add(1) })
	for name, change := range map[string]func(*oauth.Endpoint){
		"no method":          func(e *oauth.Endpoint) { e.Auth = "" },
		"unknown method":     func(e *oauth.Endpoint) { e.Auth = "private_key_jwt" },
		"no secret":          func(e *oauth.Endpoint) { e.Secret = secret.Text{} },
		"secret, but public": func(e *oauth.Endpoint) { e.Auth = oauth.AuthNone },
		"no client":          func(e *oauth.Endpoint) { e.ClientID = "" },
		"http":               func(e *oauth.Endpoint) { e.URL = "http://up.example/token" },
		"coding":             func(e *oauth.Endpoint) { e.Request = "xml" },
		"extra grant_type":   func(e *oauth.Endpoint) { e.ExtraParams = map[string]string{"grant_type": "password"} },
	} {
		e := endpoint(s.URL)
		change(&e)
		_, err := refresh(t, client(s), e)
		if fault.KindOf(err) != fault.Invalid || err == nil {
			t.Errorf("%s: got %v", name, err)
		}
		if strings.Contains(fmt.Sprintf("%v%+v", err, err), "canary") {
			t.Errorf("%s: the error has a secret: %v", name, err)
		}
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
}

func TestAnswers(t *testing.T) {
	in := func(d time.Duration) time.Time { return now.Add(d) }
	const js = "application/json"
	slack := oauth.Pointers{AccessToken: "/authed_user/access_token", RefreshToken: "/authed_user/refresh_token", ExpiresIn: "/authed_user/expires_in", Scope: "/authed_user/scope"}
	type token struct {
		Access, Refresh, ID, Type string
		Expires, RefreshExpires   time.Time
		Scopes                    []string
		ScopesKnown               bool
	}
	for name, c := range map[string]struct {
		media, body string
		change      func(*oauth.Endpoint)
		want        token
	}{
		"plain": {js, `{"access_token":"a1","token_type":"Bearer","expires_in":3600,"refresh_token":"r1","scope":"x y","id_token":"h.p.s"}`, nil,
			token{"a1", "r1", "h.p.s", "Bearer", in(time.Hour), time.Time{}, []string{"x", "y"}, true}},
		"least":               {js, `{"access_token":"a1"}`, nil, token{Access: "a1"}},
		"nulls":               {js, `{"access_token":"a1","refresh_token":null,"expires_in":null,"scope":null,"token_type":null,"error":null}`, nil, token{Access: "a1"}},
		"empty error":         {js, `{"access_token":"a1","error":"","ok":true}`, nil, token{Access: "a1"}},
		"digits":              {js, `{"access_token":"a1","expires_in":"3599"}`, nil, token{Access: "a1", Expires: in(3599 * time.Second)}},
		"fraction":            {js, `{"access_token":"a1","expires_in":59.9}`, nil, token{Access: "a1", Expires: in(59 * time.Second)}},
		"no scope":            {js, `{"access_token":"a1","scope":""}`, nil, token{Access: "a1", ScopesKnown: true}},
		"unreadable scope":    {js, `{"access_token":"a1","scope":"a \"b\""}`, nil, token{Access: "a1"}},
		"scope array":         {js, `{"access_token":"a1","scope":["x","y","x"]}`, nil, token{Access: "a1", Scopes: []string{"x", "y"}, ScopesKnown: true}},
		"scope array of junk": {js, `{"access_token":"a1","scope":["x",1]}`, nil, token{Access: "a1"}},
		"unusable id_token":   {js, `{"access_token":"a1","id_token":"a\nb"}`, nil, token{Access: "a1"}},
		"JSON that says text": {"text/plain", ` {"access_token":"a1"}`, nil, token{Access: "a1"}},
		"invalid UTF-8":       {js, "{\"access_token\":\"a1\",\"name\":\"\xff\"}", nil, token{Access: "a1"}},
		"GitHub form": {"application/x-www-form-urlencoded; charset=utf-8", "access_token=a1&expires_in=28800&refresh_token=r1&refresh_token_expires_in=15811200&scope=repo%2Cgist&token_type=bearer", func(e *oauth.Endpoint) { e.ScopeResponseSeparator = "," },
			token{"a1", "r1", "", "bearer", in(8 * time.Hour), in(15811200 * time.Second), []string{"repo", "gist"}, true}},
		"Slack": {js, `{"ok":true,"access_token":"xoxb-bot","token_type":"bot","scope":"bot","authed_user":{"id":"U1","access_token":"a1","refresh_token":"r1","expires_in":43200,"scope":"search:read,users:read","token_type":"user"}}`,
			func(e *oauth.Endpoint) {
				e.Answer, e.ScopeSeparator, e.TokenTypes = slack, ",", []string{"user"}
			}, token{"a1", "r1", "", "user", in(12 * time.Hour), time.Time{}, []string{"search:read", "users:read"}, true}},
		"Square": {js, `{"access_token":"a1","expires_at":"2026-12-23T12:00:00Z","refresh_token":"r1"}`, func(e *oauth.Endpoint) {
			e.Answer = oauth.Pointers{AccessToken: "/access_token", RefreshToken: "/refresh_token", ExpiresAt: "/expires_at"}
		}, token{Access: "a1", Refresh: "r1", Expires: in(30 * 24 * time.Hour)}},
		"epoch": {js, fmt.Sprintf(`{"access_token":"a1","expires_at":%d}`, now.Unix()+60), func(e *oauth.Endpoint) {
			e.Answer = oauth.Pointers{AccessToken: "/access_token", ExpiresAt: "/expires_at"}
		}, token{Access: "a1", Expires: in(time.Minute)}},
		// {"exp":1795437000}, which is 12:30 of that day
		"monday": {js, `{"access_token":"e30.eyJleHAiOjE3OTU0MzcwMDB9.e30","scope":"x"}`, func(e *oauth.Endpoint) {
			e.Answer = oauth.Pointers{AccessToken: "/access_token", ExpiresFromJWT: "exp", Scope: "/scope"}
		}, token{Access: "e30.eyJleHAiOjE3OTU0MzcwMDB9.e30", Expires: in(30 * time.Minute), Scopes: []string{"x"}, ScopesKnown: true}},
		"Bitbucket": {js, `{"access_token":"a1","refresh_token":"r1","scopes":"x y"}`, func(e *oauth.Endpoint) { e.Answer.Scope = "/scopes" }, token{Access: "a1", Refresh: "r1", Scopes: []string{"x", "y"}, ScopesKnown: true}},
		"opaque where a JWT was promised": {js, `{"access_token":"a1"}`, func(e *oauth.Endpoint) {
			e.Answer = oauth.Pointers{AccessToken: "/access_token", ExpiresFromJWT: "exp"}
		}, token{Access: "a1"}},
		"Mailchimp": {js, `{"access_token":"a1","expires_in":0}`, func(e *oauth.Endpoint) { e.ZeroIsNever = true }, token{Access: "a1"}},
	} {
		e := endpoint(answer(t, 200, c.media, c.body).URL)
		if c.change != nil {
			c.change(&e)
		}
		got, err := oauth.Client{HTTP: http.DefaultClient, Now: clock}.Exchange(t.Context(), e, oauth.CodeGrant{Code: secret.New(canaryCode)})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		flat := token{got.Access.Expose(), got.Refresh.Expose(), got.IDToken.Expose(), got.Type, got.Expires, got.RefreshExpires, got.Scopes, got.ScopesKnown}
		if diff := cmp.Diff(c.want, flat); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

// a nonsense expiry means a short life; refusing the answer would throw away the only refresh token.
func TestNonsenseExpiry(t *testing.T) {
	for _, v := range []string{`-1`, `0`, `1e309`, `1e12`, `"soon"`, `"-5"`, `""`, `true`, `{}`, `[3600]`} {
		s := answer(t, 200, "application/json", `{"access_token":"a1","refresh_token":"r2","expires_in":`+v+`}`)
		got, err := refresh(t, client(s), endpoint(s.URL))
		if err != nil || got.Refresh.Expose() != "r2" || !got.Expires.Equal(now.Add(5*time.Minute)) {
			t.Errorf("expires_in %s: until %v, %v", v, got.Expires, err)
		}
	}
	for _, v := range []string{`"2026-11-23T11:59:59Z"`, `"9999-12-31T00:00:00Z"`, `1`, `-1`, `1e300`, `"yesterday"`} {
		s := answer(t, 200, "application/json", `{"access_token":"a1","expires_at":`+v+`}`)
		e := endpoint(s.URL)
		e.Answer = oauth.Pointers{AccessToken: "/access_token", ExpiresAt: "/expires_at"}
		if got, err := refresh(t, client(s), e); err != nil || !got.Expires.Equal(now.Add(5*time.Minute)) {
			t.Errorf("expires_at %s: until %v, %v", v, got.Expires, err)
		}
	}
}

func TestRefreshAnswerIsFlat(t *testing.T) {
	s := answer(t, 200, "application/json", `{"ok":true,"access_token":"a2","refresh_token":"r2","expires_in":43200,"token_type":"user"}`)
	e := endpoint(s.URL)
	e.TokenTypes = []string{"user"}
	e.Answer = oauth.Pointers{AccessToken: "/authed_user/access_token", RefreshToken: "/authed_user/refresh_token", ExpiresIn: "/authed_user/expires_in"}
	got, err := refresh(t, client(s), e)
	if err != nil || got.Access.Expose() != "a2" || got.Refresh.Expose() != "r2" || !got.Expires.Equal(now.Add(12*time.Hour)) {
		t.Errorf("got %v, %v", got, err)
	}
	// In the first answer the flat token is the bot's: it must not be taken for the user's.
	if got, err := client(s).Exchange(t.Context(), e, oauth.CodeGrant{Code: secret.New("c")}); err == nil {
		t.Errorf("took the bot's token: %v", got.Access.Expose())
	}
}

func TestLookup(t *testing.T) {
	s := answer(t, 200, "application/json", `{"access_token":"a1","refresh_token":"r1","key":"a1","bot":{"accessToken":"b1","client_secret":"b2"},"list":[{"team":"T"}],
		"id":12345678901234567890,"owner":{"user/x":"alice","bad":"a\nb"},"token_type":"bearer","empty":"","flag":true,"long":"`+strings.Repeat("x", 1025)+`"}`)
	got, err := refresh(t, client(s), endpoint(s.URL))
	if err != nil {
		t.Fatal(err)
	}
	for pointer, want := range map[string]string{
		"/owner/user~1x": "alice", "/id": "12345678901234567890", "/list/0/team": "T",
		"/access_token": "", "/refresh_token": "", "/key": "", "/bot/accessToken": "", "/bot/client_secret": "",
		"": "", "owner": "", "/owner": "", "/owner/bad": "", "/list/1/team": "", "/list/-1": "", "/id/x": "", "/empty": "", "/flag": "", "/long": "", "/~": "",
	} {
		if v, ok := got.Lookup(pointer); v != want || ok != (want != "") {
			t.Errorf("Lookup(%q) = %q, %v, want %q", pointer, v, ok, want)
		}
	}
	if v, ok := (oauth.Token{}).Lookup("/x"); v != "" || ok {
		t.Error("the zero Token has something")
	}
	if printed := fmt.Sprintf("%v %+v %#v", got, got, got); strings.Contains(printed, "a1") || strings.Contains(printed, "r1") || strings.Contains(printed, "b1") {
		t.Errorf("a token prints its secrets: %s", printed)
	}
}

func TestRefusals(t *testing.T) {
	const js, html = "application/json", "text/html"
	type want struct {
		failure    oauth.Failure
		code       string
		definitive bool
		kind       fault.Kind
	}
	for name, c := range map[string]struct {
		status      int
		media, body string
		want        want
	}{
		"invalid_grant":             {400, js, `{"error":"invalid_grant"}`, want{oauth.GrantRefused, "invalid_grant", true, fault.Denied}},
		"invalid_grant with 401":    {401, js, `{"error":"invalid_grant"}`, want{oauth.GrantRefused, "invalid_grant", true, fault.Denied}},
		"invalid_grant with 403":    {403, js, `{"error":"invalid_grant"}`, want{oauth.GrantRefused, "invalid_grant", true, fault.Denied}},
		"invalid_grant with 200":    {200, js, `{"error":"invalid_grant","access_token":"a1"}`, want{oauth.GrantRefused, "invalid_grant", true, fault.Denied}},
		"invalid_grant with 500":    {500, js, `{"error":"invalid_grant"}`, want{oauth.Temporary, "invalid_grant", false, fault.Unavailable}},
		"invalid_grant with 429":    {429, js, `{"error":"invalid_grant"}`, want{oauth.Temporary, "invalid_grant", false, fault.Unavailable}},
		"invalid_grant in a form":   {200, "application/x-www-form-urlencoded", `error=invalid_grant&error_description=x`, want{oauth.GrantRefused, "invalid_grant", true, fault.Denied}},
		"GitHub's own word":         {200, js, `{"error":"bad_refresh_token"}`, want{oauth.GrantRefused, "bad_refresh_token", true, fault.Denied}},
		"Slack's own word":          {200, js, `{"ok":false,"error":"invalid_refresh_token"}`, want{oauth.GrantRefused, "invalid_refresh_token", true, fault.Denied}},
		"unknown word with 200":     {200, js, `{"ok":false,"error":"fatal_error"}`, want{oauth.RequestRefused, "fatal_error", false, fault.Denied}},
		"unknown word with 400":     {400, js, `{"error":"who_knows"}`, want{oauth.RequestRefused, "who_knows", false, fault.Denied}},
		"vendor's busy word":        {200, js, `{"ok":false,"error":"ratelimited"}`, want{oauth.Temporary, "ratelimited", false, fault.Unavailable}},
		"invalid_client":            {401, js, `{"error":"invalid_client"}`, want{oauth.ClientRefused, "invalid_client", true, fault.Internal}},
		"unauthorized_client":       {400, js, `{"error":"unauthorized_client"}`, want{oauth.ClientRefused, "unauthorized_client", true, fault.Internal}},
		"invalid_scope":             {400, js, `{"error":"invalid_scope"}`, want{oauth.RequestRefused, "invalid_scope", true, fault.Denied}},
		"temporarily_unavailable":   {400, js, `{"error":"temporarily_unavailable"}`, want{oauth.Temporary, "temporarily_unavailable", false, fault.Unavailable}},
		"numeric error":             {400, js, `{"error":190}`, want{oauth.RequestRefused, "190", false, fault.Denied}},
		"error an object":           {400, js, `{"error":{"code":"x"}}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"error with markup":         {400, js, `{"error":"<script>"}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"error twice":               {400, js, `{"error":"invalid_grant","error":"x"}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"error in upper case":       {400, js, `{"Error":"invalid_grant"}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"redirect with an error":    {302, js, `{"error":"invalid_grant"}`, want{oauth.Malformed, "invalid_grant", false, fault.Unavailable}},
		"500 HTML":                  {500, html, `<html>`, want{oauth.Temporary, "", false, fault.Unavailable}},
		"503":                       {503, html, ``, want{oauth.Temporary, "", false, fault.Unavailable}},
		"408":                       {408, html, ``, want{oauth.Temporary, "", false, fault.Unavailable}},
		"403 HTML of a firewall":    {403, html, `<html>`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"404":                       {404, html, ``, want{oauth.Malformed, "", false, fault.Unavailable}},
		"200 HTML":                  {200, html, `<html>`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"200 empty":                 {200, js, ``, want{oauth.Malformed, "", false, fault.Unavailable}},
		"202 with a token":          {202, js, `{"access_token":"a1"}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"200 array":                 {200, js, `[{"access_token":"a1"}]`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"200 truncated":             {200, js, `{"access_token":"a1"`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"200 not ok":                {200, js, `{"ok":false,"access_token":"a1"}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"no access_token":           {200, js, `{"token_type":"bearer","expires_in":1}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"empty access_token":        {200, js, `{"access_token":""}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"access_token a number":     {200, js, `{"access_token":1}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"access_token folded":       {200, js, `{"Access_Token":"a1"}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"access_token twice":        {200, js, `{"access_token":"a1","access_token":"a2"}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"access_token twice, form":  {200, "application/x-www-form-urlencoded", `access_token=a1&access_token=a2`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"header split":              {200, js, `{"access_token":"a1\r\nX-Evil: 1"}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"form split":                {200, "application/x-www-form-urlencoded", `access_token=a1%0d%0aX`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"space in token":            {200, js, `{"access_token":"a1 b"}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"non-ASCII token":           {200, js, `{"access_token":"aé"}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"NUL in refresh token":      {200, js, `{"access_token":"a1","refresh_token":"r\u0000"}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"refresh token an object":   {200, js, `{"access_token":"a1","refresh_token":{}}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"absurd token":              {200, js, `{"access_token":"` + strings.Repeat("a", 16<<10+1) + `"}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"mac":                       {200, js, `{"access_token":"a1","token_type":"mac"}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"DPoP":                      {200, js, `{"access_token":"a1","token_type":"DPoP"}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"token_type an object":      {200, js, `{"access_token":"a1","token_type":{}}`, want{oauth.Malformed, "", false, fault.Unavailable}},
		"oversized":                 {200, js, `{"access_token":"a1","x":"` + strings.Repeat("x", 1<<20) + `"}`, want{oauth.Oversized, "", false, fault.Unavailable}},
		"oversized error":           {400, js, `{"error":"invalid_grant","x":"` + strings.Repeat("x", 1<<20) + `"}`, want{oauth.Oversized, "", false, fault.Unavailable}},
		"oversized server error":    {502, html, strings.Repeat("x", 1<<20+1), want{oauth.Temporary, "", false, fault.Unavailable}},
		"deep":                      {200, js, `{"access_token":"a1","x":` + strings.Repeat("[", 200000), want{oauth.Malformed, "", false, fault.Unavailable}},
		"description echoes secret": {400, js, `{"error":"invalid_grant","error_description":"` + canaryRefresh + canarySecret + `","error_uri":"https://x/` + canaryRefresh + `"}`, want{oauth.GrantRefused, "invalid_grant", true, fault.Denied}},
		"HTML echoes secret":        {200, html, canaryRefresh + canarySecret, want{oauth.Malformed, "", false, fault.Unavailable}},
		"form echoes secret":        {400, "application/x-www-form-urlencoded", `error=` + canaryRefresh + `%20` + canarySecret, want{oauth.Malformed, "", false, fault.Unavailable}},
	} {
		s := answer(t, c.status, c.media, c.body)
		e := endpoint(s.URL)
		e.ErrorCodes = map[string]string{"bad_refresh_token": "invalid_grant", "invalid_refresh_token": "invalid_grant", "ratelimited": "temporarily_unavailable"}
		token, err := refresh(t, client(s), e)
		var te *oauth.TokenError
		if !errors.As(err, &te) || !token.Access.IsZero() || !token.Refresh.IsZero() {
			t.Errorf("%s: got %v, %v", name, token, err)
			continue
		}
		got := want{te.Failure, te.Code, te.Definitive, fault.KindOf(err)}
		if got != c.want || !te.Sent || te.HTTPStatus != c.status {
			t.Errorf("%s: got %+v, %+v, want %+v", name, got, te, c.want)
		}
		if printed := fmt.Sprintf("%v %+v %#v %s %#v", err, err, err, fault.Message(err), te); strings.Contains(printed, "canary") {
			t.Errorf("%s: the error has a secret: %s", name, printed)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	for field, want := range map[string]time.Duration{
		"": 0, "120": 2 * time.Minute, "0": 0, "-1": 0, "soon": 0, "999999999": time.Hour, "99999999999999999999": 0,
		now.Add(time.Minute).Format(http.TimeFormat): time.Minute, now.Add(-time.Minute).Format(http.TimeFormat): 0,
		now.AddDate(1, 0, 0).Format(http.TimeFormat): time.Hour,
	} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", field)
			w.WriteHeader(http.StatusServiceUnavailable)
		})
		_, err := refresh(t, client(s), endpoint(s.URL))
		if got := fault.RetryAfter(err); got != want {
			t.Errorf("%q: got %v, want %v", field, got, want)
		}
	}
}

// A redirect would hand the client secret to whatever it names.
func TestRedirectIsNotFollowed(t *testing.T) {
	var followed atomic.Int32
	thief := serve(t, func(http.ResponseWriter, *http.Request) { followed.Add(1) })
	for _, status := range []int{301, 302, 303, 307, 308} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, thief.URL, status) })
		_, err := refresh(t, client(s), endpoint(s.URL))
		var te *oauth.TokenError
		if !errors.As(err, &te) || te.Failure != oauth.Malformed || te.Definitive || !te.Sent {
			t.Errorf("%d: got %v", status, err)
		}
	}
	if n := followed.Load(); n != 0 {
		t.Errorf("%d redirects were followed", n)
	}
}

func TestSent(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	notTLS := serve(t, func(http.ResponseWriter, *http.Request) {})
	untrusted := httptest.NewUnstartedServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0) // the refused handshake is the point
	untrusted.StartTLS()
	t.Cleanup(untrusted.Close)

	hijack := func(write string) *httptest.Server {
		return serve(t, func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			conn, _, _ := http.NewResponseController(w).Hijack()
			io.WriteString(conn, write)
			conn.Close()
		})
	}
	for name, c := range map[string]struct {
		url  string
		sent bool
	}{
		"nobody listens":     {closed.URL, false},
		"no TLS there":       {"https://" + strings.TrimPrefix(notTLS.URL, "http://"), false},
		"unknown authority":  {untrusted.URL, false},
		"closed after all":   {hijack("").URL, true},
		"half an answer":     {hijack("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{\"access_token\":\"a1\"").URL, true},
		"not HTTP, a canary": {hijack("HTTP/1.1 " + canaryRefresh + " " + canarySecret + "\r\n\r\n").URL, true},
		"canary in a header": {hijack("HTTP/1.1 200 OK\r\n" + canaryRefresh + "\x00: " + canarySecret + "\r\n\r\n").URL, true},
	} {
		plain := &http.Client{Transport: &http.Transport{}}
		_, err := refresh(t, oauth.Client{HTTP: plain, Now: clock}, endpoint(c.url))
		var te *oauth.TokenError
		if !errors.As(err, &te) || te.Failure != oauth.Temporary || te.Definitive || te.Sent != c.sent || fault.KindOf(err) != fault.Unavailable {
			t.Errorf("%s: got %v, want sent %v", name, err, c.sent)
		}
		if printed := fmt.Sprintf("%v %+v %#v %#v", err, err, err, te); strings.Contains(printed, "canary") {
			t.Errorf("%s: the error has a secret: %s", name, printed)
		}
	}
}

// A refresh token must not be redeemed twice because a kept connection died under the first try.
func TestNoRetryOnAKeptConnection(t *testing.T) {
	var asked atomic.Int32
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		if asked.Add(1) > 1 {
			conn, _, _ := http.NewResponseController(w).Hijack()
			conn.Close()
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token":"a1"}`)
	})
	c := client(s)
	if _, err := refresh(t, c, endpoint(s.URL)); err != nil {
		t.Fatal(err)
	}
	_, err := refresh(t, c, endpoint(s.URL))
	var te *oauth.TokenError
	if !errors.As(err, &te) || !te.Sent || asked.Load() != 2 {
		t.Errorf("asked %d times, %v", asked.Load(), err)
	}
}

// The first byte is out, the last is not: that counts as sent.
func TestCancelledWhileSending(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	s := serve(t, func(http.ResponseWriter, *http.Request) {
		cancel()
		<-over
	})
	_, err := client(s).Refresh(ctx, endpoint(s.URL), oauth.RefreshGrant{Refresh: secret.New(strings.Repeat("r", 32<<20))})
	close(over)
	var te *oauth.TokenError
	if !errors.As(err, &te) || te.Failure != oauth.Temporary || !te.Sent {
		t.Errorf("got %v", err)
	}
}

func TestCancelledAfterSending(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		cancel()
		<-r.Context().Done()
	})
	_, err := client(s).Refresh(ctx, endpoint(s.URL), oauth.RefreshGrant{Refresh: secret.New(canaryRefresh)})
	var te *oauth.TokenError
	if !errors.As(err, &te) || te.Failure != oauth.Temporary || !te.Sent || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	_, err = client(s).Refresh(ctx, endpoint(s.URL), oauth.RefreshGrant{Refresh: secret.New(canaryRefresh)})
	if !errors.As(err, &te) || te.Sent {
		t.Errorf("cancelled before: got %v", err)
	}
}

func TestRevoke(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   string // failure; "" is success
	}{
		"200":              {200, ``, ""},
		"204":              {204, ``, ""},
		"Google, dead":     {400, `{"error":"invalid_token"}`, ""},
		"unsupported type": {400, `{"error":"unsupported_token_type"}`, "request refused"},
		"invalid_client":   {401, `{"error":"invalid_client"}`, "client refused"},
		"503":              {503, ``, "temporary"},
		"HTML":             {404, `<html>`, "malformed answer"},
	} {
		s := answer(t, c.status, "application/json", c.body)
		err := client(s).Revoke(t.Context(), endpoint(s.URL), secret.New(canaryRefresh), "")
		var te *oauth.TokenError
		if failed := errors.As(err, &te); failed != (c.want != "") || failed && te.Failure.String() != c.want {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// TestTokensThatRenewThemselves: what a code brings is made long at once, with its scopes; where that fails it is what there is, and renews
// itself when it is due.
func TestTokensThatRenewThemselves(t *testing.T) {
	for name, tc := range map[string]struct {
		second string
		access string
		lives  time.Duration
	}{
		"made long":       {`{"access_token":"long","expires_in":5184000}`, "long", 60 * 24 * time.Hour},
		"not for now":     {`<html>`, "short", time.Hour},
		"refused, by 190": {`{"error":{"code":190,"type":"OAuthException"}}`, "short", time.Hour},
	} {
		asked := 0
		doer := doerFunc(func(r *http.Request) (*http.Response, error) {
			asked++
			if err := r.ParseForm(); err != nil {
				return nil, err
			}
			body := `{"access_token":"short","expires_in":3600,"scope":"a b"}`
			if r.PostForm.Get("grant_type") == "fb_exchange_token" {
				if got := r.PostForm.Get("fb_exchange_token"); got != "short" {
					t.Errorf("%s: %q is to be renewed", name, got)
				}
				body = tc.second
			}
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body))}, nil
		})
		e := endpoint("https://up.example/token")
		e.Renews, e.Answer.Error, e.ErrorCodes = "fb_exchange_token", "/error/code", map[string]string{"190": "invalid_grant"}
		got, err := oauth.Client{HTTP: doer, Now: clock}.Exchange(t.Context(), e, oauth.CodeGrant{Code: secret.New("c1")})
		if err != nil || asked != 2 || got.Access.Expose() != tc.access || got.Refresh.Expose() != tc.access || got.Expires.Sub(now) != tc.lives || !slices.Equal(got.Scopes, []string{"a", "b"}) {
			t.Errorf("%s: %v, asked %d times: %q and %q for %s, %q", name, err, asked, got.Access.Expose(), got.Refresh.Expose(), got.Expires.Sub(now), got.Scopes)
		}
	}
	dead := doerFunc(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: http.StatusBadRequest, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(`{"error":{"code":190,"type":"OAuthException"}}`))}, nil
	})
	e := endpoint("https://up.example/token")
	e.Renews, e.Answer.Error, e.ErrorCodes = "fb_exchange_token", "/error/code", map[string]string{"190": "invalid_grant"}
	_, err := oauth.Client{HTTP: dead, Now: clock}.Refresh(t.Context(), e, oauth.RefreshGrant{Refresh: secret.New("short")})
	if te, ok := errors.AsType[*oauth.TokenError](err); !ok || te.Failure != oauth.GrantRefused {
		t.Errorf("a token that is dead: %v", err)
	}
}

func FuzzTokenAnswer(f *testing.F) {
	f.Add(200, "application/json", []byte(`{"access_token":"a1","expires_in":3600,"scope":"a b","authed_user":{"access_token":"a2"}}`))
	f.Add(200, "application/x-www-form-urlencoded", []byte(`access_token=a1&scope=a%2Cb`))
	f.Add(400, "application/json", []byte(`{"error":"invalid_grant"}`))
	f.Add(200, "text/html", []byte(`<html>`))
	f.Fuzz(func(t *testing.T, status int, media string, body []byte) {
		doer := doerFunc(func(*http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {media}}, Body: io.NopCloser(strings.NewReader(string(body)))}, nil
		})
		e := endpoint("https://up.example/token")
		e.Answer = oauth.Pointers{AccessToken: "/authed_user/access_token", RefreshToken: "/refresh_token", ExpiresIn: "/expires_in", Scope: "/scope", ExpiresFromJWT: "exp"}
		got, err := oauth.Client{HTTP: doer, Now: clock}.Refresh(context.Background(), e, oauth.RefreshGrant{Refresh: secret.New(canaryRefresh)})
		if err != nil {
			var te *oauth.TokenError
			if !errors.As(err, &te) || te.Definitive && te.Code == "" {
				t.Fatalf("got %v", err)
			}
			return
		}
		for _, s := range []string{got.Access.Expose(), got.Refresh.Expose(), got.IDToken.Expose(), strings.Join(got.Scopes, "")} {
			if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) || len(s) > 500*512 {
				t.Fatalf("accepted %q", s)
			}
		}
		if got.Access.IsZero() || !got.Expires.IsZero() && !got.Expires.After(now) {
			t.Fatalf("a token that is none: until %v", got.Expires)
		}
	})
}
