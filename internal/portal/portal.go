// Package portal serves the pages that people see: sign in, connect, my connections, what was done in my name.
//
// It works without JavaScript. It knows the person from a sealed cookie, shows nobody anything of another, and hands
// a pasted key's body unread to the broker's flows. It holds no credential and no rule.
package portal

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/web"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Site is the pages of one tenant. All fields are required.
type Site struct {
	Tenant   identity.Tenant
	Prefix   string // of the tenant's paths
	Browser  *web.Browser
	Pages    *web.Pages
	Flows    broker.Flows
	Requests Requests
	Grants   Grants
	Catalog  *catalog.Catalog
	Holdings Holdings
	Log      Activity
	Sessions Sessions
	Agents   func(ctx context.Context, t identity.Tenant, id identity.ClientID) Agent
	Unused   func() time.Duration // after how long a connection ends that nobody uses; 0: never
	Now      func() time.Time

	signIns web.Rate
}

// Agent is what is known of a client: foreign text all of it. Unverified says that anybody could have registered so.
type Agent struct {
	Name, Host string
	Unverified bool
}

// Requests are the connect requests of the visitor (visits.Desk).
type Requests interface {
	Request(ctx context.Context, v connect.Visitor, id connect.RequestID) (connect.Request, error)
	Pending(ctx context.Context, v connect.Visitor) ([]connect.Request, error)
	Refuse(ctx context.Context, v connect.Visitor, id connect.RequestID) error
	// Device is a code that the visitor asked for in this browser.
	Device(ctx context.Context, v connect.Visitor, id string) (connect.Device, error)
}

// Grants are the visitor's, and which of his accounts they are for (visits.Desk).
type Grants interface {
	Given
	Accounts
}

// Accounts are for choosing among several connections to one upstream.
type Accounts interface {
	// Prefer makes one the account that new grants take.
	Prefer(ctx context.Context, v connect.Visitor, id vault.ConnectionID) error
	// UseAccount makes g's client at g's server use g.Connection from now on.
	UseAccount(ctx context.Context, v connect.Visitor, g connect.Grant) error
}

// Given are the grants.
type Given interface {
	Grants(ctx context.Context, v connect.Visitor) ([]connect.Grant, error)
	RevokeGrant(ctx context.Context, v connect.Visitor, g connect.Grant) error
	// Consent gives grants to a client that the visitor has let in, for what is connected.
	Consent(ctx context.Context, v connect.Visitor, client identity.ClientID, s *catalog.Server) error
}

// Holdings are the visitor's connections, without their secrets, and what ended here, and not yet at the vendor (visits.Desk).
type Holdings interface {
	Connections(ctx context.Context, v connect.Visitor, up catalog.UpstreamName) ([]vault.Connection, error)
	Endings(ctx context.Context, v connect.Visitor) ([]vault.Ending, error)
}

// Sessions ends a browser's session on all replicas (identity.Epochs).
type Sessions interface {
	End(ctx context.Context, t identity.Tenant, k identity.EpochKind, id string) error
}

// Activity reads the visitor's part of the log: what is older than before, at most limit acts (visits.Desk).
type Activity interface {
	Activity(ctx context.Context, v connect.Visitor, before audit.CallID, limit int) ([]audit.Row, error)
}

const (
	maxBody = 64 << 10

	signInsPerMin = 300      // of one address, which may be a whole office's
	maxReturn     = 10 << 10 // bytes of the way back that are kept for somebody whom nobody knows yet: an agent's request, and no more
)

// Mount adds the routes.
func (s *Site) Mount(mux *http.ServeMux) {
	on := func(pattern string, h page) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.Handle(method+" "+s.Prefix+path, s.Pages.Forms(s.at(h)))
	}
	on("GET /{$}", s.home)
	on("GET /signin", s.signIn)
	on("GET /signout", s.askSignOut)
	on("POST /signout", s.signOut)
	on("GET /callback/{upstream}", s.callback)
	on("GET /door", s.signedIn(s.door))
	on("GET /connect/{id}", s.signedIn(s.request))
	on("POST /connect/{id}/refuse", s.signedIn(s.refuse))
	on("POST /connect/{id}/{upstream}", s.signedIn(s.connect))
	on("POST /portal/connect/{upstream}", s.signedIn(s.connect))
	on("POST /portal/key", s.signedIn(s.answer))
	on("GET /portal/swap", s.signedIn(s.swap))
	on("GET /portal/device/{id}", s.signedIn(s.device))
	on("GET /portal/done", s.signedIn(s.done))
	on("GET /portal/{$}", s.signedIn(s.connections))
	on("POST /portal/end/{id}", s.signedIn(s.end))
	on("POST /portal/grant/end", s.signedIn(s.endGrant))
	on("POST /portal/grant/account", s.signedIn(s.useAccount))
	on("POST /portal/prefer/{id}", s.signedIn(s.prefer))
	on("GET /portal/activity", s.signedIn(s.activity))
	on("GET /portal/activity.jsonl", s.signedIn(s.download))
	s.Pages.Mount(mux)
}

