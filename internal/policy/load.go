package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	cedar "github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/ast"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"

	"frontdesk.dev/frontdesk/internal/identity"
)

// Problem is one thing that is wrong with a policy file, for `frontdesk check`.
type Problem struct {
	File         string
	Line, Column int
	Message      string
	Help         string
}

func (p Problem) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
}

// Set holds the compiled policies of one tenant, indexed so that a decision looks only at those whose scope can match.
// It never changes. A nil Set says no to everything.
type Set struct {
	byServer map[string][]*entry // includes those for all servers, in the order in which they were read
	others   []*entry            // those for all servers
	personas personas
}

// entry is one policy with what the index needs to know.
type entry struct {
	id        cedar.PolicyID
	policy    *cedar.Policy
	forbid    bool
	reason    string
	server    string // "" = all
	upstream  string // "" = all
	actions   []Action
	principal principalScope
	args      []string      // names under context.args that it reads
	wants     Wants         // of API requests
	masks     []string      // JSON pointers
	visible   *cedar.Policy // as far as it can be decided without arguments; nil: not at all
}

// principalScope is the part of a policy's head that the index can answer without Cedar; zero matches everybody.
type principalScope struct {
	uid   cedar.EntityUID
	group string
}

func (s principalScope) matches(c *identity.Caller) bool {
	if s.group != "" {
		return slices.Contains(c.Groups, s.group)
	}
	return s.uid.Type == "" || s.uid == principalUID(c)
}

// Load compiles a tenant's policy files and the `allow` lists of its servers. It returns every problem at once; a set
// with problems must not be used.
func Load(sources []Source, allows []Allow) (*Set, []Problem) {
	return Compile(Input{Sources: sources, Allows: allows})
}

// Compile is Load with all that there is.
func Compile(in Input) (*Set, []Problem) {
	b := builder{ids: map[cedar.PolicyID]bool{}, known: in.Operations}
	for _, a := range in.Allows {
		b.allow(a)
	}
	for _, r := range in.ReadOnly {
		b.readOnly(r)
	}
	for _, s := range in.Sources {
		b.source(s)
	}
	return b.set(), b.problems
}

type builder struct {
	known    map[string]map[string]bool
	entries  []*entry
	problems []Problem
	ids      map[cedar.PolicyID]bool
}

// allow writes what one `allow` entry means: see the server, call what it has, and let it call the APIs it needs.
func (b *builder) allow(a Allow) {
	p := ast.Annotation("source", cedar.String(a.From)).Permit()
	kind, name, _ := strings.Cut(a.Who, ":")
	switch {
	case a.Who == "everyone":
		p = p.PrincipalIs("User")
	case name == "":
		b.problem(Problem{File: a.From, Message: "allow entry " + strconv.Quote(a.Who) + " names nobody",
			Help: "write group:NAME, user:SUBJECT, service:SUBJECT, client:ID or everyone"})
		return
	case kind == "group":
		p = p.PrincipalIn(cedar.NewEntityUID("Group", cedar.String(name)))
	case kind == "service":
		p = p.PrincipalEq(cedar.NewEntityUID("Service", cedar.String(name)))
	case kind == "user":
		p = p.PrincipalIs("User").When(ast.Principal().Access("subject").Equal(ast.String(name)))
	case kind == "client":
		p = p.When(ast.Context().Access("client").Equal(ast.String(name)))
	default:
		b.problem(Problem{File: a.From, Message: "allow entry " + strconv.Quote(a.Who) + " starts with an unknown kind",
			Help: "write group:NAME, user:SUBJECT, service:SUBJECT, client:ID or everyone"})
		return
	}
	p = p.ResourceIn(cedar.NewEntityUID("Server", cedar.String(a.Server)))
	b.add(cedar.PolicyID(a.From), cedar.NewPolicyFromAST(p), a.From)
}

// readOnly writes what `read_only: true` means.
func (b *builder) readOnly(r ReadOnly) {
	p := ast.Annotation("source", cedar.String(r.From)).Annotation("reason", "this server may only read from the API").Forbid().
		ActionEq(cedar.NewEntityUID("Action", cedar.String(ActionAPI))).ResourceIn(cedar.NewEntityUID("Server", cedar.String(r.Server))).
		Unless(ast.Context().Access("reads"))
	b.add(cedar.PolicyID(r.From), cedar.NewPolicyFromAST(p), r.From)
}

// cedarPlace reads the position out of cedar-go's parse errors, which carry it in text alone.
var cedarPlace = regexp.MustCompile(`parse error at .*?:(\d+):(\d+) (.*)$`)

func (b *builder) source(s Source) {
	list, err := cedar.NewPolicyListFromBytes(s.Name, s.Text)
	if err != nil {
		p := Problem{File: s.Name, Line: 1, Column: 1, Message: err.Error()}
		if m := cedarPlace.FindStringSubmatch(err.Error()); m != nil {
			p.Line, _ = strconv.Atoi(m[1])
			p.Column, _ = strconv.Atoi(m[2])
			p.Message = "not a Cedar policy: " + m[3]
		}
		p.Help = "docs/policies.md has the language in one page"
		b.problem(p)
		return
	}
	for i, p := range list {
		id := cedar.PolicyID(s.Name + "#" + strconv.Itoa(i))
		if name := p.Annotations()["id"]; name != "" {
			id = cedar.PolicyID(s.Name + "#" + string(name))
		}
		b.add(id, p, s.Name)
	}
}

