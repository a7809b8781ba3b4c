package stage_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/internal/admin"
	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// guests are a stage with people in every state, servers of every kind and upstreams of every order of methods.
type guests struct {
	*stage.Stage
	t      *testing.T
	ctx    context.Context
	rng    *rand.Rand
	socket *http.Client
	tokens map[string]string
}

// probe is one random input: what explain is asked, and what is then called.
type probe struct {
	admin.Question
	minted string // for which account of the IdP the token is made
}

var (
	anyTool    = []string{"whoami", "whoami", "whoami", "list_issues", "create_issue", "delete_issue", "echo", "no_such_tool"}
	anyServer  = []string{"desk", "vendor", "mixed", "mixed", "mixed", "robot", "plain", "partly"}
	anyGroup   = []string{"engineering", "sales", "ops", "contractors"}
	anyClient  = []string{"first", "first", "second", "third"}
	anyUser    = []string{"alice", "alice", "bob", "bob", "carol", "new-1", "new-2", "new-3", "robot"}
	anyTitle   = []string{`"x"`, `"secret plans"`, `7`, `null`}
	anyNumber  = []string{`-1`, `0`, `3`, `9223372036854775807`, `9223372036854775808`, `1.5`, `null`, `"3"`, `[3]`}
	conditions = []string{
		`context.client == "first"`,
		`context.args has n && context.args.n < 2`,
		`context.args.n + 9223372036854775800 > 0`, // errs where n is absent, is no number, or is too much
		`context.args has title && context.args.title like "secret*"`,
		`principal has name && principal.name like "*li*"`,
		`context.time > datetime("2020-01-01")`,
		`context.session.acr == "gold"`, // nobody has it, so that this errs
		`resource.server == "desk" || resource.name == "echo"`,
		`context.method == "tools/call" && ["desk", "vendor"].contains(resource.server)`,
	}
)

func pick[T any](r *rand.Rand, l []T) T { return l[r.IntN(len(l))] }

// policy writes a random one. What errs is rarer than what does not: else nothing would ever be allowed.
func (g *guests) policy(i int) string {
	effect := pick(g.rng, []string{"permit", "permit", "forbid"})
	principal := pick(g.rng, []string{"principal", "principal is User", `principal in Group::"` + pick(g.rng, anyGroup) + `"`})
	action := pick(g.rng, []string{"action", `action == Action::"call"`, `action in [Action::"call", Action::"list"]`})
	server := pick(g.rng, anyServer)
	resource := pick(g.rng, []string{`resource in Server::"` + server + `"`, `resource == Tool::"` + server + "/" + pick(g.rng, anyTool) + `"`, `resource == Tool::"` + server + "/" + pick(g.rng, anyTool) + `"`})
	if effect == "permit" && g.rng.IntN(4) == 0 {
		resource = "resource"
	}
	when := ""
	if effect == "forbid" || g.rng.IntN(2) == 0 {
		when = pick(g.rng, []string{" when { ", " unless { "}) + pick(g.rng, conditions) + " }"
	}
	return fmt.Sprintf("@id(\"p%d\") @reason(\"rule %d says so\")\n%s (%s, %s, %s)%s;\n", i, i, effect, principal, action, resource, when)
}

