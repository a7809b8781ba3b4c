// Package storybook shows every page of the portal in every state that it can have, with people and vendors that do not exist.
// It runs the portal itself over canned stores, at a clock that stands still; so the pictures in docs/ are taken of it, and a
// page that changes is seen here first (`make storybook`). It is no part of the product's binary.
package storybook

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/issuer"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/web"
	"frontdesk.dev/frontdesk/internal/portal"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Now is when all of this happens.
var Now = time.Date(2026, 11, 25, 10, 42, 0, 0, time.UTC)

// Story is one state of one page.
type Story struct {
	Name  string
	First string // what its first line holds
	path  string
	form  url.Values // posted, where there is one
	user  string     // alice where empty; "-" for nobody
}

// Stories are all that a person can be shown.
var Stories = []Story{
	{Name: "consent", First: "Let Claude Code use issues as you?", path: "/consent/document"},
	{Name: "consent-unverified", First: "use issues as you?", path: "/consent/dynamic"},
	{Name: "consent-again", First: "Let Claude Code use issues as you?", path: "/consent/again"},
	{Name: "consent-changed", First: "Let Claude Code use issues as you?", path: "/consent/changed"},
	{Name: "door", First: "issues works with GitHub. Connect it now?", path: "/door?server=issues", user: "new"},
	{Name: "door-some", First: "news works with Slack. Connect it now?", path: "/door?server=news"},
	{Name: "door-optional", First: "GitHub is connected for board", path: "/door?server=board"},
	{Name: "door-all", First: "GitHub is connected for issues", path: "/door?server=issues"},
	{Name: "connect", First: "Claude Code asks to use your GitHub through issues", path: "/connect/new", user: "new"},
	{Name: "connect-more", First: "asks to use your GitHub", path: "/connect/more"},
	{Name: "connect-grant", First: "Cursor asks to use your GitHub through board", path: "/connect/grant"},
	{Name: "connect-again", First: "asks to use your Datadog", path: "/connect/again"},
	{Name: "connect-accounts", First: "asks to use your GitHub", path: "/connect/more", user: "two"},
	{Name: "connect-two", First: "asks to use your GitHub and Datadog through board", path: "/connect/two", user: "new"},
	{Name: "not-yours", First: "This link was made for somebody else", path: "/connect/foreign"},
	{Name: "answered", First: "This request was answered", path: "/connect/answered"},
	{Name: "expired", First: "This request is too old", path: "/connect/expired"},
	{Name: "unknown", First: "There is no such page", path: "/connect/unknown"},
	{Name: "refused", First: "You refused", path: "/connect/new/refuse", form: url.Values{}},
	{Name: "leave", First: "On to GitHub", path: "/connect/new/github", form: url.Values{}},
	{Name: "device", First: "Enter this code at GitHub", path: "/portal/device/open"},
	{Name: "device-over", First: "The code is over", path: "/portal/device/over"},
	{Name: "key", First: "Paste a key for Datadog", path: "/connect/again/datadog", form: url.Values{}},
	{Name: "key-wrong", First: "That did not work", path: "/portal/key", form: url.Values{"key": {"wrong"}}},
	{Name: "done", First: "GitHub is connected as octo-alice", path: "/portal/done?at=github&request=answered"},
	{Name: "done-goes-on", First: "GitHub is connected as octo-alice", path: "/portal/done?at=github&request=answered&return=%2Fconnect%2Fanswered%3Fthen%3Don"},
	{Name: "done-again", First: "GitHub is connected as octo-alice", path: "/portal/done?at=github"},
	{Name: "done-more", First: "GitHub is connected as octo-alice", path: "/portal/done?at=github&request=two"},
	{Name: "done-door", First: "GitHub is connected as octo-alice", path: "/portal/done?at=github&return=%2Fdoor%3Fserver%3Dissues"},
	{Name: "swap", First: "This is another account than you meant", path: "/portal/key", form: url.Values{"key": {"other"}}},
	{Name: "site", First: "Which site of GitHub is it to be?", path: "/portal/key", form: url.Values{"key": {"sites"}}},
	{Name: "connect-where", First: "asks to use your Zendesk", path: "/connect/where"},
	{Name: "where", First: "Where is your Zendesk?", path: "/connect/where/zendesk", form: url.Values{"return": {"/connect/where"}}},
	{Name: "where-wrong", First: "Where is your Zendesk?", path: "/connect/where/zendesk", form: url.Values{"site": {"acme.example.com"}, "another": {"1"}}},
	{Name: "where-listed", First: "Where is your GitLab?", path: "/portal/connect/gitlab", form: url.Values{}},
	{Name: "wrong", First: "That did not work", path: "/callback/github?error=access_denied&state=x"},
	{Name: "wrong-later", First: "That did not work", path: "/callback/github?error=temporarily_unavailable&state=x"},
	{Name: "connections", First: "What is connected for you", path: "/portal/"},
	{Name: "connections-accounts", First: "What is connected for you", path: "/portal/", user: "two"},
	{Name: "connections-ending", First: "What is connected for you", path: "/portal/", user: "ending"},
	{Name: "connections-none", First: "What is connected for you", path: "/portal/", user: "new"},
	{Name: "ended-confirmed", First: "Disconnected from GitHub", path: "/portal/end/github", form: url.Values{}},
	{Name: "ended-here", First: "Disconnected from Datadog", path: "/portal/end/datadog", form: url.Values{}},
	{Name: "ended-trying", First: "Disconnected from Slack", path: "/portal/end/slack", form: url.Values{}},
	{Name: "activity", First: "What agents did for you", path: "/portal/activity"},
	{Name: "activity-none", First: "What agents did for you", path: "/portal/activity", user: "new"},
	{Name: "activity-filtered", First: "What agents did for you", path: "/portal/activity?show=no"},
	{Name: "activity-nothing", First: "What agents did for you", path: "/portal/activity?agent=nobody"},
	{Name: "signout", First: "Sign out of Frontdesk here?", path: "/signout"},
	{Name: "signed-out", First: "You are signed out here", path: "/signout", form: url.Values{}},
	{Name: "form-elsewhere", First: "This is not possible here", path: "/portal/end/github", form: url.Values{"from": {"elsewhere"}}},
}