// page is a handler that returns its error.
type page func(w http.ResponseWriter, r *http.Request) error

// at is the one switch from errors to pages.
func (s *Site) at(h page) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		w.Header().Set("Cache-Control", "no-store") // redirects too: they hold what is meant for one browser
		err := h(w, r)
		if err == nil {
			return
		}
		status := http.StatusInternalServerError
		switch fault.KindOf(err) {
		case fault.Invalid:
			status = http.StatusBadRequest
		case fault.Denied, fault.Unauthenticated:
			status = http.StatusForbidden
		case fault.NotFound:
			status = http.StatusNotFound
		case fault.Conflict:
			status = http.StatusGone
		case fault.RateLimited:
			status = http.StatusTooManyRequests
		case fault.Unavailable:
			status = http.StatusServiceUnavailable
		}
		s.Pages.Wrong(w, r, status, err)
	})
}

// visit is a request of somebody who is signed in.
type visit struct {
	connect.Visitor
	Name string
}

// signedIn sends strangers to sign in first, and brings them back.
func (s *Site) signedIn(h func(w http.ResponseWriter, r *http.Request, v visit) error) page {
	return func(w http.ResponseWriter, r *http.Request) error {
		session, ok := s.Browser.Session(r)
		if !ok {
			back := s.Prefix + "/portal/"
			if r.Method == http.MethodGet {
				back = r.URL.RequestURI()
			}
			http.Redirect(w, r, s.Prefix+"/signin?return="+url.QueryEscape(back), http.StatusSeeOther)
			return nil
		}
		return h(w, r, visit{connect.Visitor{Tenant: s.Tenant, User: identity.UserID(session.User), Binding: s.Browser.Binding(w, r), Proof: session.Proof}, session.Name})
	}
}

func (s *Site) render(w http.ResponseWriter, v visit, template, title string, view any) {
	s.Pages.Render(w, http.StatusOK, web.Page{Template: template, Title: title, Person: v.Name, View: view})
}

func (s *Site) home(w http.ResponseWriter, r *http.Request) error {
	http.Redirect(w, r, s.Prefix+"/portal/", http.StatusSeeOther)
	return nil
}

func (s *Site) signIn(w http.ResponseWriter, r *http.Request) error {
	if !s.signIns.Allow(web.Address(r), s.Now(), time.Minute, signInsPerMin) { // each start is kept until it comes back
		return &fault.Error{Kind: fault.RateLimited, Msg: "too many sign-ins were begun from this address; try again in a minute", RetryAfter: time.Minute}
	}
	back := s.local(r.URL.Query().Get("return"), s.Prefix+"/portal/")
	if len(back) > maxReturn {
		back = s.Prefix + "/portal/"
	}
	next, err := s.Flows.Begin(r.Context(), connect.Visitor{Tenant: s.Tenant, Binding: s.Browser.Binding(w, r)}, connect.Start{Kind: connect.FlowSignIn, Return: back})
	if err != nil {
		return err
	}
	http.Redirect(w, r, next.URL, http.StatusSeeOther)
	return nil
}

func (s *Site) askSignOut(w http.ResponseWriter, r *http.Request) error {
	s.Pages.Render(w, http.StatusOK, web.Page{Template: "signout", Title: "Sign out of Frontdesk here?", View: s.Prefix + "/signout"})
	return nil
}

func (s *Site) signOut(w http.ResponseWriter, r *http.Request) error {
	if session, ok := s.Browser.Session(r); ok { // a copy of the cookie ends with it
		if err := s.Sessions.End(r.Context(), s.Tenant, identity.EpochSession, session.ID); err != nil {
			return err
		}
	}
	s.Browser.SignOut(w)
	s.Pages.Render(w, http.StatusOK, web.Page{Template: "notice", Title: "You are signed out here", View: notice{
		Lines: []string{"Your agents go on working; end them on your pages, or ask your organisation. The company's own sign-in may still remember you."}, Link: s.Prefix + "/signin", Button: "Sign in"}})
	return nil
}

