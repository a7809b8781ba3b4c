package authserver

import (
	"crypto/subtle"
	"embed"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"slices"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

//go:embed pages
var pageFiles embed.FS

var (
	loginPage   = template.Must(template.ParseFS(pageFiles, "pages/base.html", "pages/login.html"))
	consentPage = template.Must(template.ParseFS(pageFiles, "pages/base.html", "pages/consent.html"))
	errorPage   = template.Must(template.ParseFS(pageFiles, "pages/base.html", "pages/error.html"))
)

type loginData struct {
	Brand, ID, Client, Name string
	Wrong                   string // why the last try failed
}

type consentData struct {
	Brand, ID, Client, User, Host string
	Scopes                        []Scope
}

type errorData struct{ Brand, What string }

func (s *Server) pages(mux *http.ServeMux) {
	mux.HandleFunc("GET /login", s.showLogin)
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("GET /consent", s.showConsent)
	mux.HandleFunc("POST /consent", s.consent)
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFileFS(w, r, pageFiles, "pages/style.css")
	})
}

// showLogin asks who is there, unless this browser is signed in already and nobody insists.
func (s *Server) showLogin(w http.ResponseWriter, r *http.Request) {
	id := r.FormValue("id")
	s.mu.Lock()
	defer s.mu.Unlock()
	req, err := s.request(id)
	if err != nil {
		s.fail(w, err)
		return
	}
	a := s.users[s.sessionOf(r)]
	insists := slices.Contains(req.Prompt, oidc.PromptLogin) || r.FormValue("switch") != ""
	if a != nil && !insists {
		s.signedIn(w, r, req, a)
		return
	}
	s.render(w, http.StatusOK, loginPage, loginData{Brand: s.cfg.Brand, ID: id, Client: s.clients[req.ClientID].Name, Name: req.LoginHint})
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	id, name, password := r.PostFormValue("id"), r.PostFormValue("username"), r.PostFormValue("password")
	s.mu.Lock()
	defer s.mu.Unlock()
	req, err := s.request(id)
	if err != nil {
		s.fail(w, err)
		return
	}
	again := loginData{Brand: s.cfg.Brand, ID: id, Client: s.clients[req.ClientID].Name, Name: name}
	a, err := s.account(name)
	if err != nil || subtle.ConstantTimeCompare([]byte(a.Password), []byte(password)) != 1 {
		again.Wrong = "That user name and password do not belong together."
		s.render(w, http.StatusUnauthorized, loginPage, again)
		return
	}
	if a.dismissed {
		again.Wrong = "This account was closed."
		s.render(w, http.StatusForbidden, loginPage, again)
		return
	}
	cookie := random()
	s.sessions[cookie] = a.ID
	http.SetCookie(w, &http.Cookie{Name: s.cookieName(), Value: cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
	s.signedIn(w, r, req, a)
}

// signedIn goes on to the consent, or back to the client. The caller holds mu.
func (s *Server) signedIn(w http.ResponseWriter, r *http.Request, req *authRequest, a *account) {
	req.subject, req.authTime = a.ID, s.cfg.Now()
	next := pathAuthorize + "/callback"
	if s.cfg.Consent {
		next = "/consent"
	} else {
		req.done = true
	}
	http.Redirect(w, r, next+"?id="+url.QueryEscape(req.id), http.StatusSeeOther)
}

func (s *Server) showConsent(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	req, a, err := s.consenting(r)
	if err != nil {
		s.fail(w, err)
		return
	}
	data := consentData{Brand: s.cfg.Brand, ID: req.id, Client: s.clients[req.ClientID].Name, User: a.Name, Scopes: s.asked(req)}
	if u, err := url.Parse(req.RedirectURI); err == nil {
		data.Host = u.Host
	}
	s.render(w, http.StatusOK, consentPage, data)
}

// consent takes the user's answer. What was unticked is not granted.
func (s *Server) consent(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	req, _, err := s.consenting(r)
	if err != nil {
		defer s.mu.Unlock()
		s.fail(w, err)
		return
	}
	if r.PostFormValue("decision") != "allow" {
		delete(s.requests, req.id)
		s.mu.Unlock()
		iss := &issWriter{ResponseWriter: w, s: s, f: faultsOf(r)}
		op.AuthRequestError(iss, r, req, oidc.ErrAccessDenied().WithDescription("the user said no"), s.provider)
		return
	}
	defer s.mu.Unlock()
	granted := r.PostForm["scope"]
	for _, sc := range s.asked(req) {
		if !slices.Contains(granted, sc.Name) {
			req.scopes = slices.DeleteFunc(req.scopes, func(have string) bool { return have == sc.Name })
		}
	}
	req.done = true
	http.Redirect(w, r, pathAuthorize+"/callback?id="+url.QueryEscape(req.id), http.StatusSeeOther)
}

// consenting finds the request and checks that the browser is the one that signed in for it. The caller holds mu.
func (s *Server) consenting(r *http.Request) (*authRequest, *account, error) {
	req, err := s.request(r.FormValue("id"))
	if err != nil {
		return nil, nil, err
	}
	a := s.users[req.subject]
	if a == nil || s.sessionOf(r) != req.subject {
		return nil, nil, errors.New("this question was put to somebody else")
	}
	return req, a, nil
}

// asked is what the client wants, in words.
func (s *Server) asked(req *authRequest) []Scope {
	var out []Scope
	for _, sc := range s.cfg.Scopes {
		if slices.Contains(req.scopes, sc.Name) {
			out = append(out, sc)
		}
	}
	return out
}

// cookieName carries the port: browsers share cookies between the ports of one host.
func (s *Server) cookieName() string {
	u, err := url.Parse(s.cfg.Issuer)
	if err != nil {
		return "session"
	}
	return "session_" + u.Port()
}

// sessionOf is the subject signed in here, or "". The caller holds mu.
func (s *Server) sessionOf(r *http.Request) string {
	c, err := r.Cookie(s.cookieName())
	if err != nil {
		return ""
	}
	return s.sessions[c.Value]
}

func (s *Server) fail(w http.ResponseWriter, err error) {
	s.render(w, http.StatusBadRequest, errorPage, errorData{Brand: s.cfg.Brand, What: err.Error()})
}

func (s *Server) render(w http.ResponseWriter, status int, page *template.Template, data any) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = page.ExecuteTemplate(w, "base", data)
}
