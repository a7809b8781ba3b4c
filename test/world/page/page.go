// Package page reads an HTML page the way a person without JavaScript sees it: title, text, links, and forms whose
// fields are found by their label and whose buttons by their words. It fetches nothing.
package page

import (
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// Page is one parsed document. Filling its fields changes what a click would send.
type Page struct {
	URL     *url.URL
	Title   string
	Heading string // of the first h1
	Forms   []*Form
	Links   []Link
	text    string
	ids     map[string]*html.Node
	refresh *Refresh
}

// Link is an anchor that goes somewhere.
type Link struct {
	Words string
	To    *url.URL
}

// Refresh is <meta http-equiv="refresh">.
type Refresh struct {
	After time.Duration
	To    *url.URL
}

// Form is a form with its fields in document order.
type Form struct {
	Method  string   // GET or POST
	Action  *url.URL // nil where it cannot be read
	Fields  []*Field
	Buttons []Button
}

// Field is an input, a select or a textarea.
type Field struct {
	Name, Label, Type, Value string
	Options                  []string // values of a select, or of nothing
	Checked                  bool     // checkbox and radio
}

// Button submits its form.
type Button struct {
	Words, Name, Value string
	Action             *url.URL // where the button names another place than the form
}

// Parse reads a document that came from this address.
func Parse(from *url.URL, r io.Reader) (*Page, error) {
	root, err := html.ParseWithOptions(r, html.ParseOptionEnableScripting(false)) // <noscript> counts
	if err != nil {
		return nil, fmt.Errorf("parse the page at %s: %w", from.Redacted(), err)
	}
	p := &Page{URL: from, ids: map[string]*html.Node{}}
	for n := range root.Descendants() {
		if id := attr(n, "id"); id != "" {
			p.ids[id] = n
		}
	}
	p.text = words(root)
	forms := map[*html.Node]*Form{} // all of them first: a control may stand before the form it names
	for n := range root.Descendants() {
		if n.DataAtom == atom.Form && n.Type == html.ElementNode {
			forms[n] = p.form(n)
		}
	}
	for n := range root.Descendants() {
		p.see(n, forms)
	}
	return p, nil
}

func (p *Page) see(n *html.Node, forms map[*html.Node]*Form) {
	if n.Type != html.ElementNode {
		return
	}
	switch n.DataAtom {
	case atom.Title:
		if p.Title == "" {
			p.Title = squeeze(rawText(n))
		}
	case atom.H1:
		if p.Heading == "" {
			p.Heading = words(n)
		}
	case atom.A:
		if to := p.resolve(attr(n, "href")); to != nil && attr(n, "href") != "" {
			p.Links = append(p.Links, Link{Words: name(n), To: to})
		}
	case atom.Meta:
		if strings.EqualFold(attr(n, "http-equiv"), "refresh") {
			p.refresh = p.parseRefresh(attr(n, "content"))
		}
	case atom.Input, atom.Select, atom.Textarea, atom.Button:
		if f := forms[p.owner(n)]; f != nil && !has(n, "disabled") {
			p.control(f, n)
		}
	}
}

func (p *Page) form(n *html.Node) *Form {
	f := &Form{Method: strings.ToUpper(attr(n, "method")), Action: p.resolve(attr(n, "action"))}
	if f.Method == "" {
		f.Method = "GET"
	}
	p.Forms = append(p.Forms, f)
	return f
}

// owner is the form that a control belongs to: the one it names, else the one around it.
func (p *Page) owner(n *html.Node) *html.Node {
	if id := attr(n, "form"); id != "" {
		return p.ids[id]
	}
	for a := range n.Ancestors() {
		if a.DataAtom == atom.Form {
			return a
		}
	}
	return nil
}

func (p *Page) control(f *Form, n *html.Node) {
	kind := strings.ToLower(attr(n, "type"))
	switch {
	case n.DataAtom == atom.Button && kind != "button" && kind != "reset",
		n.DataAtom == atom.Input && (kind == "submit" || kind == "image"):
		b := Button{Words: name(n), Name: attr(n, "name"), Value: attr(n, "value")}
		if n.DataAtom == atom.Input {
			b.Words = attr(n, "value")
		}
		if to := attr(n, "formaction"); to != "" {
			b.Action = p.resolve(to)
		}
		f.Buttons = append(f.Buttons, b)
	case n.DataAtom == atom.Select:
		f.Fields = append(f.Fields, p.choice(n))
	case n.DataAtom == atom.Textarea:
		f.Fields = append(f.Fields, &Field{Name: attr(n, "name"), Label: p.label(n), Type: "textarea", Value: rawText(n)})
	case n.DataAtom == atom.Input && kind != "button" && kind != "reset" && kind != "file":
		if kind == "" {
			kind = "text"
		}
		fl := &Field{Name: attr(n, "name"), Label: p.label(n), Type: kind, Value: attr(n, "value"), Checked: has(n, "checked")}
		if fl.ticked() && !has(n, "value") {
			fl.Value = "on"
		}
		f.Fields = append(f.Fields, fl)
	}
}

func (p *Page) choice(n *html.Node) *Field {
	f := &Field{Name: attr(n, "name"), Label: p.label(n), Type: "select"}
	for o := range n.Descendants() {
		if o.DataAtom != atom.Option {
			continue
		}
		v := attr(o, "value")
		if !has(o, "value") {
			v = words(o)
		}
		f.Options = append(f.Options, v)
		if f.Value == "" || has(o, "selected") {
			f.Value = v
		}
	}
	return f
}

// label is what a person reads beside a field, or hears instead.
func (p *Page) label(n *html.Node) string {
	if l := attr(n, "aria-label"); l != "" {
		return squeeze(l)
	}
	if l := p.ids[attr(n, "aria-labelledby")]; l != nil {
		return words(l)
	}
	for a := range n.Ancestors() {
		if a.DataAtom == atom.Label {
			return words(a)
		}
	}
	id := attr(n, "id")
	if id == "" {
		return ""
	}
	root := n
	for a := range n.Ancestors() {
		root = a
	}
	for l := range root.Descendants() {
		if l.DataAtom == atom.Label && attr(l, "for") == id {
			return words(l)
		}
	}
	return ""
}

func (p *Page) resolve(ref string) *url.URL {
	to, err := p.URL.Parse(strings.TrimSpace(ref))
	if err != nil {
		return nil
	}
	to.Fragment = ""
	return to
}

// parseRefresh reads "5; url=/there".
func (p *Page) parseRefresh(content string) *Refresh {
	after, rest, _ := strings.Cut(content, ";")
	seconds, err := strconv.Atoi(strings.TrimSpace(after))
	if err != nil {
		return nil
	}
	rest = strings.TrimSpace(rest)
	if len(rest) >= 4 && strings.EqualFold(rest[:4], "url=") {
		rest = strings.Trim(rest[4:], `'"`)
	}
	to := p.resolve(rest)
	if to == nil {
		return nil
	}
	return &Refresh{After: time.Duration(seconds) * time.Second, To: to}
}

// Refresh is where the page goes by itself, or nil.
func (p *Page) Refresh() *Refresh { return p.refresh }

// Text is everything a person can read, with single spaces.
func (p *Page) Text() string { return p.text }

// Field finds a field by its label or, failing that, by its name.
func (p *Page) Field(key string) (*Field, error) {
	fields := p.all()
	var found []*Field
	for _, by := range []func(*Field) bool{
		func(f *Field) bool { return f.Label == key },
		func(f *Field) bool { return f.Name == key },
		func(f *Field) bool { return f.Type != "hidden" && contains(f.Label, key) },
	} {
		for _, f := range fields {
			if by(f) {
				found = append(found, f)
			}
		}
		if len(found) > 0 {
			break
		}
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%d fields are called %q on the page %q", len(found), key, p.Title)
	}
	return found[0], nil
}

func (p *Page) all() []*Field {
	var out []*Field
	for _, f := range p.Forms {
		out = append(out, f.Fields...)
	}
	return out
}

// Fill writes into a field, or picks the option with this value.
func (p *Page) Fill(key, value string) error {
	f, err := p.Field(key)
	if err != nil {
		return err
	}
	f.Value = value
	return nil
}

// Tick sets a checkbox, or unsets it.
func (p *Page) Tick(key string, on bool) error {
	f, err := p.Field(key)
	if err != nil {
		return err
	}
	if !f.ticked() {
		return fmt.Errorf("%q is no checkbox", key)
	}
	f.Checked = on
	return nil
}

// Request is what a click sends.
type Request struct {
	Method string
	To     *url.URL
	Form   url.Values // nil for a link
}

// Click finds a button or a link by its words: exactly, else the only one that contains them.
func (p *Page) Click(text string) (Request, error) {
	type target struct {
		words string
		req   func() (Request, error)
	}
	var targets []target
	for _, f := range p.Forms {
		for _, b := range f.Buttons {
			targets = append(targets, target{b.Words, func() (Request, error) { return f.submit(b) }})
		}
	}
	for _, l := range p.Links {
		targets = append(targets, target{l.Words, func() (Request, error) { return Request{Method: "GET", To: l.To}, nil }})
	}
	for _, match := range []func(string) bool{
		func(w string) bool { return w == text },
		func(w string) bool { return contains(w, text) },
	} {
		var found []target
		for _, t := range targets {
			if match(t.words) {
				found = append(found, t)
			}
		}
		if len(found) == 1 {
			return found[0].req()
		}
		if len(found) > 1 {
			return Request{}, fmt.Errorf("%d buttons and links read %q on the page %q", len(found), text, p.Title)
		}
	}
	return Request{}, fmt.Errorf("no button or link reads %q on the page %q, which says: %.300s", text, p.Title, p.text)
}

// Clickable are the words of every button and link, in document order of forms, then of links.
func (p *Page) Clickable() []string {
	var out []string
	for _, f := range p.Forms {
		for _, b := range f.Buttons {
			out = append(out, b.Words)
		}
	}
	for _, l := range p.Links {
		out = append(out, l.Words)
	}
	return out
}

func (f *Form) submit(b Button) (Request, error) {
	values := url.Values{}
	for _, fl := range f.Fields {
		if fl.Name != "" && (!fl.ticked() || fl.Checked) {
			values.Add(fl.Name, fl.Value)
		}
	}
	if b.Name != "" {
		values.Add(b.Name, b.Value)
	}
	to := f.Action
	if b.Action != nil {
		to = b.Action
	}
	if to == nil {
		return Request{}, fmt.Errorf("the form behind %q names no address that can be read", b.Words)
	}
	if f.Method == "GET" {
		get := *to
		get.RawQuery = values.Encode()
		return Request{Method: "GET", To: &get}, nil
	}
	return Request{Method: f.Method, To: to, Form: values}, nil
}

func (f *Field) ticked() bool { return f.Type == "checkbox" || f.Type == "radio" }

// name is what a button or link is called.
func name(n *html.Node) string {
	if l := attr(n, "aria-label"); l != "" {
		return squeeze(l)
	}
	return words(n)
}

// words is the text under a node that a person sees.
func words(n *html.Node) string {
	var b strings.Builder
	collect(n, &b)
	return squeeze(b.String())
}

func collect(n *html.Node, b *strings.Builder) {
	switch {
	case n.Type == html.TextNode:
		b.WriteString(n.Data)
	case n.Type == html.ElementNode && (n.DataAtom == atom.Script || n.DataAtom == atom.Style || n.DataAtom == atom.Head || n.DataAtom == atom.Template || has(n, "hidden")):
		return
	}
	for c := range n.ChildNodes() {
		collect(c, b)
	}
	if n.Type == html.ElementNode && !inline[n.DataAtom] {
		b.WriteByte(' ')
	}
}

// inline elements do not end a word.
var inline = map[atom.Atom]bool{
	atom.A: true, atom.Abbr: true, atom.B: true, atom.Bdi: true, atom.Code: true, atom.Em: true, atom.I: true,
	atom.Small: true, atom.Span: true, atom.Strong: true, atom.Time: true,
}

func rawText(n *html.Node) string {
	var b strings.Builder
	for c := range n.ChildNodes() {
		if c.Type == html.TextNode {
			b.WriteString(c.Data)
		}
	}
	return b.String()
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

func contains(have, want string) bool {
	return strings.Contains(strings.ToLower(have), strings.ToLower(want))
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func has(n *html.Node, key string) bool {
	for _, a := range n.Attr {
		if a.Key == key {
			return true
		}
	}
	return false
}
