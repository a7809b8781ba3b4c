package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"

	"frontdesk.dev/frontdesk/test/world/capture"
)

// Eras that an agent may ask for.
const (
	Era2025March    = "2025-03-26"
	Era2025June     = "2025-06-18"
	Era2025November = "2025-11-25"
	Era2026July     = "2026-07-28"
)

// AgentConfig describes an agent. It needs an endpoint, and a token or somebody who can sign in.
type AgentConfig struct {
	URL  string // MCP endpoint
	Name string // how it calls itself at registration and in the protocol; "world-agent" where empty
	Era  string // protocol revision to ask for; the newest where empty

	// Token is sent as it is; the agent then never starts an authorization.
	Token string

	// Browser opens the authorization endpoint. Registration is dynamic unless there is a ClientID.
	Browser  Opener
	ClientID string
	Listen   string // address of the loopback redirect; any free port where empty

	// Elicit, if set, opens the links of URL elicitation, and the agent declares that it can.
	Elicit Opener

	Progress bool // ask for progress on every call
	Watch    bool // listen for changes of the lists
}

// Agent is an MCP client on the official SDK. Its methods are safe for concurrent use.
type Agent struct {
	Recorder capture.Recorder // everything it sent and received
	*party                    // its loopback redirect

	cfg    AgentConfig
	http   *http.Client
	signIn *signIn // nil with a fixed token

	mu      sync.Mutex // owns what follows
	session *mcp.ClientSession
	notices []Notice
	heard   chan struct{} // closed and replaced at every notice
}

// Notice is a notification that a server sent.
type Notice struct {
	Method string
	Params any
}

// NewAgent makes one; it connects at its first call.
func NewAgent(cfg AgentConfig) (*Agent, error) {
	if cfg.URL == "" || (cfg.Token == "" && cfg.Browser == nil) {
		return nil, errors.New("an agent needs an endpoint, and a token or a browser")
	}
	if cfg.Name == "" {
		cfg.Name = "world-agent"
	}
	p, err := listen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	a := &Agent{party: p, cfg: cfg, heard: make(chan struct{})}
	transport := a.Recorder.Transport(http.DefaultTransport.(*http.Transport).Clone())
	mux := http.NewServeMux()
	if cfg.Token == "" {
		transport = &registerOnce{next: transport}
		a.signIn, err = newSignIn(cfg, p.url+"/callback", &http.Client{Transport: transport})
		if err != nil {
			_ = p.ln.Close()
			return nil, err
		}
		mux.Handle("GET /callback", a.Recorder.Handler(http.HandlerFunc(a.signIn.callback)))
	} else {
		transport = withToken(cfg.Token, transport)
	}
	a.http = &http.Client{Transport: transport}
	p.serve(mux)
	return a, nil
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func withToken(token string, next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+token)
		return next.RoundTrip(r)
	})
}

// Session connects, signing in where that is asked, and gives the SDK's session.
func (a *Agent) Session(ctx context.Context) (*mcp.ClientSession, error) {
	a.mu.Lock()
	s := a.session
	a.mu.Unlock()
	if s != nil {
		return s, nil
	}
	transport := &mcp.StreamableClientTransport{Endpoint: a.cfg.URL, HTTPClient: a.http}
	if a.signIn != nil {
		transport.OAuthHandler = a.signIn
	}
	s, err := a.client().Connect(ctx, transport, &mcp.ClientSessionOptions{ProtocolVersion: a.cfg.Era})
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", a.cfg.URL, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.session != nil { // somebody else was faster
		go func() { _ = s.Close() }()
		return a.session, nil
	}
	a.session = s
	return s, nil
}

func (a *Agent) client() *mcp.Client {
	opts := &mcp.ClientOptions{
		Capabilities: &mcp.ClientCapabilities{},
		ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
			a.notice("notifications/progress", r.Params)
		},
		ElicitationCompleteHandler: func(_ context.Context, r *mcp.ElicitationCompleteNotificationRequest) {
			a.notice("notifications/elicitation/complete", r.Params)
		},
	}
	if a.cfg.Watch {
		opts.ToolListChangedHandler = func(_ context.Context, r *mcp.ToolListChangedRequest) {
			a.notice("notifications/tools/list_changed", r.Params)
		}
	}
	if a.cfg.Elicit != nil {
		opts.Capabilities.Elicitation = &mcp.ElicitationCapabilities{URL: &mcp.URLElicitationCapabilities{}}
		opts.ElicitationHandler = func(ctx context.Context, r *mcp.ElicitRequest) (*mcp.ElicitResult, error) {
			action, err := a.elicit(ctx, r.Params)
			return &mcp.ElicitResult{Action: action}, err
		}
	}
	return mcp.NewClient(&mcp.Implementation{Name: a.cfg.Name, Version: "1.0.0"}, opts)
}

