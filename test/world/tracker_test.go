package world_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/oauth2"

	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/authserver"
)

func TestTrackerIsPlainOAuth(t *testing.T) {
	tr := newTracker(t, world.TrackerConfig{})
	meta := getJSON(t, tr.URL()+"/.well-known/oauth-authorization-server", "")
	if meta["issuer"] != tr.URL() || meta["authorization_response_iss_parameter_supported"] != true || !cmp.Equal(meta["code_challenge_methods_supported"], []any{"S256"}) {
		t.Errorf("metadata: %v", meta)
	}
	if status, _ := get(t, tr.URL()+"/.well-known/openid-configuration", ""); status != http.StatusNotFound {
		t.Errorf("a vendor without OpenID publishes its configuration: %d", status)
	}
	tok := trackerToken(t, tr, "octo-alice")
	if tok.Extra("id_token") != nil || !strings.HasPrefix(tok.AccessToken, "tro_at_") || !strings.HasPrefix(tok.RefreshToken, "tro_rt_") {
		t.Errorf("tokens: %+v", tok)
	}
}

func TestConsent(t *testing.T) {
	tr := newTracker(t, world.TrackerConfig{})
	s := newSite(t, tr, world.ScopeRead, world.ScopeWrite)
	p := world.NewPerson().HasAccount(tr.URL(), "octo-alice")
	if err := p.Open(within(t), s.start()); err != nil {
		t.Fatal(err)
	}
	page := p.Page()
	for _, words := range []string{"Let Frontdesk use your Tracker account?", "octo-alice", "Read your issues", "Create and delete your issues", strings.TrimPrefix(s.URL, "http://")} {
		if !strings.Contains(page.Text(), words) {
			t.Errorf("the page does not say %q: %s", words, page.Text())
		}
	}
	if err := page.Tick("Create and delete your issues", false); err != nil {
		t.Fatal(err)
	}
	must[*world.Shown](t)(p.Click(within(t), "Authorize"))
	tok, err := s.redeem(t, (<-s.back).Get("code"))
	if err != nil {
		t.Fatal(err)
	}
	if tok.Extra("scope") != world.ScopeRead || tok.RefreshToken != "" {
		t.Errorf("granted %v with refresh token %q, want only %s: nobody asked for offline_access", tok.Extra("scope"), tok.RefreshToken, world.ScopeRead)
	}
	if status, _ := send(t, "POST", tr.API()+"/issues", tok.AccessToken, `{"title":"x"}`); status != http.StatusForbidden {
		t.Errorf("wrote with the read scope: %d", status)
	}

	// Signed in already, so the question comes at once; the answer is no.
	if err := p.Open(within(t), s.start()); err != nil {
		t.Fatal(err)
	}
	must[*world.Shown](t)(p.Click(within(t), "Cancel"))
	if back := <-s.back; back.Get("error") != "access_denied" || back.Get("state") != "the-state" || back.Get("iss") != tr.URL() {
		t.Errorf("a no came back as %v", back)
	}
}

func TestConsentIsTheUsersOwn(t *testing.T) {
	tr := newTracker(t, world.TrackerConfig{})
	s := newSite(t, tr, world.ScopeRead)
	alice := world.NewPerson().HasAccount(tr.URL(), "octo-alice")
	if err := alice.Open(within(t), s.start()); err != nil {
		t.Fatal(err)
	}
	question := alice.Page().URL.String()
	mallory := world.NewPerson("Authorize").HasAccount(tr.URL(), "octo-mallory")
	if err := mallory.Open(within(t), question); err == nil || !strings.Contains(err.Error(), "somebody else") {
		t.Errorf("another browser sees the question: %v", err)
	}
	// Another account at the same vendor, by the link on the page.
	must[*world.Shown](t)(alice.Click(within(t), "Use another account"))
	for label, value := range map[string]string{"User name": "octo-bob", "Password": world.Password} {
		if err := alice.Fill(label, value); err != nil {
			t.Fatal(err)
		}
	}
	must[*world.Shown](t)(alice.Click(within(t), "Sign in"))
	must[*world.Shown](t)(alice.Click(within(t), "Authorize"))
	tok, err := s.redeem(t, (<-s.back).Get("code"))
	if err != nil {
		t.Fatal(err)
	}
	if got := getJSON(t, tr.API()+"/user", tok.AccessToken)["login"]; got != "octo-bob" {
		t.Errorf("connected %v", got)
	}
}

