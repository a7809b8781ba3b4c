package catalog

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"frontdesk.dev/frontdesk/internal/kit/oauth"
)

// Hint is a failure that the vendor's API is known for, and what an agent can do about it. What is given must fit, as of a Signal.
// The sentence is ours alone, whatever the answer says: nobody else writes what an agent reads in Frontdesk's name.
type Hint struct {
	Name    string   `yaml:"name" doc:"of the failure, as it stands in the log: lower-case letters, digits and underscores"`
	Status  []int    `yaml:"status" doc:"of the answer: one of these"`
	Header  string   `yaml:"header" doc:"name of a header that must be there"`
	Pointer string   `yaml:"pointer" doc:"JSON pointer to a value that must be there"`
	Is      []string `yaml:"is" doc:"the text of the header, of the value at the pointer, or of the body is one of these"`
	Like    string   `yaml:"like" doc:"regular expression that the text fits"`
	Say     string   `yaml:"say" doc:"what happened and what to do next, in words for an agent; none: nothing is said"`
	Docs    string   `yaml:"docs" doc:"page of the vendor about it"`
}

// NoHint as a hint's sentence: the failure is known, and nothing is said of it.
const NoHint = "none"

const (
	maxHint = 300 // bytes of a sentence: it stands in an agent's context
	maxDocs = 200
)

var hintName = regexp.MustCompile(`^[a-z0-9_]{1,40}$`)

// Check says what is wrong with a hint, the first thing alone.
func (h Hint) Check() error {
	switch {
	case !hintName.MatchString(h.Name):
		return fmt.Errorf("hints: a hint needs a name of lower-case letters, digits and underscores, not %q", h.Name)
	case len(h.Status) == 0 || slices.ContainsFunc(h.Status, func(s int) bool { return s < 200 || s > 599 || s >= 300 && s < 400 }):
		return fmt.Errorf("hints: %s needs the status of the answer, 200 to 299 or 400 to 599", h.Name)
	case slices.ContainsFunc(h.Status, func(s int) bool { return s < 300 }) && (h.Pointer == "" && h.Header == "" || h.Like != ""):
		return fmt.Errorf("hints: %s: an answer of success is a failure only where a header or a value is one of the vendor's words: add header or pointer, and is", h.Name)
	case h.Pointer != "" && !strings.HasPrefix(h.Pointer, "/"):
		return fmt.Errorf("hints: %s: %q is no JSON pointer", h.Name, h.Pointer)
	case h.Say == "" || len(h.Say) > maxHint || strings.ContainsFunc(h.Say, unicode.IsControl):
		return fmt.Errorf("hints: %s: say is a sentence of at most %d bytes in one line", h.Name, maxHint)
	}
	if _, err := regexp.Compile(h.Like); err != nil {
		return fmt.Errorf("hints: %s: like: %w", h.Name, err)
	}
	if u, err := url.Parse(h.Docs); h.Docs != "" && (err != nil || u.Scheme != "https" || u.Host == "" || len(h.Docs) > maxDocs) {
		return fmt.Errorf("hints: %s: docs is an https URL", h.Name)
	}
	return nil
}

// Sentence is what an agent reads.
func (h Hint) Sentence() string {
	if h.Docs == "" {
		return h.Say
	}
	return h.Say + " See " + h.Docs
}

// Answer is one of a vendor's API, as far as it is looked into. Body is called where a rule wants it, and gives nil where the body is
// too long to be that of a failure.
type Answer struct {
	Status int
	Header http.Header
	Body   func() []byte

	read *oauth.Document
}

func (a *Answer) document() oauth.Document {
	if a.read == nil {
		d := oauth.Read(a.Body())
		a.read = &d
	}
	return *a.read
}

// Hint is the first of the vendor's that fits; nil where none does, or the one that does says nothing.
func (p *Provider) Hint(a *Answer) *Hint {
	for i := range p.Hints {
		h := &p.Hints[i]
		if !slices.Contains(h.Status, a.Status) {
			continue
		}
		if _, ok := (fit{h.Header, h.Pointer, h.Is, h.Like}).text(a); ok {
			if h.Say == NoHint {
				return nil
			}
			return h
		}
	}
	return nil
}

// fit is what an answer must say for a rule to count.
type fit struct {
	header, pointer string
	is              []string
	like            string
}

// text is what the rule looks at: that of the header, of the pointer, or else of the whole body.
func (f fit) text(a *Answer) (text string, ok bool) {
	switch {
	case f.header != "":
		text, ok = strings.Join(a.Header.Values(f.header), ", "), len(a.Header.Values(f.header)) > 0
	case f.pointer != "":
		var l []string
		l, ok = a.document().Texts(f.pointer)
		text = strings.Join(l, " ")
	case f.like != "" || len(f.is) > 0:
		text, ok = string(a.Body()), true
	default:
		ok = true // the status says it all
	}
	return text, ok && (f.like == "" || matches(f.like, text)) && (len(f.is) == 0 || slices.Contains(f.is, text))
}
