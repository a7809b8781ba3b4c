package policy_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/policy"
	"frontdesk.dev/frontdesk/internal/policy/pack"
)

var noon = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

var (
	alice  = &identity.Caller{Tenant: "default", User: "aaaa", Subject: "sub-alice", Name: "Alice", Groups: []string{"engineering"}, Client: "agent-1"}
	carol  = &identity.Caller{Tenant: "default", User: "cccc", Subject: "sub-carol", Groups: []string{"sales"}, Client: "agent-2"}
	robot  = &identity.Caller{Tenant: "default", Service: "ci", Client: "ci"}
	nobody = &identity.Caller{Tenant: "default"}
)

func load(t testing.TB, text string, allows ...policy.Allow) *policy.Set {
	t.Helper()
	s, problems := policy.Load([]policy.Source{{Name: "ops.cedar", Text: []byte(text)}}, allows)
	if len(problems) > 0 {
		t.Fatalf("the policies do not load: %v", problems)
	}
	return s
}

func engineers(server string) policy.Allow {
	return policy.Allow{Server: server, Who: "group:engineering", From: "servers." + server + ".allow[0]"}
}

func call(c *identity.Caller, tool string, args map[string][]byte) policy.Request {
	return policy.Request{Caller: c, Action: policy.ActionCall, Server: "issues", Tool: tool, Method: "tools/call", Arguments: args, Now: noon}
}

// TestParametersOfPaths: what an API may cut off a path lets nobody past a rule, and what may be a part of a name costs nobody a yes.
func TestParametersOfPaths(t *testing.T) {
	set := load(t, `permit(principal, action == Action::"api", resource) when { context.path like "/repos/*" || context.path like "/ids/*" };
forbid(principal, action == Action::"api", resource) when { context.path == "/repos/secret" || context.path like "/repos/secret/*" };
forbid(principal, action == Action::"api", resource) when { context.segments.count == 3 && context.segments.s3 == "keys" };
forbid(principal, action == Action::"api", resource) when { context.path like "*;v=2*" };`)
	for path, want := range map[string]bool{"/repos/a": true, "/ids/1;2;3": true, "/ids/-122,37;-122,38/x": true, "/ids/1%3B2": true,
		"/repos/secret": false, "/repos/secret;x": false, "/repos/secret;x=1/issues": false, "/repos/secret%3Bx": false, "/repos;x/secret": false, "/repos/a/keys;x": false, "/repos/a;v=2": false,
		"/admin;/repos/a": false, "/;/repos/a": false} {
		r := policy.Request{Caller: alice, Action: policy.ActionAPI, Server: "issues", Upstream: "github", Method: "GET", Host: "api.github.com", Path: path, Now: noon,
			Content: &policy.Content{Segments: strings.Split(path[1:], "/")}}
		if d := set.Decide(r); d.Allow != want {
			t.Errorf("%s: %v, want %v (%s %v)", path, d.Allow, want, d.Reason, d.Errors)
		}
		if r.Content.Segments[0] != strings.Split(path[1:], "/")[0] {
			t.Errorf("%s: the request was changed", path)
		}
	}
}

