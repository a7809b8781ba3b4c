package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"html/template"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

//go:embed pages
var pageFiles embed.FS

// Pages renders what people see: one template a page, one frame around all. It needs no script, and allows none.
type Pages struct {
	Prefix string // of the tenant's paths
	Name   string // the organisation's or product's name in the frame
	Log    *slog.Logger
	Now    func() time.Time

	templates *template.Template
	css       []byte
	cssPath   string
}

// NewPages reads the templates. It panics on a broken one: they are part of the program.
func NewPages(prefix, name string, log *slog.Logger, now func() time.Time) *Pages {
	p := &Pages{Prefix: prefix, Name: name, Log: log, Now: now}
	css, err := pageFiles.ReadFile("pages/style.css")
	if err != nil {
		panic(err)
	}
	sum := sha256.Sum256(css)
	p.css, p.cssPath = css, prefix+"/assets/"+hex.EncodeToString(sum[:6])+".css"
	p.templates = template.Must(template.New("").Funcs(template.FuncMap{
		"foreign": Foreign,
		"host":    Host,
		"heading": heading,
		"clock":   func(t time.Time) string { return t.UTC().Format("15:04 UTC") },
		"ago":     func(t time.Time) string { return Ago(t, p.Now()) },
		"exact":   func(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") },
		"iso":     func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	}).ParseFS(pageFiles, "pages/*.html"))
	return p
}

// Mount serves the style sheet, under a name that changes with it.
func (p *Pages) Mount(mux *http.ServeMux) {
	mux.HandleFunc("GET "+p.cssPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		_, _ = w.Write(p.css) // the browser went away if this fails
	})
}

// Forms lets a form through only as our own pages send it: from this very origin, by a browser that says where it comes
// from. Cookies alone prove nothing, since they travel with every request to us (CSRF).
func (p *Pages) Forms(next http.Handler) http.Handler {
	sameOrigin := http.NewCrossOriginProtection()
	no := func(w http.ResponseWriter, r *http.Request, why string) {
		p.Wrong(w, r, http.StatusForbidden, fault.New(fault.Denied, why+"; nothing was done", nil))
	}
	sameOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		no(w, r, "this form was sent from another site")
	}))
	inner := sameOrigin.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
			switch {
			case r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("Origin") == "":
				no(w, r, "this form does not say which site it was sent from; use a browser of this decade")
				return
			case err != nil || kind != "application/x-www-form-urlencoded":
				no(w, r, "this is not one of our forms")
				return
			}
		}
		inner.ServeHTTP(w, r)
	})
}

// Page is one page: its template, the first line, who is signed in, and what the template shows.
type Page struct {
	Template string
	Title    string // says what the page wants, as a question or a fact
	Person   string // "" where nobody is signed in
	Refresh  string // URL to go to at once; the page has a link to it too
	View     any
}

type frame struct {
	Page
	CSS, Prefix, Name string
	Body              template.HTML
}

// policy allows our own style sheet and forms to ourselves. A form's answer may not redirect to another site (browsers hold
// that against form-action): such ways lead over a page with Refresh.
const policy = "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// Render writes a page whole, or an error page if it cannot be made.
func (p *Pages) Render(w http.ResponseWriter, status int, page Page) {
	var body, whole bytes.Buffer
	err := p.templates.ExecuteTemplate(&body, page.Template+".html", page)
	if err == nil {
		// The body is html/template's own output.
		err = p.templates.ExecuteTemplate(&whole, "frame.html", frame{page, p.cssPath, p.Prefix, p.Name, template.HTML(body.String())})
	}
	if err != nil {
		p.Log.Error("a page could not be made", "page", page.Template, "error", err)
		http.Error(w, "something went wrong inside Frontdesk", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(whole.Bytes()) // the browser went away if this fails
}

// Leave sends the browser on to another site.
func (p *Pages) Leave(w http.ResponseWriter, title, to, where string) {
	p.Render(w, http.StatusOK, Page{Template: "leave", Title: title, Refresh: to, View: where})
}

// wrong is what the error page shows.
type wrong struct {
	What         string
	Reference    string
	Again        string // where to try again
	AgainInWords string
}

// sentence makes one of an error's words.
func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

// Wrong shows what failed, and what was not done. Causes go to the log, under the reference that the page shows.
func (p *Pages) Wrong(w http.ResponseWriter, r *http.Request, status int, err error) {
	ref := Reference()
	title, shown := "That did not work", ref
	switch status {
	case http.StatusForbidden:
		if !strings.Contains(r.URL.Path, "/callback/") { // there it is the vendor's no
			title = "This is not possible here"
		}
	case http.StatusNotFound:
		title, shown = "There is no such page", "" // the same for what is somebody else's as for what never was
	}
	if status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", Seconds(fault.RetryAfter(err)))
	}
	again, words := p.Prefix+"/portal/", "Your pages"
	if r.Method == http.MethodGet && status >= http.StatusInternalServerError && !strings.Contains(r.URL.Path, "/callback/") {
		again, words = r.URL.RequestURI(), "Try again"
	}
	level := slog.LevelInfo
	if status >= http.StatusInternalServerError {
		level = slog.LevelError
	}
	p.Log.Log(r.Context(), level, "a page said no", "path", r.URL.Path, "status", status, "reference", ref, "error", errors.Unwrap(err), "said", fault.Message(err))
	p.Render(w, status, Page{Template: "wrong", Title: title, View: wrong{sentence(fault.Message(err)), shown, again, words}})
}
