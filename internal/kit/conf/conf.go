// Package conf reads an operator's YAML file strictly: every unknown key, wrong type and duplicate is found, all at once, each
// with its line and column, what was meant, and how to mend it. It knows nothing of what the file is about.
package conf

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Problem is one thing that is wrong.
type Problem struct {
	File         string
	Line, Column int
	Message      string
	Help         string
	path         string // in the file, as servers.issues
	source       string // the line
	width        int
}

// Error is the form that operators read: where, what, the line with a caret, how to mend it.
func (p Problem) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d:%d: %s\n", p.File, p.Line, p.Column, p.Message)
	if line := strings.TrimLeft(p.source, " \t"); line != "" {
		before := []rune(line)
		before = before[:min(max(p.Column-1-(len(p.source)-len(line)), 0), len(before))]
		for i, r := range before {
			if r != '\t' { // a tab moves the caret as it moved the line
				before[i] = ' '
			}
		}
		fmt.Fprintf(&b, "    %s\n    %s%s\n", line, string(before), strings.Repeat("^", max(p.width, 1)))
	}
	if p.Help != "" {
		fmt.Fprintf(&b, "  help: %s\n", p.Help)
	}
	return b.String()
}

// Problems is all that is wrong with a file, in the order of the file.
type Problems []Problem

func (l Problems) Error() string {
	var b strings.Builder
	for _, p := range l {
		b.WriteString(p.Error())
	}
	return strings.TrimRight(b.String(), "\n")
}

// Scalar is a type that reads itself from one plain value. Its error's text becomes the message.
type Scalar interface{ UnmarshalConf(text string) error }

// Either is a type that may be written in two ways: as a name, or as one name with a mapping of details below it.
type Either interface {
	SetName(name string)
	Details() any // pointer to a struct; nil where the name takes none
}

// Kinds is an Either whose details depend on its name.
type Kinds interface {
	Either
	Kinds() map[string]any // name -> pointer to the struct of its details; nil for a name that has none
}

// Document knows where everything in the file stands, for what is checked later.
type Document struct {
	file     string
	lines    []string
	places   map[string]*token.Token // by path: servers.issues.upstreams[0]
	values   map[string]*token.Token // of keys with one plain value, that value
	problems Problems
}

const maxFile = 1 << 20

// Decode reads src into the struct that into points to, by its `yaml` tags. It returns every problem; what was read is to be
// used only if there are none.
func Decode(file string, src []byte, into any) (*Document, Problems) {
	d := &Document{file: file, lines: strings.Split(string(src), "\n"), places: map[string]*token.Token{}, values: map[string]*token.Token{}}
	if len(src) > maxFile {
		d.problems = Problems{{File: file, Line: 1, Column: 1, Message: "the file is larger than 1 MiB"}}
		return d, d.problems
	}
	tree, err := parser.ParseBytes(src, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		d.problems = Problems{d.syntax(err)}
		return d, d.problems
	}
	docs := slices.DeleteFunc(slices.Clone(tree.Docs), func(n *ast.DocumentNode) bool { return n.Body == nil })
	switch {
	case len(docs) == 0:
		d.problems = append(d.problems, Problem{File: file, Line: 1, Column: 1, Message: "the file is empty", Help: "`frontdesk init` writes one to start from"})
	case len(docs) > 1:
		d.add("", cmp.Or(docs[1].Start, docs[1].Body.GetToken()), "the file holds a second document", "remove the line ---")
	default:
		d.value(docs[0].Body, reflect.ValueOf(into).Elem(), "")
	}
	for i := range d.problems { // what was found before a secret was, in the same line
		if p := &d.problems[i]; p.source != "" {
			p.source = d.lines[p.Line-1]
		}
	}
	d.Sort(d.problems)
	return d, d.problems
}

// mask takes a secret that stands in the file out of the lines that problems show: they end in terminals and in the logs of CI.
func (d *Document) mask(at *token.Position, secret string) {
	for i, part := range strings.Split(strings.TrimSpace(secret), "\n") {
		if at.Line-1+i >= len(d.lines) || part == "" {
			continue
		}
		line := []rune(d.lines[at.Line-1+i])
		from := 0
		if i == 0 {
			from = min(max(at.Column-1, 0), len(line))
		}
		d.lines[at.Line-1+i] = string(line[:from]) + strings.Replace(string(line[from:]), part, strings.Repeat("*", len([]rune(part))), 1)
	}
}

