package connect

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

// gained is what came of a consent: the token, and the callback's parameters, of which some vendors make more than RFC 6749 does.
type gained struct {
	oauth.Token
	params url.Values
}

// secrets are what is kept of it.
func (g gained) secrets() (vault.Secrets, error) {
	s := vault.Secrets{Access: g.Access, Refresh: g.Refresh}
	if g.Key == nil {
		return s, nil
	}
	var err error
	s.Proof, err = g.Key.Secret()
	return s, err
}

// errNoSite keeps a credential from going to a place that the vendor's entry does not allow, whoever says it.
var errNoSite = fault.New(fault.Denied, "the account that you chose is at no site of this service to which its credential may go; nothing was saved; choose another account, or ask an operator", nil)

// siteOf is the site that a person means, where he is asked for it: that of the account which he has already, or what he wrote. Where
// it is neither, it is what the page that asks needs.
func siteOf(up *catalog.Upstream, use vault.Connection, s Start) (string, *catalog.SiteQuestion) {
	if !up.Sites.Asked() {
		return "", nil
	}
	if _, err := up.Sites.At(use.Site.Value); use.ID != "" && err == nil {
		return use.Site.Value, nil
	}
	if site, ok := up.Sites.Named(s.Site); ok {
		return site, nil
	}
	return "", up.Sites.Question(s.Site)
}

// sites are those of the account, as the vendor says, without those that no credential may go to.
func (d *Desk) sites(ctx context.Context, up *catalog.Upstream, g gained) ([]catalog.Site, error) {
	s := up.Sites
	one := func(value string) ([]catalog.Site, error) {
		if site, ok := s.Of(value, ""); ok {
			return []catalog.Site{site}, nil
		}
		return nil, errNoSite
	}
	switch {
	case s.Param != "":
		return one(g.params.Get(s.Param))
	case s.Pointer != "":
		value, _ := g.Lookup(s.Pointer)
		return one(value)
	}
	held, err := g.secrets()
	if err != nil {
		return nil, err
	}
	in := up.Provider.Injection
	if s.Call.Injection != nil {
		in = *s.Call.Injection
	}
	const unsaid = " does not say which sites the account has; nothing was saved; try again later"
	resp, body, err := d.ask(ctx, up, asking{Account: catalog.Account{URL: s.Call.URL}, in: in, of: vault.Connection{Method: catalog.AuthorizationCode}}, held)
	switch {
	case err != nil:
		return nil, fault.Later(up.Title+unsaid, time.Minute, err)
	case resp.StatusCode != http.StatusOK:
		return nil, fault.New(fault.Unavailable, fmt.Sprintf("%s answered with status %d when it was asked which sites the account has; nothing was saved; try again later", up.Title, resp.StatusCode), nil)
	case len(body) > maxAccount:
		return nil, fault.New(fault.Unavailable, up.Title+" names more sites of the account than can be read here; nothing was saved; ask an operator, who can name the site in the config", nil)
	}
	l, ok := s.In(body)
	switch {
	case !ok:
		return nil, fault.New(fault.Unavailable, up.Title+unsaid, nil)
	case len(l) == 0:
		return nil, errNoSite
	}
	return l, nil
}

// placed gives a new credential its site. Where the account has several, it is held back until its person has said which one.
func (d *Desk) placed(ctx context.Context, v Visitor, f Flow, up *catalog.Upstream, h heldBack) (Result, error) {
	if len(h.Sites) > 1 {
		state, err := d.holdBack(ctx, f, FlowSite, h)
		if err != nil {
			return Result{}, err
		}
		r := Result{Kind: FlowSite, Swap: state, Request: f.Request, Return: f.Return, Connection: vault.Connection{Upstream: up.Name}}
		for _, s := range h.Sites {
			r.Sites = append(r.Sites, short(s.Label))
		}
		return r, nil
	}
	c := h.Connection
	if len(h.Sites) == 1 {
		c.Site = h.Sites[0]
	}
	return d.finish(ctx, v, f, up, c, h.secrets())
}

// short is a name of a site as a page's address has room for it: beginning and end, which tell names apart.
func short(label string) string {
	const head, tail = 24, 20
	if r := []rune(label); len(r) > head+tail {
		return string(r[:head]) + "…" + string(r[len(r)-tail:])
	}
	return label
}

// completeSite goes on with the site that the person chose: one of those that the vendor named.
func (d *Desk) completeSite(ctx context.Context, v Visitor, f Flow, choice string) (Result, error) {
	up, err := d.living(ctx, f)
	if err != nil {
		return Result{}, err
	}
	var h heldBack
	if err := d.takeBack(ctx, f, &h); err != nil {
		return Result{}, err
	}
	i, err := strconv.Atoi(choice)
	if err != nil || i < 0 || i >= len(h.Sites) {
		_, err := d.Endings.End(ctx, up, h.Connection, h.secrets())
		if err == nil {
			err = d.event(ctx, v, "connect.refused", audit.Record{Upstream: string(up.Name), Result: audit.ResultDenied, Detail: "no site was chosen"})
		}
		if err == nil {
			err = fault.New(fault.Invalid, "no site was chosen; nothing was saved; start again", nil)
		}
		return Result{}, err
	}
	h.Sites = slices.Clip(h.Sites[i : i+1])
	f.Kind = FlowConnect
	return d.placed(ctx, v, f, up, h)
}

// heldBack is a credential that waits for its user's word. It exists only inside a sealed flow.
type heldBack struct {
	Connection vault.Connection
	Access     string
	Refresh    string
	Proof      string         `json:",omitempty"`
	Sites      []catalog.Site `json:",omitempty"` // FlowSite: from which he chooses
}

func holding(c vault.Connection, s vault.Secrets) heldBack {
	return heldBack{Connection: c, Access: s.Access.Expose(), Refresh: s.Refresh.Expose(), Proof: s.Proof.Expose()}
}

func (h heldBack) secrets() vault.Secrets {
	return vault.Secrets{Access: secret.New(h.Access), Refresh: secret.New(h.Refresh), Proof: secret.New(h.Proof)}
}

// holdBack seals a new credential into a flow of its own.
func (d *Desk) holdBack(ctx context.Context, f Flow, kind FlowKind, h heldBack) (state string, err error) {
	if state, err = oauth.Random(rand.Reader); err != nil {
		return "", err
	}
	plain, err := json.Marshal(h)
	if err != nil {
		return "", err
	}
	f.Kind, f.State, f.Expires = kind, state, d.Now().Add(swapLife)
	if f.Verifier, err = d.Vault.SealFlow(ctx, f.Tenant, state, plain); err != nil {
		return "", err
	}
	return state, d.Store.PutFlow(ctx, f)
}

// takeBack is its inverse.
func (d *Desk) takeBack(ctx context.Context, f Flow, h *heldBack) error {
	plain, err := d.Vault.OpenFlow(ctx, f.Tenant, f.State, f.Verifier)
	if err != nil {
		return err
	}
	return json.Unmarshal(plain, h)
}
