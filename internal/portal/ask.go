package portal

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/web"
	"frontdesk.dev/frontdesk/internal/vault"
)

// scope is one scope as a page shows it.
type scope struct {
	Words, Raw string
	New        bool
}

// inWords says what scopes let an agent do. Where the catalogue has no words, the vendor's name has to do, set apart.
func inWords(up *catalog.Upstream, scopes, had []string) []scope {
	var l []scope
	for _, raw := range scopes {
		words := up.Provider.Scopes[raw]
		if words == "" {
			words = "use “" + raw + "”, as " + up.Title + " calls it"
		}
		l = append(l, scope{words, raw, had != nil && !slices.Contains(had, raw)})
	}
	return l
}

// row is one upstream on the pages that ask.
type row struct {
	Title, Host, Note, Action, Button string
	Scopes                            []scope
	Connected                         bool
	Account, Return                   string
	Connection                        vault.ConnectionID // that Account is of
	Accounts                          []account          // of which one is to be chosen; none where there is no choice
	Others                            []otherWay
	Where                             bool // he is asked for his site first
}

// account is one of several that a person has connected at an upstream.
type account struct {
	ID     vault.ConnectionID
	Label  string
	Suits  bool // as it is
	Chosen bool
}

// accounts are those of a person at an upstream, to choose from.
func accounts(l []vault.Connection, scopes []string, chosen vault.ConnectionID) []account {
	var all []account
	for i, c := range l {
		all = append(all, account{c.ID, cmpOr(c.Label, "account "+strconv.Itoa(i+1)), connect.Suits(c, scopes), c.ID == chosen})
	}
	return all
}

// ways are the methods of an upstream that ask a person, in their order.
func ways(up *catalog.Upstream) []catalog.MethodKind {
	var l []catalog.MethodKind
	for _, m := range up.Methods {
		if m.Kind.Asks() {
			l = append(l, m.Kind)
		}
	}
	return l
}

// otherWay is another method than the first that the person may take.
type otherWay struct {
	Method catalog.MethodKind
	Words  string
}

var otherWays = map[catalog.MethodKind]string{catalog.AuthorizationCode: "Go there in this browser instead", catalog.DeviceCode: "Use a code on another device instead", catalog.APIKey: "Paste a key instead"}

// vendorHost is where the browser goes next; "" where it stays with us.
func vendorHost(up *catalog.Upstream, site string) string {
	up, err := up.At(site)
	if err != nil { // he is asked first
		return ""
	}
	if l := ways(up); len(l) > 0 && l[0] == catalog.AuthorizationCode && up.Provider.OAuth != nil {
		return hostOf(up.Provider.OAuth.Authorization)
	}
	return ""
}

// asked are the scopes that the vendor is asked for: also those that Frontdesk itself needs.
func asked(up *catalog.Upstream, scopes []string) []string {
	if l := ways(up); len(l) == 0 || !l[0].Consents() || up.Provider.OAuth == nil {
		return scopes
	}
	return up.Provider.OAuth.Alongside(scopes)
}

// goesOn is the page of a request whose agent goes on by itself.
func (s *Site) goesOn(id connect.RequestID) string {
	return s.Prefix + "/connect/" + string(id) + connect.GoesOn
}

var notes = map[catalog.Why]string{
	catalog.WhyNotConnected: "It is not connected for you yet.",
	catalog.WhyReconnect:    "It was connected, and has to be connected again.",
	catalog.WhyScope:        "It is connected, but this needs more than you allowed.",
	catalog.WhyGrant:        "It is connected. This agent has not been allowed to use it for you yet.",
}

// requestView is the page of a connect request.
type requestView struct {
	Agent            Agent
	Tool, Refuse     string
	Created, Expires time.Time
	Rows             []row
}