// Sort puts problems into the order in which a person mends them: this file from top to bottom, then other files.
func (d *Document) Sort(l Problems) {
	slices.SortStableFunc(l, func(a, b Problem) int {
		if a.File != b.File && (a.File == d.file || b.File == d.file) {
			return map[bool]int{true: -1, false: 1}[a.File == d.file]
		}
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

// syntax turns the parser's error into a problem.
func (d *Document) syntax(err error) Problem {
	p := Problem{File: d.file, Line: 1, Column: 1, Message: "not YAML: " + err.Error()}
	if e, ok := err.(interface {
		GetToken() *token.Token
		GetMessage() string
	}); ok && e.GetToken() != nil {
		p.Line, p.Column, p.Message = e.GetToken().Position.Line, e.GetToken().Position.Column, "not YAML: "+e.GetMessage()
	}
	if p.Line-1 < len(d.lines) {
		p.source = d.lines[p.Line-1]
	}
	if indent := p.source[:len(p.source)-len(strings.TrimLeft(p.source, " \t"))]; strings.Contains(indent, "\t") {
		p.Message, p.Help = "a tab stands at the beginning of the line, which YAML does not take", "indent by spaces"
	}
	return p
}

func (d *Document) add(path string, t *token.Token, message, help string) {
	p := d.at(t, message, help)
	p.path = path
	d.problems = append(d.problems, p)
}

// Sound reports whether nothing at or below the path was found wrong, so that what was read there can be looked at further.
func (d *Document) Sound(path string) bool {
	return !slices.ContainsFunc(d.problems, func(p Problem) bool {
		rest, below := strings.CutPrefix(p.path, path)
		return below && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

func (d *Document) at(t *token.Token, message, help string) Problem {
	p := Problem{File: d.file, Line: 1, Column: 1, Message: message, Help: help}
	if t != nil {
		p.Line, p.Column, p.width = t.Position.Line, t.Position.Column, len([]rune(strings.TrimSpace(t.Value)))
	}
	if p.Line >= 1 && p.Line-1 < len(d.lines) {
		p.source = d.lines[p.Line-1]
	}
	return p
}

// Problem makes one at a path of the file (servers.issues.upstreams[0]), or at the nearest place above it that exists.
func (d *Document) Problem(path, message, help string) Problem {
	if t, ok := d.values[path]; ok {
		return d.at(t, message, help)
	}
	for path != "" {
		if t, ok := d.places[path]; ok {
			return d.at(t, message, help)
		}
		cut := strings.LastIndexAny(path, ".[")
		path = path[:max(cut, 0)]
	}
	return d.at(nil, message, help)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// value reads one node into v.
func (d *Document) value(n ast.Node, v reflect.Value, path string) {
	if _, ok := d.places[path]; !ok {
		d.places[path] = n.GetToken()
	}
	if n.Type() == ast.StringType || n.Type() == ast.IntegerType {
		d.values[path] = n.GetToken()
	} else if text, ok := colons(n); ok && v.Kind() == reflect.String {
		first := *ast.Filter(ast.MappingValueType, n)[0].(*ast.MappingValueNode).Key.GetToken()
		first.Value = text
		d.values[path] = &first
	}
	if a, ok := n.(*ast.AnchorNode); ok {
		d.add(path, a.GetToken(), "anchors are not supported", "write the value out")
		return
	}
	if n.Type() == ast.AliasType {
		d.add(path, n.GetToken(), "aliases are not supported", "write the value out")
		return
	}
	if n.Type() == ast.NullType {
		d.add(path, d.places[path], "the value of "+path+" is missing", "write a value, or remove the key")
		return
	}
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	if e, ok := v.Addr().Interface().(Either); ok {
		d.either(n, e, path)
		return
	}
	if s, ok := v.Addr().Interface().(Scalar); ok {
		if text, ok := d.scalar(n, path, "a plain value"); ok {
			if err := s.UnmarshalConf(text); err != nil {
				if _, secret := s.(*Secret); secret {
					d.mask(n.GetToken().Position, text)
				}
				if h, ok := errors.AsType[Hint](err); ok {
					d.add(path, n.GetToken(), path+": "+h.Message, h.Help)
				} else {
					d.add(path, n.GetToken(), path+": "+err.Error(), "")
				}
			}
		}
		return
	}
	d.kind(n, v, path)
}

func (d *Document) kind(n ast.Node, v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Struct:
		d.structure(n, v, path)
	case reflect.Map:
		d.mapping(n, v, path)
	case reflect.Slice:
		d.list(n, v, path)
	case reflect.String:
		if s, ok := n.(*ast.StringNode); ok {
			v.SetString(s.Value)
		} else if text, ok := colons(n); ok {
			v.SetString(text)
		} else if l, ok := n.(*ast.LiteralNode); ok {
			v.SetString(l.Value.Value)
		} else {
			d.wrong(n, path, "a string", "put it in quotes: \""+strings.TrimSpace(n.GetToken().Value)+"\"")
		}
	case reflect.Bool:
		if b, ok := n.(*ast.BoolNode); ok {
			v.SetBool(b.Value)
		} else {
			d.wrong(n, path, "true or false", "")
		}
	case reflect.Int, reflect.Int64:
		i, ok := n.(*ast.IntegerNode)
		if !ok {
			d.wrong(n, path, "a whole number", "")
			return
		}
		x, err := strconv.ParseInt(fmt.Sprint(i.Value), 10, 64)
		if err != nil {
			d.wrong(n, path, "a whole number", "")
			return
		}
		v.SetInt(x)
	default:
		panic("conf: no rule for " + v.Type().String())
	}
}

// colons reads group:engineering in a flow list as the one word that YAML says it is; the parser takes it for a mapping.
func colons(n ast.Node) (string, bool) {
	m, ok := n.(*ast.MappingValueNode)
	if !ok {
		if f, isMap := n.(*ast.MappingNode); isMap && len(f.Values) == 1 && !f.IsFlowStyle {
			m, ok = f.Values[0], true
		}
	}
	if !ok || m.Value == nil || m.Value.GetToken() == nil {
		return "", false
	}
	k, v := m.Key.GetToken(), m.Value.GetToken()
	if k.Position.Line != v.Position.Line || v.Position.Offset != k.Position.Offset+len(k.Value)+1 {
		return "", false
	}
	rest := v.Value
	if inner, ok := colons(m.Value); ok {
		rest = inner
	}
	return k.Value + ":" + rest, true
}

func (d *Document) wrong(n ast.Node, path, want, help string) {
	d.add(path, n.GetToken(), path+" must be "+want+", this is "+describe(n), help)
}

func describe(n ast.Node) string {
	switch n.Type() {
	case ast.MappingType, ast.MappingValueType:
		return "a mapping"
	case ast.SequenceType:
		return "a list"
	case ast.IntegerType:
		return "a number"
	case ast.FloatType:
		return "a fraction"
	case ast.BoolType:
		return "a yes or no"
	case ast.StringType, ast.LiteralType:
		return "a string"
	}
	return "something else"
}

func (d *Document) scalar(n ast.Node, path, want string) (string, bool) {
	switch s := n.(type) {
	case *ast.StringNode:
		return s.Value, true
	case *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, true
	}
	d.wrong(n, path, want, "")
	return "", false
}

// pairs are the members of a mapping, each key once.
func (d *Document) pairs(n ast.Node, path string) ([]*ast.MappingValueNode, bool) {
	var l []*ast.MappingValueNode
	switch m := n.(type) {
	case *ast.MappingNode:
		l = m.Values
	case *ast.MappingValueNode:
		l = []*ast.MappingValueNode{m}
	default:
		d.wrong(n, cmpOr(path, "the file"), "a mapping of keys and values", "")
		return nil, false
	}
	seen := map[string]*token.Token{}
	var once []*ast.MappingValueNode
	for _, p := range l {
		key := p.Key.GetToken()
		if p.Key.Type() == ast.MergeKeyType {
			d.add(path, key, "merge keys are not supported", "write the keys out")
			continue
		}
		if first, dup := seen[key.Value]; dup {
			d.add(path, key, fmt.Sprintf("key %q stands twice%s", key.Value, in(path)), fmt.Sprintf("the first one is in line %d; keep one", first.Position.Line))
			continue
		}
		seen[key.Value] = key
		once = append(once, p)
	}
	return once, true
}

func in(path string) string {
	if path == "" {
		return ""
	}
	return " in " + path
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (d *Document) structure(n ast.Node, v reflect.Value, path string) {
	pairs, ok := d.pairs(n, path)
	if !ok {
		return
	}
	fields := Fields(v.Type())
	for _, p := range pairs {
		key := p.Key.GetToken()
		f, known := fields[key.Value]
		if !known {
			help := "the keys are " + strings.Join(Names(v.Type()), ", ")
			if near := Nearest(key.Value, Names(v.Type())); near != "" {
				help = fmt.Sprintf("did you mean %q?", near)
			}
			d.add(path, key, fmt.Sprintf("unknown key %q%s", key.Value, in(path)), help)
			continue
		}
		below := join(path, key.Value)
		d.places[below] = key
		d.value(p.Value, v.FieldByIndex(f.Index), below)
	}
	for name, f := range fields {
		if _, given := d.places[join(path, name)]; !given && f.Tag.Get("required") != "" {
			d.add(path, n.GetToken(), fmt.Sprintf("key %q is missing%s", name, in(path)), f.Tag.Get("doc"))
		}
	}
}

func (d *Document) mapping(n ast.Node, v reflect.Value, path string) {
	pairs, ok := d.pairs(n, path)
	if !ok {
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, p := range pairs {
		key := p.Key.GetToken()
		below := join(path, key.Value)
		d.places[below] = key
		e := reflect.New(v.Type().Elem()).Elem()
		d.value(p.Value, e, below)
		v.SetMapIndex(reflect.ValueOf(key.Value).Convert(v.Type().Key()), e)
	}
}

func (d *Document) list(n ast.Node, v reflect.Value, path string) {
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		d.wrong(n, path, "a list", "write it in brackets: ["+strings.TrimSpace(n.GetToken().Value)+"]")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(s.Values), len(s.Values)))
	for i, e := range s.Values {
		d.value(e, v.Index(i), path+"["+strconv.Itoa(i)+"]")
	}
}

func (d *Document) either(n ast.Node, e Either, path string) {
	if s, ok := n.(*ast.StringNode); ok {
		e.SetName(s.Value)
		return
	}
	pairs, ok := d.pairs(n, path)
	if !ok {
		return
	}
	if len(pairs) != 1 {
		d.wrong(n, path, "a name, or one name with details below it", "")
		return
	}
	name := pairs[0].Key.GetToken()
	e.SetName(name.Value)
	details := e.Details()
	if details == nil {
		help := "write the name alone"
		if k, ok := e.(Kinds); ok {
			if near := Nearest(name.Value, slices.Sorted(maps.Keys(k.Kinds()))); near != "" && near != name.Value {
				help = fmt.Sprintf("did you mean %q?", near)
			}
		}
		d.add(path, name, fmt.Sprintf("%q takes no settings%s", name.Value, in(path)), help)
		return
	}
	d.places[path] = name
	d.value(pairs[0].Value, reflect.ValueOf(details).Elem(), path)
}

// Fields are a struct's by their names in the file.
func Fields(t reflect.Type) map[string]reflect.StructField {
	m := map[string]reflect.StructField{}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "" && name != "-" {
			m[name] = f
		}
	}
	return m
}

// Names are the keys of a struct, in the order in which it is written.
func Names(t reflect.Type) []string {
	var l []string
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "" && name != "-" {
			l = append(l, name)
		}
	}
	return l
}

// Nearest is the candidate that was probably meant, "" if none is near.
func Nearest(word string, candidates []string) string {
	best, at := "", len(word)/2+1
	for _, c := range candidates {
		if n := distance(strings.ToLower(word), c); n < at {
			best, at = c, n
		}
	}
	return best
}

// distance counts insertions, deletions and substitutions.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := prev
			if a[i] != b[j] {
				cost = 1 + min(prev, row[j], row[j+1])
			}
			prev, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
