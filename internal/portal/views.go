package portal

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/web"
	"frontdesk.dev/frontdesk/internal/vault"
)

func readLimited(r *http.Request) ([]byte, error) { return io.ReadAll(r.Body) } // the body is bounded by at

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
}

// vendorHost is where the browser goes next; "" where it stays with us.
func vendorHost(up *catalog.Upstream) string {
	for _, m := range up.Methods {
		if m.Kind == catalog.AuthorizationCode && up.Provider.OAuth != nil {
			return hostOf(up.Provider.OAuth.Authorization)
		}
		if m.Kind == catalog.APIKey {
			return ""
		}
	}
	return ""
}

var notes = map[catalog.Why]string{
	catalog.WhyNotConnected: "It is not connected for you yet.",
	catalog.WhyReconnect:    "It was connected, and has to be connected again.",
	catalog.WhyScope:        "It is connected, but this needs more than you allowed.",
	catalog.WhyGrant:        "It is connected. This agent has not been allowed to use it for you yet.",
}

func (s *Site) showRequest(w http.ResponseWriter, r *http.Request, v visit, q connect.Request) error {
	var rows []row
	first := ""
	for _, m := range q.Missing {
		up := s.Catalog.Upstream(s.Tenant, m.Upstream)
		if up == nil {
			continue
		}
		l, err := s.Holdings.Connections(r.Context(), s.Tenant, v.User, m.Upstream)
		if err != nil {
			return err
		}
		var had []string
		if len(l) > 0 {
			had = append([]string{}, l[0].Scopes...)
		}
		k := row{Title: up.Title, Note: notes[m.Why], Action: s.Prefix + "/connect/" + string(q.ID) + "/" + string(m.Upstream), Scopes: inWords(up, m.Scopes, had), Host: vendorHost(up)}
		if m.Reason != "" {
			k.Note += " " + m.Reason + "."
		}
		switch {
		case m.Why == catalog.WhyGrant:
			k.Button, k.Host = "Allow", ""
		case k.Host == "":
			k.Button = "Paste a key"
		default:
			k.Button = "Continue to " + up.Title
		}
		rows, first = append(rows, k), cmpOr(first, up.Title)
	}
	client := cmpOr(q.ClientName, s.Clients(r.Context(), s.Tenant, q.Client), string(q.Client))
	s.render(w, v, "connect", "An agent asks to use your "+first+" through "+string(q.Server), struct {
		Client, Tool, Refuse string
		Created, Expires     time.Time
		Rows                 []row
	}{client, q.Tool, s.Prefix + "/connect/" + string(q.ID) + "/refuse", q.Created, q.Expires, rows})
	return nil
}

// door offers, in the visit of a sign-in, what the server will need.
func (s *Site) door(w http.ResponseWriter, r *http.Request, v visit) error {
	srv := s.Catalog.Server(s.Tenant, catalog.ServerName(r.URL.Query().Get("server")))
	later := s.local(r.URL.Query().Get("return"), s.Prefix+"/portal/")
	if srv == nil {
		return fault.New(fault.NotFound, "there is no such server here", nil)
	}
	var rows []row
	all, first := true, ""
	for _, n := range srv.Needs {
		up := s.Catalog.Upstream(s.Tenant, n.Upstream)
		if up == nil {
			continue
		}
		l, err := s.Holdings.Connections(r.Context(), s.Tenant, v.User, n.Upstream)
		if err != nil {
			return err
		}
		k := row{Title: up.Title, Host: cmpOr(vendorHost(up), "a page here"), Scopes: inWords(up, n.Wants(up), nil), Action: s.Prefix + "/portal/connect/" + string(up.Name), Return: r.URL.RequestURI()}
		if len(l) > 0 && l[0].Status == vault.Active {
			k.Connected, k.Account = true, l[0].Label
		} else {
			all = false
		}
		rows, first = append(rows, k), cmpOr(first, up.Title)
	}
	// What was connected at the door is meant for the agent that brought the person here: its first call asks nothing.
	// Who that is stands sealed in the address, by the issuer: a link that somebody else made grants nothing.
	pass, err := s.Browser.Open(web.PurposeDoor, v.Binding, r.URL.Query().Get("pass"))
	if client, ok := strings.CutPrefix(string(pass), string(v.User)+"\n"+string(srv.Name)+"\n"); ok && err == nil {
		if err := s.Grants.Consent(r.Context(), v.Visitor, identity.ClientID(client), srv); err != nil {
			return err
		}
	}
	s.render(w, v, "door", string(srv.Name)+" works with "+first+". Connect it now?", struct {
		Server, Later string
		All           bool
		Rows          []row
	}{string(srv.Name), later, all, rows})
	return nil
}