func (s *Site) showRequest(w http.ResponseWriter, r *http.Request, v visit, q connect.Request) error {
	view := requestView{Agent: s.Agents(r.Context(), s.Tenant, q.Client), Tool: q.Tool, Refuse: s.Prefix + "/connect/" + string(q.ID) + "/refuse", Created: q.Created, Expires: q.Expires}
	view.Agent.Name = cmpOr(q.ClientName, view.Agent.Name)
	back := s.goesOn(q.ID)
	if "?"+r.URL.RawQuery != connect.GoesOn {
		back = ""
	}
	var titles []string
	for _, m := range q.Missing {
		up := s.Catalog.Upstream(s.Tenant, m.Upstream)
		if up == nil {
			continue
		}
		l, err := s.Holdings.Connections(r.Context(), v.Visitor, m.Upstream)
		if err != nil {
			return err
		}
		var had []string
		now := vault.Connection{}
		if len(l) > 0 {
			now = current(l, vault.ConnectionID(m.Connection))
			had = append([]string{}, now.Scopes...)
		}
		host := vendorHost(up, now.Site.Value)
		k := row{Title: up.Title, Where: up.Sites.Asked() && now.ID == "", Note: notes[m.Why], Action: s.Prefix + "/connect/" + string(q.ID) + "/" + string(m.Upstream), Scopes: inWords(up, asked(up, m.Scopes), had), Host: host, Return: back, Account: now.Label, Connection: now.ID}
		if len(l) > 1 {
			k.Accounts = accounts(l, oauth.UnionScopes(up.Scopes, m.Scopes), now.ID)
		}
		if m.Reason != "" {
			k.Note += " " + m.Reason + "."
		}
		switch {
		case m.Why == catalog.WhyGrant:
			k.Button, k.Host = "Allow", ""
		case len(ways(up)) > 0 && ways(up)[0] == catalog.DeviceCode:
			k.Button = "Get a code for " + up.Title
		case k.Host == "" && !(k.Where && ways(up)[0].Consents()):
			k.Button = "Paste a key"
		default:
			k.Button = "Continue to " + up.Title
		}
		if l := ways(up); len(l) > 1 && m.Why != catalog.WhyGrant {
			for _, way := range l[1:] {
				k.Others = append(k.Others, otherWay{way, otherWays[way]})
			}
		}
		view.Rows, titles = append(view.Rows, k), append(titles, up.Title)
	}
	s.render(w, v, "connect", web.Name(cmpOr(view.Agent.Name, "An agent"))+" asks to use your "+strings.Join(titles, " and ")+" through "+string(q.Server), view)
	return nil
}

// current is the connection of that id, else the one that new grants take.
func current(l []vault.Connection, id vault.ConnectionID) vault.Connection {
	if i := slices.IndexFunc(l, func(c vault.Connection) bool { return c.ID == id }); i >= 0 {
		return l[i]
	}
	return l[0]
}

// doorView is the page that offers, in the visit of a sign-in, what the server will need.
type doorView struct {
	Server, Later string
	All           bool
	Rows          []row
}

func (s *Site) door(w http.ResponseWriter, r *http.Request, v visit) error {
	srv := s.Catalog.Server(s.Tenant, catalog.ServerName(r.URL.Query().Get("server")))
	if srv == nil {
		return fault.New(fault.NotFound, "there is no such server here", nil)
	}
	view := doorView{Server: string(srv.Name), Later: s.local(r.URL.Query().Get("return"), s.Prefix+"/portal/"), All: true}
	there, lacks := "", ""
	for _, n := range srv.Needs {
		up := s.Catalog.Upstream(s.Tenant, n.Upstream)
		if up == nil {
			continue
		}
		l, err := s.Holdings.Connections(r.Context(), v.Visitor, n.Upstream)
		if err != nil {
			return err
		}
		k := row{Title: up.Title, Where: up.Sites.Asked(), Host: cmpOr(vendorHost(up, ""), "a page here"), Scopes: inWords(up, asked(up, n.Wants(up)), nil), Action: s.Prefix + "/portal/connect/" + string(up.Name), Return: r.URL.RequestURI()}
		switch {
		case len(l) > 0 && l[0].Status == vault.Active:
			k.Connected, k.Account = true, l[0].Label
			there = cmpOr(there, up.Title)
		case n.Optional:
			k.Note = "It can do without."
		default:
			view.All, lacks = false, cmpOr(lacks, up.Title)
		}
		view.Rows = append(view.Rows, k)
	}
	// What was connected at the door is meant for the agent that brought the person here: its first call asks nothing.
	// Who that is stands sealed in the address, by the issuer: a link that somebody else made grants nothing.
	pass, ok := s.Browser.Pass(v.Binding, r.URL.Query().Get("pass"))
	if ok && pass.User == string(v.User) && pass.Server == string(srv.Name) {
		if err := s.Grants.Consent(r.Context(), v.Visitor, identity.ClientID(pass.Client), srv); err != nil {
			return err
		}
	}
	title := string(srv.Name) + " works with " + lacks + ". Connect it now?"
	switch {
	case view.All && there != "":
		title = there + " is connected for " + string(srv.Name)
	case view.All:
		title = string(srv.Name) + " can go on"
	}
	s.render(w, v, "door", title, view)
	return nil
}

