// Package admin is the JSON API that operators automate against, on a Unix socket that only they can open.
//
// Every command of `frontdesk` that looks into a running server speaks through it. It shows no credential: there is
// no call that exports one. It trusts the socket's file mode, and nothing in a request beyond its form.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/catalog/live"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/hosted"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault"
)

// API serves the socket. All fields are required for Handler, but Hosted where servers run in another process; Front says what it needs.
type API struct {
	People      People
	Connections Connections
	Door        broker.Door
	Explains
	Flows     broker.Flows
	Catalog   *catalog.Catalog
	Log       LogReader
	Events    Events
	Reload    func(ctx context.Context) (string, error)
	Status    func(ctx context.Context) map[string]string
	Hosted    Hosted // nil where it is another process that runs servers
	Keys      Keys
	Intake    Intake
	Sightings Sightings
	Authority func() []byte // PEM of egress's certification authority
	Slog      *slog.Logger
	Now       func() time.Time
	Ends
}

// People finds users by what an operator knows of them.
type People interface {
	// FindUsers matches an id, a subject, a name or an e-mail address, each whole.
	FindUsers(ctx context.Context, t identity.Tenant, who string) ([]identity.User, error)
}

// Connections lists connections; never their secrets.
type Connections interface {
	Connections(ctx context.Context, t identity.Tenant, u identity.UserID, up catalog.UpstreamName) ([]vault.Connection, error)
	Connection(ctx context.Context, t identity.Tenant, id vault.ConnectionID) (vault.Connection, error)
}

// Explainer says which credential method would be used (exchange.Exchange).
type Explainer interface {
	Explain(ctx context.Context, c *identity.Caller, up *catalog.Upstream, scopes []string, of vault.ConnectionID) []exchange.Verdict
}

// Granter knows which connection a client uses at a server (connect.Desk).
type Granter interface {
	Granted(ctx context.Context, c *identity.Caller, s *catalog.Server, up *catalog.Upstream, scopes []string) (connect.Yes, error)
}

// Events records what operators do (audit.Log), and signs what they know (audit.Checkpoints).
type Events interface {
	Event(ctx context.Context, r audit.Record) error
	// Accept signs that it is known what is missing of the log, and returns the checkpoint that says so.
	Accept(ctx context.Context) (audit.Checkpoint, error)
}

// LogReader reads the audit log for people.
type LogReader interface {
	Rows(ctx context.Context, q audit.Query) ([]audit.Row, error)
}

// Hosted shows the servers that are run here (hosted.Hosts).
type Hosted interface {
	States(t identity.Tenant, server catalog.ServerName) []hosted.State
	Logs(t identity.Tenant, server catalog.ServerName, principal string) []hosted.Log
	ImageStates(t identity.Tenant) []hosted.ImageState
	// Pull looks anew where a server's image leads; nil: it has none.
	Pull(ctx context.Context, t identity.Tenant, server catalog.ServerName) (*hosted.ImageState, error)
}

// Keys are the vault's data keys (vault.Rotation).
type Keys interface {
	States(ctx context.Context, t identity.Tenant) ([]vault.KeyState, error)
	Rotate(ctx context.Context, t identity.Tenant) error
	Retire(ctx context.Context, t identity.Tenant) (int64, error)
	Shred(ctx context.Context, t identity.Tenant) (int64, error)
}

// Sightings are what vendors have shown of themselves (live.Store).
type Sightings interface {
	Sightings(ctx context.Context, t identity.Tenant) ([]live.Sighting, error)
}

