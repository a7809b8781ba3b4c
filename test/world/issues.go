package world

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"frontdesk.dev/frontdesk/test/world/capture"
)

// IssuesConfig describes an MCP server that somebody else wrote for the tracker's API.
type IssuesConfig struct {
	Listen string // address; any free loopback port where empty
	API    string // base URL of the API, or of whatever stands before it; required

	// Stateless serves the modern era, and legacy clients without sessions; without it the server is legacy with sessions.
	Stateless bool

	// TokenHeader is where "its token" is found in a request and put into the API's; Authorization where empty.
	TokenHeader string

	// TokenAtStart reads the token once, at the start of a session. It needs sessions.
	TokenAtStart bool
}

// IssuesServer is an MCP server on the official SDK that knows of nothing but a base URL and the token in the request.
type IssuesServer struct {
	Recorder capture.Recorder // every MCP request it got, every answer of the API, and both of its own
	*party
	cfg    IssuesConfig
	api    *apiClient
	shared *mcp.Server // nil where each session has one of its own

	running atomic.Int32
}

// NewIssuesServer starts one; its endpoint is MCP.
func NewIssuesServer(cfg IssuesConfig) (*IssuesServer, error) {
	if cfg.API == "" {
		return nil, fmt.Errorf("an issues server needs the base URL of its API")
	}
	if cfg.TokenAtStart && cfg.Stateless {
		return nil, fmt.Errorf("a stateless issues server has no session to read a token at the start of")
	}
	if cfg.TokenHeader == "" {
		cfg.TokenHeader = "Authorization"
	}
	p, err := listen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	s := &IssuesServer{party: p, cfg: cfg}
	s.api = newAPIClient(cfg.API, cfg.TokenHeader, &s.Recorder)
	if !cfg.TokenAtStart {
		s.shared = s.build("")
	}
	h := mcp.NewStreamableHTTPHandler(func(r *http.Request) *mcp.Server {
		if s.shared != nil {
			return s.shared
		}
		return s.build(r.Header.Get(cfg.TokenHeader))
	}, &mcp.StreamableHTTPOptions{Stateless: cfg.Stateless, PropagateRequestCancellation: true})
	mux := http.NewServeMux()
	mux.Handle("/mcp", s.Recorder.Handler(h))
	p.serve(mux)
	return s, nil
}

// MCP is the endpoint.
func (s *IssuesServer) MCP() string { return s.URL() + "/mcp" }

// Running is how many tool calls are under way, to see that a cancelled one stops.
func (s *IssuesServer) Running() int { return int(s.running.Load()) }

// Close ends the server and its connections to the API.
func (s *IssuesServer) Close() error {
	s.api.http.CloseIdleConnections()
	return s.party.Close()
}

// AddTool adds a tool that only says its name, and so tells every session that the list has changed. A server that
// reads its token at the start has one list a session and cannot do this.
func (s *IssuesServer) AddTool(name string) error {
	if s.shared == nil {
		return fmt.Errorf("each session of this server has tools of its own")
	}
	mcp.AddTool(s.shared, &mcp.Tool{Name: name, Description: "Says its own name."},
		func(context.Context, *mcp.CallToolRequest, struct{}) (*mcp.CallToolResult, any, error) {
			return say(name), nil, nil
		})
	return nil
}

type noArgs struct{}

type createArgs struct {
	Title string `json:"title" jsonschema:"what it is about, in one line"`
	Body  string `json:"body,omitempty" jsonschema:"the rest"`
}

type numberArgs struct {
	Number int `json:"number" jsonschema:"the issue's number"`
}

type slowArgs struct {
	Steps int `json:"steps,omitempty" jsonschema:"how many; 3 where absent"`
	Every int `json:"every_ms,omitempty" jsonschema:"milliseconds between two; 10 where absent"`
}

type echoArgs struct {
	Text string `json:"text,omitempty"`
}

type fetchArgs struct {
	Method string `json:"method,omitempty" jsonschema:"GET where absent"`
	Path   string `json:"path" jsonschema:"below the API's base URL, with its query"`
	Body   string `json:"body,omitempty"`
}

