package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

const (
	askKey      = "desk:connect"
	statePrefix = "fd1."
	stateLife   = 15 * time.Minute
	// holdRetry is how long a retry is held open while its person answers: clients retry as soon as the link was opened, and
	// have few rounds.
	holdRetry = 25 * time.Second
	// nobodyAsked is how long a person takes at least to refuse a question. Clients that declare what they cannot show refuse sooner,
	// by themselves: these are told in words instead.
	nobodyAsked = time.Second
	// maxInner bounds what of a server's own question is carried within ours: it travels twice in every round.
	maxInner = 16 << 10
	// codeNeeds is ours: a person must connect first, told to a method that has no tool result.
	codeNeeds = -31401
	// connectTool stands in the list of a vendor's own server that cannot list before it is connected.
	connectTool = "connect"
)

// ask shows 'not connected' in the form that this request, or its session, declared: never by the client's name. A list
// does not fail for it.
func (c *call) ask(missing []catalog.Missing) {
	if c.m.Kind != mcp.Request {
		c.w.WriteHeader(http.StatusAccepted)
		return
	}
	if !mcp.Acts(c.m.Method) {
		c.write(http.StatusOK, mcp.ResultMessage(c.m.IDBytes(), c.emptyList()))
		return
	}
	if q := c.question(missing); q != nil {
		c.write(http.StatusOK, q)
	}
}

// question opens a connect request and words it; nil means that it has been answered otherwise.
func (c *call) question(missing []catalog.Missing) []byte {
	client := c.g.Names(c.r.Context(), c.tenant, c.caller.Client)
	q, err := c.g.Asks.Ask(c.r.Context(), c.caller, c.server, c.m.Target, client, missing)
	if err != nil {
		if c.caller.User == "" || fault.KindOf(err) == fault.RateLimited {
			return c.text(sentence(fault.Message(err)), nil)
		}
		c.g.Log.Error("a connect request could not be opened", "error", err)
		return c.text("A connection is missing, and the request for it could not be opened. Try again later.", nil)
	}
	link, titles := c.g.Asks.Link(q), c.titles(q.Missing)
	short := "Connect " + titles + " so that " + c.server.Title + " can work for you."
	elicits := c.m.Method == "tools/call" || c.m.Method == "prompts/get" || c.m.Method == "resources/read"
	switch {
	case c.m.Modern() && elicits && c.m.DeclaresURLElicitation() && !c.inner.unshown:
		return mcp.InputRequired(c.m.IDBytes(), askKey, short, link+connect.GoesOn, c.seal(q.ID))
	case c.session != nil && c.session.URLAsk && c.session.Version == mcp.Version2025November && c.g.watch(c.id, q):
		return mcp.ErrorMessage(c.m.IDBytes(), mcp.CodeURLElicitation, short, mcp.URLElicitation(string(q.ID), short, link+connect.GoesOn))
	}
	text := titles + what(q.Missing) + " Ask the user to open the link below (sign-in required), then call this again. The request expires at " +
		q.Expires.UTC().Format("15:04 UTC") + ".\n" + link
	meta := must(map[string]any{"dev.frontdesk/connect": map[string]string{"url": link, "expiresAt": q.Expires.UTC().Format(time.RFC3339)}})
	return c.text(text, meta)
}

func (c *call) text(text string, meta []byte) []byte {
	if c.m.Method == "tools/call" {
		return mcp.ToolText(c.m.IDBytes(), c.m.Modern(), text, meta)
	}
	return mcp.ErrorMessage(c.m.IDBytes(), codeNeeds, text, meta)
}

func (c *call) titles(missing []catalog.Missing) string {
	var l []string
	for _, m := range missing {
		if up := c.g.Catalog.Upstream(c.tenant, m.Upstream); up != nil {
			l = append(l, up.Title)
		}
	}
	return strings.Join(l, " and ")
}

// what says in words why a person is asked.
func what(missing []catalog.Missing) string {
	switch missing[0].Why {
	case catalog.WhyReconnect:
		return " has to be connected again."
	case catalog.WhyScope:
		return " is connected, but more has to be allowed for this."
	case catalog.WhyGrant:
		return " is connected, but the user has not allowed this agent to use it yet."
	}
	return " is not connected for the user yet."
}

func (c *call) aad() []byte {
	return []byte(string(c.tenant) + "\x00" + string(c.server.Name) + "\x00" + c.m.Method)
}

// digest binds a question to what was asked for: the same thing by name and arguments.
func (c *call) digest() []byte {
	h := sha256.New()
	h.Write([]byte(c.m.Target))
	h.Write([]byte{0})
	if c.m.Arguments.Present() {
		h.Write(c.m.Of(c.m.Arguments))
	}
	return h.Sum(nil)
}

func (c *call) seal(id connect.RequestID) string {
	return statePrefix + c.g.Keys.Seal("gateway/state", c.aad(), must(asked{id, c.caller.Principal(), c.caller.Client, c.digest(), c.g.Now().Add(stateLife), c.inner.State, c.inner.Answers, false}))
}

