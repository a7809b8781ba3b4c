// Package openapi answers: which of an API's operations is this request?
//
// It reads an OpenAPI 3 description once, keeps of it names, methods and paths, and forgets the rest. A request that could be
// two operations, or is none, has no name: what a policy cannot name, it can refuse. The description is the operator's file and
// trusted as such; requests are not. It checks no parameters and no bodies.
package openapi

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

const (
	// MaxBytes is the largest description that is read; GitHub's has 12 MB.
	MaxBytes      = 32 << 20
	maxOperations = 20_000
)

// readsMark is an operation's extension that says: it changes nothing, whatever its method.
const readsMark = "x-frontdesk-reads"

// Description is what is kept of a file. It never changes.
type Description struct {
	Sum  [sha256.Size]byte // of the file
	base string            // path of its first server, without a final slash
	ops  map[key][]*operation
	at   map[string][]string // host -> the bases of its operations
	ids  []string
}

// key is what an operation's request has at least in common with it.
type key struct {
	host     string // "": the API's own
	method   string
	segments int
}

type operation struct {
	id       string
	reads    bool
	base     string // of an operation with a server of its own
	segments []segment
}

// Read reads a description, as JSON or YAML. Its errors are sentences for an operator.
func Read(text []byte) (*Description, error) {
	if len(text) > MaxBytes {
		return nil, errors.New("the description is larger than 32 MiB")
	}
	doc, err := openapi3.NewLoader().LoadFromData(text) // references to other files are refused
	if err != nil {
		return nil, fmt.Errorf("the description cannot be read: %.300s", err.Error())
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.") {
		return nil, errors.New("the description is not OpenAPI 3")
	}
	d := &Description{Sum: sha256.Sum256(text), ops: map[key][]*operation{}, at: map[string][]string{}}
	if _, d.base, err = server(doc.Servers); err != nil {
		return nil, err
	}
	seen := map[string]string{}
	for _, path := range slices.Sorted(maps.Keys(doc.Paths.Map())) {
		if err := d.path(path, doc.Paths.Value(path), seen); err != nil {
			return nil, err
		}
	}
	if len(d.ids) == 0 {
		return nil, errors.New("the description has no operations")
	}
	slices.Sort(d.ids)
	return d, nil
}

// path adds what is done at one path. seen are the operations so far, by id and by place.
func (d *Description) path(path string, item *openapi3.PathItem, seen map[string]string) error {
	segments, err := template(path)
	if err != nil {
		return err
	}
	for method, o := range item.Operations() {
		op := &operation{id: o.OperationID, segments: segments, base: d.base}
		if op.id == "" {
			op.id = method + " " + path
		}
		op.reads, _ = o.Extensions[readsMark].(bool)
		servers := item.Servers
		if o.Servers != nil {
			servers = *o.Servers
		}
		host := ""
		if len(servers) > 0 {
			if host, op.base, err = server(servers); err != nil {
				return err
			}
		}
		place := method + " " + host + op.base + shape(segments)
		for _, k := range []string{"id " + op.id, place} {
			if other, twice := seen[k]; twice {
				return fmt.Errorf("%s %s and %s cannot be told apart", method, path, other)
			}
			seen[k] = method + " " + path
		}
		k := key{host, method, len(segments)}
		d.ops[k] = append(d.ops[k], op)
		if !slices.Contains(d.at[host], op.base) {
			d.at[host] = append(d.at[host], op.base)
		}
		if d.ids = append(d.ids, op.id); len(d.ids) > maxOperations {
			return fmt.Errorf("the description has more than %d operations", maxOperations)
		}
	}
	return nil
}

// server is the host and the path of the first of these servers.
func server(l openapi3.Servers) (host, base string, err error) {
	if len(l) == 0 {
		return "", "", nil
	}
	raw := l[0].URL
	for name, v := range l[0].Variables {
		if v != nil {
			raw = strings.ReplaceAll(raw, "{"+name+"}", v.Default)
		}
	}
	u, err := url.Parse(raw)
	if err != nil || strings.Contains(raw, "{") {
		return "", "", fmt.Errorf("the server %q is no URL", l[0].URL)
	}
	return strings.ToLower(u.Host), strings.TrimSuffix(u.EscapedPath(), "/"), nil
}

// IDs lists the operations by name.
func (d *Description) IDs() []string { return d.ids }

// Find names the operation of a request; "" where it is none, or could be several. base is the path of the API's base URL in the
// config, which stands in the place of the description's own; first says that the request goes to the API's first host. path is
// as it is sent. A HEAD is the GET of its path where the description does not say otherwise.
func (d *Description) Find(method, host string, first bool, base, path string) (id string, reads bool) {
	if d == nil {
		return "", false
	}
	op := d.find(method, strings.ToLower(host), base, path)
	if op == nil && first {
		op = d.find(method, "", base, path)
	}
	if op == nil && method == "HEAD" {
		return d.Find("GET", host, first, base, path)
	}
	if op == nil {
		return "", false
	}
	return op.id, op.reads
}

func (d *Description) find(method, host, base, path string) *operation {
	var best []*operation
	for own, rest := range d.behind(host, base, path) {
		parts := strings.Split(strings.TrimPrefix(rest, "/"), "/")
		for _, op := range d.ops[key{host, method, len(parts)}] {
			if (op.base == own) && op.matches(parts) {
				best = append(best, op)
			}
		}
	}
	for _, op := range best {
		if !slices.ContainsFunc(best, func(o *operation) bool { return o != op && !op.above(o) }) {
			return op
		}
	}
	return nil
}

// behind lists what the path can be behind the base of an operation, by that base.
func (d *Description) behind(host, base, path string) map[string]string {
	out := map[string]string{}
	if host == "" && base != "" {
		if rest, ok := strings.CutPrefix(path, base); ok && strings.HasPrefix(rest, "/") {
			out[d.base] = rest
		}
		return out
	}
	for _, own := range d.at[host] {
		if rest, ok := strings.CutPrefix(path, own); ok && strings.HasPrefix(rest, "/") {
			out[own] = rest
		}
	}
	return out
}