// holding is a connection on the page that lists them.
type holding struct {
	Title, Account, Health, Action, Ending string
	Bad, Refreshes                         bool
	Created, LastUsed, Expires             time.Time
	Scopes                                 []scope
	Grants                                 []grant
}

type grant struct {
	Client, ClientID, Server, Upstream, Action string
	Expires                                    time.Time
}

var health = map[vault.Status]string{
	vault.Active: "works", vault.Suspect: "being looked at", vault.Uncertain: "being renewed", vault.NeedsReconnect: "has to be connected again: ", vault.Revoking: "being ended at the vendor",
}

func (s *Site) connections(w http.ResponseWriter, r *http.Request, v visit) error {
	l, err := s.Holdings.Connections(r.Context(), s.Tenant, v.User, "")
	if err != nil {
		return err
	}
	grants, err := s.Grants.Grants(r.Context(), v.Visitor)
	if err != nil {
		return err
	}
	var view struct {
		Rows    []holding
		Pending []struct {
			Client, Link string
			Created      time.Time
		}
	}
	for _, c := range l {
		up := s.Catalog.Upstream(s.Tenant, c.Upstream)
		if up == nil {
			continue
		}
		h := holding{Title: up.Title, Account: cmpOr(c.Label, "unknown"), Health: health[c.Status], Action: s.Prefix + "/portal/end/" + string(c.ID), Ending: ending(up),
			Refreshes: c.Refreshes, Created: c.Created, LastUsed: c.LastUsed, Expires: c.Expires, Scopes: inWords(up, c.Scopes, nil)}
		if c.Status == vault.NeedsReconnect {
			h.Bad, h.Health = true, h.Health+c.Reason
		}
		for _, g := range grants {
			if g.Upstream == c.Upstream {
				h.Grants = append(h.Grants, grant{cmpOr(s.Clients(r.Context(), s.Tenant, g.Client), string(g.Client)), string(g.Client), string(g.Server), string(g.Upstream), s.Prefix + "/portal/grant/end", g.Expires})
			}
		}
		view.Rows = append(view.Rows, h)
	}
	pending, err := s.Requests.Pending(r.Context(), v.Visitor)
	if err != nil {
		return err
	}
	for _, q := range pending {
		view.Pending = append(view.Pending, struct {
			Client, Link string
			Created      time.Time
		}{cmpOr(q.ClientName, string(q.Client)), s.Prefix + "/connect/" + string(q.ID), q.Created})
	}
	s.render(w, v, "connections", "What is connected for you", view)
	return nil
}

func ending(up *catalog.Upstream) string {
	if up.Provider.OAuth != nil && up.Provider.OAuth.Revocation != "" {
		return up.Title + " is asked to end it too."
	}
	return up.Title + " offers no way to end it there; do that on its own pages."
}

var endings = map[connect.Ending]string{
	connect.EndedAtVendor: "It ended here, and %s confirmed that it ended there too.",
	connect.EndedHere:     "It ended here. %s offers no way to end it there: do that on its own pages.",
	connect.EndedTrying:   "It ended here. %s has not answered yet; we keep asking.",
}

func (s *Site) end(w http.ResponseWriter, r *http.Request, v visit) error {
	id := vault.ConnectionID(r.PathValue("id"))
	title := "the vendor"
	l, err := s.Holdings.Connections(r.Context(), s.Tenant, v.User, "")
	if err != nil {
		return err
	}
	for _, c := range l {
		if up := s.Catalog.Upstream(s.Tenant, c.Upstream); c.ID == id && up != nil {
			title = up.Title
		}
	}
	how, err := s.Flows.End(r.Context(), v.Visitor, id)
	if err != nil {
		return err
	}
	s.render(w, v, "notice", "Disconnected from "+title, notice{Lines: []string{fmt.Sprintf(endings[how], title)}, Link: s.Prefix + "/portal/", Button: "What is connected"})
	return nil
}

