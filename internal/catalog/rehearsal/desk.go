package rehearsal

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

// desk is Frontdesk's own side, as it runs, with one upstream and one person, and memory for a database: what people are asked, what is
// kept, and where requests go is decided by the code that does it in earnest.
type desk struct {
	*connect.Desk
	stored *exchange.Stored
	memory *memory
	up     *catalog.Upstream
}

// memory keeps flows and one connection. What it does not implement is not used here.
type memory struct {
	connect.Store
	flows map[string]connect.Flow
	kept  *vault.Connection
	held  vault.Secrets
	ended int
}

func (m *memory) PutFlow(_ context.Context, f connect.Flow) error {
	m.flows[f.State] = f
	return nil
}

func (m *memory) TakeFlow(_ context.Context, _ identity.Tenant, state string) (connect.Flow, error) {
	f, ok := m.flows[state]
	if !ok {
		return f, fault.New(fault.NotFound, "there is no such flow", nil)
	}
	delete(m.flows, state)
	return f, nil
}

func (m *memory) Connections(context.Context, identity.Tenant, identity.UserID, catalog.UpstreamName) ([]vault.Connection, error) {
	if m.kept == nil {
		return nil, nil
	}
	return []vault.Connection{*m.kept}, nil
}

func (m *memory) Connection(context.Context, identity.Tenant, vault.ConnectionID) (vault.Connection, error) {
	return *m.kept, nil
}

func (m *memory) Connect(_ context.Context, c vault.Connection, s vault.Secrets) (vault.Connection, error) {
	c.ID, c.Generation = "one", c.Generation+1
	m.kept, m.held = &c, s
	return c, nil
}

func (m *memory) Open(context.Context, vault.Connection) (vault.Secrets, error) { return m.held, nil }

func (m *memory) Update(_ context.Context, c vault.Connection) error {
	m.kept = &c
	return nil
}

func (m *memory) SealFlow(_ context.Context, _ identity.Tenant, _ string, plain []byte) ([]byte, error) {
	return plain, nil
}

func (m *memory) OpenFlow(_ context.Context, _ identity.Tenant, _ string, sealed []byte) ([]byte, error) {
	return sealed, nil
}

func (m *memory) Used(context.Context, identity.Tenant, vault.ConnectionID, time.Time) error {
	return nil
}
func (m *memory) Event(context.Context, audit.Record) error { return nil }
func (m *memory) Advance(_ context.Context, e identity.Epoch) (identity.Epoch, error) {
	return e, nil
}
func (m *memory) EpochsSince(context.Context, int64) ([]identity.Epoch, error) { return nil, nil }

// people are one, who stays.
type people struct{ identity.Users }

func (people) User(_ context.Context, t identity.Tenant, id identity.UserID) (identity.User, error) {
	return identity.User{Tenant: t, ID: id}, nil
}

// End counts the credentials that are ended at the vendor: how that is asked for is a step of its own.
func (m *memory) End(_ context.Context, _ *catalog.Upstream, _ vault.Connection, s vault.Secrets) (vault.Ended, error) {
	if !s.Access.IsZero() {
		m.ended++
	}
	return vault.EndedConfirmed, nil
}