func TestDecide(t *testing.T) {
	arg := func(name, v string) map[string][]byte { return map[string][]byte{name: []byte(v)} }
	everyone := policy.Allow{Server: "issues", Who: "everyone", From: "servers.issues.allow[0]"}
	tests := []struct {
		name   string
		text   string
		allows []policy.Allow
		req    policy.Request
		allow  bool
		erring bool
	}{
		{name: "nothing says yes", req: call(alice, "x", nil)},
		{name: "the group may", allows: []policy.Allow{engineers("issues")}, req: call(alice, "x", nil), allow: true},
		{name: "another group may not", allows: []policy.Allow{engineers("issues")}, req: call(carol, "x", nil)},
		{name: "another server's allow does not count", allows: []policy.Allow{engineers("wiki")}, req: call(alice, "x", nil)},
		{name: "everyone is every person", allows: []policy.Allow{everyone}, req: call(carol, "x", nil), allow: true},
		{name: "everyone is no workload", allows: []policy.Allow{everyone}, req: call(robot, "x", nil)},
		{name: "nobody is not everyone", text: `permit(principal, action, resource);`, req: call(nobody, "x", nil)},
		{name: "by subject", allows: []policy.Allow{{Server: "issues", Who: "user:sub-carol", From: "a"}}, req: call(carol, "x", nil), allow: true},
		{name: "by client", allows: []policy.Allow{{Server: "issues", Who: "client:agent-1", From: "a"}}, req: call(alice, "x", nil), allow: true},
		{name: "a workload by name", allows: []policy.Allow{{Server: "issues", Who: "service:ci", From: "a"}}, req: call(robot, "x", nil), allow: true},
		{name: "a group's name is exact", allows: []policy.Allow{{Server: "issues", Who: "group:Engineering", From: "a"}}, req: call(alice, "x", nil)},
		{name: "forbid beats permit", text: `forbid(principal, action, resource == Tool::"issues/x");`, allows: []policy.Allow{engineers("issues")}, req: call(alice, "x", nil)},
		{name: "forbid of another tool", text: `forbid(principal, action, resource == Tool::"issues/y");`, allows: []policy.Allow{engineers("issues")}, req: call(alice, "x", nil), allow: true},
		{name: "A-117 an erring forbid is a no", text: `forbid(principal, action, resource) when { context.session.acr == "low" };`,
			allows: []policy.Allow{engineers("issues")}, req: call(alice, "x", nil), erring: true},
		{name: "A-117 an erring permit beside a good one is a no", text: `permit(principal, action, resource) when { context.args.n + 1 > 0 };`,
			allows: []policy.Allow{engineers("issues")}, req: call(alice, "x", arg("n", "9223372036854775807")), erring: true},
		{name: "A-117 wrong type", text: `forbid(principal, action, resource) when { context.args.amount > 100 };`,
			allows: []policy.Allow{engineers("issues")}, req: call(alice, "x", arg("amount", `"1"`)), erring: true},
		{name: "A-120 a fraction is not exact", text: `forbid(principal, action, resource) when { context.args.t == 1 };`,
			allows: []policy.Allow{engineers("issues")}, req: call(alice, "x", arg("t", "0.7")), erring: true},
		{name: "A-120 an exponent is not exact", allows: []policy.Allow{engineers("issues")}, req: call(alice, "x", arg("t", "1e400")), erring: true},
		{name: "A-120 null is not exact", allows: []policy.Allow{engineers("issues")}, req: call(alice, "x", arg("t", "null")), erring: true},
		{name: "A-120 two names alike", allows: []policy.Allow{engineers("issues")}, req: call(alice, "x", arg("t", `{"a":1,"\u0061":2}`)), erring: true},
		{name: "A-120 minus nought", allows: []policy.Allow{engineers("issues")}, req: call(alice, "x", arg("t", "-0")), erring: true},
		{name: "an argument decides", text: `forbid(principal, action, resource) unless { context.args has repo && context.args.repo == "a/b" };`,
			allows: []policy.Allow{engineers("issues")}, req: call(alice, "x", arg("repo", `"a/b"`)), allow: true},
		{name: "API by method", text: `forbid(principal, action == Action::"api", resource in Upstream::"github") unless { context.method == "GET" };`,
			allows: []policy.Allow{engineers("issues")},
			req:    policy.Request{Caller: alice, Action: policy.ActionAPI, Server: "issues", Upstream: "github", Method: "DELETE", Host: "api.github.com", Path: "/x", Now: noon}},
		{name: "by time", text: `forbid(principal, action, resource) when { context.time > datetime("2026-11-24T11:00:00Z") };`,
			allows: []policy.Allow{engineers("issues")}, req: call(alice, "x", nil)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := load(t, tt.text, tt.allows...).Decide(tt.req)
			if d.Allow != tt.allow || (len(d.Errors) > 0) != tt.erring {
				t.Errorf("got %+v, want allow %v, erring %v", d, tt.allow, tt.erring)
			}
			if !d.Allow && d.Reason == "" {
				t.Error("a no without a reason")
			}
		})
	}
}