// notice is a page with a few sentences and one way on.
type notice struct {
	Lines                       []string
	Link, Button                string
	Elsewhere, ElsewhereInWords string // a page of the vendor's
}

// callback takes a browser back from the IdP or a vendor. It answers with a redirect to a clean address: what stands in this
// one must not be loaded again, or stay in sight.
func (s *Site) callback(w http.ResponseWriter, r *http.Request) error {
	params, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return fault.New(fault.Invalid, "this answer could not be read; nothing was saved; start again", nil)
	}
	v := connect.Visitor{Tenant: s.Tenant, Binding: s.Browser.Binding(w, r)}
	if session, ok := s.Browser.Session(r); ok {
		v.User, v.Proof = identity.UserID(session.User), session.Proof
	}
	name := r.PathValue("upstream")
	result, err := s.Flows.Complete(r.Context(), v, connect.Answer{Upstream: catalog.UpstreamName(name), IDP: strings.TrimPrefix(name, "idp:"), Params: params})
	if err != nil {
		return err
	}
	return s.completed(w, r, result)
}

// completed goes on from what became of a flow.
func (s *Site) completed(w http.ResponseWriter, r *http.Request, res connect.Result) error {
	switch res.Kind {
	case connect.FlowSignIn:
		in := res.Session
		if err := s.Browser.SignIn(w, r, web.Session{Tenant: string(s.Tenant), ID: in.ID, User: string(res.User.ID), Name: cmpOr(res.User.Name, res.User.Email, res.User.Subject),
			IDP: in.IDP, SID: in.SID, ACR: in.ACR, AMR: in.AMR, Started: in.At, Ends: in.Expires, Agents: in.Agents, Proof: in.Proof}); err != nil {
			return err
		}
		http.Redirect(w, r, s.local(res.Return, s.Prefix+"/portal/"), http.StatusSeeOther)
		return nil
	case connect.FlowSite:
		return s.ask(w, r, swapped{Title: s.title(string(res.Connection.Upstream)), Sites: res.Sites, State: res.Swap})
	case connect.FlowSwap:
		return s.ask(w, r, swapped{Old: res.Changed, New: res.Connection.Label, State: res.Swap})
	}
	q := url.Values{"at": {string(res.Connection.Upstream)}, "as": {string(res.Connection.ID)}, "request": {string(res.Request)}, "return": {res.Return}}
	http.Redirect(w, r, s.Prefix+"/portal/done?"+q.Encode(), http.StatusSeeOther)
	return nil
}

// swapped is the question which of two accounts, or of an account's sites, is meant, sealed into the address of its page.
type swapped struct {
	Old, New, State, Title string
	Sites                  []string
}

const purposeSwap = "portal/swap"

func (s *Site) swap(w http.ResponseWriter, r *http.Request, v visit) error {
	plain, err := s.Browser.Open(purposeSwap, v.Binding, r.URL.Query().Get("between"))
	var k swapped
	if err != nil || json.Unmarshal(plain, &k) != nil {
		return fault.New(fault.Denied, "this page began in another browser; nothing was done; start again", nil)
	}
	if len(k.Sites) > 0 {
		s.render(w, v, "site", "Which site of "+k.Title+" is it to be?", map[string]any{"Sites": k.Sites, "More": len(k.Sites) >= catalog.MaxSites, "State": k.State, "Action": s.Prefix + "/portal/key"})
		return nil
	}
	s.render(w, v, "swap", "This is another account than you meant", map[string]string{"Old": k.Old, "New": k.New, "State": k.State, "Action": s.Prefix + "/portal/key"})
	return nil
}

// pages are the first segments of paths to which a person may be sent on.
var pages = []string{"authorize", "connect", "door", "portal"}

// local is the path if it is one of this tenant's pages.
func (s *Site) local(path, otherwise string) string {
	return web.Local(path, s.Prefix, pages, otherwise)
}

func cmpOr(l ...string) string {
	for _, v := range l {
		if v != "" {
			return v
		}
	}
	return ""
}

