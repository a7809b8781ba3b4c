package portal

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault"
)

// holding is a connection on the page that lists them.
type holding struct {
	Title, Account, Health, Action, Ending, Again, Button, Badge, Tone string
	Bad, Refreshes                                                     bool
	lasts
	Scopes []scope
	Grants []grant
	several
}

// lasts is since when a connection is there, and how long it goes on.
type lasts struct {
	Created, LastUsed, Expires time.Time

	Until  time.Time // nothing renews it beyond that
	Then   string    // what to do about it
	Unused time.Time // it ends by itself, unless an agent uses it before
}

// several is what a page shows where a person has more than one account at an upstream.
type several struct {
	ID                      vault.ConnectionID
	Another, Prefer, Choose string // where the forms go; Prefer is "" of the account that new grants take
	Accounts                []account
}

type grant struct {
	Client                             Agent
	ClientID, Server, Upstream, Action string
	Expires, LastUsed                  time.Time
}

// pendingRequest is a question that waits.
type pendingRequest struct {
	Client, Link     string
	Created, Expires time.Time
}

// endingRow is a connection that ended here, and that its vendor has not confirmed the end of.
type endingRow struct {
	Title   string
	Ended   time.Time
	GivenUp bool
}

type holdingsView struct {
	Rows    []holding
	Pending []pendingRequest
	Ending  []endingRow
}

var health = map[vault.Status]string{
	vault.Active: "works", vault.Suspect: "being looked at", vault.Uncertain: "being renewed", vault.NeedsReconnect: "has to be connected again: ", vault.Revoking: "ended here; being ended at the vendor",
}

// soon is how long before its end a credential that nobody renews is told to be ending.
const soon = 14 * 24 * time.Hour

func endsSoon(end, now time.Time) bool { return !end.IsZero() && end.Sub(now) < soon }

func (s *Site) connections(w http.ResponseWriter, r *http.Request, v visit) error {
	l, err := s.Holdings.Connections(r.Context(), v.Visitor, "")
	if err != nil {
		return err
	}
	grants, err := s.Grants.Grants(r.Context(), v.Visitor)
	if err != nil {
		return err
	}
	var view holdingsView
	of := map[catalog.UpstreamName][]vault.Connection{}
	for _, c := range l {
		of[c.Upstream] = append(of[c.Upstream], c)
	}
	for _, c := range l {
		up := s.Catalog.Upstream(s.Tenant, c.Upstream)
		if up == nil {
			continue
		}
		h := s.holding(up, c)
		first := of[c.Upstream][0].ID == c.ID
		if len(of[c.Upstream]) > 1 {
			h.Accounts, h.Choose = accounts(of[c.Upstream], nil, c.ID), s.Prefix+"/portal/grant/account"
			if !first {
				h.Prefer = s.Prefix + "/portal/prefer/" + string(c.ID)
			}
		}
		for _, g := range grants {
			if g.Upstream == c.Upstream && (g.Connection == c.ID || g.Connection == "" && first) {
				a := s.Agents(r.Context(), s.Tenant, g.Client)
				a.Name = cmpOr(a.Name, string(g.Client))
				h.Grants = append(h.Grants, grant{a, string(g.Client), string(g.Server), string(g.Upstream), s.Prefix + "/portal/grant/end", g.Expires, g.LastUsed})
			}
		}
		view.Rows = append(view.Rows, h)
	}
	pending, err := s.Requests.Pending(r.Context(), v.Visitor)
	if err != nil {
		return err
	}
	for _, q := range pending {
		view.Pending = append(view.Pending, pendingRequest{cmpOr(q.ClientName, s.Agents(r.Context(), s.Tenant, q.Client).Name, string(q.Client)), s.Prefix + "/connect/" + string(q.ID), q.Created, q.Expires})
	}
	trying, err := s.Holdings.Endings(r.Context(), v.Visitor)
	if err != nil {
		return err
	}
	for _, e := range trying {
		view.Ending = append(view.Ending, endingRow{cmpOr(s.title(string(e.Upstream)), string(e.Upstream)), e.Created, !e.GivenUp.IsZero()})
	}
	s.render(w, v, "connections", "What is connected for you", view)
	return nil
}

func (s *Site) holding(up *catalog.Upstream, c vault.Connection) holding {
	h := holding{Title: up.Title, Account: cmpOr(c.Label, "unknown"), Health: health[c.Status], Action: s.Prefix + "/portal/end/" + string(c.ID), Ending: ending(up, c.Method), Badge: health[c.Status], Tone: "ok",
		several: several{ID: c.ID, Another: s.Prefix + "/portal/connect/" + string(up.Name)}, Refreshes: c.Refreshes, lasts: lasts{Created: c.Created, LastUsed: c.LastUsed, Expires: c.Expires}, Scopes: inWords(up, c.Scopes, nil)}
	switch {
	case c.Status == vault.NeedsReconnect:
		h.Bad, h.Badge, h.Tone, h.Health = true, "needs you", "no", h.Health+c.Reason
	case c.Status == vault.Active:
		s.lasts(&h, up, c)
	}
	if h.Bad {
		h.Again, h.Button = s.Prefix+"/portal/connect/"+string(up.Name), "Connect "+up.Title+" again"
	}
	return h
}