// Handler returns the routes.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", a.at(a.status))
	mux.HandleFunc("GET /ca", a.at(func(*http.Request) (any, error) { return map[string]string{"pem": string(a.Authority())}, nil }))
	mux.HandleFunc("POST /reload", a.at(a.reload))
	mux.HandleFunc("POST /explain", a.at(a.explain))
	mux.HandleFunc("GET /connections", a.at(a.connections))
	mux.HandleFunc("POST /connections/{id}/revoke", a.at(a.revoke))
	mux.HandleFunc("POST /connections/import", a.upTo(maxImport, a.imports))
	mux.HandleFunc("POST /connections/revoke", a.at(a.revokeAll))
	mux.HandleFunc("POST /access/end", a.at(a.endAccess))
	mux.HandleFunc("GET /endings", a.at(a.endings))
	mux.HandleFunc("GET /audit", a.at(a.audit))
	mux.HandleFunc("POST /audit/accept", a.at(a.accept))
	mux.HandleFunc("GET /keys", a.at(func(r *http.Request) (any, error) { return a.Keys.States(r.Context(), tenant(r)) }))
	mux.HandleFunc("POST /keys/{verb}", a.at(a.keys))
	mux.HandleFunc("GET /sightings", a.at(func(r *http.Request) (any, error) {
		l, err := a.Sightings.Sightings(r.Context(), tenant(r))
		return live.Facts(a.Catalog.Snapshot(), tenant(r), l), err
	}))
	a.hosted(mux)
	return mux
}

// hosted are the routes for servers that are run here.
func (a *API) hosted(mux *http.ServeMux) {
	if a.Hosted == nil {
		elsewhere := a.at(func(*http.Request) (any, error) {
			return nil, fault.New(fault.Invalid, "this is the broker's process, and servers run beside gateways: ask a gateway's, by its --data-dir", nil)
		})
		mux.HandleFunc("/servers", elsewhere)
		mux.HandleFunc("/servers/", elsewhere)
		mux.HandleFunc("/images", elsewhere)
		return
	}
	mux.HandleFunc("GET /servers", a.at(a.servers))
	mux.HandleFunc("GET /servers/{name}/logs", a.at(a.serverLogs))
	mux.HandleFunc("GET /images", a.at(func(r *http.Request) (any, error) { return a.Hosted.ImageStates(tenant(r)), nil }))
	mux.HandleFunc("POST /servers/{name}/pull", a.at(a.pull))
}

// Front returns what the gateway's process answers where the broker is another one: everything else is asked there. It needs no more
// than Catalog, Reload, Status, Hosted, Slog and Now.
func (a *API) Front() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", a.at(a.status))
	mux.HandleFunc("POST /reload", a.at(a.reload))
	a.hosted(mux)
	mux.HandleFunc("/", a.at(func(*http.Request) (any, error) {
		return nil, fault.New(fault.Invalid, "this is the gateway's process, which does not know that: ask the broker's, by its --data-dir", nil)
	}))
	return mux
}

func (a *API) at(h func(*http.Request) (any, error)) http.HandlerFunc { return a.upTo(1<<20, h) }

// upTo is the one switch from errors to this wire, for requests whose body has at most so many bytes.
func (a *API) upTo(most int64, h func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, most)
		v, err := h(r)
		status := http.StatusOK
		if err != nil {
			switch fault.KindOf(err) {
			case fault.Invalid:
				status = http.StatusBadRequest
			case fault.NotFound:
				status = http.StatusNotFound
			case fault.Conflict:
				status = http.StatusConflict
			case fault.Unavailable:
				status = http.StatusServiceUnavailable
			default:
				status = http.StatusInternalServerError
				a.Slog.Error("admin", "path", r.URL.Path, "error", err)
			}
			v = Problem{fault.Message(err)}
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		// The command went away if this fails: nobody is left to tell.
		_ = json.NewEncoder(w).Encode(v)
	}
}

// Problem is the body of an answer that is not a success.
type Problem struct {
	Error string `json:"error"`
}

func (a *API) status(r *http.Request) (any, error) { return a.Status(r.Context()), nil }

func (a *API) reload(r *http.Request) (any, error) {
	said, err := a.Reload(r.Context())
	if err != nil {
		return nil, fault.New(fault.Invalid, "the new config was refused, and the old one goes on:\n"+err.Error(), err)
	}
	return map[string]string{"reloaded": said}, nil
}