func TestNoSetSaysNo(t *testing.T) {
	var p policy.Policies
	if p.Set("default").Decide(call(alice, "x", nil)).Allow || p.Set("default").Reaches(alice, "issues") {
		t.Error("no policies said yes")
	}
	p.Use(map[identity.Tenant]*policy.Set{"acme": load(t, `permit(principal, action, resource);`)})
	if p.Set("default").Decide(call(alice, "x", nil)).Allow {
		t.Error("another tenant's policies said yes")
	}
}

func TestVisible(t *testing.T) {
	s := load(t, `
		forbid(principal, action, resource == Tool::"issues/hidden");
		forbid(principal, action, resource == Tool::"issues/picky") when { context.args.repo == "x" };
		permit(principal in Group::"sales", action, resource in Server::"issues") when { context.args.n == 1 };
	`, engineers("issues"))
	got := map[string]bool{}
	for _, tool := range []string{"open", "hidden", "picky"} {
		got["alice "+tool] = s.Visible(call(alice, tool, nil))
		got["carol "+tool] = s.Visible(call(carol, tool, nil))
	}
	want := map[string]bool{"alice open": true, "alice hidden": false, "alice picky": true, "carol open": true, "carol hidden": false, "carol picky": true}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"repo", "n"}, s.Arguments("issues")); d != "" {
		t.Error(d)
	}
	if s.Reaches(alice, "wiki") || !s.Reaches(alice, "issues") {
		t.Error("alice reaches issues and nothing else")
	}
}

// TestObserve: what would be refused is said and passes, for whoever the server is open to.
func TestObserve(t *testing.T) {
	s := load(t, `@id("no") @reason("not x") forbid(principal, action, resource == Tool::"issues/x");
forbid(principal, action, resource == Tool::"issues/broken") when { context.session.acr == "1" };`, engineers("issues"))
	ask := func(c *identity.Caller, tool string) policy.Decision {
		r := call(c, tool, nil)
		r.Observe = true
		return s.Decide(r)
	}
	for tool, word := range map[string]string{"x": "would_deny", "broken": "would_deny", "y": "allow"} {
		if d := ask(alice, tool); !d.Allow || d.Word() != word {
			t.Errorf("%s: %+v", tool, d)
		}
	}
	if d := ask(alice, "x"); d.Reason != "not x" || !slices.Equal(d.Policies, []string{"ops.cedar#no"}) {
		t.Errorf("%+v", d)
	}
	for _, c := range []*identity.Caller{carol, robot, nobody, nil} {
		if d := ask(c, "y"); d.Allow || d.Word() != "deny" {
			t.Errorf("observing opened the server to %+v: %+v", c, d)
		}
	}
	r := call(alice, "x", nil)
	if r.Observe = true; !s.Visible(r) {
		t.Error("what passes is not listed")
	}
}

// TestMasks: every permit that said yes keeps back what it names.
func TestMasks(t *testing.T) {
	s := load(t, `@mask("/email /items/*/email") permit(principal in Group::"engineering", action == Action::"api", resource in Upstream::"github") unless { context.path == "/user" };
@mask("/name") permit(principal, action == Action::"api", resource in Upstream::"github");`, engineers("issues"))
	r := policy.Request{Caller: alice, Action: policy.ActionAPI, Server: "issues", Upstream: "github", Method: "GET", Path: "/x", Now: noon}
	if d := s.Decide(r); !slices.Equal(d.Masks, []string{"/email", "/items/*/email", "/name"}) {
		t.Errorf("%+v", d)
	}
	r.Path = "/user"
	if d := s.Decide(r); !slices.Equal(d.Masks, []string{"/name"}) {
		t.Errorf("%+v", d)
	}
	r.Upstream = "other"
	if d := s.Decide(r); !d.Allow || d.Masks != nil {
		t.Errorf("%+v", d)
	}
}