// lasts says of a connection that works until when it does, and soon before that what its person can do.
func (s *Site) lasts(h *holding, up *catalog.Upstream, c vault.Connection) {
	now := s.Now()
	if h.Until = refresh.Lapsing(up, c); !c.Refreshes {
		h.Until = c.Expires
	}
	anew := "connect it again"
	if c.Method == catalog.APIKey {
		anew = "make a new key there and paste it here"
	}
	switch {
	case h.Until.IsZero():
	case !h.Until.After(now):
		h.Bad, h.Badge, h.Tone, h.Health = true, "needs you", "no", "ended"
		h.Then = "No agent can use it until you " + anew + ". What you have allowed then goes on."
	case endsSoon(h.Until, now):
		h.Bad, h.Badge, h.Tone, h.Health = true, "ends soon", "ask", "works, but nothing renews it: it ends"
		h.Then = strings.ToUpper(anew[:1]) + anew[1:] + " before that, and agents go on without a stop."
	}
	if after := s.Unused(); after > 0 {
		at := c.Created
		if c.LastUsed.After(at) {
			at = c.LastUsed
		}
		if at = at.Add(after); at.After(now) && at.Sub(now) < min(soon, after/3) {
			h.Unused = at
		}
	}
}

func ending(up *catalog.Upstream, how catalog.MethodKind) string {
	if how != catalog.APIKey && up.Provider.OAuth.Ends() {
		return up.Title + " is asked to end it too."
	}
	return up.Title + " is not asked to end it there; do that on its own pages" + byHand(up, how) + "."
}

// byHand says where at the vendor a person ends a connection himself, where that is known.
func byHand(up *catalog.Upstream, how catalog.MethodKind) string {
	if o := up.Provider.OAuth; how != catalog.APIKey && o != nil && o.Revoke.ByHand != "" {
		return ": " + o.Revoke.ByHand
	}
	return ""
}

// endings are the three that are true.
var endings = map[connect.Ending]string{
	connect.EndedAtVendor: "It ended here, and %s confirmed that it ended there too.",
	connect.EndedHere:     "It ended here. %s was not asked to end it there: do that on its own pages.",
	connect.EndedTrying:   "It ended here. %s has not answered yet; we keep asking, and nobody can use it here meanwhile.",
}

func (s *Site) end(w http.ResponseWriter, r *http.Request, v visit) error {
	id := vault.ConnectionID(r.PathValue("id"))
	l, err := s.Holdings.Connections(r.Context(), v.Visitor, "")
	if err != nil {
		return err
	}
	title, where, n := "the vendor", "", notice{Link: s.Prefix + "/portal/", Button: "What is connected"}
	for _, c := range l {
		if up := s.Catalog.Upstream(s.Tenant, c.Upstream); c.ID == id && up != nil {
			title = up.Title
			if where = strings.TrimPrefix(byHand(up, c.Method), ": "); where != "" {
				where = " There it is: " + where + "."
			}
			if k := up.Provider.APIKey; k != nil && c.Method == catalog.APIKey {
				n.Elsewhere, n.ElsewhereInWords = k.URL, "Keys at "+up.Title
			}
		}
	}
	how, err := s.Flows.End(r.Context(), v.Visitor, id)
	if err != nil {
		return err
	}
	if how != connect.EndedHere {
		n.Elsewhere, where = "", ""
	}
	n.Lines = []string{fmt.Sprintf(endings[how], title) + where, "What you had allowed agents to do with it has ended too. If one needs it again, it asks you."}
	s.render(w, v, "notice", "Disconnected from "+title, n)
	return nil
}

// prefer makes an account the one that new grants take.
func (s *Site) prefer(w http.ResponseWriter, r *http.Request, v visit) error {
	if err := s.Grants.Prefer(r.Context(), v.Visitor, vault.ConnectionID(r.PathValue("id"))); err != nil {
		return err
	}
	http.Redirect(w, r, s.Prefix+"/portal/", http.StatusSeeOther)
	return nil
}

// useAccount makes an agent use another account.
func (s *Site) useAccount(w http.ResponseWriter, r *http.Request, v visit) error {
	g, err := grantOf(r)
	if err != nil {
		return err
	}
	g.Connection = vault.ConnectionID(r.PostForm.Get("connection"))
	if err := s.Grants.UseAccount(r.Context(), v.Visitor, g); err != nil {
		return err
	}
	http.Redirect(w, r, s.Prefix+"/portal/", http.StatusSeeOther)
	return nil
}

// grantOf reads which grant a form is about.
func grantOf(r *http.Request) (connect.Grant, error) {
	if err := r.ParseForm(); err != nil {
		return connect.Grant{}, fault.New(fault.Invalid, "the form could not be read; go back and try again", nil)
	}
	g := connect.Grant{Client: identity.ClientID(r.PostForm.Get("client")), Server: catalog.ServerName(r.PostForm.Get("server")), Upstream: catalog.UpstreamName(r.PostForm.Get("upstream"))}
	if g.Client == "" || g.Server == "" {
		return g, fault.New(fault.Invalid, "the form names nothing; go back and try again", nil)
	}
	return g, nil
}

func (s *Site) endGrant(w http.ResponseWriter, r *http.Request, v visit) error {
	g, err := grantOf(r)
	if err != nil {
		return err
	}
	if err := s.Grants.RevokeGrant(r.Context(), v.Visitor, g); err != nil {
		return err
	}
	http.Redirect(w, r, s.Prefix+"/portal/", http.StatusSeeOther)
	return nil
}
