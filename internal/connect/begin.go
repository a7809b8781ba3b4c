package connect

import (
	"context"
	"crypto/rand"
	"maps"
	"slices"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// Begin implements the first of broker.Flows: it remembers the browser that leaves, and says where it goes.
func (d *Desk) Begin(ctx context.Context, v Visitor, s Start) (Next, error) {
	if len(v.Binding) == 0 {
		return Next{}, fault.New(fault.Invalid, "this browser refuses cookies; allow them for this site and try again", nil)
	}
	switch s.Kind {
	case FlowSignIn:
		return d.beginSignIn(ctx, v, s)
	case FlowConnect:
		if v.User == "" {
			return Next{}, fault.New(fault.Unauthenticated, "sign in first", nil)
		}
		return d.beginConnect(ctx, v, s)
	}
	return Next{}, fault.New(fault.Internal, "", nil)
}

func (d *Desk) beginSignIn(ctx context.Context, v Visitor, s Start) (Next, error) {
	idps := d.IdPs.Of(v.Tenant)
	if len(idps) == 0 {
		return Next{}, fault.New(fault.Unavailable, "no sign-in service is configured; ask an operator", nil)
	}
	idp := idps[0]
	meta, err := idp.Metadata(ctx)
	if err != nil {
		return Next{}, err
	}
	f, verifier, err := d.flow(ctx, v, s)
	if err != nil {
		return Next{}, err
	}
	f.Upstream, f.Issuer = catalog.UpstreamName("idp:"+idp.Name), idp.Issuer
	if f.Nonce, err = oauth.Random(rand.Reader); err != nil {
		return Next{}, err
	}
	scopes := []string{"openid", "profile", "email"}
	if !idp.NoOffline {
		scopes = append(scopes, "offline_access")
	}
	r := oauth.AuthorizationRequest{Endpoint: meta.AuthorizationEndpoint, ClientID: idp.ClientID, RedirectURI: d.callback(v.Tenant, f.Upstream),
		State: f.State, CodeChallenge: oauth.CodeChallenge(verifier), Nonce: f.Nonce,
		Scopes: oauth.UnionScopes(scopes, idp.Scopes)}
	if s.Login != "" {
		r.Extra = map[string]string{"login_hint": s.Login}
	}
	u, err := r.URL()
	if err != nil {
		return Next{}, err
	}
	return Next{URL: u}, d.Store.PutFlow(ctx, f)
}

func (d *Desk) beginConnect(ctx context.Context, v Visitor, s Start) (Next, error) {
	m, err := d.wanted(ctx, v, s)
	if err != nil {
		return Next{}, err
	}
	up := d.Catalog.Upstream(v.Tenant, m.Upstream)
	if up == nil {
		return Next{}, fault.New(fault.NotFound, "there is no such service here", nil)
	}
	l, err := d.Vault.Connections(ctx, v.Tenant, v.User, up.Name)
	if err != nil {
		return Next{}, err
	}
	use, err := meant(l, s, m)
	if err != nil {
		return Next{}, err
	}
	if up, err = d.remembered(ctx, up); err != nil {
		return Next{}, err
	}
	scopes := oauth.UnionScopes(up.Scopes, m.Scopes)
	// Connected already: a yes to this agent is all that is missing. Of the account that an answer found wanting, that is no cure.
	if wanting := m.Why != catalog.WhyGrant && m.Connection == string(use.ID); s.Request != "" && use.ID != "" && !wanting && Suits(use, scopes) {
		return Next{Done: true, Connection: use.ID}, d.answer(ctx, v, s.Request, up, Grant{Scopes: scopes, Connection: use.ID})
	}
	site, ask := siteOf(up, use, s)
	if ask != nil {
		return Next{Site: ask}, nil
	}
	if up, err = up.At(site); err != nil {
		return Next{}, errNoSite
	}
	f, verifier, err := d.flow(ctx, v, s)
	if err != nil {
		return Next{}, err
	}
	// What the account has already is asked for again with it, so that a wider consent takes nothing away.
	f.Upstream, f.Scopes, f.Meant = up.Name, oauth.UnionScopes(use.Scopes, scopes), Meant{Connection: use.ID, Site: site}
	for _, m := range up.Methods {
		if s.Method != "" && m.Kind != s.Method {
			continue
		}
		switch m.Kind {
		case catalog.DeviceCode:
			return d.beginDevice(ctx, f, up, m)
		case catalog.AuthorizationCode:
			return d.beginCode(ctx, f, verifier, up, m)
		case catalog.APIKey:
			k := up.Provider.APIKey
			if k == nil {
				return Next{}, fault.New(fault.Unavailable, up.Title+" has no api_key facts in its provider; ask an operator", nil)
			}
			f.Method = m.Kind
			n := Next{Form: &KeyForm{State: f.State, Where: k.Where, Link: k.URL, First: k.First}}
			if d.KeyPage != nil {
				n.URL, n.Form.State = d.KeyPage(f.Tenant, up.Name, f.State), ""
			}
			return n, d.Store.PutFlow(ctx, f)
		}
	}
	return Next{}, fault.New(fault.Denied, up.Title+" is not connected by a person: its credential comes another way, or an operator has to set one up", nil)
}

func (d *Desk) beginCode(ctx context.Context, f Flow, verifier secret.Text, up *catalog.Upstream, m catalog.Method) (Next, error) {
	o := up.Provider.OAuth
	if o == nil || m.Client == "" {
		return Next{}, fault.New(fault.Unavailable, up.Title+" has no OAuth client configured; ask an operator", nil)
	}
	f.Method, f.Issuer, f.Client = m.Kind, o.Issuer, d.registration(up)
	r := o.Request(m.Client, d.callback(f.Tenant, up.Name), f.State, oauth.CodeChallenge(verifier), f.Scopes)
	if f.Connection == "" && len(o.Another) > 0 {
		all := maps.Clone(o.Another)
		for k, v := range r.Extra {
			if _, ok := all[k]; !ok {
				all[k] = v
			}
		}
		r.Extra = all
	}
	if o.Pushed == "" {
		u, err := r.URL()
		if err != nil {
			return Next{}, err
		}
		return Next{URL: u}, d.Store.PutFlow(ctx, f)
	}
	e, err := d.Clients.Endpoint(up, m)
	if err != nil {
		return Next{}, err
	}
	if err := d.Store.PutFlow(ctx, f); err != nil { // before the vendor knows of it
		return Next{}, err
	}
	e.URL = o.Pushed
	u, err := d.OAuth.Push(ctx, e, r)
	if err != nil {
		return Next{}, d.unknown(ctx, up, e.ClientID, err)
	}
	return Next{URL: u}, nil
}

// wanted reads from the request what is asked for; without one, the visitor's own choice stands for it.
func (d *Desk) wanted(ctx context.Context, v Visitor, s Start) (catalog.Missing, error) {
	if s.Request == "" {
		return catalog.Missing{Upstream: s.Upstream, Scopes: s.Scopes, Why: catalog.WhyNotConnected}, nil
	}
	r, err := d.stands(ctx, v, s.Request)
	if err != nil {
		return catalog.Missing{}, err
	}
	i := slices.IndexFunc(r.Missing, func(m catalog.Missing) bool { return s.Upstream == "" || m.Upstream == s.Upstream })
	if i < 0 {
		return catalog.Missing{}, fault.New(fault.NotFound, "this request doesn't ask for that service, or it is connected already", nil)
	}
	return r.Missing[i], nil
}

// flow makes the record of a browser that leaves, with a PKCE verifier that only its return opens.
func (d *Desk) flow(ctx context.Context, v Visitor, s Start) (Flow, secret.Text, error) {
	state, err := oauth.Random(rand.Reader)
	if err != nil {
		return Flow{}, secret.Text{}, err
	}
	verifier, err := oauth.Verifier(rand.Reader)
	if err != nil {
		return Flow{}, secret.Text{}, err
	}
	sealed, err := d.Vault.SealFlow(ctx, v.Tenant, state, []byte(verifier.Expose()))
	if err != nil {
		return Flow{}, secret.Text{}, err
	}
	return Flow{Tenant: v.Tenant, State: state, Kind: s.Kind, Binding: v.Binding, User: v.User, Request: s.Request,
		Verifier: sealed, Return: s.Return, Expires: d.Now().Add(flowLife)}, verifier, nil
}

// callback is where a vendor sends the browser back: one address an upstream, so that an answer of one cannot be taken
// for another's (RFC 9700 section 4.4).
func (d *Desk) callback(t identity.Tenant, up catalog.UpstreamName) string {
	return d.URL(t, "/callback/"+string(up))
}

// answer gives the grant that a request asks for, to use g's connection with g's scopes, and takes the upstream off its list.
func (d *Desk) answer(ctx context.Context, v Visitor, id RequestID, up *catalog.Upstream, g Grant) error {
	if id == "" {
		return nil
	}
	r, err := d.Request(ctx, v, id)
	if err != nil {
		return err
	}
	if err := answerable(r); err != nil {
		return err
	}
	g.Client, g.Server, g.Upstream = r.Client, r.Server, up.Name
	if err := d.grant(ctx, v, g); err != nil {
		return err
	}
	r.Missing = slices.DeleteFunc(slices.Clone(r.Missing), func(m catalog.Missing) bool { return m.Upstream == up.Name })
	if len(r.Missing) == 0 {
		r.State = Done
	}
	if err := d.Store.SetState(ctx, r); err != nil {
		return err
	}
	return d.event(ctx, v, "connect.answered", audit.Record{Client: r.Client, Server: string(r.Server), Upstream: string(up.Name), Connection: string(g.Connection), Result: audit.ResultOK})
}