const here = "http://127.0.0.1"

// Handler serves the list of stories at /, and each under its name.
func Handler(dir string) (http.Handler, error) {
	site, browser, err := open(dir)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		_ = index.Execute(w, Stories) // the browser went away if this fails
	})
	mux.Handle("GET /assets/", site)
	for _, s := range Stories {
		mux.HandleFunc("GET /"+s.Name, func(w http.ResponseWriter, _ *http.Request) { s.play(w, site, browser) })
	}
	return mux, nil
}

var index = template.Must(template.New("").Parse(`<!doctype html><html lang="en"><title>Storybook</title><h1>Every page, in every state</h1><ul>{{range .}}<li><a href="/{{.Name}}">{{.Name}}</a>: {{.First}}</li>{{end}}</ul>`))

// play asks the portal as a signed-in browser would, and follows it.
func (s Story) play(w http.ResponseWriter, site http.Handler, browser *web.Browser) {
	cookies := map[string]*http.Cookie{}
	var a answer
	keep := func() {
		for _, c := range (&http.Response{Header: a.header}).Cookies() {
			cookies[c.Name] = c
		}
	}
	if s.user != "-" {
		user, name := cmpOr(s.user, "alice"), "Alice Arden"
		a.header = http.Header{}
		r, _ := http.NewRequest(http.MethodGet, here+"/", nil)
		if err := browser.SignIn(&a, r, web.Session{Tenant: string(identity.DefaultTenant), User: user, Name: name, Started: Now, Ends: Now.Add(time.Hour)}); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		keep()
	}
	method, path, body := http.MethodGet, s.path, io.Reader(http.NoBody)
	if s.form != nil {
		method, body = http.MethodPost, strings.NewReader(s.form.Encode())
	}
	for range 4 {
		r, err := http.NewRequest(method, here+path, body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		r.RequestURI = path
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", here)
		if s.form.Get("from") != "" {
			r.Header.Set("Origin", "https://elsewhere.example")
		}
		for _, c := range cookies {
			r.AddCookie(c)
		}
		a = answer{header: http.Header{}}
		site.ServeHTTP(&a, r)
		keep()
		if a.status < 300 || a.status > 399 {
			break
		}
		method, path, body = http.MethodGet, a.header.Get("Location"), http.NoBody
	}
	for _, name := range []string{"Content-Type", "Content-Security-Policy"} {
		w.Header().Set(name, a.header.Get(name))
	}
	w.WriteHeader(a.status)
	page := a.body.Bytes()
	if s.Name == "leave" { // the page as it is seen before it goes on by itself
		page = bytes.ReplaceAll(page, []byte(`http-equiv="refresh"`), []byte(`name="was-refresh"`))
	}
	_, _ = w.Write(page) // the browser went away if this fails
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// answer keeps what the portal wrote.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }
func (a *answer) WriteHeader(s int)   { a.status = s }
func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	return a.body.Write(b)
}

func open(dir string) (http.Handler, *web.Browser, error) {
	keys, err := web.OpenKeys(filepath.Join(dir, "faces.key"))
	if err != nil {
		return nil, nil, err
	}
	now := func() time.Time { return Now }
	log := slog.New(slog.DiscardHandler)
	pages := web.NewPages("", "Frontdesk", log, now)
	browser := &web.Browser{Keys: keys, Now: now, Alive: func(web.Session) bool { return true }}
	cat, err := shelf()
	if err != nil {
		return nil, nil, err
	}
	d := &desk{}
	mux := http.NewServeMux()
	(&portal.Site{Tenant: identity.DefaultTenant, Browser: browser, Pages: pages, Flows: d, Requests: d, Grants: d, Catalog: cat, Holdings: d, Log: d, Sessions: &sessions{}, Agents: agents, Unused: func() time.Duration { return 90 * 24 * time.Hour }, Now: now}).Mount(mux)
	for how, c := range map[string]issuer.Consent{
		"document": {ClientName: "Claude Code", ClientHost: "claude.ai", RedirectHost: "127.0.0.1", Registration: issuer.RegisteredDocument},
		"changed": {ClientName: "Claude Code", ClientHost: "claude.ai", RedirectHost: "claude.ai", Registration: issuer.RegisteredDocument, Before: Now.AddDate(0, -1, 0),
			Changed: []string{"what it calls itself; it was “Claude”", "where your browser goes back to; it was 127.0.0.1"}},
		"again":   {ClientName: "Claude Code", ClientHost: "claude.ai", RedirectHost: "127.0.0.1", Registration: issuer.RegisteredDocument, Before: Now.AddDate(0, 0, -3)},
		"dynamic": {ClientName: "Claude Code <b>Official</b>", ClientHost: "127.0.0.1", RedirectHost: "127.0.0.1", Registration: issuer.RegisteredDynamic},
	} {
		c.Server, c.Upstreams, c.Person, c.Ticket, c.Until = "issues", []string{"GitHub"}, "Alice Arden", "ticket", Now.Add(90*24*time.Hour)
		if c.Before.IsZero() && c.Registration == issuer.RegisteredDocument { // somebody has listed the tools before
			c.Tools = issuer.Tools{Reads: 14, Changes: 6}
		}
		mux.HandleFunc("GET /consent/"+how, func(w http.ResponseWriter, _ *http.Request) {
			pages.Render(w, http.StatusOK, web.Page{Template: "consent", Title: "Let " + web.Name(c.ClientName) + " use " + c.Server + " as you?", Person: c.Person, View: c})
		})
	}
	return mux, browser, nil
}

func agents(_ context.Context, _ identity.Tenant, id identity.ClientID) portal.Agent {
	switch id {
	case "claude":
		return portal.Agent{Name: "Claude Code", Host: "claude.ai"}
	case "cursor":
		return portal.Agent{Name: "Cursor", Host: "127.0.0.1", Unverified: true}
	}
	return portal.Agent{}
}

// shelf has some vendors of the built-in catalogue, and two servers.
func shelf() (*catalog.Catalog, error) {
	all, err := catalog.Providers()
	if err != nil {
		return nil, err
	}
	up := func(id string, scopes, sites []string, methods ...catalog.MethodKind) (*catalog.Upstream, error) {
		p, ok := all[id]
		if !ok {
			return nil, fmt.Errorf("the catalogue has no %s", id)
		}
		if sites != nil {
			if p, err = p.PerPerson(nil, sites); err != nil {
				return nil, err
			}
		}
		p, err := p.With(nil)
		if err != nil {
			return nil, err
		}
		u := &catalog.Upstream{Tenant: identity.DefaultTenant, Name: catalog.UpstreamName(id), Title: p.Name, Provider: p, Scopes: scopes}
		if sites != nil {
			u.Sites = p.Sites
		}
		for _, m := range methods {
			u.Methods = append(u.Methods, catalog.Method{Kind: m, Client: "x"})
		}
		return u, nil
	}
	ups := map[catalog.UpstreamName]*catalog.Upstream{}
	for id, k := range map[string]struct {
		scopes, sites []string // sites: that people name; none of them: any
		method        catalog.MethodKind
	}{"github": {[]string{"repo", "read:user"}, nil, catalog.AuthorizationCode}, "slack": {[]string{"chat:write"}, nil, catalog.AuthorizationCode}, "datadog": {nil, nil, catalog.APIKey},
		"zendesk": {[]string{"read"}, []string{}, catalog.AuthorizationCode}, "gitlab": {[]string{"read_api"}, []string{"gitlab.acme.example", "gitlab.acme-labs.example"}, catalog.AuthorizationCode}} {
		u, err := up(id, k.scopes, k.sites, k.method)
		if err != nil {
			return nil, err
		}
		ups[u.Name] = u
	}
	servers := map[catalog.ServerName]*catalog.Server{
		"issues": {Name: "issues", Title: "issues", Needs: []catalog.Need{{Upstream: "github"}}},
		"news":   {Name: "news", Title: "news", Needs: []catalog.Need{{Upstream: "github"}, {Upstream: "slack"}}},
		"board":  {Name: "board", Title: "board", Needs: []catalog.Need{{Upstream: "github"}, {Upstream: "slack", Optional: true}, {Upstream: "datadog"}}},
	}
	c := &catalog.Catalog{}
	c.Set(&catalog.Snapshot{Servers: map[identity.Tenant]map[catalog.ServerName]*catalog.Server{identity.DefaultTenant: servers}, Upstreams: map[identity.Tenant]map[catalog.UpstreamName]*catalog.Upstream{identity.DefaultTenant: ups}})
	return c, nil
}

// desk answers as stores and flows would.
type desk struct{}

var github = vault.Connection{ID: "github", Upstream: "github", Method: catalog.AuthorizationCode, Label: "octo-alice", Scopes: []string{"repo"}, Status: vault.Active,
	Created: Now.Add(-40 * 24 * time.Hour), LastUsed: Now.Add(-3 * time.Minute), Expires: Now.Add(7 * time.Hour), Refreshes: true}

func (*desk) Connections(_ context.Context, v connect.Visitor, up catalog.UpstreamName) ([]vault.Connection, error) {
	all := []vault.Connection{github,
		{ID: "datadog", Upstream: "datadog", Method: catalog.APIKey, Label: "alice@acme.example", Status: vault.Active, Created: Now.Add(-80 * 24 * time.Hour), LastUsed: Now.Add(-26 * time.Hour), Expires: Now.Add(6 * 24 * time.Hour)},
		{ID: "slack", Upstream: "slack", Method: catalog.AuthorizationCode, Label: "alice in Acme", Scopes: []string{"chat:write"}, Status: vault.NeedsReconnect, Reason: "Slack says that it was ended there", Created: Now.Add(-90 * 24 * time.Hour), LastUsed: Now.Add(-49 * time.Hour)}}
	u := v.User
	if u == "two" {
		home := github
		home.ID, home.Label, home.Scopes, home.LastUsed = "home", "alice-at-home", []string{"repo", "workflow", "read:user"}, time.Time{}
		all, u = []vault.Connection{github, home}, "alice"
	}
	if u == "ending" { // a key whose day is over, what its vendor lets nobody renew, what nobody uses
		all[0].LastUsed, all[1].Expires = Now.Add(-84*24*time.Hour), Now.Add(-26*time.Hour)
		all[0].Created = Now.Add(-200 * 24 * time.Hour)
		all[2].Status, all[2].Reason, all[2].Expires, u = vault.Active, "", Now.Add(5*24*time.Hour), "alice"
	}
	var l []vault.Connection
	for _, c := range all {
		if u == "alice" && (up == "" || c.Upstream == up) {
			l = append(l, c)
		}
	}
	return l, nil
}

func (*desk) Endings(_ context.Context, v connect.Visitor) ([]vault.Ending, error) {
	if v.User != "alice" {
		return nil, nil
	}
	return []vault.Ending{{Upstream: "slack", Created: Now.Add(-25 * time.Minute)}, {Upstream: "github", Created: Now.Add(-50 * time.Hour), GivenUp: Now.Add(-30 * time.Hour)}}, nil
}

func request(id string) connect.Request {
	q := connect.Request{ID: connect.RequestID(id), Client: "claude", Server: "issues", Tool: "create_issue", State: connect.Open, Created: Now.Add(-40 * time.Second), Expires: Now.Add(9 * time.Minute)}
	missing := func(up catalog.UpstreamName, why catalog.Why, scopes ...string) {
		q.Missing = append(q.Missing, catalog.Missing{Upstream: up, Why: why, Scopes: scopes})
	}
	switch id {
	case "new":
		missing("github", catalog.WhyNotConnected, "repo", "read:user")
	case "more":
		missing("github", catalog.WhyScope, "repo", "workflow")
	case "grant":
		q.Client, q.Server, q.Tool = "cursor", "board", ""
		missing("github", catalog.WhyGrant, "repo")
	case "again":
		missing("datadog", catalog.WhyReconnect)
		q.Missing[0].Reason = "The key has ended"
		q.Server, q.Tool = "board", "find_monitors"
	case "two":
		q.Server, q.Tool = "board", "post_summary"
		missing("github", catalog.WhyNotConnected, "repo")
		missing("datadog", catalog.WhyNotConnected)
	case "where":
		missing("zendesk", catalog.WhyNotConnected, "read")
	case "answered":
		q.State = connect.Done
	case "expired":
		q.State = connect.Expired
	}
	return q
}

func (*desk) Request(_ context.Context, _ connect.Visitor, id connect.RequestID) (connect.Request, error) {
	switch id {
	case "foreign":
		return connect.Request{}, fault.New(fault.Denied, "not yours", nil)
	case "unknown":
		return connect.Request{}, fault.New(fault.NotFound, "not there", nil)
	}
	return request(string(id)), nil
}

func (*desk) Pending(_ context.Context, v connect.Visitor) ([]connect.Request, error) {
	if v.User != "alice" {
		return nil, nil
	}
	return []connect.Request{request("more")}, nil
}

func (*desk) Device(_ context.Context, _ connect.Visitor, id string) (connect.Device, error) {
	x := connect.Device{Flow: connect.Flow{State: id, Upstream: "github", Request: "new", Expires: Now.Add(14 * time.Minute)}, Status: connect.Open,
		Code: connect.UserCode{Code: "WDJB-MJHT", URI: "https://github.com/login/device"}}
	if id == "over" {
		x.Status, x.End.Why = connect.Refused, "you refused there; nothing was saved"
	}
	return x, nil
}

func (*desk) Refuse(context.Context, connect.Visitor, connect.RequestID) error { return nil }

func (*desk) Prefer(context.Context, connect.Visitor, vault.ConnectionID) error { return nil }

func (*desk) UseAccount(context.Context, connect.Visitor, connect.Grant) error { return nil }

func (*desk) Grants(_ context.Context, v connect.Visitor) ([]connect.Grant, error) {
	if v.User == "two" {
		return []connect.Grant{{Client: "claude", Server: "issues", Upstream: "github", Connection: "github", Expires: Now.Add(50 * 24 * time.Hour)},
			{Client: "cursor", Server: "board", Upstream: "github", Connection: "home", Expires: Now.Add(12 * 24 * time.Hour)}}, nil
	}
	if v.User != "alice" {
		return nil, nil
	}
	return []connect.Grant{{Client: "claude", Server: "issues", Upstream: "github", Expires: Now.Add(50 * 24 * time.Hour)}, {Client: "cursor", Server: "board", Upstream: "github", Expires: Now.Add(12 * 24 * time.Hour)},
		{Client: "claude", Server: "board", Upstream: "datadog", Expires: Now.Add(50 * 24 * time.Hour)}}, nil
}

func (*desk) RevokeGrant(context.Context, connect.Visitor, connect.Grant) error { return nil }

func (*desk) Consent(context.Context, connect.Visitor, identity.ClientID, *catalog.Server) error {
	return nil
}

func (*desk) Begin(_ context.Context, _ connect.Visitor, s connect.Start) (connect.Next, error) {
	if s.Upstream == "datadog" {
		return connect.Next{Form: &connect.KeyForm{State: "state", Where: "Organization settings, Application keys", Link: "https://app.datadoghq.com/organization-settings/application-keys", First: &catalog.KeyPart{Name: "API key", Pattern: "^[0-9a-f]+$", Secret: true}}}, nil
	}
	switch s.Upstream {
	case "zendesk":
		return connect.Next{Site: &catalog.SiteQuestion{Before: "https://", After: ".zendesk.com", Written: s.Site}}, nil
	case "gitlab":
		return connect.Next{Site: &catalog.SiteQuestion{Before: "https://", Listed: []string{"gitlab.acme.example", "gitlab.acme-labs.example"}}}, nil
	}
	return connect.Next{URL: "https://github.com/login/oauth/authorize"}, nil
}

func (*desk) Complete(_ context.Context, _ connect.Visitor, a connect.Answer) (connect.Result, error) {
	form, _ := url.ParseQuery(string(a.Body))
	switch {
	case form.Get("key") == "other":
		other := github
		other.Label = "alice-at-home"
		return connect.Result{Kind: connect.FlowSwap, Connection: other, Changed: "octo-alice", Swap: "state"}, nil
	case form.Get("key") == "sites":
		return connect.Result{Kind: connect.FlowSite, Connection: github, Swap: "state", Sites: []string{"acme.example", "acme-test.example"}}, nil
	case form.Get("key") != "":
		return connect.Result{}, fault.New(fault.Invalid, "Datadog does not accept this credential; nothing was saved; make sure that it is whole, and has the rights it needs", nil)
	case a.Params.Get("error") == "access_denied":
		return connect.Result{}, fault.New(fault.Denied, "GitHub says that you refused; nothing was saved; if that was not meant, start again from your agent's link", nil)
	}
	return connect.Result{}, fault.Later("GitHub cannot be reached just now; nothing was saved; try again in a minute", time.Minute, nil)
}

func (*desk) Renew(context.Context, identity.Tenant, identity.UserID, string) error { return nil }

func (*desk) End(_ context.Context, _ connect.Visitor, id vault.ConnectionID) (connect.Ending, error) {
	return map[vault.ConnectionID]connect.Ending{"github": connect.EndedAtVendor, "datadog": connect.EndedHere, "slack": connect.EndedTrying}[id], nil
}

// Activity is a day and a half of work, newest first.
func (*desk) Activity(_ context.Context, v connect.Visitor, before audit.CallID, _ int) ([]audit.Row, error) {
	if v.User != "alice" || before != "" {
		return nil, nil
	}
	var rows []audit.Row
	add := func(ago time.Duration, r audit.Record) {
		r.Time, r.Tenant, r.User = Now.Add(-ago), identity.DefaultTenant, "alice"
		if r.Kind == "" {
			r.Kind = audit.KindOutcome
		}
		b, _ := json.Marshal(r)
		rows = append(rows, audit.Row{Writer: "00", Seq: int64(1000 - len(rows)), Kind: r.Kind, Record: b})
	}
	call := func(ago time.Duration, id audit.CallID, client identity.ClientID, server, tool string, result audit.Result, why string) {
		add(ago, audit.Record{Call: id, Action: "call", Client: client, Server: server, Tool: tool, Result: result, Detail: why})
	}
	api := func(ago time.Duration, of audit.CallID, what string, result audit.Result, why string) {
		add(ago, audit.Record{Action: "api", Parent: of, Client: "claude", Upstream: "github", HTTP: what, Result: result, Detail: why})
	}
	event := func(ago time.Duration, action string, client identity.ClientID, upstream string) {
		add(ago, audit.Record{Kind: audit.KindEvent, Action: action, Client: client, Upstream: upstream, Result: audit.ResultOK})
	}
	api(3*time.Minute, "1", "POST api.github.com/repos/acme/website/issues", audit.ResultOK, "")
	api(3*time.Minute, "1", "GET api.github.com/repos/acme/website", audit.ResultOK, "")
	call(3*time.Minute, "1", "claude", "issues", "create_issue", audit.ResultOK, "")
	call(12*time.Minute, "2", "claude", "issues", "delete_repository", audit.ResultDenied, "nobody deletes repositories by agent; someone in platform-admins can allow it")
	call(26*time.Minute, "3", "cursor", "board", "post_summary", audit.ResultNeeds, "slack has to be connected again")
	call(41*time.Minute, "4", "claude", "issues", "search_issues", audit.ResultFailed, "the server could not be reached, or did not answer")
	event(42*time.Minute, "grant.given", "claude", "github")
	event(43*time.Minute, "connected", "", "github")
	api(26*time.Hour, "5", "GET api.github.com/user", audit.ResultOK, "")
	call(26*time.Hour, "5", "claude", "issues", "whoami", audit.ResultOK, "")
	event(26*time.Hour, "client.allowed", "claude", "")
	event(26*time.Hour, "signed_in", "", "")
	return rows, nil
}

// End is for sessions; connections end by Flows.
func (*sessions) End(context.Context, identity.Tenant, identity.EpochKind, string) error { return nil }

type sessions struct{}