// keyView is the page that takes a pasted key.
type keyView struct {
	Upstream, Where, Link, State, Action, Cancel, Tomorrow string
	First                                                  *catalog.KeyPart
	Scopes                                                 []scope
}

func (s *Site) keyPage(w http.ResponseWriter, v visit, up *catalog.Upstream, f *connect.KeyForm, cancel string) {
	s.render(w, v, "key", "Paste a key for "+up.Title, keyView{up.Title, f.Where, f.Link, f.State, s.Prefix + "/portal/key", cmpOr(cancel, s.Prefix+"/portal/"),
		s.Now().Add(24 * time.Hour).UTC().Format(time.DateOnly), f.First, inWords(up, up.Scopes, nil)})
}

// siteView is the page that asks at which site of a vendor an account is, before anybody goes there.
type siteView struct {
	catalog.SiteQuestion
	Upstream, Action, Cancel string
	Hidden                   map[string]string // what the form was begun with
}

func (s *Site) sitePage(w http.ResponseWriter, v visit, up *catalog.Upstream, start connect.Start, view siteView) {
	view.Cancel, view.Hidden = cmpOr(start.Return, s.Prefix+"/portal/"), map[string]string{}
	for name, value := range map[string]string{"return": start.Return, "connection": string(start.Connection), "method": string(start.Method), "another": map[bool]string{true: "1"}[start.Another]} {
		if value != "" {
			view.Hidden[name] = value
		}
	}
	status := http.StatusOK
	if view.Written != "" {
		status = http.StatusBadRequest
	}
	s.Pages.Render(w, status, web.Page{Template: "where", Title: "Where is your " + up.Title + "?", Person: v.Name, View: view})
}

// doneView is the page after an account was connected.
type doneView struct {
	Account, More, Return, Pages, Other, Title string
	Asked, GoesOn                              bool // by an agent; which need not be told to try again
}

// done says what is connected now, and whether more is asked for.
func (s *Site) done(w http.ResponseWriter, r *http.Request, v visit) error {
	q := r.URL.Query()
	up := s.Catalog.Upstream(s.Tenant, catalog.UpstreamName(q.Get("at")))
	if up == nil {
		return s.home(w, r)
	}
	l, err := s.Holdings.Connections(r.Context(), v.Visitor, up.Name)
	if err != nil {
		return err
	}
	var now vault.Connection
	if len(l) > 0 {
		now = current(l, vault.ConnectionID(q.Get("as")))
	}
	view := doneView{Return: s.local(q.Get("return"), ""), Pages: s.Prefix + "/portal/", Other: s.Prefix + "/portal/connect/" + string(up.Name), Title: up.Title}
	title := up.Title + " is connected"
	if now.Label != "" {
		view.Account = now.Label
		title += " as " + web.Name(now.Label)
	}
	if id := connect.RequestID(q.Get("request")); id != "" {
		view.Asked = true
		if view.GoesOn = view.Return == s.goesOn(id); view.GoesOn {
			view.Return = ""
		}
		if req, err := s.Requests.Request(r.Context(), v.Visitor, id); err == nil && req.State == connect.Open {
			view.More = s.Prefix + "/connect/" + string(id)
			if view.GoesOn {
				view.More = s.goesOn(id)
			}
		} else if err != nil && fault.KindOf(err) != fault.NotFound && fault.KindOf(err) != fault.Denied {
			return err
		}
	}
	s.render(w, v, "done", title, view)
	return nil
}
