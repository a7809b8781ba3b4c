package content

import (
	"net/http"
	"slices"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/parser"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/policy"
)

const (
	maxTokens = 20_000 // of a GraphQL document
	maxFields = 1_000  // of its root, fragments spread out
)

// parts of a GraphQL request over HTTP. Servers have further ones, by which they name documents that they know already: what is
// run then is not in the request.
var graphParts = []string{"query", "operationName", "variables", "extensions"}

// graphFolds are those and the further ones, in their one spelling.
var graphFolds = []string{"query", "operationname", "variables", "extensions", "id", "documentid", "document_id", "doc_id", "queryid", "query_id", "hash", "operation", "operations", "map", "batch"}

// graphql reads the one operation of a GraphQL request; nil for what cannot be read.
func (q *request) graphql() *policy.GraphQL {
	switch q.graph {
	case catalog.NotGraphQL:
		return &policy.GraphQL{}
	case catalog.LooksLikeGraphQL:
		q.no("its path may be that of GraphQL, in another spelling")
		return nil
	}
	document, name, ok := q.document()
	if !ok {
		q.no("its GraphQL cannot be read: send one document with one operation, as application/json, without a batch and without a persisted query")
		return nil
	}
	if document == "" && q.Method != http.MethodPost {
		return &policy.GraphQL{} // a page about the API, or a preflight
	}
	g := operation(document, name)
	if g == nil {
		q.no("its GraphQL cannot be read: it is no document, or has several operations, or not the one that it names")
	}
	return g
}

// document finds the document and the name of the operation that is to run.
func (q *request) document() (document, name string, ok bool) {
	params := q.params()
	if params == nil {
		return "", "", false
	}
	if q.Method == http.MethodGet || q.Method == http.MethodHead || q.Method == http.MethodOptions {
		if q.ContentLength != 0 {
			return "", "", false
		}
		for key, v := range params {
			if slices.Contains(graphFolds, fold(key)) && (!slices.Contains(graphParts, key) || len(v) != 1) || key == "extensions" && strings.Contains(fold(v[0]), "persisted") {
				return "", "", false
			}
		}
		return params.Get("query"), params.Get("operationName"), true
	}
	if q.Method != http.MethodPost {
		return "", "", false
	}
	for key := range params {
		if slices.Contains(graphFolds, fold(key)) {
			return "", "", false
		}
	}
	if !q.read() || q.kind != "json" {
		return "", "", false
	}
	ok = true
	err := eachMember(q.body, func(key string, raw []byte) error {
		switch key {
		case "query":
			document, ok = text(raw)
		case "operationName":
			if string(raw) != "null" {
				name, ok = text(raw)
			}
		case "variables":
		case "extensions":
			ok = !strings.Contains(strings.ToLower(string(raw)), "persisted") && !strings.Contains(string(raw), `\`)
		default:
			ok = false
		}
		if !ok {
			return errNoObject
		}
		return nil
	})
	return document, name, ok && err == nil && document != ""
}

// operation reads a document that holds exactly one; nil for all others.
func operation(document, name string) *policy.GraphQL {
	doc, err := parser.ParseQueryWithTokenLimit(&ast.Source{Input: document}, maxTokens)
	if err != nil || len(doc.Operations) != 1 || name != "" && doc.Operations[0].Name != name {
		return nil
	}
	op := doc.Operations[0]
	g := &policy.GraphQL{Operation: string(op.Operation), Name: op.Name}
	r := root{doc.Fragments, map[string]bool{}, g}
	if !r.walk(op.SelectionSet) || len(g.Fields) == 0 {
		return nil
	}
	return g
}

// root collects the fields of an operation's root.
type root struct {
	fragments ast.FragmentDefinitionList
	seen      map[string]bool // fragments that were spread out
	into      *policy.GraphQL
}

func (r root) walk(set ast.SelectionSet) bool {
	for _, s := range set {
		switch s := s.(type) {
		case *ast.Field:
			if !slices.Contains(r.into.Fields, s.Name) {
				r.into.Fields = append(r.into.Fields, s.Name)
			}
		case *ast.InlineFragment:
			if !r.walk(s.SelectionSet) {
				return false
			}
		case *ast.FragmentSpread:
			if r.seen[s.Name] {
				continue
			}
			r.seen[s.Name] = true
			f := r.fragments.ForName(s.Name)
			if f == nil || !r.walk(f.SelectionSet) {
				return false
			}
		}
		if len(r.into.Fields) > maxFields {
			return false
		}
	}
	return true
}