// TestDocsExamples: every policy in the manual loads.
func TestDocsExamples(t *testing.T) {
	text, err := os.ReadFile("../../docs/policies.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := regexp.MustCompile("(?s)```cedar\n(.*?)```").FindAllSubmatch(text, -1)
	if len(examples) < 4 {
		t.Fatal("the manual has lost its examples")
	}
	for _, e := range examples {
		_, problems := policy.Compile(policy.Input{Sources: []policy.Source{{Name: "docs.cedar", Text: e[1]}}, Operations: documented})
		if len(problems) > 0 {
			t.Errorf("%s\n%v", e[1], problems)
		}
	}
}

// documented are the operations that the manual's examples name.
var documented = map[string]map[string]bool{"github": {"github/issues/create": true}}

func TestProblems(t *testing.T) {
	tests := []struct{ text, want string }{
		{"permit(principal, action, resource)\n", "ops.cedar:2:1: not a Cedar policy"},
		{`permit(principal, action, resource) when { context.sesion.acr == "x" };`, "unknown attribute context.sesion"},
		{`permit(principal, action, resource) when { context.session.acl == "x" };`, "unknown attribute context.session.acl"},
		{`permit(principal, action, resource) when { principal.email == "x" };`, "unknown attribute principal.email"},
		{`permit(principal in Groups::"x", action, resource);`, "unknown entity type Groups"},
		{`permit(principal, action == Action::"calls", resource);`, `unknown action "calls"`},
		{`forbid(principal, action == Action::"api", resource) when { context.body == context.body };`, "context.body cannot be used whole"},
		{`forbid(principal, action == Action::"api", resource) when { context has graphql };`, "has cannot be asked of context.graphql"},
		{`forbid(principal, action == Action::"api", resource) when { context.graphql.kind == "x" };`, "unknown attribute context.graphql.kind"},
		{`forbid(principal, action == Action::"api", resource) when { context.segments.s17 == "x" };`, "unknown attribute context.segments.s17"},
		{`forbid(principal, action, resource) when { context.reads };`, "context.reads is there in API requests alone"},
		{`forbid(principal, action == Action::"api", resource in Operation::"github/nothing");`, "no description names an operation"},
		{`@mask("/email") forbid(principal, action == Action::"api", resource);`, "@mask stands on a permit of API requests"},
		{`@mask("email") permit(principal, action == Action::"api", resource);`, "@mask stands on a permit of API requests"},
		{`@mask("/email") permit(principal, action, resource);`, "@mask stands on a permit of API requests"},
		{`permit(principal, action, resource) when { context.args == context.args };`, "context.args cannot be used whole"},
		{`@id("a") permit(principal, action, resource); @id("a") permit(principal, action, resource);`, "two policies are called"},
	}
	for _, tt := range tests {
		_, problems := policy.Load([]policy.Source{{Name: "ops.cedar", Text: []byte(tt.text)}}, nil)
		if !slices.ContainsFunc(problems, func(p policy.Problem) bool { return strings.Contains(p.Error(), tt.want) && p.Help != "" }) {
			t.Errorf("%s\n got %v\nwant %q", tt.text, problems, tt.want)
		}
	}
	for _, who := range []string{"engineering", "group:", "team:x"} {
		if _, problems := policy.Load(nil, []policy.Allow{{Server: "issues", Who: who, From: "a"}}); len(problems) != 1 {
			t.Errorf("allow %q was accepted", who)
		}
	}
}

func TestThePackLoadsAndSpeaks(t *testing.T) {
	files, err := pack.Files.ReadDir(".")
	if err != nil || len(files) < 5 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		text, err := pack.Files.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		s := load(t, string(text), engineers("issues"), policy.Allow{Server: "issues", Who: "service:ci", From: "b"}, policy.Allow{Server: "issues", Who: "group:contractors", From: "c"})
		contractor := &identity.Caller{Tenant: "default", User: "dddd", Groups: []string{"contractors"}}
		said := ""
		for _, r := range []policy.Request{call(alice, "delete_issue", nil), call(robot, "create_issue", nil), call(contractor, "list_issues", nil),
			{Caller: alice, Action: policy.ActionAPI, Server: "issues", Upstream: "github", Method: "POST", Path: "/repos/acme/other/issues", Now: noon,
				Content: &policy.Content{GraphQL: &policy.GraphQL{Operation: "mutation"}}}} {
			if d := s.Decide(r); !d.Allow && len(d.Errors) == 0 && d.Reason != "no policy allows it" {
				said = d.Reason
			}
		}
		if said == "" || said == "a policy forbids it" {
			t.Errorf("%s never refuses anything with a reason of its own: %q", f.Name(), said)
		}
	}
}