// resume takes the retry of a question of ours: it is held until the person has answered, then goes on as a new call. A
// requestState that is not ours is the server's, and passes.
func (c *call) resume() (goOn bool) {
	sealed, ours := strings.CutPrefix(c.m.StringOf(c.m.RequestState), statePrefix)
	if !ours {
		c.inner = asked{State: c.m.Of(c.m.RequestState), Answers: c.m.Of(c.m.InputResponses)}
		if len(c.inner.State)+len(c.inner.Answers) > maxInner {
			c.inner = asked{} // too much to carry: should we have to ask, the server begins anew
		}
		return true
	}
	var a asked
	plain, err := c.g.Keys.Open("gateway/state", c.aad(), sealed)
	if err != nil || json.Unmarshal(plain, &a) != nil || a.Who != c.caller.Principal() || a.Client != c.caller.Client || string(a.Digest) != string(c.digest()) || !c.g.Now().Before(a.Expires) {
		c.refuse(&mcp.Fault{Code: mcp.CodeParams, Msg: "requestState is not the one that was given for this request; call without it"})
		return false
	}
	switch action := mcp.Lookup(c.m.Of(c.m.Params), "inputResponses", askKey, "action"); string(action) {
	case `"decline"`, `"cancel"`:
		if c.g.Now().Before(a.Expires.Add(nobodyAsked - stateLife)) {
			c.inner = asked{State: a.State, Answers: a.Answers, unshown: true}
			c.body = c.m.WithParams(map[string][]byte{"requestState": a.State, "inputResponses": a.Answers})
			return true
		}
		c.write(http.StatusOK, c.text("The user did not open the link. Nothing was connected; ask before trying again.", nil))
		return false
	}
	c.g.await(c.r.Context(), c.tenant, a.Request, holdRetry)
	c.inner = asked{State: a.State, Answers: a.Answers}
	c.body = c.m.WithParams(map[string][]byte{"requestState": a.State, "inputResponses": a.Answers})
	return true
}

// await returns when the request is no longer open, or the time is over.
func (g *Gateway) await(ctx context.Context, t identity.Tenant, id connect.RequestID, most time.Duration) connect.State {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	wake := make(chan struct{}, 1)
	g.mu.Lock()
	if len(g.waiting) >= maxWaiting {
		g.mu.Unlock()
		return connect.Open // the question is asked again, and nobody waits
	}
	if g.waiting == nil {
		g.waiting = map[chan struct{}]bool{}
	}
	g.waiting[wake] = true
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.waiting, wake)
		g.mu.Unlock()
	}()
	tick := time.NewTicker(2 * time.Second) // a wake can be missed; the store knows
	defer tick.Stop()
	for {
		s, err := g.Asks.State(ctx, t, id)
		if err == nil && s != connect.Open {
			return s
		}
		select {
		case <-ctx.Done():
			return connect.Open
		case <-wake:
		case <-tick.C:
		}
	}
}

// Wake lets those look again who wait for a person, or whose access may have ended. It must not block.
func (g *Gateway) Wake(e identity.Epoch) {
	g.streams.Connected(e)
	g.mu.Lock()
	defer g.mu.Unlock()
	for w := range g.waiting {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// emptyList is what a server that cannot list without a credential has until its user connects: a way to do that.
func (c *call) emptyList() []byte {
	extra := ""
	if c.m.Modern() {
		extra = `"resultType":"complete","ttlMs":0,"cacheScope":"private",`
	}
	switch c.m.Method {
	case "tools/list":
		return []byte(`{` + extra + `"tools":[{"name":"` + connectTool + `","description":"Not connected yet. Call this to get the link with which the user connects; afterwards list the tools again.","inputSchema":{"type":"object"}}]}`)
	case "prompts/list":
		return []byte(`{` + extra + `"prompts":[]}`)
	case "resources/list":
		return []byte(`{` + extra + `"resources":[]}`)
	case "resources/templates/list":
		return []byte(`{` + extra + `"resourceTemplates":[]}`)
	case "server/discover":
		return must(map[string]any{"resultType": "complete", "supportedVersions": []string{mcp.Version2026July}, "capabilities": map[string]any{"tools": map[string]any{"listChanged": true}},
			"ttlMs": 0, "cacheScope": "private", "serverInfo": map[string]string{"name": string(c.server.Name), "version": "0"}})
	}
	if c.m.Modern() {
		return []byte(`{"resultType":"complete"}`)
	}
	return []byte(`{}`)
}

// connectNow answers the stand-in tool: the question, or that it is answered already.
func (c *call) connectNow() {
	n := c.server.Needs[0]
	if up := c.g.Catalog.Upstream(c.tenant, n.Upstream); up != nil {
		c.ask([]catalog.Missing{{Upstream: n.Upstream, Scopes: n.Wants(up), Why: catalog.WhyNotConnected}})
		return
	}
	c.unknown()
}

// asked is the state of a question of ours, sealed into requestState. State and Answers are what the message carried already when
// we had to ask: the server's own state, and answers to its questions. They go on to it with the retry, byte for byte.
type asked struct {
	Request connect.RequestID `json:"r"`
	Who     string            `json:"w"`
	Client  identity.ClientID `json:"c"`
	Digest  []byte            `json:"d"`
	Expires time.Time         `json:"e"`
	State   []byte            `json:"s,omitempty"`
	Answers []byte            `json:"a,omitempty"`

	unshown bool // the client refused sooner than a person could have
}
