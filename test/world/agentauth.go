package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"golang.org/x/oauth2"
)

// signIn is the agent's side of MCP authorization: the SDK's handler discovers (RFC 9728, RFC 8414), registers
// (RFC 7591) and runs code + PKCE + resource; this keeps the tokens, and waits for the loopback redirect (RFC 8252).
type signIn struct {
	*auth.AuthorizationCodeHandler
	browser Opener

	mu       sync.Mutex // owns what follows
	waiting  map[string]chan *auth.AuthorizationResult
	denied   map[string]error
	source   *tokenSource
	renewals int // by sources that were replaced
}

var _ auth.OAuthHandler = (*signIn)(nil)

func newSignIn(cfg AgentConfig, redirect string, client *http.Client) (*signIn, error) {
	s := &signIn{browser: cfg.Browser, waiting: map[string]chan *auth.AuthorizationResult{}, denied: map[string]error{}}
	handler := &auth.AuthorizationCodeHandlerConfig{
		RedirectURL: redirect, Client: client, RequestRefreshToken: true,
		AuthorizationCodeFetcher: s.fetchCode, NewTokenSource: s.keep,
	}
	if cfg.ClientID != "" {
		handler.PreregisteredClient = &oauthex.ClientCredentials{ClientID: cfg.ClientID}
	} else {
		handler.DynamicClientRegistrationConfig = &auth.DynamicClientRegistrationConfig{Metadata: &oauthex.ClientRegistrationMetadata{
			ClientName: cfg.Name, RedirectURIs: []string{redirect}, TokenEndpointAuthMethod: "none",
			GrantTypes: []string{"authorization_code", "refresh_token"}, ResponseTypes: []string{"code"},
		}}
	}
	h, err := auth.NewAuthorizationCodeHandler(handler)
	if err != nil {
		return nil, fmt.Errorf("set up the agent's sign-in: %w", err)
	}
	s.AuthorizationCodeHandler = h
	return s, nil
}

// fetchCode has the authorization URL opened and waits for the browser to come back.
func (s *signIn) fetchCode(ctx context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
	state, err := stateOf(args.URL)
	if err != nil {
		return nil, err
	}
	back := make(chan *auth.AuthorizationResult, 1)
	s.mu.Lock()
	s.waiting[state] = back
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.waiting, state)
		delete(s.denied, state)
	}()
	if err := s.browser.Open(ctx, args.URL); err != nil {
		return nil, fmt.Errorf("sign in: %w", err)
	}
	select {
	case res := <-back:
		s.mu.Lock()
		defer s.mu.Unlock()
		return res, s.denied[state]
	case <-ctx.Done():
		return nil, fmt.Errorf("nobody came back from the sign-in: %w", ctx.Err())
	}
}

func stateOf(authorizationURL string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, authorizationURL, nil)
	if err != nil {
		return "", fmt.Errorf("authorization URL: %w", err)
	}
	return req.URL.Query().Get("state"), nil
}

// callback is where the browser comes back to.
func (s *signIn) callback(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	state := q.Get("state")
	s.mu.Lock()
	defer s.mu.Unlock()
	back, ok := s.waiting[state]
	if !ok {
		http.Error(w, "nobody is waiting for this sign-in", http.StatusBadRequest)
		return
	}
	delete(s.waiting, state) // once
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if code := q.Get("error"); code != "" {
		s.denied[state] = fmt.Errorf("sign in: %s: %s", code, q.Get("error_description"))
		_, _ = io.WriteString(w, "<!doctype html><title>Not signed in</title><h1>Not signed in</h1><p>You can close this window.")
	} else {
		_, _ = io.WriteString(w, "<!doctype html><title>Signed in</title><h1>Signed in</h1><p>You can close this window and go back to your agent.")
	}
	back <- &auth.AuthorizationResult{Code: q.Get("code"), State: state, Iss: q.Get("iss")}
}

// keep takes the tokens of a sign-in.
func (s *signIn) keep(ctx context.Context, cfg *oauth2.Config, t *oauth2.Token) (oauth2.TokenSource, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.source != nil {
		s.renewals += s.source.count()
	}
	s.source = &tokenSource{ctx: ctx, cfg: cfg, token: t}
	return s.source, nil
}

func (s *signIn) current() *tokenSource {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.source
}

func (s *signIn) accessToken() string {
	if src := s.current(); src != nil {
		src.mu.Lock()
		defer src.mu.Unlock()
		return src.token.AccessToken
	}
	return ""
}

func (s *signIn) expire() {
	if src := s.current(); src != nil {
		src.mu.Lock()
		defer src.mu.Unlock()
		old := *src.token // a copy: the one given out before is in other hands
		old.Expiry = time.Unix(1, 0)
		src.token = &old
	}
}

func (s *signIn) refreshes() int {
	src := s.current()
	if src == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.renewals + src.count()
}

// tokenSource refreshes as oauth2 does, and can be told that its token is old.
type tokenSource struct {
	ctx context.Context // the SDK's, which outlives every request
	cfg *oauth2.Config

	mu      sync.Mutex // held over a refresh, so that there is one at a time
	token   *oauth2.Token
	renewed int
}

func (t *tokenSource) Token() (*oauth2.Token, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.token.Valid() {
		return t.token, nil
	}
	if t.token.RefreshToken == "" {
		return nil, &oauth2.RetrieveError{ErrorCode: "invalid_grant"} // the SDK then signs in again
	}
	fresh, err := t.cfg.TokenSource(t.ctx, &oauth2.Token{RefreshToken: t.token.RefreshToken}).Token()
	if err != nil {
		return nil, err
	}
	t.token = fresh
	t.renewed++
	return fresh, nil
}

func (t *tokenSource) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.renewed
}

// registerOnce remembers the answer to a registration, as a client that keeps its id does; the SDK would register anew
// at each sign-in and so be a stranger every time.
type registerOnce struct {
	next http.RoundTripper

	mu   sync.Mutex
	done map[string][]byte // by endpoint and request
}

func (r *registerOnce) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodPost || req.Header.Get("Content-Type") != "application/json" || req.Header.Get("Authorization") != "" || req.Body == nil {
		return r.next.RoundTrip(req)
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, errors.Join(err, req.Body.Close())
	}
	_ = req.Body.Close()
	req = req.Clone(req.Context())
	req.Body = io.NopCloser(bytes.NewReader(body))
	if !bytes.Contains(body, []byte(`"redirect_uris"`)) {
		return r.next.RoundTrip(req)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := req.URL.String() + "\n" + string(body)
	if known, ok := r.done[key]; ok {
		return &http.Response{
			StatusCode: http.StatusCreated, Status: "201 Created", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
			Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(known)), Request: req,
		}, nil
	}
	resp, err := r.next.RoundTrip(req)
	if err != nil || resp.StatusCode != http.StatusCreated {
		return resp, err
	}
	known, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	if r.done == nil {
		r.done = map[string][]byte{}
	}
	r.done[key] = known
	resp.Body = io.NopCloser(bytes.NewReader(known))
	return resp, nil
}