// Question is what explain is asked: who, where, what.
type Question struct {
	Tenant    identity.Tenant            `json:"tenant"`
	User      string                     `json:"user"`   // of a known user: id, subject, name or e-mail
	Groups    []string                   `json:"groups"` // instead of what is known of him; or of somebody who never signed in
	Service   string                     `json:"service"`
	Client    string                     `json:"client"`
	Server    string                     `json:"server"`
	Tool      string                     `json:"tool"`
	Arguments map[string]json.RawMessage `json:"arguments"`
	API       *APIRequest                `json:"api,omitzero"` // instead of a tool
}

// Explanation is the live code's answer.
type Explanation struct {
	Allow     bool                          `json:"allow"`
	Reason    string                        `json:"reason,omitempty"`
	Policies  []string                      `json:"policies"`
	Errors    []string                      `json:"errors,omitempty"`
	Visible   bool                          `json:"visible"`             // the tool is listed for this caller
	WouldDeny bool                          `json:"would_deny,omitzero"` // policy says no, and it passes: the server is observed
	Masks     []string                      `json:"masks,omitempty"`     // JSON pointers to what is kept back of the API's answer
	Operation string                        `json:"operation,omitzero"`  // of an API request, by the upstream's description
	Missing   []catalog.Missing             `json:"missing,omitempty"`
	Refused   string                        `json:"refused,omitempty"` // why the call would be refused although policy allows it, in a sentence
	Upstreams map[string][]exchange.Verdict `json:"upstreams"`
	Accounts  map[string]string             `json:"accounts,omitempty"` // by upstream, which of the person's connections the client uses
	Caller    string                        `json:"caller"`
}

func (a *API) explain(r *http.Request) (any, error) {
	var q Question
	if err := jsonv2.UnmarshalRead(r.Body, &q, jsonv2.RejectUnknownMembers(true)); err != nil { // exact names, no duplicates
		return nil, fault.New(fault.Invalid, "the question is not JSON, or has a member that there is not", err)
	}
	if q.Tenant == "" {
		q.Tenant = identity.DefaultTenant
	}
	s := a.Catalog.Server(q.Tenant, catalog.ServerName(q.Server))
	if s == nil {
		return nil, fault.New(fault.NotFound, "there is no server "+q.Server, nil)
	}
	c, err := a.caller(r.Context(), q)
	if err != nil {
		return nil, err
	}
	return a.Answer(r.Context(), c, s, q)
}