// policies makes a new random set, and random allow lists, the running server's.
func (g *guests) policies() string {
	var set strings.Builder
	for i := range 6 + g.rng.IntN(14) {
		set.WriteString(g.policy(i))
	}
	home := filepath.Dir(g.Desk().ConfigPath)
	if err := os.WriteFile(filepath.Join(home, "random.cedar"), []byte(set.String()), 0o600); err != nil {
		g.t.Fatal(err)
	}
	plain, err := os.ReadFile(filepath.Join(home, "plain.yaml"))
	if err != nil {
		g.t.Fatal(err)
	}
	text := string(plain)
	for strings.Contains(text, "ALLOW") {
		text = strings.Replace(text, "ALLOW", pick(g.rng, []string{"[]", "[group:engineering]", "[group:sales, client:second]", "[everyone]", "[everyone, service:robot]"}), 1)
	}
	if err := os.WriteFile(g.Desk().ConfigPath, []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
	if out, err := g.Desk().Run("reload"); err != nil {
		g.t.Fatalf("%s\n%s", out, set.String())
	}
	return set.String()
}

// probe is one input.
func (g *guests) probe() probe {
	p := probe{minted: pick(g.rng, anyUser)}
	p.Server, p.Tool, p.Client = pick(g.rng, anyServer), pick(g.rng, anyTool), pick(g.rng, anyClient)
	p.Groups = []string{pick(g.rng, anyGroup)}
	if other := pick(g.rng, anyGroup); other != p.Groups[0] && g.rng.IntN(2) == 0 {
		p.Groups = append(p.Groups, other)
	}
	if p.User = "emp-" + p.minted; p.minted == "robot" {
		p.User, p.Service, p.Client = "", "robot", "robot"
	}
	p.Arguments = map[string]json.RawMessage{}
	if g.rng.IntN(3) == 0 {
		p.Arguments["n"] = json.RawMessage(pick(g.rng, anyNumber))
	}
	if g.rng.IntN(3) == 0 || p.Tool == "create_issue" {
		p.Arguments["title"] = json.RawMessage(pick(g.rng, anyTitle))
	}
	return p
}

func (g *guests) explain(p probe) *admin.Explanation {
	g.t.Helper()
	body, err := json.Marshal(p.Question)
	if err != nil {
		g.t.Fatal(err)
	}
	resp, err := g.socket.Post("http://admin/explain", "application/json", bytes.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	var e admin.Explanation
	if err := admin.Decode(resp, &e); err != nil {
		g.t.Fatalf("explain %s: %v", body, err)
	}
	return &e
}

// token is one of the company's IdP, as a caller without a browser brings it.
func (g *guests) token(p probe) string {
	g.t.Helper()
	key := fmt.Sprint(p.minted, p.Client, p.Groups)
	if g.tokens[key] == "" {
		more := map[string]any{"client_id": p.Client, "groups": p.Groups, "sub": "emp-" + p.minted, "name": p.minted}
		if p.Service != "" {
			more["sub"] = p.Service
		}
		account := "alice"
		if p.minted == "bob" || p.minted == "carol" {
			account = p.minted
		}
		var err error
		if g.tokens[key], err = g.IdP.MintAccessToken(account, "api://frontdesk", more); err != nil {
			g.t.Fatal(err)
		}
	}
	return g.tokens[key]
}

// reply is what an agent got.
type reply struct {
	status, code int
	text         string
}

func (g *guests) call(p probe) reply {
	g.t.Helper()
	args, err := json.Marshal(p.Arguments)
	if err != nil {
		g.t.Fatal(err)
	}
	body := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q,"arguments":%s,"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}`, p.Tool, args)
	r, err := http.NewRequestWithContext(g.ctx, http.MethodPost, g.Desk().MCP(p.Server), strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	r.Header = http.Header{"Authorization": {"Bearer " + g.token(p)}, "Content-Type": {"application/json"}, "Accept": {"application/json, text/event-stream"},
		"Mcp-Protocol-Version": {"2026-07-28"}, "Mcp-Method": {"tools/call"}, "Mcp-Name": {p.Tool}}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	said := reply{status: resp.StatusCode, text: string(got)}
	for line := range strings.Lines(said.text) { // JSON, or one event
		var m struct{ Error *struct{ Code int } }
		if json.Unmarshal([]byte(strings.TrimPrefix(line, "data: ")), &m) == nil && m.Error != nil {
			said.code = m.Error.Code
		}
	}
	return said
}

// act is what the log holds of one call: how it began, how it ended, and by which methods its API requests were opened.
type act struct {
	first, outcome audit.Record
	apis           []string
}

// acts are the tool calls of the log, in order.
func (g *guests) acts() []*act {
	g.t.Helper()
	out, err := g.Desk().Run("audit", "export")
	if err != nil {
		g.t.Fatal(out)
	}
	var l []*act
	byCall := map[audit.CallID]*act{}
	for line := range strings.Lines(out) {
		var row struct{ Record audit.Record }
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			g.t.Fatal(err)
		}
		r := row.Record
		switch begins := r.Kind == audit.KindIntent || r.Kind == audit.KindEvent; {
		case r.Action == "call" && begins:
			l = append(l, &act{first: r})
			if r.Kind == audit.KindIntent {
				byCall[r.Call] = l[len(l)-1]
			}
		case r.Action == "call" && byCall[r.Call] != nil:
			byCall[r.Call].outcome = r
		case r.Action == "api" && r.Kind == audit.KindOutcome && byCall[r.Parent] != nil:
			byCall[r.Parent].apis = append(byCall[r.Parent].apis, r.Obtained)
		}
	}
	return l
}

// differs compares what explain said with what a call did, and counts what was seen of each kind.
func differs(p probe, e *admin.Explanation, got reply, a *act, seen map[string]int) string {
	want := slices.Concat(e.Policies, e.Errors)
	had := slices.Clone(a.first.Policies)
	slices.Sort(want)
	slices.Sort(had)
	decision := map[bool]string{true: "allow", false: "deny"}[e.Allow]
	switch {
	case got.status == http.StatusNotFound:
		seen["no such server"]++
		if e.Allow || e.Visible {
			return "the server is not there"
		}
	case a.first.Tool != p.Tool || a.first.Server != p.Server || string(a.first.Client) != p.Client:
		return "the records are out of step"
	case a.first.Decision != decision || !slices.Equal(had, want):
		return fmt.Sprintf("decided %s by %q", a.first.Decision, had)
	case !e.Allow && e.Visible:
		seen["refused"]++
		if len(e.Errors) > 0 {
			seen["erred"]++
		}
		if got.code != mcp.CodeDenied || a.first.Result != audit.ResultDenied || a.first.Detail != e.Reason {
			return "refused in another way"
		}
	case !e.Allow:
		seen["hidden"]++
		if got.code != mcp.CodeParams || !strings.Contains(got.text, "Unknown tool") || a.first.Detail != e.Reason {
			return "hidden in another way"
		}
	case e.Refused != "":
		seen["no method"]++
		if got.code != mcp.CodeDenied || a.first.Result != audit.ResultDenied || a.first.Detail != e.Refused {
			return "refused in another way"
		}
	case len(e.Missing) > 0:
		seen["asked: "+string(e.Missing[0].Why)]++
		if needed := (&catalog.Needed{Missing: e.Missing}).Error(); a.first.Result != audit.ResultNeeds || a.first.Detail != needed {
			return "missing was " + a.first.Detail
		}
	default:
		seen["allowed"]++
		return methodDiffers(p, e, a, seen)
	}
	return ""
}

// methodDiffers compares the method: of the call itself at the vendor's own server, else of its API requests.
func methodDiffers(p probe, e *admin.Explanation, a *act, seen map[string]int) string {
	used := ""
	for _, verdicts := range e.Upstreams { // each server here has one upstream at most
		for _, v := range verdicts {
			if v.Used {
				used = string(v.Method)
			}
		}
	}
	if a.first.Kind != audit.KindIntent || a.outcome.Kind != audit.KindOutcome {
		return "there is no intent with an outcome"
	}
	obtained := a.apis
	if p.Server == "vendor" {
		obtained = []string{a.outcome.Obtained}
	}
	for _, m := range obtained {
		seen["by "+m]++
		if m != used {
			return "obtained by " + m
		}
	}
	return ""
}

// TestExplainIsTheLiveCode asks explain and then calls, a thousand times: random people in random groups, agents, servers, tools,
// arguments and policies, some of which err. Both must decide the same by the same policies, miss the same, and use the same method.
func TestExplainIsTheLiveCode(t *testing.T) {
	const sets, inputs, seed = 10, 100, 20260728
	g := &guests{Stage: start(t, stage.Options{}), t: t, rng: rand.New(rand.NewPCG(seed, seed)), tokens: map[string]string{}}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	g.ctx = ctx
	g.moveIn()
	before := len(g.acts())
	var asked []probe
	var said []*admin.Explanation
	var got []reply
	var under []string
	for range sets {
		set := g.policies()
		for range inputs {
			p := g.probe()
			said = append(said, g.explain(p))
			asked, got, under = append(asked, p), append(got, g.call(p)), append(under, set)
		}
	}
	until(t, "every intent has its outcome", func() bool {
		return !slices.ContainsFunc(g.acts(), func(a *act) bool { return a.first.Kind == audit.KindIntent && a.outcome.Kind == "" })
	})
	acts := g.acts()[before:]
	seen := map[string]int{}
	wrong := 0
	for i, p := range asked {
		a := &act{}
		if got[i].status != http.StatusNotFound { // a server that is not there for somebody is none: nothing is attempted
			if len(acts) == 0 {
				t.Fatalf("input %d: %+v left no record", i, p)
			}
			a, acts = acts[0], acts[1:]
		}
		if d := differs(p, said[i], got[i], a, seen); d != "" && wrong < 5 {
			wrong++
			t.Errorf("input %d: %+v\nexplain: %+v\nthe call: %s\n%+v\n%+v\npolicies:\n%s", i, p, said[i], d, got[i], *a, under[i])
		}
	}
	if len(acts) > 0 {
		t.Errorf("%d records belong to no call", len(acts))
	}
	t.Log(seen)
	for _, kind := range []string{"allowed", "refused", "erred", "hidden", "no such server", "no method", "asked: not_connected", "asked: grant", "by authorization_code", "by api_key", "by client_credentials"} {
		if seen[kind] < 5 {
			t.Errorf("only %d of a thousand were %q: the inputs are too narrow", seen[kind], kind)
		}
	}
}

// moveIn starts the servers, and connects some people for some agents.
func (g *guests) moveIn() {
	t := g.t
	t.Helper()
	vendor, err := world.NewVendorMCP(world.VendorMCPConfig{Tracker: g.Tracker.URL(), Stateless: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = vendor.Close() })
	through := func(upstream string) string {
		s, err := world.NewIssuesServer(world.IssuesConfig{API: g.Desk().Egress + "/egress/" + upstream, Stateless: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s.MCP()
	}
	key := g.Tracker.NewAPIKey("octo-carol", world.ScopeRead, world.ScopeWrite)
	shared := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":3600}`, key)
	}))
	t.Cleanup(shared.Close)
	rewrite(t, g.Desk(), "providers:\n", `providers:
  shared:
    name: Shared
    hosts: ["`+g.Tracker.URL()+`"]
    oauth: {issuer: `+shared.URL+`, authorization_endpoint: `+shared.URL+`/authorize, token_endpoint: `+shared.URL+`/token, token_auth: basic}
    api_key: {where: "your settings", url: "`+g.Tracker.URL()+`/settings/keys"}
    account: {url: /user, pointer: /login, id_pointer: /id}
`, "upstreams:\n", `upstreams:
  pasted: {provider: tracker, title: Pasted, url: "`+g.Tracker.API()+`", client_id: frontdesk, client_secret: "file:tracker.secret", scopes: ["issues:read", "issues:write"], methods: [api_key, authorization_code]}
  robots: {provider: shared, url: "`+g.Tracker.API()+`", client_id: robots, client_secret: "file:tracker.secret", accept_risk: "a test", methods: [api_key, client_credentials]}
`, "servers:\n", `servers:
  desk: {url: `+through("tracker")+`, upstreams: [tracker], allow: ALLOW}
  vendor: {url: `+vendor.MCP()+`, upstreams: [tracker], deliver: header, allow: ALLOW}
  mixed: {url: `+through("pasted")+`, upstreams: [pasted], allow: ALLOW}
  robot: {url: `+through("robots")+`, upstreams: [robots], allow: ALLOW}
  plain: {url: `+through("tracker")+`, allow: ALLOW}
  partly: {url: `+through("tracker")+`, upstreams: [tracker: {tools: ["create_*", whoami]}], allow: ALLOW}
`)
	text, err := os.ReadFile(g.Desk().ConfigPath)
	if err != nil {
		t.Fatal(err)
	}
	home := filepath.Dir(g.Desk().ConfigPath)
	open := strings.ReplaceAll(string(text), "ALLOW", "[everyone]")
	for name, text := range map[string]string{"plain.yaml": string(text) + "policies: [random.cedar]\n", "frontdesk.yaml": open} {
		if err := os.WriteFile(filepath.Join(home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := g.Desk().Run("reload"); err != nil {
		t.Fatal(out)
	}
	g.socket = &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(g.Desk().Dir, "admin.sock"))
	}}}
	t.Cleanup(g.socket.CloseIdleConnections)
	for _, c := range []struct {
		user, client, server string
		clicks               []string
	}{
		{"alice", "first", "desk", []string{"Continue to Tracker"}}, {"alice", "second", "desk", nil}, {"alice", "first", "vendor", nil}, {"alice", "first", "partly", nil},
		{"bob", "first", "vendor", []string{"Continue to Tracker"}}, {"bob", "first", "mixed", []string{"Paste a key"}}, {"bob", "second", "mixed", nil},
	} {
		g.connect(c.user, c.client, c.server, c.clicks...)
	}
}