// build makes the server's tools. A fixed token is that of a session; else each request brings its own.
func (s *IssuesServer) build(fixed string) *mcp.Server {
	srv := mcp.NewServer(&mcp.Implementation{Name: "issues", Title: "Issues", Version: "1.0.0"}, &mcp.ServerOptions{
		Instructions: "Reads and writes the issues of the user in the tracker.",
	})
	srv.AddReceivingMiddleware(func(next mcp.MethodHandler) mcp.MethodHandler {
		return func(ctx context.Context, method string, req mcp.Request) (mcp.Result, error) {
			if method == "tools/call" {
				s.running.Add(1)
				defer s.running.Add(-1)
			}
			return next(ctx, method, req)
		}
	})
	do := func(ctx context.Context, req *mcp.CallToolRequest, method, path, body string) (*mcp.CallToolResult, any, error) {
		return s.api.tool(ctx, s.token(req.Extra, fixed), apiRequest{method, path, body})
	}
	yes, no := true, false
	mcp.AddTool(srv, &mcp.Tool{Name: "list_issues", Description: "Lists your issues.", Annotations: &mcp.ToolAnnotations{ReadOnlyHint: true, OpenWorldHint: &no}},
		func(ctx context.Context, req *mcp.CallToolRequest, _ noArgs) (*mcp.CallToolResult, any, error) {
			return do(ctx, req, http.MethodGet, "/issues", "")
		})
	mcp.AddTool(srv, &mcp.Tool{Name: "whoami", Description: "Says as whom the tracker knows you.", Annotations: &mcp.ToolAnnotations{ReadOnlyHint: true, OpenWorldHint: &no}},
		func(ctx context.Context, req *mcp.CallToolRequest, _ noArgs) (*mcp.CallToolResult, any, error) {
			return do(ctx, req, http.MethodGet, "/user", "")
		})
	mcp.AddTool(srv, &mcp.Tool{Name: "create_issue", Description: "Files an issue.", Annotations: &mcp.ToolAnnotations{DestructiveHint: &no}},
		func(ctx context.Context, req *mcp.CallToolRequest, in createArgs) (*mcp.CallToolResult, any, error) {
			body, err := json.Marshal(in)
			if err != nil {
				return nil, nil, err
			}
			return do(ctx, req, http.MethodPost, "/issues", string(body))
		})
	mcp.AddTool(srv, &mcp.Tool{Name: "delete_issue", Description: "Deletes an issue for good.", Annotations: &mcp.ToolAnnotations{DestructiveHint: &yes}},
		func(ctx context.Context, req *mcp.CallToolRequest, in numberArgs) (*mcp.CallToolResult, any, error) {
			return do(ctx, req, http.MethodDelete, fmt.Sprintf("/issues/%d", in.Number), "")
		})
	mcp.AddTool(srv, &mcp.Tool{Name: "fetch", Description: "Sends any request to the tracker's API."},
		func(ctx context.Context, req *mcp.CallToolRequest, in fetchArgs) (*mcp.CallToolResult, any, error) {
			if in.Method == "" {
				in.Method = http.MethodGet
			}
			return do(ctx, req, in.Method, in.Path, in.Body)
		})
	mcp.AddTool(srv, &mcp.Tool{Name: "slow", Description: "Takes its time and says how far it is."}, slowTool)
	mcp.AddTool(srv, &mcp.Tool{Name: "echo", Description: "Says everything it was told, headers included."}, echoTool)
	s.addRest(srv, fixed)
	return srv
}