// TestIndexAgreesWithCedar compares the indexed decision with Cedar's own over the whole set, for random policies and requests.
func TestIndexAgreesWithCedar(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pick := func(l ...string) string { return l[rng.IntN(len(l))] }
	for range 400 {
		var text strings.Builder
		for range rng.IntN(12) {
			fmt.Fprintf(&text, "%s(%s, %s, %s) %s;\n", pick("permit", "permit", "forbid"),
				pick("principal", `principal in Group::"g1"`, `principal in Group::"g2"`, `principal == User::"u1"`, `principal is User`, `principal is User in Group::"g1"`),
				pick("action", `action == Action::"call"`, `action in [Action::"api", Action::"call"]`, `action == Action::"api"`),
				pick("resource", `resource in Server::"s1"`, `resource in Server::"s2"`, `resource == Tool::"s1/t1"`, `resource in Upstream::"up"`, `resource is Tool`),
				pick("", "", `when { context.method == "GET" }`, `when { context.session.acr == "x" }`, `unless { context.client == "c1" }`))
		}
		set := load(t, text.String())
		whole, err := cedar.NewPolicySetFromBytes("ops.cedar", []byte(text.String()))
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			r := policy.Request{Caller: &identity.Caller{User: identity.UserID(pick("u1", "u2")), Groups: []string{pick("g1", "g2", "g3")}, Client: identity.ClientID(pick("c1", "c2"))},
				Action: policy.Action(pick("call", "api")), Server: pick("s1", "s2", "s3"), Tool: pick("t1", "t2"), Upstream: pick("up", "other"), Method: pick("GET", "POST"), Now: noon}
			if got, want := set.Decide(r).Allow, reference(whole, r); got != want {
				t.Fatalf("%s\n%+v\ngot %v, Cedar says %v", text.String(), r, got, want)
			}
		}
	}
}

// reference spells the request a second time, independently, and asks the unindexed set.
func reference(ps *cedar.PolicySet, r policy.Request) bool {
	uid := func(t, id string) cedar.EntityUID { return cedar.NewEntityUID(cedar.EntityType(t), cedar.String(id)) }
	user, server := uid("User", string(r.Caller.User)), uid("Server", r.Server)
	thing, parents := uid("Tool", r.Server+"/"+r.Tool), []cedar.EntityUID{server}
	if r.Action == policy.ActionAPI {
		thing, parents = uid("Api", r.Server+"/"+r.Upstream), append(parents, uid("Upstream", r.Upstream))
	}
	world := cedar.EntityMap{
		user:  {UID: user, Parents: cedar.NewEntityUIDSet(uid("Group", r.Caller.Groups[0]))},
		thing: {UID: thing, Parents: cedar.NewEntityUIDSet(parents...)},
	}
	d, diag := cedar.Authorize(ps, world, cedar.Request{Principal: user, Action: uid("Action", string(r.Action)), Resource: thing,
		Context: cedar.NewRecord(cedar.RecordMap{"method": cedar.String(r.Method), "client": cedar.String(r.Caller.Client), "session": cedar.NewRecord(nil)})})
	return d == cedar.Allow && len(diag.Errors) == 0
}