// elicit shows a link to the person and gives the action that this came to.
func (a *Agent) elicit(ctx context.Context, p *mcp.ElicitParams) (string, error) {
	err := a.cfg.Elicit.Open(ctx, p.URL)
	switch {
	case errors.Is(err, ErrDeclined):
		return "decline", nil
	case err != nil:
		return "cancel", err
	}
	return "accept", nil
}

// Call calls a tool. An agent that can open links opens those of error -32042 and then calls once more, which the SDK
// leaves to its users; every other form of a question the SDK answers by itself.
func (a *Agent) Call(ctx context.Context, tool string, args map[string]any) (*mcp.CallToolResult, error) {
	s, err := a.Session(ctx)
	if err != nil {
		return nil, err
	}
	res, err := s.CallTool(ctx, a.params(tool, args))
	links := linksOf(err)
	if len(links) == 0 || a.cfg.Elicit == nil {
		return res, err
	}
	for _, l := range links {
		action, openErr := a.elicit(ctx, l)
		if openErr != nil {
			return nil, openErr
		}
		if action != "accept" {
			return nil, err
		}
	}
	return s.CallTool(ctx, a.params(tool, args))
}

func (a *Agent) params(tool string, args map[string]any) *mcp.CallToolParams {
	if args == nil {
		args = map[string]any{}
	}
	p := &mcp.CallToolParams{Name: tool, Arguments: args}
	if a.cfg.Progress {
		p.SetProgressToken("progress-" + random())
	}
	return p
}

// linksOf are the links in an error -32042 (2025-11-25).
func linksOf(err error) []*mcp.ElicitParams {
	var rpc *jsonrpc.Error
	if !errors.As(err, &rpc) || rpc.Code != mcp.CodeURLElicitationRequired {
		return nil
	}
	var data struct {
		Elicitations []*mcp.ElicitParams `json:"elicitations"`
	}
	if json.Unmarshal(rpc.Data, &data) != nil {
		return nil
	}
	return data.Elicitations
}

// Tools lists the names of the tools, sorted.
func (a *Agent) Tools(ctx context.Context) ([]string, error) {
	s, err := a.Session(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	for t, err := range s.Tools(ctx, nil) {
		if err != nil {
			return nil, err
		}
		names = append(names, t.Name)
	}
	slices.Sort(names)
	return names, nil
}

// Text is what a result says, without its form.
func Text(r *mcp.CallToolResult) string {
	var text string
	for _, c := range r.Content {
		if t, ok := c.(*mcp.TextContent); ok {
			text += t.Text
		}
	}
	return text
}

func (a *Agent) notice(method string, params any) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.notices = append(a.notices, Notice{method, params})
	close(a.heard)
	a.heard = make(chan struct{})
}

// Notices are the notifications received so far.
func (a *Agent) Notices() []Notice {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.notices)
}

// AwaitNotice waits for a notification of this method, or finds one that came before.
func (a *Agent) AwaitNotice(ctx context.Context, method string) (Notice, error) {
	for {
		a.mu.Lock()
		i := slices.IndexFunc(a.notices, func(n Notice) bool { return n.Method == method })
		if i >= 0 {
			defer a.mu.Unlock()
			return a.notices[i], nil
		}
		heard := a.heard
		a.mu.Unlock()
		select {
		case <-heard:
		case <-ctx.Done():
			return Notice{}, fmt.Errorf("no %s came: %w", method, ctx.Err())
		}
	}
}

// AccessToken is what the agent would send now, for attacks with it; "" before it signed in.
func (a *Agent) AccessToken() string {
	if a.signIn == nil {
		return a.cfg.Token
	}
	return a.signIn.accessToken()
}

// ExpireToken makes the agent take its access token for expired, so that its next request refreshes it.
func (a *Agent) ExpireToken() {
	if a.signIn != nil {
		a.signIn.expire()
	}
}

// Refreshes says how often the agent got a new access token by refreshing.
func (a *Agent) Refreshes() int {
	if a.signIn == nil {
		return 0
	}
	return a.signIn.refreshes()
}

// Disconnect ends the session and keeps the sign-in; the next call connects again.
func (a *Agent) Disconnect() error {
	a.mu.Lock()
	s := a.session
	a.session = nil
	a.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.Close()
}

// Close ends the session and the agent.
func (a *Agent) Close() error {
	err := a.Disconnect()
	a.http.CloseIdleConnections()
	return errors.Join(err, a.party.Close())
}