// newDesk serves one upstream of this vendor, whose API and authorization server v plays.
func newDesk(p *catalog.Provider, sites *catalog.Sites, v *vendor) (*desk, error) {
	up := &catalog.Upstream{Tenant: identity.DefaultTenant, Name: "x", Title: p.Name, Provider: p, Sites: sites}
	for _, h := range p.Hosts {
		if !strings.Contains(h, "://") {
			h = "https://" + h
		}
		u, err := url.Parse(h)
		if err != nil {
			return nil, err
		}
		up.Origins = append(up.Origins, u)
	}
	if p.OAuth != nil {
		m := catalog.Method{Kind: catalog.AuthorizationCode, Client: client}
		if p.OAuth.Endpoint().Auth == oauth.AuthJWT { // by a key of a whole Frontdesk; the steps of tokens have tried it
			o := *v.vendor.OAuth
			o.Auth, m.Auth, v.vendor.OAuth = "none", catalog.ClientAuth(oauth.AuthNone), &o
		}
		up.Methods = append(up.Methods, m)
	}
	if p.APIKey != nil {
		up.Methods = append(up.Methods, catalog.Method{Kind: catalog.APIKey})
	}
	if len(up.Methods) == 0 {
		return nil, fmt.Errorf("%s has no method that asks a person", p.Name)
	}
	m, now, log := &memory{flows: map[string]connect.Flow{}}, func() time.Time { return v.now }, slog.New(slog.DiscardHandler)
	cat, clients := &catalog.Catalog{}, &vault.Clients{}
	cat.Set(&catalog.Snapshot{Upstreams: map[identity.Tenant]map[catalog.UpstreamName]*catalog.Upstream{up.Tenant: {up.Name: up}}})
	clients.Use(map[vault.ClientKey]secret.Text{{Tenant: up.Tenant, Upstream: up.Name, Part: vault.ClientSecret}: secret.New(hush)})
	talks := oauth.Client{HTTP: v, Now: now}
	d := &connect.Desk{Catalog: cat, Store: m, Vault: m, Clients: clients, Users: people{}, Epochs: &identity.Epochs{Store: m, Now: now, Log: log}, Events: m, OAuth: talks, API: v,
		URL: func(_ identity.Tenant, path string) string { return strings.TrimSuffix(redirect, "/callback/x") + path }, Log: log, Now: now, Ends: connect.Ends{Endings: m}}
	return &desk{Desk: d, memory: m, up: up, stored: &exchange.Stored{Kind: up.Methods[0].Kind, Vault: m, Uses: m, Witness: d, Log: log, Refresh: &refresh.Machine{OAuth: talks, Now: now, Clients: clients}}}, nil
}

// The person, in his browser.
var alice = connect.Visitor{Tenant: identity.DefaultTenant, User: "alice", Binding: []byte("browser")}

// connects goes the person's whole way: to the vendor and back, or to our page that takes a key. Where he is asked for a site, written
// is what he writes; of the sites that his account has, he takes the one that choice counts from 0.
func (d *desk) connects(ctx context.Context, v *vendor, written, choice string) (connect.Result, error) {
	next, err := d.Begin(ctx, alice, connect.Start{Kind: connect.FlowConnect, Upstream: d.up.Name, Scopes: v.scopes(), Another: true, Site: written})
	switch {
	case err != nil:
		return connect.Result{}, err
	case next.Site != nil:
		return connect.Result{}, errAsked
	case next.Form != nil:
		return d.Complete(ctx, alice, connect.Answer{Upstream: d.up.Name, Body: []byte(url.Values{"state": {next.Form.State}, "first": {v.first()}, "key": {v.written()}}.Encode())})
	}
	answer, err := v.consents(next.URL)
	if err != nil {
		return connect.Result{}, err
	}
	r, err := d.Complete(ctx, alice, connect.Answer{Upstream: d.up.Name, Params: answer})
	if err != nil || r.Kind != connect.FlowSite || choice == "" {
		return r, err
	}
	return d.Complete(ctx, alice, connect.Answer{Body: []byte(url.Values{"state": {r.Swap}, "choice": {choice}}.Encode())})
}

func (v *vendor) first() string {
	if v.key != nil {
		return v.key.First
	}
	return ""
}

// written is the key that the person pastes.
func (v *vendor) written() string {
	if v.key != nil {
		return v.key.Written
	}
	return v.access()
}

// asks sends a request as a server would, to the name by which servers call the API, with the person's credential.
func (d *desk) asks(ctx context.Context, path string, v *vendor) error {
	cred, err := d.stored.Obtain(ctx, exchange.Request{Caller: &identity.Caller{Tenant: alice.Tenant, User: alice.User}, Upstream: d.up, Method: d.up.Methods[0]})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, d.up.Origins[0].String()+path, nil)
	if err != nil {
		return err
	}
	resp, _, err := cred.Send(v, r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