func (s *Site) endGrant(w http.ResponseWriter, r *http.Request, v visit) error {
	if err := r.ParseForm(); err != nil {
		return fault.New(fault.Invalid, "the form could not be read; go back and try again", nil)
	}
	g := connect.Grant{Client: identity.ClientID(r.PostForm.Get("client")), Server: catalog.ServerName(r.PostForm.Get("server")), Upstream: catalog.UpstreamName(r.PostForm.Get("upstream"))}
	if g.Client == "" || g.Server == "" {
		return fault.New(fault.Invalid, "the form names nothing; go back and try again", nil)
	}
	if err := s.Grants.RevokeGrant(r.Context(), v.Visitor, g); err != nil {
		return err
	}
	http.Redirect(w, r, s.Prefix+"/portal/", http.StatusSeeOther)
	return nil
}

// deed is one line of what was done in somebody's name.
type deed struct {
	At                            time.Time
	What, Where, Came, Agent, Why string
}

const perPage = 50

func (s *Site) activity(w http.ResponseWriter, r *http.Request, v visit) error {
	rows, err := s.Log.Rows(r.Context(), audit.Query{Tenant: s.Tenant, User: v.User, Before: audit.CallID(r.URL.Query().Get("before")), Limit: perPage})
	if err != nil {
		return err
	}
	var view struct {
		Rows            []deed
		Older, Download string
	}
	view.Download = s.Prefix + "/portal/activity.jsonl"
	acts := 0
	for _, raw := range rows {
		if raw.Kind != audit.KindOutcome {
			acts++
		}
		var k audit.Record
		if err := json.Unmarshal(raw.Record, &k); err != nil {
			return err
		}
		if d, ok := s.inOneLine(r, k); ok {
			view.Rows = append(view.Rows, d)
		}
	}
	if acts == perPage {
		last := rows[len(rows)-1]
		view.Older = "?before=" + url.QueryEscape(last.Writer+"."+strconv.FormatInt(last.Seq, 16))
	}
	s.render(w, v, "activity", "What agents did for you", view)
	return nil
}

var results = map[audit.Result]string{audit.ResultOK: "done", audit.ResultDenied: "refused", audit.ResultNeeds: "asked you to connect first", audit.ResultFailed: "failed", audit.ResultUnknown: "unknown what came of it"}

// inOneLine words a record; outcomes say what came of an act, so that intents need no line of their own.
func (s *Site) inOneLine(r *http.Request, k audit.Record) (deed, bool) {
	d := deed{At: k.Time, Where: k.Server, Came: cmpOr(results[k.Result], string(k.Result)), Why: k.Detail}
	if k.Client != "" {
		d.Agent = cmpOr(s.Clients(r.Context(), s.Tenant, k.Client), string(k.Client))
	}
	switch {
	case k.Kind == audit.KindIntent || k.Action == "catalogue" || k.Action == "session" || k.Action == "stream":
		return d, false
	case k.Action == "call":
		d.What = cmpOr(k.Tool, k.Method)
	case k.Action == "api":
		d.What, d.Where = k.HTTP, k.Upstream
	default:
		d.What, d.Where = events(k.Action), cmpOr(k.Upstream, k.Server)
	}
	return d, true
}

func events(action string) string {
	words := map[string]string{"signed_in": "You signed in", "connected": "You connected an account", "connection.ended": "A connection ended", "grant.given": "You allowed an agent",
		"grant.revoked": "You ended what you had allowed", "client.allowed": "You let an agent in", "connect.refused": "You refused a request", "connect.answered": "You answered a request",
		"connect.wrong_user": "You opened a link that was made for somebody else", "connect.wrong_browser": "An answer came back to another browser", "refresh": "A connection was renewed",
		"sign_in.ended": "An agent's sign-in was ended", "access.ended": "Your access was ended", "operator.revoked": "An operator ended a connection"}
	return cmpOr(words[action], action)
}

func (s *Site) download(w http.ResponseWriter, r *http.Request, v visit) error {
	rows, err := s.Log.Rows(r.Context(), audit.Query{Tenant: s.Tenant, User: v.User, Limit: 10_000})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/jsonl")
	w.Header().Set("Content-Disposition", `attachment; filename="frontdesk-activity.jsonl"`)
	w.Header().Set("Cache-Control", "no-store")
	for _, row := range rows {
		if _, err := w.Write(append(row.Record, '\n')); err != nil {
			return nil // the browser went away
		}
	}
	return nil
}
