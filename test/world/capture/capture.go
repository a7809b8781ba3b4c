// Package capture keeps what a party of the world received, sent and wrote down, and searches it for secrets in every
// form in which one may hide. It records whole messages, headers included, so it is itself full of secrets: it lives
// in tests and in the demo only.
package capture

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxBody is how much of one body is kept.
const maxBody = 8 << 20

// Recorder keeps what a party received, sent and wrote down, for searches after leaks. It is safe for concurrent use;
// its zero value is empty and ready.
type Recorder struct {
	mu      sync.Mutex
	entries []*Entry
}

// Entry is one message, or a line of a log.
type Entry struct {
	At        time.Time   `json:"at"`
	Way       string      `json:"way"`  // received, sent, noted
	What      string      `json:"what"` // "POST /mcp", "200 from GET http://…", or the log's name
	Header    http.Header `json:"header,omitempty"`
	Body      []byte      `json:"body,omitempty"`
	Truncated bool        `json:"truncated,omitempty"` // the body was longer than what is kept
}

// Hit is a place where a secret was found.
type Hit struct {
	Entry Entry  `json:"entry"`
	Form  string `json:"form"` // how it was written there
}

func (h Hit) String() string { return fmt.Sprintf("%s in %s (%s)", h.Form, h.Entry.What, h.Entry.Way) }

// Note keeps something that is no HTTP message.
func (r *Recorder) Note(what string, text []byte) {
	r.write(r.begin("noted", what, nil), text)
}

// Entries is a copy of everything so far, bodies as far as they have come.
func (r *Recorder) Entries() []Entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Entry, len(r.entries))
	for i, e := range r.entries {
		out[i] = *e
		out[i].Header, out[i].Body = e.Header.Clone(), bytes.Clone(e.Body)
	}
	return out
}

// Search looks for a secret in everything, in every form that Forms knows.
func (r *Recorder) Search(secret string) []Hit { return Search(r.Entries(), secret) }

// Search is Recorder.Search for entries that came from another process.
func Search(entries []Entry, secret string) []Hit {
	forms := Forms(secret)
	var hits []Hit
	for _, e := range entries {
		text := e.text()
		for _, f := range forms {
			if f.in(text) {
				hits = append(hits, Hit{Entry: e, Form: f.Name})
			}
		}
	}
	return hits
}

func (e Entry) text() string {
	var b strings.Builder
	b.WriteString(e.What + "\n")
	for k, vs := range e.Header {
		for _, v := range vs {
			b.WriteString(k + ": " + v + "\n")
		}
	}
	b.Write(e.Body)
	return b.String()
}

// Form is one way to write a secret.
type Form struct {
	Name, Text string
	AnyCase    bool // digits of hex and of percent coding
}

func (f Form) in(text string) bool {
	if f.AnyCase {
		return strings.Contains(strings.ToLower(text), strings.ToLower(f.Text))
	}
	return strings.Contains(text, f.Text)
}

// Forms are the ways in which a secret may lie in a text: as it is, escaped for JSON and URLs, in hex, backwards, and
// in base64 at any of the three alignments that surrounding bytes can give it.
func Forms(secret string) []Form {
	if len(secret) < 8 {
		panic("a secret this short would be found by chance: " + secret) // a test's mistake, not the product's
	}
	escaped, _ := json.Marshal(secret) // a string always marshals
	var unicode, percent strings.Builder
	for _, c := range []byte(secret) {
		fmt.Fprintf(&unicode, `\u%04x`, c)
		fmt.Fprintf(&percent, "%%%02X", c)
	}
	backwards := []byte(secret)
	slices.Reverse(backwards)
	forms := []Form{
		{Name: "raw", Text: secret},
		{Name: "json", Text: strings.Trim(string(escaped), `"`)},
		{Name: "json unicode", Text: unicode.String(), AnyCase: true},
		{Name: "query", Text: url.QueryEscape(secret)},
		{Name: "path", Text: url.PathEscape(secret)},
		{Name: "percent", Text: percent.String(), AnyCase: true},
		{Name: "hex", Text: hex.EncodeToString([]byte(secret)), AnyCase: true},
		{Name: "reversed", Text: string(backwards)},
	}
	for shift := range 3 {
		forms = append(forms,
			Form{Name: fmt.Sprintf("base64+%d", shift), Text: base64Core(base64.StdEncoding, secret, shift)},
			Form{Name: fmt.Sprintf("base64url+%d", shift), Text: base64Core(base64.URLEncoding, secret, shift)})
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(forms, func(f Form) bool {
		known := seen[f.Text]
		seen[f.Text] = true
		return known
	})
}

// base64Core is what every coding of shift+secret+anything has in common.
func base64Core(enc *base64.Encoding, secret string, shift int) string {
	coded := enc.EncodeToString(append(make([]byte, shift), secret...))
	first := (shift*8 + 5) / 6            // the characters before still hold bits of what came earlier
	last := (shift + len(secret)) * 8 / 6 // those after hold bits of what follows
	return coded[first:last]
}

// Handler records every request that comes in and the answer that goes out.
func (r *Recorder) Handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		what := req.Method + " " + req.URL.RequestURI()
		in := r.begin("received", what, req.Header)
		req.Body = &recordedBody{ReadCloser: req.Body, r: r, e: in}
		next.ServeHTTP(&recordedWriter{ResponseWriter: w, r: r, what: what}, req)
	})
}

// Transport records every request that goes out and the answer that comes in.
func (r *Recorder) Transport(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(req *http.Request) (*http.Response, error) {
		what := req.Method + " " + req.URL.String()
		out := r.begin("sent", what, req.Header)
		if req.Body != nil {
			req = req.Clone(req.Context())
			req.Body = &recordedBody{ReadCloser: req.Body, r: r, e: out}
		}
		resp, err := next.RoundTrip(req)
		if err != nil {
			r.Note("error of "+what, []byte(err.Error()))
			return nil, err
		}
		in := r.begin("received", fmt.Sprintf("%d from %s", resp.StatusCode, what), resp.Header)
		resp.Body = &recordedBody{ReadCloser: resp.Body, r: r, e: in}
		return resp, nil
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (r *Recorder) begin(way, what string, h http.Header) *Entry {
	e := &Entry{At: time.Now(), Way: way, What: what, Header: h.Clone()}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entries = append(r.entries, e)
	return e
}

func (r *Recorder) write(e *Entry, b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if room := maxBody - len(e.Body); len(b) > room {
		b, e.Truncated = b[:room], true
	}
	e.Body = append(e.Body, b...)
}

// recordedBody copies what is read through it.
type recordedBody struct {
	io.ReadCloser
	r *Recorder
	e *Entry
}

func (b *recordedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.r.write(b.e, p[:n])
	return n, err
}

// recordedWriter copies an answer. Header is taken when it is sent.
type recordedWriter struct {
	http.ResponseWriter
	r    *Recorder
	what string
	e    *Entry
}

func (w *recordedWriter) WriteHeader(status int) {
	if w.e == nil {
		w.e = w.r.begin("sent", fmt.Sprintf("%d to %s", status, w.what), w.Header())
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recordedWriter) Write(p []byte) (int, error) {
	if w.e == nil {
		w.WriteHeader(http.StatusOK)
	}
	w.r.write(w.e, p)
	return w.ResponseWriter.Write(p)
}

func (w *recordedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush keeps streams streaming for those who ask for http.Flusher.
func (w *recordedWriter) Flush() {
	if w.e == nil {
		w.WriteHeader(http.StatusOK)
	}
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}
