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
var agentPage = template.Must(template.New("").Parse(`<!doctype html><html lang="en"><head><meta charset="utf-8"><title>An employee's agent</title><meta name="viewport" content="width=device-width, initial-scale=1">
{{if .Busy}}<meta http-equiv="refresh" content="1">{{end}}
<style>:root{color-scheme:light dark}body{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem}
button{font:inherit;min-height:2.75rem;padding:.5rem 1rem;margin:0 .5rem .5rem 0}pre,code{font:.9rem/1.5 ui-monospace,monospace;overflow-wrap:anywhere}
pre{white-space:pre-wrap;border:1px solid;border-radius:.5rem;padding:1rem;margin:.5rem 0}a{color:inherit}.note{border-left:.25rem solid;padding:.25rem 1rem}li{margin:.25rem 0}</style></head><body><main>
<h1>An employee's agent</h1>
<p>It knows one MCP server, <code>{{.Server}}</code>, and nothing else. You are <strong>alice</strong> at the company and <strong>octo-alice</strong> at the tracker; both passwords are <strong>let-me-in</strong>.</p>
<h2>Let it call a tool</h2>
<form method="post">{{range .Tools}}<button name="tool" value="{{.}}"{{if $.Busy}} disabled{{end}}>{{.}}</button>{{end}}</form>
{{if .Link}}<p class="note">The agent opened a page for you, in a new tab: <a href="{{.Link}}" target="_blank">sign in here</a>. Let the agent in there, and come back.</p>{{else if .Busy}}<p class="note">The agent is at work …</p>{{end}}
{{range .Said}}<pre>{{.}}</pre>{{end}}
<h2>What to try</h2>
<ol>
<li>Let it call <code>whoami</code>. It has to sign you in first, and in the same visit you may connect the tracker, or leave that for later.</li>
<li>For later: it is told that the tracker is not connected, and shows you a link. Open it, say yes at the tracker, and let the agent try again.</li>
<li>Look at <a href="{{.Portal}}/portal/" target="_blank">what is connected for you</a> and <a href="{{.Portal}}/portal/activity" target="_blank">what was done in your name</a>.</li>
<li>Disconnect the tracker there, let the agent try once more, and see it ask again.</li>
</ol>
</main></body></html>`))

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
