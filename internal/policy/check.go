package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	cedar "github.com/cedar-policy/cedar-go"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"
)

// What policies can speak of. A name outside these lists is a slip of the pen, and a slip in a forbid would be an error
// at every call: it is refused when the file is read. (cedar-go's schema validator is experimental and has no
// positions; a closed schema cannot describe context.args, whose names are the tools'.)
var (
	knownTypes   = []string{"User", "Service", "Group", "Server", "Tool", "Prompt", "Resource", "Api", "Upstream", "Operation", "Action"}
	knownActions = []string{string(ActionCall), string(ActionList), string(ActionAPI)}
	knownNames   = map[string][]string{
		"principal": {"name", "idp", "subject"},
		"resource":  {"name", "server", "upstream"},
		"context": {"client", "actors", "scopes", "method", "args", "session", "time", "host", "path", "in_session",
			"query", "body", "graphql", "jsonrpc", "reads", "operation", "segments"},
		"session": {"acr", "amr", "auth_time"},
		"graphql": {"operation", "name", "fields"},
		"jsonrpc": {"method"},
	}
)

// check walks one policy: it collects the arguments that are read, and what cannot be meant.
type check struct {
	place    Problem // where the policy stands; messages are added
	problems []Problem
	args     map[string]bool
	wants    Wants
	apiName  string                     // a name that only API requests have and that is read; "" for none
	known    map[string]map[string]bool // Input.Operations
}

func (c *check) argNames() []string { return slices.Sorted(maps.Keys(c.args)) }

func (c *check) complain(help, format string, a ...any) {
	p := c.place
	p.Message, p.Help = fmt.Sprintf(format, a...), help
	c.problems = append(c.problems, p)
}

func (c *check) policy(p *xast.Policy) {
	for _, scope := range []any{p.Principal, p.Action, p.Resource} {
		switch n := scope.(type) {
		case xast.ScopeTypeEq:
			c.entity(n.Entity)
		case xast.ScopeTypeIn:
			c.entity(n.Entity)
		case xast.ScopeTypeIs:
			c.entityType(n.Type)
		case xast.ScopeTypeIsIn:
			c.entityType(n.Type)
			c.entity(n.Entity)
		case xast.ScopeTypeInSet:
			for _, u := range n.Entities {
				c.entity(u)
			}
		}
	}
	for _, k := range p.Conditions {
		c.expression(k.Body)
	}
}

func (c *check) entityType(t cedar.EntityType) {
	if !slices.Contains(knownTypes, string(t)) {
		c.complain("the types are "+strings.Join(knownTypes, ", "), "unknown entity type %s", t)
	}
}

func (c *check) entity(u cedar.EntityUID) {
	c.entityType(u.Type)
	if u.Type == "Action" && !slices.Contains(knownActions, string(u.ID)) {
		c.complain("the actions are "+strings.Join(knownActions, ", "), "unknown action %q", u.ID)
	}
	if upstream, _, _ := strings.Cut(string(u.ID), "/"); u.Type == "Operation" && !c.known[upstream][string(u.ID)] {
		c.complain("an operation is written UPSTREAM/ID, as the upstream's openapi file names it", "no description names an operation %q", u.ID)
	}
}

// expression looks at every node. An access is read from the outside in, so that context.args.repo is seen whole.
func (c *check) expression(n xast.IsNode) {
	xast.Inspect(xast.NewNode(n), func(n xast.IsNode) bool {
		switch n := n.(type) {
		case xast.NodeTypeAccess:
			return c.access(n.StrOpNode, false)
		case xast.NodeTypeHas:
			return c.access(n.StrOpNode, true)
		case xast.NodeTypeIs:
			c.entityType(n.EntityType)
		case xast.NodeTypeIsIn:
			c.entityType(n.EntityType)
		case xast.NodeValue:
			if u, ok := n.Value.(cedar.EntityUID); ok {
				c.entity(u)
			}
		}
		return true
	})
}

// access reports whether the nodes inside still have to be looked at.
func (c *check) access(n xast.StrOpNode, has bool) bool {
	path := pathOf(n)
	if path == nil {
		return true
	}
	names, known := knownNames[path[0]]
	if !known {
		return false
	}
	if !slices.Contains(names, path[1]) {
		c.complain(path[0]+" has "+strings.Join(names, ", "), "unknown attribute %s.%s", path[0], path[1])
		return false
	}
	if path[0] != "context" {
		return false
	}
	switch {
	case slices.Contains(apiOnly, path[1]):
		c.api(path, has)
	case path[1] == "args" && len(path) == 2:
		c.complain("name the argument: context.args.NAME", "context.args cannot be used whole")
	case path[1] == "args":
		if c.args == nil {
			c.args = map[string]bool{}
		}
		c.args[path[2]] = true
	case path[1] == "session" && len(path) > 2 && !slices.Contains(knownNames["session"], path[2]):
		c.complain("context.session has "+strings.Join(knownNames["session"], ", "), "unknown attribute context.session.%s", path[2])
	}
	return false
}

// pathOf spells a chain of accesses that starts at a variable: ["context", "args", "repo"]; nil for any other.
func pathOf(n xast.StrOpNode) []string {
	switch inner := n.Arg.(type) {
	case xast.NodeTypeVariable:
		return []string{string(inner.Name), string(n.Value)}
	case xast.NodeTypeAccess:
		if p := pathOf(inner.StrOpNode); p != nil {
			return append(p, string(n.Value))
		}
	}
	return nil
}
