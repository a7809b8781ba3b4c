// Package content looks into API requests for policy: query, body, GraphQL, JSON-RPC.
//
// It reads what some policy names and nothing else; where none does, bodies stream by untouched. What it reads it reads in one
// way only: what another parser could take for something else (names twice, names that differ by what some framework folds, a
// field in query and body at once, codings, batches) is not read, says why, and makes the answer no wherever a policy looks
// there. The decision is made on the bytes that are sent: a body that was read is sent from memory. It trusts nothing of the
// request, and does not know what the fields mean.
package content

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/policy"
)

const (
	maxBody   = 1 << 20 // bytes of a body that is read
	maxParams = 1000
)

// Of returns the reader of one request, to be used once. target is where it goes, with the query as it is sent; reads says that
// the operation which it is changes nothing. Where a body is read, r.Body gives the same bytes afterwards.
func Of(r *http.Request, target *url.URL, up *catalog.Upstream, reads bool) policy.Reader {
	return func(w policy.Wants) *policy.Content {
		q := &request{Request: r, target: target, marked: reads}
		q.graph = up.GraphQL(target)
		c := &policy.Content{}
		if w.Segments {
			c.Segments = strings.Split(strings.TrimPrefix(target.EscapedPath(), "/"), "/")
		}
		if len(w.Query) > 0 {
			c.Query = q.query(w.Query)
		}
		if len(w.Body) > 0 {
			c.Body = q.fields(w.Body)
		}
		if w.GraphQL {
			c.GraphQL = q.graphql()
		}
		if w.JSONRPC {
			c.JSONRPC = q.jsonrpc()
		}
		if w.Reads {
			c.Reads = q.reads()
		}
		c.Unread = q.why
		return c
	}
}

// request is one API request while it is looked into.
type request struct {
	*http.Request
	target *url.URL
	graph  catalog.Endpoint
	marked bool
	why    string // the first part that could not be read

	body   []byte
	kind   string // of the body: "", json or form; "?" until it was looked at
	looked bool
	broken string // why the body cannot be read
}

// no says why something is not read.
func (q *request) no(why string) {
	if q.why == "" {
		q.why = why
	}
}

func (q *request) params() url.Values {
	v, err := url.ParseQuery(q.target.RawQuery)
	if err != nil || len(v) > maxParams {
		q.no("its query cannot be read")
		return nil
	}
	return v
}

func (q *request) query(names []string) map[string]string {
	v := q.params()
	if v == nil {
		return nil
	}
	return q.only(v, names)
}

// only takes the named ones out of v; nil where one of them stands twice, in whatever spelling.
func (q *request) only(v url.Values, names []string) map[string]string {
	out := map[string]string{}
	for key, values := range v {
		name, other := named(key, names)
		if name == "" {
			continue
		}
		if other || len(values) != 1 {
			q.no("parameter " + name + " stands there twice, or in a spelling that some servers take for it")
			return nil
		}
		out[name] = values[0]
	}
	return out
}

// named finds the name that a key is, or that some framework would take it for (other): in capitals, with a bracket of an array or
// object behind it, with odd characters that PHP folds.
func named(key string, names []string) (name string, other bool) {
	if slices.Contains(names, key) {
		return key, false
	}
	folded := fold(key)
	for _, n := range names {
		if fold(n) == folded {
			return n, true
		}
	}
	return "", false
}

func fold(key string) string {
	if i := strings.IndexAny(key, "[\x00"); i >= 0 {
		key = key[:i]
	}
	return strings.NewReplacer(".", "_", " ", "_", "-", "_").Replace(strings.ToLower(strings.TrimSpace(key)))
}

// read takes a body into memory, if it is one that can be read, and puts it back. It reports whether it was read.
func (q *request) read() bool {
	if q.looked {
		return q.broken == ""
	}
	q.looked = true
	q.broken = q.take()
	return q.broken == ""
}

func (q *request) take() string {
	if q.Body == nil || q.Body == http.NoBody || q.ContentLength == 0 {
		return ""
	}
	types := q.Header["Content-Type"]
	if len(types) != 1 || q.Header.Get("Content-Encoding") != "" {
		return "its body is coded, or does not say once what it is"
	}
	kind, params, err := mime.ParseMediaType(types[0])
	charset := params["charset"]
	delete(params, "charset")
	switch {
	case err != nil || len(params) > 0 || charset != "" && !strings.EqualFold(charset, "utf-8"):
		return "its body is of a type that is not read here"
	case kind == "application/json" || strings.HasSuffix(kind, "+json"):
		q.kind = "json"
	case kind == "application/x-www-form-urlencoded":
		q.kind = "form"
	default:
		return "its body is neither JSON nor a form"
	}
	if q.ContentLength > maxBody {
		return "its body is larger than 1 MiB"
	}
	b, err := io.ReadAll(io.LimitReader(q.Body, maxBody+1))
	rest := q.Body
	if err != nil {
		q.Body = &body{io.MultiReader(bytes.NewReader(b), failing{err}), rest}
		return "its body broke off"
	}
	if len(b) > maxBody {
		q.Body = &body{io.MultiReader(bytes.NewReader(b), rest), rest}
		return "its body is larger than 1 MiB"
	}
	q.Body = &body{bytes.NewReader(b), rest}
	q.body = b
	return q.wellFormed()
}