// connect lets a person answer the question of an agent.
func (g *guests) connect(user, client, server string, clicks ...string) {
	g.t.Helper()
	ctx := within(g.t)
	p := probe{minted: user, Question: admin.Question{Server: server, Tool: "whoami", Client: client, Groups: []string{"engineering"}}}
	said := g.call(p).text
	at := strings.Index(said, g.Desk().Public+"/connect/")
	if at < 0 {
		g.t.Fatalf("%s is not asked for %s at %s: %s", user, client, server, said)
	}
	link, err := url.Parse(said[at : at+strings.IndexAny(said[at:], `"\`)])
	if err != nil {
		g.t.Fatal(err)
	}
	person := g.Person(user, clicks...)
	if err := person.Open(ctx, link.String()); err != nil {
		g.t.Fatal(err)
	}
	if slices.Contains(clicks, "Paste a key") {
		if err := person.Fill("Key", g.Tracker.NewAPIKey("octo-"+user, world.ScopeRead, world.ScopeWrite)); err != nil {
			g.t.Fatal(err)
		}
		if _, err := person.Click(ctx, "Test and save"); err != nil {
			g.t.Fatal(err)
		}
	}
	if said := g.call(p).text; !strings.Contains(said, "octo-"+user) {
		g.t.Fatalf("%s answered for %s at %s: %s", user, client, server, said)
	}
}
