package policy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	cedar "github.com/cedar-policy/cedar-go"
)

// Wants is what the policies for one API request could read of it beyond its line. The zero Wants is nothing, and then nobody
// looks into the request.
type Wants struct {
	Query    []string // parameters, by name
	Body     []string // fields of its body
	GraphQL  bool
	JSONRPC  bool
	Reads    bool
	Segments bool
}

// Reader looks into one API request. A nil Reader sees nothing, and what a policy reads then is not there.
type Reader func(Wants) *Content

// Read returns nil where nothing is wanted.
func (r Reader) Read(w Wants) *Content {
	if r == nil || !w.Reads && !w.GraphQL && !w.JSONRPC && !w.Segments && len(w.Query) == 0 && len(w.Body) == 0 {
		return nil
	}
	return r(w)
}

// Content is what was found of that. A part that is nil was not asked for, or could not be read in one way only: a policy that
// looks at it errs, and the answer is no.
type Content struct {
	Query    map[string]string // those that are there
	Body     map[string][]byte // raw JSON of those that are there
	GraphQL  *GraphQL
	JSONRPC  *string // the method; "" where the request is none
	Reads    *bool   // it changes nothing, as far as its method, its operation's mark, or its GraphQL says
	Segments []string
	Unread   string // why a part that was asked for is not there, for the caller
}

// GraphQL is one operation; the zero GraphQL says that the request is none.
type GraphQL struct {
	Operation string   // query, mutation or subscription
	Name      string   // "" where it has none
	Fields    []string // of the root, by their own names, those in fragments among them
}

// maxSegments is how many segments of a path a policy can name.
const maxSegments = 16

// apiOnly are the names under context that only API requests have.
var apiOnly = []string{"query", "body", "graphql", "jsonrpc", "reads", "operation", "segments"}

func (w *Wants) join(o Wants) {
	for _, n := range o.Query {
		if !slices.Contains(w.Query, n) {
			w.Query = append(w.Query, n)
		}
	}
	for _, n := range o.Body {
		if !slices.Contains(w.Body, n) {
			w.Body = append(w.Body, n)
		}
	}
	w.GraphQL, w.JSONRPC, w.Reads, w.Segments = w.GraphQL || o.GraphQL, w.JSONRPC || o.JSONRPC, w.Reads || o.Reads, w.Segments || o.Segments
}

// Wants says what the policies whose heads match an API request could read of it.
func (s *Set) Wants(r Request) Wants {
	var w Wants
	m := matching{entries: s.candidates(r.Server), request: &r}
	for e := range m.each() {
		w.join(e.wants)
	}
	return w
}

// into puts the parts into a context. What has no exact Cedar value is left out, and its whole part with it.
func (c *Content) into(m cedar.RecordMap) {
	if c == nil {
		return
	}
	if c.Query != nil {
		q := make(cedar.RecordMap, len(c.Query))
		for n, v := range c.Query {
			q[cedar.String(n)] = cedar.String(v)
		}
		m["query"] = cedar.NewRecord(q)
	}
	if c.Body != nil {
		if body, err := arguments(c.Body); err == nil {
			m["body"] = body
		}
	}
	if g := c.GraphQL; g != nil {
		m["graphql"] = cedar.NewRecord(cedar.RecordMap{"operation": cedar.String(g.Operation), "name": cedar.String(g.Name), "fields": stringSet(g.Fields)})
	}
	if c.JSONRPC != nil {
		m["jsonrpc"] = cedar.NewRecord(cedar.RecordMap{"method": cedar.String(*c.JSONRPC)})
	}
	if c.Reads != nil {
		m["reads"] = cedar.Boolean(*c.Reads)
	}
	if c.Segments != nil {
		s := cedar.RecordMap{"count": cedar.Long(len(c.Segments))}
		for i, v := range c.Segments[:min(len(c.Segments), maxSegments)] {
			s[cedar.String(fmt.Sprintf("s%d", i+1))] = cedar.String(v)
		}
		m["segments"] = cedar.NewRecord(s)
	}
}

// api looks at a name that only API requests have, and notes what has to be read for it. has: it stands behind `has`.
func (c *check) api(path []string, has bool) {
	c.apiName = "context." + path[1]
	if len(path) == 2 && has {
		c.complain("it is always there in an API request; ask what is in it, as context.body has repo", "has cannot be asked of context.%s", path[1])
		return
	}
	if len(path) == 2 && slices.Contains([]string{"query", "body", "graphql", "jsonrpc", "segments"}, path[1]) {
		c.complain("name what is in it, as context.body.repo or context.graphql.operation", "context.%s cannot be used whole", path[1])
		return
	}
	if names := knownNames[path[1]]; names != nil && !slices.Contains(names, path[2]) {
		c.complain("context."+path[1]+" has "+strings.Join(names, ", "), "unknown attribute context.%s.%s", path[1], path[2])
		return
	}
	switch path[1] {
	case "query":
		c.wants.Query = append(c.wants.Query, path[2])
	case "body":
		c.wants.Body = append(c.wants.Body, path[2])
	case "graphql":
		c.wants.GraphQL = true
	case "jsonrpc":
		c.wants.JSONRPC = true
	case "reads":
		c.wants.Reads = true
	case "segments":
		c.wants.Segments = true
		if n, err := strconv.Atoi(strings.TrimPrefix(path[2], "s")); path[2] != "count" && (err != nil || n < 1 || n > maxSegments || path[2] != "s"+strconv.Itoa(n)) {
			c.complain("context.segments has count, and s1 to s16", "unknown attribute context.segments.%s", path[2])
		}
	}
}