func TestRotation(t *testing.T) {
	type outs = []authserver.Outcome
	const (
		ok    = ""
		wrong = "invalid_grant"
	)
	for name, tc := range map[string]struct {
		cfg  world.TrackerConfig
		wait time.Duration // between the first and the second use of the first token
		// second use of the first token; then a use of what the first gave
		again, next string
		same        bool // the second use gives the token that the first gave
		outcomes    outs
	}{
		"none":         {world.TrackerConfig{Rotation: authserver.RotationNone}, 0, ok, ok, true, outs{authserver.Renewed, authserver.Renewed, authserver.Renewed}},
		"grace":        {world.TrackerConfig{Rotation: authserver.RotationGrace, Grace: time.Minute}, 30 * time.Second, ok, ok, true, outs{authserver.Renewed, authserver.GraceAgain, authserver.Renewed}},
		"grace, late":  {world.TrackerConfig{Rotation: authserver.RotationGrace, Grace: time.Minute}, 2 * time.Minute, wrong, wrong, false, outs{authserver.Renewed, authserver.Reused, authserver.Ended}},
		"strict":       {world.TrackerConfig{}, 0, wrong, wrong, false, outs{authserver.Renewed, authserver.Reused, authserver.Ended}},
		"strict, late": {world.TrackerConfig{Rotation: authserver.RotationStrict}, time.Hour, wrong, wrong, false, outs{authserver.Renewed, authserver.Reused, authserver.Ended}},
	} {
		t.Run(name, func(t *testing.T) {
			var clock world.Clock
			tc.cfg.Now = clock.Now
			tr := newTracker(t, tc.cfg)
			s := newSite(t, tr, world.ScopeRead, "offline_access")
			first := s.signIn(t, atTracker(tr, "octo-alice"))
			second, err := s.refresh(t, first.RefreshToken)
			if err != nil {
				t.Fatal(err)
			}
			if rotated := second.RefreshToken != first.RefreshToken; rotated == (tc.cfg.Rotation == authserver.RotationNone) {
				t.Errorf("rotated: %v", rotated)
			}
			clock.Advance(tc.wait)
			again, err := s.refresh(t, first.RefreshToken)
			if got := oauthError(t, err); got != tc.again {
				t.Errorf("second use: %q, want %q", got, tc.again)
			}
			if err == nil && (again.RefreshToken == second.RefreshToken) != tc.same {
				t.Errorf("second use gave %q, the first %q", again.RefreshToken, second.RefreshToken)
			}
			_, err = s.refresh(t, second.RefreshToken)
			if got := oauthError(t, err); got != tc.next {
				t.Errorf("use of the successor: %q, want %q", got, tc.next)
			}
			if d := cmp.Diff(tc.outcomes, outs(outcomes(tr.Redemptions()))); d != "" {
				t.Errorf("redemptions (-want +got):\n%s", d)
			}
			if tc.again == wrong {
				if status, _ := get(t, tr.API()+"/user", second.AccessToken); status != http.StatusUnauthorized {
					t.Errorf("an access token of the ended family: %d", status)
				}
			}
		})
	}
}

func TestStrictRotationInParallel(t *testing.T) {
	tr := newTracker(t, world.TrackerConfig{})
	s := newSite(t, tr, world.ScopeRead, "offline_access")
	alice, bob := s.signIn(t, atTracker(tr, "octo-alice")), s.signIn(t, atTracker(tr, "octo-bob"))
	good := parallel(20, func() error { _, err := s.refresh(t, alice.RefreshToken); return err })
	if n := len(tr.Redemptions()); good != 1 || n != 20 {
		t.Errorf("%d of %d counted redemptions succeeded, want 1 of 20", good, n)
	}
	if _, err := s.refresh(t, bob.RefreshToken); err != nil {
		t.Errorf("another user's family: %v", err)
	}
}