// addRest adds what is no tool.
func (s *IssuesServer) addRest(srv *mcp.Server, fixed string) {
	read := func(ctx context.Context, req *mcp.ReadResourceRequest) (*mcp.ReadResourceResult, error) {
		path := strings.TrimPrefix(req.Params.URI, "issues://")
		if path == "all" {
			path = ""
		}
		status, body, err := s.api.call(ctx, s.token(req.Extra, fixed), apiRequest{http.MethodGet, strings.TrimSuffix("/issues/"+path, "/"), ""})
		if err != nil {
			return nil, err
		}
		if status != http.StatusOK {
			return nil, fmt.Errorf("the tracker answered %d: %s", status, body)
		}
		return &mcp.ReadResourceResult{Contents: []*mcp.ResourceContents{{URI: req.Params.URI, MIMEType: "application/json", Text: body}}}, nil
	}
	srv.AddResource(&mcp.Resource{URI: "issues://all", Name: "all", Title: "All your issues", MIMEType: "application/json"}, read)
	srv.AddResourceTemplate(&mcp.ResourceTemplate{URITemplate: "issues://{number}", Name: "issue", Title: "One issue", MIMEType: "application/json"}, read)
	srv.AddPrompt(&mcp.Prompt{Name: "triage", Title: "Sort the issues", Arguments: []*mcp.PromptArgument{{Name: "topic", Description: "only these"}}},
		func(_ context.Context, req *mcp.GetPromptRequest) (*mcp.GetPromptResult, error) {
			text := "List my issues and sort them by urgency."
			if topic := req.Params.Arguments["topic"]; topic != "" {
				text += " Only those about " + topic + "."
			}
			return &mcp.GetPromptResult{Messages: []*mcp.PromptMessage{{Role: "user", Content: &mcp.TextContent{Text: text}}}}, nil
		})
}

func (s *IssuesServer) token(extra *mcp.RequestExtra, fixed string) string {
	if fixed != "" || extra == nil {
		return fixed
	}
	return extra.Header.Get(s.cfg.TokenHeader)
}

// apiClient speaks to the tracker's API, or to what stands before it.
type apiClient struct {
	base   string
	header string // where the token goes
	http   *http.Client
}

func newAPIClient(base, header string, rec *capture.Recorder) *apiClient {
	return &apiClient{base, header, &http.Client{Transport: rec.Transport(http.DefaultTransport.(*http.Transport).Clone())}}
}

// maxAnswer is how much of an answer a tool passes on.
const maxAnswer = 8 << 20

// apiRequest is one request to the API; its path has the query with it.
type apiRequest struct{ method, path, body string }

// tool makes a tool's answer of the API's.
func (c *apiClient) tool(ctx context.Context, token string, req apiRequest) (*mcp.CallToolResult, any, error) {
	status, body, err := c.call(ctx, token, req)
	if err != nil {
		return nil, nil, err
	}
	res := say(body)
	if status >= 400 {
		res = say(fmt.Sprintf("The tracker answered %d: %s", status, body))
		res.IsError = true
	}
	return res, nil, nil
}

func (c *apiClient) call(ctx context.Context, token string, in apiRequest) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, in.method, c.base+in.path, bytes.NewBufferString(in.body))
	if err != nil {
		return 0, "", fmt.Errorf("ask the tracker: %w", err)
	}
	if token != "" {
		req.Header.Set(c.header, token)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "issues-mcp/1.0")
	if in.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, "", fmt.Errorf("ask the tracker: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, "", fmt.Errorf("read the tracker's answer: %w", err)
	}
	return resp.StatusCode, strings.TrimSpace(string(body)), nil
}

func slowTool(ctx context.Context, req *mcp.CallToolRequest, in slowArgs) (*mcp.CallToolResult, any, error) {
	if in.Steps <= 0 {
		in.Steps = 3
	}
	if in.Every <= 0 {
		in.Every = 10
	}
	tick := time.NewTicker(time.Duration(in.Every) * time.Millisecond)
	defer tick.Stop()
	for step := 1; step <= in.Steps; step++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
		if token := req.Params.GetProgressToken(); token != nil {
			err := req.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{
				ProgressToken: token, Progress: float64(step), Total: float64(in.Steps), Message: fmt.Sprintf("step %d", step),
			})
			if err != nil {
				return nil, nil, err
			}
		}
	}
	return say(fmt.Sprintf("%d steps done", in.Steps)), nil, nil
}

// echoTool is the worst server there could honestly be: it tells its client everything that it was given.
func echoTool(_ context.Context, req *mcp.CallToolRequest, in echoArgs) (*mcp.CallToolResult, any, error) {
	text, err := json.Marshal(map[string]any{"text": in.Text, "header": req.Extra.Header, "meta": req.Params.Meta})
	if err != nil {
		return nil, nil, err
	}
	return say(string(text)), nil, nil
}

func say(text string) *mcp.CallToolResult {
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: text}}}
}