// wellFormed says why a body is not what it says it is: JSON with unique names in valid UTF-8, or a form.
func (q *request) wellFormed() string {
	first := bytes.TrimLeft(q.body, " \t\r\n")
	switch q.kind {
	case "json":
		if !jsontext.Value(q.body).IsValid() {
			return "its body is not JSON that can be read in one way only"
		}
	case "form":
		if v, err := url.ParseQuery(string(q.body)); err != nil || len(v) > maxParams || len(first) > 0 && (first[0] == '{' || first[0] == '[') {
			return "its form cannot be read in one way only"
		}
	}
	return ""
}

type body struct {
	io.Reader
	io.Closer
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

// fields takes the named fields of a JSON object or of a form.
func (q *request) fields(names []string) map[string][]byte {
	if !q.read() {
		q.no(q.broken)
		return nil
	}
	for key := range q.params() {
		if name, _ := named(key, names); name != "" {
			q.no("field " + name + " of its body stands in its query too, or instead")
			return nil
		}
	}
	switch q.kind {
	case "json":
		return q.members(names)
	case "form":
		v, _ := url.ParseQuery(string(q.body)) // well formed
		found := q.only(v, names)
		if found == nil {
			return nil
		}
		out := map[string][]byte{}
		for n, v := range found {
			raw, err := jsontext.AppendQuote(nil, v)
			if err != nil {
				q.no("field " + n + " is not text")
				return nil
			}
			out[n] = raw
		}
		return out
	}
	return map[string][]byte{}
}

var errNoObject = errors.New("no object")

// members takes the named members of the body, which is valid JSON.
func (q *request) members(names []string) map[string][]byte {
	out := map[string][]byte{}
	err := eachMember(q.body, func(key string, raw []byte) error {
		name, other := named(key, names)
		if other {
			q.no("field " + name + " of its body stands there in a spelling that some servers take for it")
			return errNoObject
		}
		if name != "" {
			out[name] = raw
		}
		return nil
	})
	if err != nil {
		q.no("its body is not one JSON object")
		return nil
	}
	return out
}

func eachMember(object []byte, f func(key string, raw []byte) error) error {
	d := jsontext.NewDecoder(bytes.NewReader(object))
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return errNoObject
	}
	for d.PeekKind() != '}' {
		t, err := d.ReadToken()
		if err != nil {
			return err
		}
		key := t.String()
		raw, err := d.ReadValue()
		if err != nil {
			return err
		}
		if err := f(key, bytes.Clone(raw)); err != nil {
			return err
		}
	}
	return nil
}

// jsonrpc is the method of a JSON-RPC request. A batch is none that could be decided.
func (q *request) jsonrpc() *string {
	if !q.read() {
		q.no(q.broken)
		return nil
	}
	method := ""
	switch q.kind {
	case "":
		return &method
	case "form":
		q.no("its body is a form, not JSON-RPC")
		return nil
	}
	m := q.members([]string{"method"})
	if m == nil {
		return nil
	}
	raw, ok := m["method"]
	if !ok {
		return &method
	}
	method, ok = text(raw)
	if !ok {
		q.no("its JSON-RPC method is no text")
		return nil
	}
	return &method
}

// text is the value of a JSON string.
func text(raw []byte) (string, bool) {
	if len(raw) == 0 || raw[0] != '"' {
		return "", false
	}
	b, err := jsontext.AppendUnquote(nil, raw)
	return string(b), err == nil
}

// reads says whether the request changes nothing; nil where that cannot be seen.
func (q *request) reads() *bool {
	yes := false
	switch {
	case q.Header.Get("Upgrade") != "": // what comes then, nobody reads
	case q.graph != catalog.NotGraphQL:
		g := q.graphql()
		if g == nil {
			return nil
		}
		yes = g.Operation == "query"
	case q.Method == http.MethodGet || q.Method == http.MethodHead || q.Method == http.MethodOptions:
		yes = true
	default:
		yes = q.marked
	}
	return &yes
}