func FuzzLoad(f *testing.F) {
	f.Add(`permit(principal, action, resource) when { context.args.a == 1 };`, []byte(`{"a":[1,"x",true]}`))
	f.Fuzz(func(t *testing.T, text string, arg []byte) {
		s, problems := policy.Load([]policy.Source{{Name: "f.cedar", Text: []byte(text)}}, nil)
		if len(problems) > 0 {
			return
		}
		r := call(alice, "x", map[string][]byte{"a": arg})
		if s.Decide(r).Allow && !s.Reaches(alice, "issues") {
			t.Error("allowed at a server that does not exist for the caller")
		}
	})
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		var text strings.Builder
		for i := range n {
			fmt.Fprintf(&text, "permit(principal in Group::\"g%d\", action, resource in Server::\"%s\") when { context.method == \"tools/call\" };\n", i, []string{"issues", "wiki"}[i%2])
		}
		s := load(b, text.String(), engineers("issues"))
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			r := call(alice, "list_issues", nil)
			for b.Loop() {
				if !s.Decide(r).Allow {
					b.Fatal("no")
				}
			}
		})
	}
}

// TestDecideNewlyAboutChangedCallers: what is remembered of a caller is not what he was, nor what somebody else is.
func TestDecideNewlyAboutChangedCallers(t *testing.T) {
	change := map[string]func(c *identity.Caller){
		"group":   func(c *identity.Caller) { c.Groups[0] = "other" },
		"groups":  func(c *identity.Caller) { c.Groups = nil },
		"actor":   func(c *identity.Caller) { c.Actors[0] = "other" },
		"scope":   func(c *identity.Caller) { c.Scopes[0] = "other" },
		"name":    func(c *identity.Caller) { c.Name = "other" },
		"idp":     func(c *identity.Caller) { c.IDP = "other" },
		"subject": func(c *identity.Caller) { c.Subject = "other" },
		"user":    func(c *identity.Caller) { c.User = "other" },
		"service": func(c *identity.Caller) { c.User, c.Service = "", "u" },
		"client":  func(c *identity.Caller) { c.Client = "other" },
		"acr":     func(c *identity.Caller) { c.Auth.ACR = "" },
		"amr":     func(c *identity.Caller) { c.Auth.AMR[0] = "other" },
		"time":    func(c *identity.Caller) { c.Auth.Time = noon.Add(time.Hour) },
	}
	s := load(t, `permit (principal == User::"u", action, resource) when {
		principal in Group::"g" && principal.name == "n" && principal.idp == "i" && principal.subject == "s" && context.client == "c" &&
		context.actors.contains("a") && context.scopes.contains("p") && context.session.acr == "r" && context.session.amr.contains("m") &&
		context.session.auth_time <= context.time };`)
	for what, f := range change {
		c := &identity.Caller{Tenant: "default", User: "u", Name: "n", IDP: "i", Subject: "s", Client: "c", Groups: []string{"g"}, Actors: []string{"a"}, Scopes: []string{"p"},
			Auth: identity.Authentication{ACR: "r", AMR: []string{"m"}, Time: noon}}
		for range 2 {
			if d := s.Decide(call(c, "x", nil)); !d.Allow {
				t.Fatalf("%s: %+v", what, d)
			}
		}
		f(c)
		if d := s.Decide(call(c, "x", nil)); d.Allow {
			t.Errorf("another %s is still decided as the old one", what)
		}
	}
}