// answer hands the body of a form that took a key, or chose an account, on unread.
func (s *Site) answer(w http.ResponseWriter, r *http.Request, v visit) error {
	body, err := readAll(r)
	if err != nil {
		return err
	}
	res, err := s.Flows.Complete(r.Context(), v.Visitor, connect.Answer{Body: body})
	if err != nil {
		return err
	}
	return s.completed(w, r, res)
}

var errNotYours = []string{"Nothing was done. Ask your own agent again: it gets a link of its own."}

// request shows a connect request to the one for whom it was opened.
func (s *Site) request(w http.ResponseWriter, r *http.Request, v visit) error {
	q, err := s.Requests.Request(r.Context(), v.Visitor, connect.RequestID(r.PathValue("id")))
	if fault.KindOf(err) == fault.Denied {
		s.Pages.Render(w, http.StatusForbidden, web.Page{Template: "notice", Title: "This link was made for somebody else", Person: v.Name,
			View: notice{Lines: errNotYours, Link: s.Prefix + "/portal/", Button: "Close"}})
		return nil
	}
	if fault.KindOf(err) == fault.NotFound {
		return fault.New(fault.NotFound, "there is no such request; ask your agent again, and it gets a new link", nil)
	}
	if err != nil {
		return err
	}
	if q.State != connect.Open {
		s.Pages.Render(w, http.StatusGone, web.Page{Template: "notice", Title: requestEnds[q.State], Person: v.Name,
			View: notice{Lines: []string{"If your agent still asks, let it try again: it gets a new link."}, Link: s.Prefix + "/portal/", Button: "What is connected"}})
		return nil
	}
	return s.showRequest(w, r, v, q)
}

var requestEnds = map[connect.State]string{connect.Done: "This request was answered", connect.Refused: "You refused this request", connect.Expired: "This request is too old"}

func (s *Site) refuse(w http.ResponseWriter, r *http.Request, v visit) error {
	if err := s.Requests.Refuse(r.Context(), v.Visitor, connect.RequestID(r.PathValue("id"))); err != nil {
		return err
	}
	s.render(w, v, "notice", "You refused", notice{Lines: []string{"The tool will say that you said no. Nothing was connected."}, Link: s.Prefix + "/portal/", Button: "Close"})
	return nil
}

// connect sends the person to the vendor, to the page that takes a key, or on, where his yes was all that was missing.
func (s *Site) connect(w http.ResponseWriter, r *http.Request, v visit) error {
	if err := r.ParseForm(); err != nil {
		return fault.New(fault.Invalid, "the form could not be read; go back and try again", nil)
	}
	up := s.Catalog.Upstream(s.Tenant, catalog.UpstreamName(r.PathValue("upstream")))
	if up == nil {
		return fault.New(fault.NotFound, "there is no such service here", nil)
	}
	id := connect.RequestID(r.PathValue("id"))
	start := connect.Start{Kind: connect.FlowConnect, Request: id, Upstream: up.Name, Return: s.local(r.PostForm.Get("return"), ""),
		Connection: vault.ConnectionID(r.PostForm.Get("connection")), Another: r.PostForm.Get("another") != "", Method: catalog.MethodKind(r.PostForm.Get("method")), Site: r.PostForm.Get("site")}
	next, err := s.Flows.Begin(r.Context(), v.Visitor, start)
	switch {
	case err != nil:
		return err
	case next.Done:
		q := url.Values{"at": {string(up.Name)}, "as": {string(next.Connection)}, "request": {string(id)}, "return": {start.Return}}
		http.Redirect(w, r, s.Prefix+"/portal/done?"+q.Encode(), http.StatusSeeOther)
	case next.Site != nil:
		s.sitePage(w, v, up, start, siteView{SiteQuestion: *next.Site, Upstream: up.Title, Action: r.URL.Path})
	case next.Device != "":
		http.Redirect(w, r, s.Prefix+"/portal/device/"+url.PathEscape(next.Device), http.StatusSeeOther)
	case next.Form != nil && next.URL != "":
		s.Pages.Leave(w, "On to the page that takes your key", next.URL, hostOf(next.URL))
	case next.Form != nil:
		s.keyPage(w, v, up, next.Form, start.Return)
	default:
		s.Pages.Leave(w, "On to "+up.Title, next.URL, hostOf(next.URL))
	}
	return nil
}

func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

var errTooLarge = fault.New(fault.Invalid, "the form is too large; nothing was saved", nil)

func readAll(r *http.Request) ([]byte, error) {
	b, err := io.ReadAll(r.Body) // the body is bounded by at
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, errTooLarge
	}
	return b, err
}