func (b *builder) problem(p Problem) { b.problems = append(b.problems, p) }

func (b *builder) add(id cedar.PolicyID, p *cedar.Policy, file string) {
	place := Problem{File: file, Line: p.Position().Line, Column: p.Position().Column}
	if b.ids[id] {
		place.Message, place.Help = fmt.Sprintf("two policies are called %q", id), "give each its own @id"
		b.problem(place)
		return
	}
	b.ids[id] = true
	tree := (*xast.Policy)(p.AST())
	c := check{place: place, known: b.known}
	c.policy(tree)
	actions := actionsOf(tree.Action)
	if c.apiName != "" && !slices.Equal(actions, []Action{ActionAPI}) {
		c.complain(`write  action == Action::"api"  in the policy's head`, "%s is there in API requests alone, and would be an error at every other call", c.apiName)
	}
	e := &entry{id: id, policy: p, forbid: p.Effect() == cedar.Forbid, reason: string(p.Annotations()["reason"]), args: c.argNames(), wants: c.wants}
	e.server, e.principal, e.actions = serverOf(tree.Resource), principalOf(tree.Principal), actions
	e.upstream = upstreamOf(tree.Resource)
	if m, ok := p.Annotations()["mask"]; ok {
		e.masks = strings.Fields(string(m))
		if e.forbid || !slices.Equal(actions, []Action{ActionAPI}) || len(e.masks) == 0 || slices.ContainsFunc(e.masks, func(p string) bool { return !strings.HasPrefix(p, "/") || len(p) < 2 }) {
			c.complain(`as  @mask("/email /items/*/email") permit (principal, action == Action::"api", ...)`, "@mask stands on a permit of API requests, and holds JSON pointers")
		}
	}
	b.problems = append(b.problems, c.problems...)
	e.visible = withoutArguments(p, tree, e)
	b.entries = append(b.entries, e)
}

// withoutArguments returns what can be said of a policy before there are arguments: a forbid that reads some may or may
// not strike, so it hides nothing; of a permit those conditions that read some are taken as met.
func withoutArguments(p *cedar.Policy, tree *xast.Policy, e *entry) *cedar.Policy {
	if len(e.args) == 0 {
		return p
	}
	if e.forbid {
		return nil
	}
	open := *tree
	open.Conditions = slices.DeleteFunc(slices.Clone(tree.Conditions), func(c xast.ConditionType) bool {
		k := check{}
		k.expression(c.Body)
		return len(k.args) > 0
	})
	return cedar.NewPolicyFromAST((*ast.Policy)(&open))
}

func (b *builder) set() *Set {
	s := &Set{byServer: map[string][]*entry{}}
	for _, e := range b.entries {
		if e.server != "" {
			s.byServer[e.server] = nil
		}
	}
	for _, e := range b.entries {
		for server := range s.byServer {
			if e.server == "" || e.server == server {
				s.byServer[server] = append(s.byServer[server], e)
			}
		}
		if e.server == "" {
			s.others = append(s.others, e)
		}
	}
	return s
}

// candidates are the policies whose heads name this server or none.
func (s *Set) candidates(server string) []*entry {
	if s == nil {
		return nil
	}
	if l, ok := s.byServer[server]; ok {
		return l
	}
	return s.others
}

func resourceOf(scope xast.IsResourceScopeNode) cedar.EntityUID {
	switch n := scope.(type) {
	case xast.ScopeTypeEq:
		return n.Entity
	case xast.ScopeTypeIn:
		return n.Entity
	case xast.ScopeTypeIsIn:
		return n.Entity
	}
	return cedar.EntityUID{}
}

// upstreamOf is the upstream that a head names, to whose API requests alone it then applies.
func upstreamOf(scope xast.IsResourceScopeNode) string {
	uid := resourceOf(scope)
	first, second, _ := strings.Cut(string(uid.ID), "/")
	switch uid.Type {
	case "Upstream":
		return string(uid.ID)
	case "Operation":
		return first
	case "Api":
		return second
	}
	return ""
}

func serverOf(scope xast.IsResourceScopeNode) string {
	uid := resourceOf(scope)
	switch uid.Type {
	case "Server":
		return string(uid.ID)
	case "Tool", "Prompt", "Resource", "Api":
		server, _, _ := strings.Cut(string(uid.ID), "/")
		return server
	}
	return ""
}

func principalOf(scope xast.IsPrincipalScopeNode) principalScope {
	switch n := scope.(type) {
	case xast.ScopeTypeEq:
		return principalScope{uid: n.Entity}
	case xast.ScopeTypeIn:
		if n.Entity.Type == "Group" {
			return principalScope{group: string(n.Entity.ID)}
		}
	case xast.ScopeTypeIsIn:
		if n.Entity.Type == "Group" {
			return principalScope{group: string(n.Entity.ID)}
		}
	}
	return principalScope{}
}

// actionsOf lists the actions of the head; nil is all of them.
func actionsOf(scope xast.IsActionScopeNode) []Action {
	switch n := scope.(type) {
	case xast.ScopeTypeEq:
		return []Action{Action(n.Entity.ID)}
	case xast.ScopeTypeIn:
		return []Action{Action(n.Entity.ID)}
	case xast.ScopeTypeInSet:
		var l []Action
		for _, u := range n.Entities {
			l = append(l, Action(u.ID))
		}
		return l
	}
	return nil
}