func TestRefreshDetails(t *testing.T) {
	tr := newTracker(t, world.TrackerConfig{OldAccessDies: true})
	s := newSite(t, tr, world.ScopeRead, world.ScopeWrite, "offline_access")
	first := s.signIn(t, atTracker(tr, "octo-alice"))
	second, err := s.refresh(t, first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]int{first.AccessToken: 401, second.AccessToken: 200} {
		if status, _ := get(t, tr.API()+"/user", token); status != want {
			t.Errorf("OldAccessDies: %d, want %d", status, want)
		}
	}
	if err := tr.FailNextRefresh("octo-alice"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.refresh(t, second.RefreshToken); oauthError(t, err) != "invalid_grant" {
		t.Errorf("told to fail: %v", err)
	}
	if _, err := s.refresh(t, second.RefreshToken); err != nil {
		t.Errorf("the failure took more than once: %v", err)
	}
	if _, err := s.refresh(t, "tro_rt_never"); oauthError(t, err) != "invalid_grant" {
		t.Errorf("a token that never was: %v", err)
	}
	want := []authserver.Outcome{authserver.Renewed, authserver.Forced, authserver.Renewed, authserver.Unknown}
	if got := outcomes(tr.Redemptions()); !slices.Equal(got, want) {
		t.Errorf("redemptions %v, want %v", got, want)
	}
}

func TestRevocation(t *testing.T) {
	tr := newTracker(t, world.TrackerConfig{})
	s := newSite(t, tr, world.ScopeRead, "offline_access")
	revoke := func(token, id, secret string) int {
		req, err := http.NewRequestWithContext(within(t), "POST", tr.URL()+"/revoke", strings.NewReader(url.Values{"token": {token}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth(id, secret)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	alive := func(token string) bool { status, _ := get(t, tr.API()+"/user", token); return status == 200 }

	tok := s.signIn(t, atTracker(tr, "octo-alice"))
	tr.AddClient(authserver.Client{ID: "other", Secret: "other"})
	revoke(tok.AccessToken, "other", "other")
	revoke(tok.RefreshToken, "other", "other")
	if status := revoke(tok.AccessToken, world.FrontdeskClient, "guess"); status != 401 || !alive(tok.AccessToken) {
		t.Errorf("revoked by a stranger (%d)", status)
	}
	if status := revoke(tok.AccessToken, world.FrontdeskClient, world.FrontdeskSecret); status != 200 || alive(tok.AccessToken) {
		t.Errorf("revoking an access token: %d, alive %v", status, alive(tok.AccessToken))
	}
	tok, err := s.refresh(t, tok.RefreshToken)
	if err != nil {
		t.Fatalf("the refresh token went with an access token: %v", err)
	}
	if status := revoke(tok.RefreshToken, world.FrontdeskClient, world.FrontdeskSecret); status != 200 || alive(tok.AccessToken) {
		t.Errorf("revoking a refresh token: %d, its access token alive %v", status, alive(tok.AccessToken))
	}
	if _, err := s.refresh(t, tok.RefreshToken); oauthError(t, err) != "invalid_grant" {
		t.Errorf("refresh after revocation: %v", err)
	}
	if status := revoke("never-issued", world.FrontdeskClient, world.FrontdeskSecret); status != 200 {
		t.Errorf("RFC 7009 section 2.2: an unknown token gives %d, want 200", status)
	}
	tok = s.signIn(t, atTracker(tr, "octo-alice"))
	if err := tr.Withdraw("octo-alice"); err != nil || alive(tok.AccessToken) {
		t.Errorf("withdrawn consent: %v, alive %v", err, alive(tok.AccessToken))
	}
}

func TestAPI(t *testing.T) {
	var clock world.Clock
	tr := newTracker(t, world.TrackerConfig{Now: clock.Now, AccessLifetime: time.Minute})
	alice, bob := trackerToken(t, tr, "octo-alice").AccessToken, trackerToken(t, tr, "octo-bob").AccessToken
	reader := tr.NewAPIKey("octo-carol", world.ScopeRead)

	status, body := send(t, "POST", tr.API()+"/issues", alice, `{"title":"Broken lamp","body":"dark"}`)
	var made world.Issue
	if err := json.Unmarshal([]byte(body), &made); err != nil || status != http.StatusCreated || made.Author != "octo-alice" {
		t.Fatalf("created %d %s", status, body)
	}
	one := fmt.Sprintf("%s/issues/%d", tr.API(), made.Number)
	for name, tc := range map[string]struct {
		method, address, token, body string
		status                       int
		says                         string
	}{
		"whoami, alice":         {"GET", tr.API() + "/user", alice, "", 200, `"login":"octo-alice"`},
		"whoami, bob":           {"GET", tr.API() + "/user", bob, "", 200, `"login":"octo-bob"`},
		"whoami, API key":       {"GET", tr.API() + "/user", reader, "", 200, `"login":"octo-carol"`},
		"nobody":                {"GET", tr.API() + "/user", "", "", 401, "bad credentials"},
		"a made-up token":       {"GET", tr.API() + "/user", "tro_at_made_up", "", 401, "bad credentials"},
		"a refresh token":       {"GET", tr.API() + "/user", tr.Tokens()[1].Value, "", 401, "bad credentials"},
		"alice's issue":         {"GET", one, alice, "", 200, "Broken lamp"},
		"alice's issue, by bob": {"GET", one, bob, "", 404, "no such issue"},
		"deleted by bob":        {"DELETE", one, bob, "", 404, "no such issue"},
		"key without the scope": {"POST", tr.API() + "/issues", reader, `{"title":"x"}`, 403, world.ScopeWrite},
		"no title":              {"POST", tr.API() + "/issues", alice, `{}`, 422, "title"},
		"echo":                  {"POST", tr.API() + "/echo?a=b", alice, "body", 200, "Bearer " + alice},
		"nothing there":         {"GET", tr.API() + "/nope", alice, "", 404, "nothing here"},
	} {
		if status, body := send(t, tc.method, tc.address, tc.token, tc.body); status != tc.status || !strings.Contains(body, tc.says) {
			t.Errorf("%s: %d %s, want %d and %q", name, status, body, tc.status, tc.says)
		}
	}
	if status, _ := send(t, "DELETE", one, alice, ""); status != http.StatusNoContent || len(tr.Issues("octo-alice")) != 2 {
		t.Errorf("deleted: %d", status)
	}
	if !slices.Contains(tr.Calls(), world.APICall{Method: "DELETE", Path: strings.TrimPrefix(one, tr.URL()), User: "octo-bob", Status: 404}) {
		t.Errorf("bob's attempt is not on record: %v", tr.Calls())
	}
	tr.EndAPIKey(reader)
	if status, _ := get(t, tr.API()+"/user", reader); status != 401 {
		t.Errorf("an ended key: %d", status)
	}
	if err := tr.ExpireAccess("octo-bob"); err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]int{alice: 200, bob: 401} {
		if status, _ := get(t, tr.API()+"/user", token); status != want {
			t.Errorf("after bob's expiry: %d, want %d", status, want)
		}
	}
	clock.Advance(time.Minute)
	if status, _ := get(t, tr.API()+"/user", alice); status != 401 {
		t.Errorf("after a minute: %d", status)
	}
}

func TestAPIStreams(t *testing.T) {
	tr := newTracker(t, world.TrackerConfig{})
	key := tr.NewAPIKey("octo-alice", world.ScopeRead, world.ScopeWrite)
	req, err := http.NewRequestWithContext(within(t), "GET", tr.API()+"/events?every=1ms", nil) // without end
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Api-Key", key)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(resp.Body)
	for n := 0; n < 3 && lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "data: ") {
			n++
			if want := fmt.Sprintf(`data: {"n":%d,"login":"octo-alice"}`, n); lines.Text() != want {
				t.Errorf("got %s, want %s", lines.Text(), want)
			}
		}
	}
	resp.Body.Close()

	const size = 3 << 20
	status, body := get(t, fmt.Sprintf("%s/download?bytes=%d", tr.API(), size), key)
	if status != 200 || len(body) != size || !strings.HasPrefix(body, "abcdefghijklmnopqrstuvwxyzabc") || body[size-1] != byte('a'+(size-1)%26) {
		t.Errorf("download: %d, %d bytes", status, len(body))
	}
	sum := sha256.Sum256([]byte(body))
	if _, got := send(t, "POST", tr.API()+"/upload", key, body); !strings.Contains(got, hex.EncodeToString(sum[:])) {
		t.Errorf("upload: %s", got)
	}
	tr.SetFaults(authserver.Faults{Path: "/api/user", Status: 500, Times: 1})
	if status, _ := get(t, tr.API()+"/user", key); status != 500 {
		t.Errorf("the API does not meet the faults: %d", status)
	}
}

func TestEveryTokenIsOnRecord(t *testing.T) {
	tr := newTracker(t, world.TrackerConfig{})
	s := newSite(t, tr, world.ScopeRead, "offline_access")
	back := s.visit(t, atTracker(tr, "octo-alice"))
	first, err := s.redeem(t, back.Get("code"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.refresh(t, first.RefreshToken)
	if err != nil {
		t.Fatal(err)
	}
	want := []authserver.Issued{
		{Kind: "code", User: "octo-alice", Value: back.Get("code")},
		{Kind: "refresh", User: "octo-alice", Value: first.RefreshToken},
		{Kind: "access", User: "octo-alice", Value: first.AccessToken},
		{Kind: "refresh", User: "octo-alice", Value: second.RefreshToken},
		{Kind: "access", User: "octo-alice", Value: second.AccessToken},
	}
	if d := cmp.Diff(want, tr.Tokens()); d != "" {
		t.Errorf("issued (-want +got):\n%s", d)
	}
}

// A client without a secret has PKCE and nothing else.
func TestPublicClient(t *testing.T) {
	tr := newTracker(t, world.TrackerConfig{})
	s := newSite(t, tr, world.ScopeRead)
	s.cfg.ClientID, s.cfg.ClientSecret = "public", ""
	s.cfg.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	tr.AddClient(authserver.Client{ID: "public", RedirectURIs: []string{s.cfg.RedirectURL}})
	code := s.visit(t, atTracker(tr, "octo-alice")).Get("code")
	if _, err := s.cfg.Exchange(within(t), code); err == nil {
		t.Error("a public client got a token without PKCE")
	}
	if _, err := s.redeem(t, code); err != nil {
		t.Error(err)
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"public"}, "client_secret": {""}}
	resp, err := http.Post(tr.URL()+"/oauth/token", "application/x-www-form-urlencoded", bytes.NewBufferString(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != 401 {
		t.Errorf("client_credentials without a secret: %d %s", resp.StatusCode, body)
	}
}
