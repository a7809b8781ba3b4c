package portal

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
)

// deed is one thing that was done in somebody's name, with the requests that a server made for it.
type deed struct {
	At           time.Time
	What, Where  string
	Agent        string
	Came, Tone   string // in words; ok, no or ask
	Why          string
	Reached      []deed
	call, parent audit.CallID
	client       identity.ClientID
	refused      bool
	Personal     bool
	Open         bool // what was reached is shown at once: something of it failed
}

type day struct {
	Name  string
	Deeds []deed
}

// activityView is the page of what was done.
type activityView struct {
	Days            []day
	Older, Download string
	Action          string
	Show            string // all, agents, no, you
	Agent           string
	Agents          []choice
	Filtered        bool
}

type choice struct {
	Value, Words string
	Chosen       bool
}

const (
	perPage  = 50
	scanAt   = 200
	maxScans = 10
)

func (s *Site) activity(w http.ResponseWriter, r *http.Request, v visit) error {
	q := r.URL.Query()
	view := activityView{Action: s.Prefix + "/portal/activity", Download: s.Prefix + "/portal/activity.jsonl", Show: q.Get("show"), Agent: q.Get("agent")}
	view.Filtered = view.Show != "" && view.Show != "all" || view.Agent != ""
	agents := map[identity.ClientID]string{}
	found, before, err := s.scan(r.Context(), v, audit.CallID(q.Get("before")), agents, func(d *deed) bool { return view.wants(d) })
	if err != nil {
		return err
	}
	if before != "" {
		q.Set("before", string(before))
		view.Older = "?" + q.Encode()
	}
	view.Days = byDay(found)
	for id, name := range agents {
		view.Agents = append(view.Agents, choice{string(id), name, string(id) == view.Agent})
	}
	if _, ok := agents[identity.ClientID(view.Agent)]; !ok && view.Agent != "" {
		view.Agents = append(view.Agents, choice{view.Agent, cmpOr(s.Agents(r.Context(), s.Tenant, identity.ClientID(view.Agent)).Name, view.Agent), true})
	}
	slices.SortFunc(view.Agents, func(a, b choice) int { return compare(a.Words+a.Value, b.Words+b.Value) })
	s.render(w, v, "activity", "What agents did for you", view)
	return nil
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (v *activityView) wants(d *deed) bool {
	if v.Agent != "" && string(d.client) != v.Agent {
		return false
	}
	switch v.Show {
	case "agents":
		return !d.Personal
	case "no":
		return d.refused
	case "you":
		return d.Personal
	}
	return true
}

// scan reads the log, newest first, until a page is full. Requests of a server stand under the call that they were made for.
func (s *Site) scan(ctx context.Context, v visit, before audit.CallID, agents map[identity.ClientID]string, wants func(*deed) bool) ([]deed, audit.CallID, error) {
	var found []deed
	reached := map[audit.CallID][]deed{}
	for range maxScans {
		rows, err := s.Log.Activity(ctx, v.Visitor, before, scanAt)
		if err != nil {
			return nil, "", err
		}
		acts := 0
		for _, raw := range rows {
			if raw.Kind != audit.KindOutcome {
				acts++
			}
			var k audit.Record
			if err := json.Unmarshal(raw.Record, &k); err != nil {
				return nil, "", err
			}
			d, ok := s.inOneLine(ctx, k, agents)
			if !ok {
				continue
			}
			if d.parent != "" {
				reached[d.parent] = append(reached[d.parent], d)
				continue
			}
			d.Reached = reached[d.call]
			d.Open = slices.ContainsFunc(d.Reached, func(r deed) bool { return r.refused })
			if wants(&d) {
				found = append(found, d)
			}
		}
		if acts < scanAt {
			return found, "", nil
		}
		last := rows[len(rows)-1]
		before = audit.CallID(last.Writer + "." + strconv.FormatInt(last.Seq, 16))
		if len(found) >= perPage {
			break
		}
	}
	return found, before, nil
}

func byDay(l []deed) []day {
	var days []day
	for _, d := range l {
		name := d.At.UTC().Format("Monday, 2 January 2006")
		if len(days) == 0 || days[len(days)-1].Name != name {
			days = append(days, day{Name: name})
		}
		last := &days[len(days)-1]
		last.Deeds = append(last.Deeds, d)
	}
	return days
}

var results = map[audit.Result]string{audit.ResultOK: "done", audit.ResultDenied: "refused", audit.ResultNeeds: "asked you first", audit.ResultFailed: "failed", audit.ResultUnknown: "unknown what came of it"}

var tones = map[audit.Result]string{audit.ResultOK: "ok", audit.ResultDenied: "no", audit.ResultNeeds: "ask", audit.ResultFailed: "no", audit.ResultUnknown: "ask"}

// behind are events of the vault beside which stands one that says it to people.
var behind = map[string]bool{"vault.stored": true, "vault.resealed": true, "vault.emptied": true}

// inOneLine words a record; outcomes say what came of an act, so that intents need no line of their own.
func (s *Site) inOneLine(ctx context.Context, k audit.Record, agents map[identity.ClientID]string) (deed, bool) {
	d := deed{At: k.Time, Where: k.Server, Came: cmpOr(results[k.Result], string(k.Result)), Tone: tones[k.Result], Why: sentence(k.Detail), call: k.Call, client: k.Client,
		refused: k.Result != audit.ResultOK}
	if k.Client != "" {
		if agents[k.Client] == "" {
			agents[k.Client] = cmpOr(s.Agents(ctx, s.Tenant, k.Client).Name, string(k.Client))
		}
		d.Agent = agents[k.Client]
	}
	switch {
	case k.Kind == audit.KindIntent || k.Action == "catalogue" || k.Action == "session" || k.Action == "stream", behind[k.Action]:
		return d, false
	case k.Action == "call":
		d.What = cmpOr(k.Tool, k.Method)
	case k.Action == "api":
		d.What, d.Where, d.parent = k.HTTP, s.title(k.Upstream), k.Parent
	default:
		d.What, d.Where, d.Personal = events(k.Action), cmpOr(s.title(k.Upstream), k.Server), true
		if k.Result == audit.ResultOK {
			d.Came = ""
		}
	}
	return d, true
}

func (s *Site) title(upstream string) string {
	if up := s.Catalog.Upstream(s.Tenant, catalog.UpstreamName(upstream)); up != nil {
		return up.Title
	}
	return upstream
}

func sentence(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + strings.TrimSuffix(s[1:], ".") + "."
}

func events(action string) string {
	words := map[string]string{"signed_in": "You signed in", "connected": "You connected an account", "connection.ended": "A connection ended", "grant.given": "You allowed an agent", "grant.account": "You chose the account for an agent", "account.preferred": "You chose the account for new agents",
		"grant.revoked": "You ended what you had allowed", "client.allowed": "You let an agent in", "connect.refused": "You refused a request", "connect.code_ended": "A code was not used", "connect.answered": "You answered a request",
		"connect.wrong_user": "You opened a link that was made for somebody else", "connect.wrong_browser": "An answer came back to another browser", "refresh": "A connection was renewed",
		"sign_in.ended": "An agent's sign-in was ended", "access.ended": "Your access was ended", "operator.revoked": "An operator ended a connection", "operator.imported": "An operator took over a connection that you had made elsewhere",
		"vault.tamper": "A stored credential was found altered"}
	return cmpOr(words[action], action)
}

// maxDownload bounds a download; what is older can be had from an operator.
const maxDownload = 10_000

// download is the log as it stands: every record that names the person, newest first.
func (s *Site) download(w http.ResponseWriter, r *http.Request, v visit) error {
	w.Header().Set("Content-Type", "application/jsonl")
	w.Header().Set("Content-Disposition", `attachment; filename="frontdesk-activity.jsonl"`)
	before := audit.CallID("")
	for sent := 0; sent < maxDownload; {
		rows, err := s.Log.Activity(r.Context(), v.Visitor, before, 1000)
		if err != nil {
			return err
		}
		acts := 0
		for _, row := range rows {
			if row.Kind != audit.KindOutcome {
				acts++
			}
			if _, err := w.Write(append(row.Record, '\n')); err != nil {
				return nil // the browser went away
			}
		}
		if acts < 1000 {
			return nil
		}
		sent += acts
		last := rows[len(rows)-1]
		before = audit.CallID(last.Writer + "." + strconv.FormatInt(last.Seq, 16))
	}
	return nil
}