// Answer explains one call by the code that would decide it.
func (a *API) Answer(ctx context.Context, c *identity.Caller, s *catalog.Server, q Question) (*Explanation, error) {
	if q.API != nil {
		return a.answerAPI(ctx, c, s, q.API)
	}
	act := broker.Act{Kind: broker.KindCall, Server: s, Method: "tools/call", Name: q.Tool, Arguments: func(names []string) (map[string][]byte, error) {
		args := map[string][]byte{}
		for _, n := range names {
			if v, ok := q.Arguments[n]; ok {
				args[n] = v
			}
		}
		return args, nil
	}}
	e, err := a.explained(ctx, c, act)
	if err != nil {
		return nil, err
	}
	seen, err := a.Door.Visible(ctx, c, s, act.Method, []string{q.Tool})
	if err != nil {
		return nil, err
	}
	e.Visible = seen[0]
	for _, n := range s.Needs {
		if err := a.explainMethods(ctx, e, c, s, n); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// caller makes the caller that the question is about; he has no token, so nothing that needs one can be shown.
func (a *API) caller(ctx context.Context, q Question) (*identity.Caller, error) {
	c := &identity.Caller{Tenant: q.Tenant, Client: identity.ClientID(q.Client), Groups: q.Groups, Issued: a.Now(), Expires: a.Now().Add(time.Minute)}
	if q.Service != "" {
		c.Service = q.Service
		return c, nil
	}
	l, err := a.People.FindUsers(ctx, q.Tenant, q.User)
	switch {
	case err != nil:
		return nil, err
	case len(l) > 1:
		return nil, fault.New(fault.Conflict, "several users are called "+q.User+"; give the id or the subject", nil)
	case len(l) == 0 && len(q.Groups) == 0:
		return nil, fault.New(fault.NotFound, "nobody called "+q.User+" has signed in yet; say his groups with --group to ask all the same", nil)
	case len(l) == 0:
		c.User, c.Subject, c.Name = "unknown", q.User, q.User
		return c, nil
	}
	u := l[0]
	c.User, c.IDP, c.Subject, c.Name = u.ID, u.IDP, u.Subject, u.Name
	if len(q.Groups) == 0 {
		c.Groups = u.Groups
	}
	return c, nil
}

// Connection is a connection as operators see it.
type Connection struct {
	ID       vault.ConnectionID `json:"id"`
	User     identity.UserID    `json:"user"`
	Upstream string             `json:"upstream"`
	Method   string             `json:"method"`
	Account  string             `json:"account"`
	Scopes   []string           `json:"scopes"`
	Status   vault.Status       `json:"status"`
	Reason   string             `json:"reason,omitempty"`
	Created  time.Time          `json:"created"`
	LastUsed time.Time          `json:"last_used,omitzero"`
	Expires  time.Time          `json:"expires,omitzero"`
}

func (a *API) connections(r *http.Request) (any, error) {
	t := tenant(r)
	users, err := a.People.FindUsers(r.Context(), t, r.URL.Query().Get("user"))
	if err != nil {
		return nil, err
	}
	if len(users) == 0 {
		return nil, fault.New(fault.NotFound, "nobody of that id, subject, name or e-mail has signed in", nil)
	}
	out := []Connection{}
	for _, u := range users {
		l, err := a.Connections.Connections(r.Context(), t, u.ID, "")
		if err != nil {
			return nil, err
		}
		for _, c := range l {
			out = append(out, Connection{c.ID, c.User, string(c.Upstream), string(c.Method), c.Label, c.Scopes, c.Status, c.Reason, c.Created, c.LastUsed, c.Expires})
		}
	}
	return out, nil
}

func (a *API) revoke(r *http.Request) (any, error) {
	t, id := tenant(r), vault.ConnectionID(r.PathValue("id"))
	c, err := a.Connections.Connection(r.Context(), t, id)
	if err != nil {
		return nil, err
	}
	ending, err := a.Flows.End(r.Context(), connect.Visitor{Tenant: t, User: c.User}, id)
	if err != nil {
		return nil, err
	}
	err = a.Events.Event(r.Context(), audit.Record{Kind: audit.KindEvent, Time: a.Now(), Tenant: t, User: c.User, Action: "operator.revoked", Upstream: string(c.Upstream),
		Connection: string(id), Result: audit.ResultOK})
	return map[string]string{"ended": string(ending)}, err
}

func (a *API) audit(r *http.Request) (any, error) {
	q := audit.Query{Tenant: tenant(r), Limit: 200, Before: audit.CallID(r.URL.Query().Get("before"))}
	if s := r.URL.Query().Get("since"); s != "" {
		var err error
		if q.Since, err = time.Parse(time.RFC3339Nano, s); err != nil {
			return nil, fault.New(fault.Invalid, "since is no RFC 3339 time", err)
		}
	}
	if who := r.URL.Query().Get("user"); who != "" {
		l, err := a.People.FindUsers(r.Context(), q.Tenant, who)
		if err != nil {
			return nil, err
		}
		if len(l) != 1 {
			return nil, fault.New(fault.NotFound, "nobody, or more than one, is called "+who, nil)
		}
		q.User = l[0].ID
	}
	rows, err := a.Log.Rows(r.Context(), q)
	if err != nil {
		return nil, err
	}
	out := make([]json.RawMessage, len(rows))
	for i, row := range rows {
		out[i] = row.Record
	}
	return out, nil
}

func (a *API) servers(r *http.Request) (any, error) { return a.Hosted.States(tenant(r), ""), nil }

// serverLogs shows what a server's processes printed last. The keycards were taken out before it was kept.
func (a *API) serverLogs(r *http.Request) (any, error) {
	t, name := tenant(r), catalog.ServerName(r.PathValue("name"))
	if s := a.Catalog.Server(t, name); s == nil || s.Program == nil {
		return nil, fault.New(fault.NotFound, "there is no server "+string(name)+" that runs here", nil)
	}
	who := r.URL.Query().Get("user")
	if who == "" {
		return a.Hosted.Logs(t, name, ""), nil
	}
	if a.People == nil { // the gateway's process, which knows ids alone
		return a.Hosted.Logs(t, name, who), nil
	}
	l, err := a.People.FindUsers(r.Context(), t, who)
	if err != nil {
		return nil, err
	}
	if len(l) != 1 {
		return nil, fault.New(fault.NotFound, "nobody, or more than one, is called "+who, nil)
	}
	return a.Hosted.Logs(t, name, string(l[0].ID)), nil
}

// pull fetches what a server's image is now. Its cause is for the operator, who is who asks here.
func (a *API) pull(r *http.Request) (any, error) {
	name := catalog.ServerName(r.PathValue("name"))
	st, err := a.Hosted.Pull(r.Context(), tenant(r), name)
	if err == nil && st == nil {
		return nil, fault.New(fault.NotFound, "there is no server "+string(name)+" with an image", nil)
	}
	if err != nil {
		return nil, fault.New(fault.KindOf(err), err.Error(), nil)
	}
	return st, nil
}

func tenant(r *http.Request) identity.Tenant {
	if t := r.URL.Query().Get("tenant"); t != "" {
		return identity.Tenant(t)
	}
	return identity.DefaultTenant
}

// Decode reads an answer of this API; a Problem becomes an error with its sentence.
func Decode(resp *http.Response, into any) error {
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var p Problem
		if json.Unmarshal(body, &p) == nil && p.Error != "" {
			return errors.New(p.Error)
		}
		return errors.New("the server answered with status " + resp.Status)
	}
	return json.Unmarshal(body, into)
}

// keys changes data keys. Each change is on record.
// accept is an operator's word that he knows of what a failover or a restore has lost of the log.
func (a *API) accept(r *http.Request) (any, error) {
	if err := a.Events.Event(r.Context(), audit.Record{Kind: audit.KindEvent, Time: a.Now(), Tenant: identity.DefaultTenant, Action: "log.accepted", Result: audit.ResultOK}); err != nil {
		return nil, err
	}
	c, err := a.Events.Accept(r.Context())
	return map[string]any{"checkpoint": c.Number, "time": c.Time}, err
}

func (a *API) keys(r *http.Request) (any, error) {
	ctx, t, verb := r.Context(), tenant(r), r.PathValue("verb")
	var n int64
	var err error
	switch verb {
	case "rotate":
		if err = a.Keys.Rotate(ctx, t); err == nil {
			var l []vault.KeyState
			l, err = a.Keys.States(ctx, t)
			n = int64(len(l))
		}
	case "retire":
		n, err = a.Keys.Retire(ctx, t)
	case "shred":
		n, err = a.Keys.Shred(ctx, t)
	default:
		return nil, fault.New(fault.NotFound, "keys can be rotated, retired and shredded", nil)
	}
	if err != nil {
		return nil, err
	}
	return map[string]int64{"keys": n}, a.Events.Event(ctx, audit.Record{Kind: audit.KindEvent, Time: a.Now(), Tenant: t, Action: "keys." + verb, Result: audit.ResultOK})
}
