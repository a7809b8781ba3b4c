package main

import (
	"context"
	"fmt"
	"html/template"
	"net"
	"net/http"
	"regexp"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// agentPage is the agent's chat window: one button a tool, and what came back.
var agentPage = template.Must(template.New("").Parse(`<!doctype html><html lang="en"><head><meta charset="utf-8"><title>The agent</title><meta name="viewport" content="width=device-width, initial-scale=1">
{{if .Busy}}<meta http-equiv="refresh" content="1">{{end}}
<style>body{font:1rem/1.5 system-ui,sans-serif;max-width:44rem;margin:2rem auto;padding:0 1rem}button{font:inherit;padding:.5rem 1rem;margin:.25rem}pre{white-space:pre-wrap;background:#f4f4f4;padding:1rem;border-radius:.5rem}</style></head><body>
<h1>An employee's agent</h1>
<p>It knows one MCP server, <code>{{.Server}}</code>, and nothing else. Sign in as <strong>alice</strong> (at the tracker: <strong>octo-alice</strong>), password <strong>let-me-in</strong>.</p>
<form method="post">{{range .Tools}}<button name="tool" value="{{.}}">{{.}}</button>{{end}}</form>
{{if .Link}}<p><strong>The agent opens your browser:</strong> <a href="{{.Link}}" target="_blank">sign in here</a>, let it in, and come back</p>{{end}}
{{if .Busy}}<p>The agent waits for you …</p>{{end}}
{{range .Said}}<pre>{{.}}</pre>{{end}}
<p>Afterwards look at <a href="{{.Portal}}/portal/" target="_blank">what is connected</a> and <a href="{{.Portal}}/portal/activity" target="_blank">what was done in your name</a>; disconnect, and let the agent try again.</p>
</body></html>`))

type chat struct {
	mu     sync.Mutex
	agent  *world.Agent
	Server string
	Portal string
	Tools  []string
	Link   string
	Busy   bool
	Said   []template.HTML
}

// address finds what a chat window would let its person click.
var address = regexp.MustCompile(`https?://[^\s<>"&]+`)

// shown is what a tool said, with its links alive.
func shown(said string) template.HTML {
	return template.HTML(address.ReplaceAllString(template.HTMLEscapeString(said), `<a href="$0" target="_blank">$0</a>`))
}

// byHand serves the agent's page until the person has seen enough.
func byHand(ctx context.Context, s *stage.Stage) error {
	c := &chat{Server: s.Desk().MCP("issues"), Portal: s.Desk().Public, Tools: []string{"whoami", "list_issues", "create_issue"}}
	opener := world.OpenerFunc(func(_ context.Context, address string) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.Link = address
		return nil
	})
	var err error
	if c.agent, err = world.NewAgent(world.AgentConfig{URL: c.Server, Name: "The demo's agent", Era: world.Era2025November, Browser: opener}); err != nil {
		return err
	}
	defer func() { _ = c.agent.Close() }()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: c, ReadHeaderTimeout: 10 * time.Second}
	go func() { <-ctx.Done(); _ = srv.Close() }()
	fmt.Printf("  open this:              http://%s/   (the agent: let it try a tool)\n\nCtrl-C ends everything.\n", l.Addr())
	if err := srv.Serve(l); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

func (c *chat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Method == http.MethodPost && !c.Busy {
		c.Busy = true
		tool := r.FormValue("tool")
		go c.call(tool)
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	_ = agentPage.Execute(w, c) // the browser went away if this fails
}

func (c *chat) call(tool string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	args := map[string]any{}
	if tool == "create_issue" {
		args["title"] = "Filed by the agent at " + time.Now().Format("15:04:05")
	}
	said := tool + ": "
	r, err := c.agent.Call(ctx, tool, args)
	if err != nil {
		said += err.Error()
	} else {
		said += world.Text(r)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.Busy, c.Link = false, ""
	c.Said = append([]template.HTML{shown(said)}, c.Said...)
}
