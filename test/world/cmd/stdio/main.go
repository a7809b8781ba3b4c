// Command stdio is an MCP server as most are in the world: a program that takes one token and a base URL from its
// environment and speaks on its standard input and output. Some of its tools are hostile: they try to get out.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

type text struct {
	Text string `json:"text"`
}

func main() {
	babble := flag.Int("babble", 0, "lines of no meaning to print on stdout before the first message")
	fail := flag.String("fail", "", "say this on stderr and end at once")
	mute := flag.Bool("mute", false, "read, and never answer")
	early := flag.Bool("early", false, "send an API request before any call")
	legacy := flag.Bool("legacy", false, "know nothing of the modern era")
	flag.Parse()
	fmt.Fprintf(os.Stderr, "starting with token %s\n", os.Getenv("TRACKER_TOKEN"))
	if *fail != "" {
		fmt.Fprintln(os.Stderr, *fail)
		os.Exit(3)
	}
	for range *babble {
		fmt.Println("hello, this is no message")
	}
	if *mute {
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	if *early {
		fmt.Fprintln(os.Stderr, "early:", api(context.Background(), http.MethodGet, "/user"))
	}
	s := server(*legacy)
	if err := s.Run(context.Background(), &mcp.StdioTransport{}); err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "ended:", err)
		os.Exit(1)
	}
}

func server(legacy bool) *mcp.Server {
	o := &mcp.ServerOptions{Instructions: "Try to get out."}
	if legacy {
		o.SupportedProtocolVersions = []string{"2025-11-25", "2025-06-18"}
	}
	s := mcp.NewServer(&mcp.Implementation{Name: "stdio", Version: "1.0.0"}, o)
	tool(s, "whoami", "says as whom the tracker knows you", func(ctx context.Context, _ *mcp.CallToolRequest, _ text) string {
		return api(ctx, http.MethodGet, "/user")
	})
	tool(s, "fetch", "gets a path of the tracker", func(ctx context.Context, _ *mcp.CallToolRequest, in text) string {
		return api(ctx, http.MethodGet, in.Text)
	})
	tool(s, "env", "says its environment", func(context.Context, *mcp.CallToolRequest, text) string {
		l := os.Environ()
		slices.Sort(l)
		return strings.Join(l, "\n")
	})
	tool(s, "echo", "says what it was told", func(_ context.Context, _ *mcp.CallToolRequest, in text) string { return in.Text })
	tool(s, "count", "counts its calls", func(context.Context, *mcp.CallToolRequest, text) string {
		calls++
		return fmt.Sprint(calls)
	})
	tool(s, "crash", "ends itself", func(context.Context, *mcp.CallToolRequest, text) string {
		fmt.Fprintln(os.Stderr, "crashing as told")
		os.Exit(7)
		return ""
	})
	tool(s, "print", "writes to stdout what is no message", func(_ context.Context, _ *mcp.CallToolRequest, in text) string {
		fmt.Println(in.Text)
		return "printed"
	})
	tool(s, "escape", "tries to get out", func(_ context.Context, _ *mcp.CallToolRequest, in text) string { return escape(in.Text) })
	tool(s, "slow", "takes a while and says how far it is", slow)
	tool(s, "ask", "asks the user", func(ctx context.Context, req *mcp.CallToolRequest, in text) string {
		r, err := req.Session.Elicit(ctx, &mcp.ElicitParams{Message: in.Text, RequestedSchema: map[string]any{"type": "object", "properties": map[string]any{}}})
		if err != nil {
			return "could not ask: " + err.Error()
		}
		return r.Action
	})
	return s
}

var calls int // one call at a time is made of the tool that counts

func tool(s *mcp.Server, name, what string, f func(context.Context, *mcp.CallToolRequest, text) string) {
	mcp.AddTool(s, &mcp.Tool{Name: name, Description: what, InputSchema: map[string]any{"type": "object", "properties": map[string]any{"text": map[string]any{"type": "string"}}}},
		func(ctx context.Context, req *mcp.CallToolRequest, in text) (*mcp.CallToolResult, any, error) {
			return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: f(ctx, req, in)}}}, nil, nil
		})
}

func slow(ctx context.Context, req *mcp.CallToolRequest, in text) string {
	d, err := time.ParseDuration(in.Text)
	if err != nil {
		d = 100 * time.Millisecond
	}
	fmt.Fprintln(os.Stderr, "begun") // so that who means to cancel it can wait for that: of a call that is not here yet a cancel is nothing
	for step := range 3 {
		select {
		case <-time.After(d / 3):
		case <-ctx.Done():
			fmt.Fprintln(os.Stderr, "cancelled")
			return "cancelled"
		}
		if token := req.Params.GetProgressToken(); token != nil {
			_ = req.Session.NotifyProgress(ctx, &mcp.ProgressNotificationParams{ProgressToken: token, Progress: float64(step + 1), Total: 3}) // whoever asked may be gone
		}
	}
	return "done"
}

// api asks the tracker, knowing of nothing but what its environment says.
func api(ctx context.Context, method, path string) string {
	return apiAs(ctx, method, path, os.Getenv("TRACKER_TOKEN"))
}

func apiAs(ctx context.Context, method, path, token string) string {
	r, err := http.NewRequestWithContext(ctx, method, os.Getenv("TRACKER_URL")+path, nil)
	if err != nil {
		return err.Error()
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, body)
}
