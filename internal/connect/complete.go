package connect

import (
	"context"
	"crypto/rand"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/catalog/live"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Complete implements the second of broker.Flows: a browser came back from an authorization server, or from the page that
// takes a key. Nothing is exchanged before it is clear that it is the browser that left, still signed in as who left.
func (d *Desk) Complete(ctx context.Context, v Visitor, a Answer) (Result, error) {
	form := url.Values{}
	state := a.Params.Get("state")
	if a.Body != nil {
		var err error
		if form, err = url.ParseQuery(string(a.Body)); err != nil {
			return Result{}, fault.New(fault.Invalid, "the form could not be read; go back and try again", nil)
		}
		state = form.Get("state")
	}
	f, err := d.take(ctx, v, state)
	if err != nil {
		return Result{}, err
	}
	switch {
	case f.Kind == FlowSite && a.Body != nil:
		return d.completeSite(ctx, v, f, form.Get("choice"))
	case f.Kind == FlowSwap && a.Body != nil:
		return d.completeSwap(ctx, v, f, form.Get("choice") == "new")
	case f.Kind == FlowConnect && f.Method == catalog.APIKey && a.Body != nil:
		return d.completeKey(ctx, v, f, form)
	case f.Kind == FlowConnect && f.Method == catalog.APIKey && a.Body == nil && f.Upstream == a.Upstream:
		if form, err = d.kept(ctx, f); err != nil {
			return Result{}, err
		}
		return d.completeKey(ctx, v, f, form)
	case a.Body != nil:
	case f.Kind == FlowSignIn && (string(f.Upstream) == "idp:"+a.IDP || f.Upstream == a.Upstream):
		return d.completeSignIn(ctx, v, f, a)
	case f.Kind == FlowConnect && f.Upstream == a.Upstream:
		return d.completeCode(ctx, v, f, a)
	}
	return Result{}, errMixedUp
}

var (
	errGone = fault.New(fault.Denied, "this answer was used already, is too old, or began in another browser; nothing was saved; start again", nil)
	// errElsewhere keeps a credential from going to another place than it is for, and an account of another one out.
	errElsewhere = fault.New(fault.Denied, "the account that you chose is at another site of this service than the one that is set up here; nothing was saved; choose an account of the right one, or ask an operator", nil)
	errMixedUp   = fault.New(fault.Invalid, "this answer came back to another place than it was asked from; nothing was saved; start again", nil)
)

// take redeems the state once. Another browser, or another person, gets the same answer as a made-up state.
func (d *Desk) take(ctx context.Context, v Visitor, state string) (Flow, error) {
	if state == "" || len(state) > 128 {
		return Flow{}, errGone
	}
	f, err := d.Store.TakeFlow(ctx, v.Tenant, state)
	if fault.KindOf(err) == fault.NotFound {
		return Flow{}, errGone
	}
	if err != nil {
		return Flow{}, err
	}
	if !d.Now().Before(f.Expires) || !same(f.Binding, v.Binding) || f.Kind != FlowSignIn && (v.User == "" || f.User != v.User) {
		if err := d.event(ctx, v, "connect.wrong_browser", audit.Record{Upstream: string(f.Upstream), Result: audit.ResultDenied}); err != nil {
			return Flow{}, err
		}
		return Flow{}, errGone
	}
	return f, nil
}

// redeem checks the authorization response and exchanges its code.
func (d *Desk) redeem(ctx context.Context, f Flow, a Answer, e oauth.Endpoint, o *catalog.ProviderOAuth) (oauth.Token, error) {
	answer, err := oauth.ExpectedResponse{State: f.State, Issuer: f.Issuer, IssPromised: o.IssPromised}.Check(a.Params.Encode())
	if err != nil {
		return oauth.Token{}, err
	}
	if o.CallbackMAC != "" {
		if err := checkMAC(a.Params, o.CallbackMAC, e.Secret); err != nil {
			return oauth.Token{}, err
		}
	}
	for _, c := range o.Confirm { // before anything is exchanged
		if v := answer.Extra[c.Param]; c.Param != "" && v != "" && v != c.Is {
			return oauth.Token{}, errElsewhere
		}
	}
	grant := oauth.CodeGrant{Code: answer.Code, RedirectURI: d.callback(f.Tenant, f.Upstream), Resources: o.Resources()}
	if !o.NoPKCE {
		plain, err := d.Vault.OpenFlow(ctx, f.Tenant, f.State, f.Verifier)
		if err != nil {
			return oauth.Token{}, err
		}
		grant.Verifier = secret.New(string(plain))
	}
	return d.OAuth.Exchange(ctx, e, grant)
}

func (d *Desk) completeSignIn(ctx context.Context, v Visitor, f Flow, a Answer) (Result, error) {
	idp, err := d.IdPs.Get(f.Tenant, strings.TrimPrefix(string(f.Upstream), "idp:"))
	if err != nil {
		return Result{}, err
	}
	meta, err := idp.Metadata(ctx)
	if err != nil {
		return Result{}, err
	}
	e, err := idp.Endpoint(ctx)
	if err != nil {
		return Result{}, err
	}
	token, err := d.redeem(ctx, f, a, e, &catalog.ProviderOAuth{IssPromised: meta.IssParameter})
	if err != nil {
		return Result{}, onlyOnline(idp, err)
	}
	if token.IDToken.IsZero() {
		return Result{}, fault.New(fault.Unavailable, "the sign-in service "+idp.Name+" sent no ID token; ask an operator", nil)
	}
	who, auth, err := idp.Read(ctx, token, f.Nonce)
	if fault.KindOf(err) == fault.Unauthenticated { // not that the person is a stranger: what the IdP said of him is no good
		return Result{}, fault.New(fault.Invalid, fault.Message(err), err)
	}
	if err != nil {
		return Result{}, err
	}
	user, err := d.Users.EnsureUser(ctx, who)
	if err != nil {
		return Result{}, err
	}
	if user.Gone != "" {
		v.User = user.ID
		return Result{}, errors.Join(fault.New(fault.Denied, "your organisation has ended your access here; ask an operator if that is a mistake", nil),
			d.event(ctx, v, "signed_in", audit.Record{Result: audit.ResultDenied, Detail: "the account is " + string(user.Gone)}))
	}
	now := d.Now()
	signed := SignedIn{IDP: idp.Name, SID: auth.SID, At: now, ACR: auth.ACR, AMR: auth.AMR, HasHome: !token.Refresh.IsZero()}
	if signed.HasHome {
		if err := d.keepHome(ctx, user, f.Upstream, token); err != nil {
			return Result{}, err
		}
	}
	v.User = user.ID
	return Result{Kind: FlowSignIn, User: user, Session: signed, Return: f.Return}, d.event(ctx, v, "signed_in", audit.Record{Result: audit.ResultOK, Detail: "at " + idp.Name})
}

// onlyOnline says of an IdP that gives nobody offline_access what an operator has to write. Some let the request pass and refuse the
// code (not_allowed: Keycloak, of people whom its policy knows none for).
func onlyOnline(idp *identity.IdP, err error) error {
	said, refused := errors.AsType[*oauth.AuthorizationError](err)
	answered, failed := errors.AsType[*oauth.TokenError](err)
	if idp.NoOffline || !(refused && said.Code == oauth.CodeInvalidScope || failed && (answered.Code == oauth.CodeInvalidScope || answered.Code == "not_allowed")) {
		return err
	}
	return fault.New(fault.Denied, "the sign-in service "+idp.Name+" refuses one of the scopes that are asked for. Ask an operator: where it is offline_access, the config says so by idp.offline_access: false", err)
}

// keepHome stores the home credential; one a user, the newest.
func (d *Desk) keepHome(ctx context.Context, u identity.User, up catalog.UpstreamName, t oauth.Token) error {
	l, err := d.Vault.Connections(ctx, u.Tenant, u.ID, up)
	if err != nil {
		return err
	}
	var c vault.Connection
	if len(l) > 0 {
		c = l[0]
	}
	now := d.Now()
	c.Tenant, c.User, c.Upstream, c.Method, c.Account, c.Label = u.Tenant, u.ID, up, catalog.AuthorizationCode, u.Subject, u.Name
	c.Status, c.Reason, c.Created, c.Renewed, c.Expires, c.Refreshes = vault.Active, "", now, now, t.Expires, true
	_, err = d.Vault.Connect(ctx, c, vault.Secrets{Access: t.Access, Refresh: t.Refresh, Identity: t.IDToken})
	return err
}

func (d *Desk) completeCode(ctx context.Context, v Visitor, f Flow, a Answer) (Result, error) {
	up, err := d.living(ctx, f)
	if err != nil {
		return Result{}, err
	}
	e, err := d.Clients.Endpoint(up, up.Method(f.Method).Through(f.Client))
	if err != nil {
		return Result{}, err
	}
	if err := d.still(ctx, v, f); err != nil { // before the code is exchanged: what may not be kept is not fetched
		return Result{}, err
	}
	token, err := d.redeem(ctx, f, a, e, up.Provider.OAuth)
	if err != nil {
		return Result{}, d.unknown(ctx, up, e.ClientID, err)
	}
	return d.obtained(ctx, v, f, up, gained{token, a.Params})
}

// living is the upstream that a flow went to, as it is configured now.
func (d *Desk) living(ctx context.Context, f Flow) (*catalog.Upstream, error) {
	gone := fault.New(fault.NotFound, "this service is not configured any more; nothing was saved", nil)
	up := d.Catalog.Upstream(f.Tenant, f.Upstream)
	if up == nil {
		return nil, gone
	}
	up, err := d.found(ctx, up)
	if err == nil && up.Provider.OAuth == nil {
		err = gone
	}
	if err != nil {
		return nil, err
	}
	if up, err = up.At(f.Site); err != nil {
		return nil, errNoSite
	}
	return up, nil
}

// obtained makes a connection of what the vendor gave after a consent.
func (d *Desk) obtained(ctx context.Context, v Visitor, f Flow, up *catalog.Upstream, token gained) (Result, error) {
	d.Catalog.Showed(ctx, up, func() []catalog.Showing { return live.OfToken(up, f.Scopes, token.Token, d.Now()) })
	secrets, err := token.secrets()
	if err != nil {
		return Result{}, err
	}
	refuse := func(why error) (Result, error) {
		_, err := d.Endings.End(ctx, up, vault.Connection{Tenant: f.Tenant, User: f.User, Upstream: up.Name, Method: f.Method, Site: catalog.Site{Value: f.Site}, Client: f.Client}, secrets)
		return Result{}, errors.Join(why, err)
	}
	if up.Provider.OAuth.Elsewhere(token.Lookup) {
		return refuse(errElsewhere)
	}
	c := vault.Connection{Method: f.Method, Client: f.Client, Scopes: f.Scopes, Expires: token.Expires, Refreshes: !token.Refresh.IsZero()}
	if token.ScopesKnown {
		c.Scopes = token.Scopes
	}
	if at := up.Provider.Account; at.InToken {
		c.Account, c.Label = at.Whose(func(pointer string) string { text, _ := token.Lookup(pointer); return text })
	}
	h := holding(c, secrets)
	if up.Sites.Asked() {
		h.Sites = []catalog.Site{{Value: f.Site, Label: f.Site}}
	} else if up.Sites != nil {
		h.Sites, err = d.sites(ctx, up, token)
		d.Catalog.Showed(ctx, up, func() []catalog.Showing { return live.OfSites(err) })
		if err != nil {
			return refuse(err)
		}
	}
	h.Connection.Tenant, h.Connection.User, h.Connection.Upstream = f.Tenant, f.User, up.Name
	return d.placed(ctx, v, f, up, h)
}

// Keep implements portal.Keeper: the answer to a flow waits, sealed, under a state that only the browser which pasted it is told. Whoever
// knows the first state alone, because he sent it to somebody else, gets nothing.
func (d *Desk) Keep(ctx context.Context, t identity.Tenant, up catalog.UpstreamName, body []byte) (string, error) {
	form, err := url.ParseQuery(string(body))
	if state := form.Get("state"); err != nil || state == "" || len(state) > 128 {
		return "", errGone
	}
	f, err := d.Store.TakeFlow(ctx, t, form.Get("state"))
	if fault.KindOf(err) == fault.NotFound || err == nil && (!d.Now().Before(f.Expires) || f.Kind != FlowConnect || f.Method != catalog.APIKey || f.Upstream != up) {
		return "", errGone
	}
	if err != nil {
		return "", err
	}
	if f.State, err = oauth.Random(rand.Reader); err != nil {
		return "", err
	}
	kept := url.Values{"first": {form.Get("first")}, "key": {form.Get("key")}, "expires": {form.Get("expires")}}
	if f.Verifier, err = d.Vault.SealFlow(ctx, t, f.State, []byte(kept.Encode())); err != nil {
		return "", err
	}
	return d.callback(t, up) + "?state=" + url.QueryEscape(f.State), d.Store.PutFlow(ctx, f)
}

// kept is what Keep has sealed; before that a flow holds no key.
func (d *Desk) kept(ctx context.Context, f Flow) (url.Values, error) {
	plain, err := d.Vault.OpenFlow(ctx, f.Tenant, f.State, f.Verifier)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(plain))
	if err != nil || form.Get("key") == "" {
		return nil, errMixedUp
	}
	return form, nil
}

// completeKey takes a pasted key. The day on which it ends is what its owner knows of it: the vendor does not say.
func (d *Desk) completeKey(ctx context.Context, v Visitor, f Flow, form url.Values) (Result, error) {
	up := d.Catalog.Upstream(f.Tenant, f.Upstream)
	if up == nil {
		return Result{}, fault.New(fault.NotFound, "this service is not configured any more; nothing was saved", nil)
	}
	key := secret.New(up.Provider.APIKey.Join(strings.TrimSpace(form.Get("first")), strings.TrimSpace(form.Get("key"))))
	if err := checkKey(d.Catalog, up, key); err != nil {
		return Result{}, err
	}
	up, err := up.At(f.Site)
	if err != nil {
		return Result{}, errNoSite
	}
	c := vault.Connection{Method: catalog.APIKey, Scopes: f.Scopes}
	if up.Sites.Asked() {
		c.Site = catalog.Site{Value: f.Site, Label: f.Site}
	}
	if lastDay := form.Get("expires"); lastDay != "" {
		day, err := time.Parse(time.DateOnly, lastDay)
		if c.Expires = day.Add(24 * time.Hour); err != nil || !c.Expires.After(d.Now()) {
			return Result{}, fault.New(fault.Invalid, "the day on which the key ends is over, or is no day; nothing was saved; write it as 2027-01-31, or leave it out", nil)
		}
	}
	d.Catalog.Showed(ctx, up, func() []catalog.Showing { return live.OfKey(up, key) })
	return d.finish(ctx, v, f, up, c, vault.Secrets{Access: key})
}

// finish tests a credential by asking whose it is, stores it, and answers the request. An account that is connected already gets
// the credential as its next generation, any other one becomes a connection of its own. Where the person meant another account than
// he came back as, it is held back until he has said which one he means.
func (d *Desk) finish(ctx context.Context, v Visitor, f Flow, up *catalog.Upstream, c vault.Connection, s vault.Secrets) (Result, error) {
	account, label := c.Account, c.Label
	if !up.Provider.Account.InToken || c.Method == catalog.APIKey {
		var err error
		if account, label, err = d.account(ctx, up, c, s); err != nil {
			return Result{}, err
		}
	}
	account, label = c.Site.Of(account, label)
	now := d.Now()
	c.Tenant, c.User, c.Upstream, c.Account, c.Label = f.Tenant, f.User, up.Name, account, label
	c.Created, c.Renewed, c.Status = now, now, vault.Active
	if f.Connection != "" {
		was, err := d.Vault.Connection(ctx, f.Tenant, f.Connection)
		if err != nil {
			return Result{}, err
		}
		if was.Account != "" && was.Account != account && was.Status != vault.Revoked && was.Status != vault.Revoking {
			return d.hold(ctx, f, was, c, s)
		}
	}
	return d.store(ctx, v, f, up, c, s)
}

// place says which row a credential of this account takes: that of the same account, else of one that nobody knew the account of, or
// a new one. The first one at an upstream is the one that new grants take.
func (d *Desk) place(ctx context.Context, c vault.Connection) (vault.Connection, error) {
	l, err := d.Vault.Connections(ctx, c.Tenant, c.User, c.Upstream)
	if err != nil {
		return c, err
	}
	i := slices.IndexFunc(l, func(o vault.Connection) bool { return o.Account == c.Account })
	if i < 0 {
		i = slices.IndexFunc(l, func(o vault.Connection) bool { return o.Account == "" })
	}
	switch {
	case i >= 0:
		c.ID, c.Generation, c.Preferred = l[i].ID, l[i].Generation, l[i].Preferred
	case len(l) == 0:
		c.Preferred = c.Created
	}
	return c, nil
}

// keep stores a credential in its place. Then it looks whether its owner is still here: whoever is let go after this look finds it, and ends it.
func (d *Desk) keep(ctx context.Context, c vault.Connection, s vault.Secrets) (vault.Connection, error) {
	c, err := d.place(ctx, c)
	if err != nil {
		return c, err
	}
	if c, err = d.Vault.Connect(ctx, c, s); err != nil {
		return c, err
	}
	if err = d.here(ctx, c.Tenant, c.User); err != nil {
		_, ended := d.end(ctx, Visitor{Tenant: c.Tenant, User: c.User}, c.ID, "its owner was removed while it was made", func(vault.Connection) bool { return true })
		err = errors.Join(err, ended)
	}
	return c, err
}

func (d *Desk) store(ctx context.Context, v Visitor, f Flow, up *catalog.Upstream, c vault.Connection, s vault.Secrets) (Result, error) {
	if err := d.still(ctx, v, f); err != nil { // decided again at completion: refused, expired or answered meanwhile is a no
		_, ended := d.Endings.End(ctx, up, c, s)
		return Result{}, errors.Join(err, ended)
	}
	c, err := d.keep(ctx, c, s)
	if err != nil {
		return Result{}, err
	}
	if err := d.Epochs.End(ctx, f.Tenant, identity.EpochAccess, string(f.User)); err != nil {
		return Result{}, err
	}
	if err := d.event(ctx, v, "connected", audit.Record{Upstream: string(up.Name), Connection: string(c.ID), Obtained: string(c.Method), Result: audit.ResultOK}); err != nil {
		return Result{}, err
	}
	if err := d.answer(ctx, v, f.Request, up, Grant{Scopes: f.Scopes, Connection: c.ID}); err != nil {
		return Result{}, err
	}
	c.Sealed = vault.Sealed{}
	return Result{Kind: FlowConnect, Connection: c, Request: f.Request, Return: f.Return}, nil
}

// still is an error where what a flow began with holds no more.
func (d *Desk) still(ctx context.Context, v Visitor, f Flow) error {
	if err := d.here(ctx, f.Tenant, f.User); err != nil || f.Request == "" {
		return err
	}
	_, err := d.stands(ctx, v, f.Request)
	return err
}

// here is an error where the company has let the person go. A code that is entered at a vendor, and a vendor that answers late, would else
// leave a connection behind that nothing ends.
func (d *Desk) here(ctx context.Context, t identity.Tenant, id identity.UserID) error {
	u, err := d.Users.User(ctx, t, id)
	if err == nil && u.Gone != "" {
		err = fault.New(fault.Denied, "your organisation has ended your access here; nothing was saved", nil)
	}
	return err
}

// registration is our client at an upstream whose server may forget it, "" where none can.
func (d *Desk) registration(up *catalog.Upstream) string {
	if d.Finder == nil || up.Resource == "" || !d.Finder.ByItself(up) {
		return ""
	}
	return up.Method(catalog.AuthorizationCode).Client
}

// rememberTime is how long a person waits for the answer whether we are still known.
const rememberTime = 5 * time.Second

// remembered is found, with a registration that the server still knows. A server that has forgotten us shows its own page of an error, from
// which nobody comes back (RFC 6749 section 4.1.2.1): it is asked before, for a code that nobody has, at its token endpoint.
func (d *Desk) remembered(ctx context.Context, up *catalog.Upstream) (*catalog.Upstream, error) {
	up, err := d.found(ctx, up)
	if err != nil || d.registration(up) == "" {
		return up, err
	}
	made, err := oauth.Random(rand.Reader)
	if err != nil {
		return nil, err
	}
	e, err := d.Clients.Endpoint(up, up.Method(catalog.AuthorizationCode))
	if err != nil {
		return nil, err
	}
	short, cancel := context.WithTimeout(ctx, rememberTime)
	defer cancel()
	_, err = d.OAuth.Exchange(short, e, oauth.CodeGrant{Code: secret.New(made), Verifier: secret.New(made), RedirectURI: d.callback(up.Tenant, up.Name), Resources: up.Provider.OAuth.Resources()})
	if !refusesClient(err) {
		return up, nil
	}
	renewed, err := d.Finder.Forgotten(ctx, up, e.ClientID)
	if fault.KindOf(err) == fault.Denied { // registered just now: let its own page say it
		return up, nil
	}
	return renewed, err
}

// unknown is what a person is told of an answer that came to nothing. Where that is because the server has forgotten our client, he can
// begin again with another one.
func (d *Desk) unknown(ctx context.Context, up *catalog.Upstream, client string, err error) error {
	if !refusesClient(err) || d.registration(up) == "" {
		return err
	}
	if _, refused := d.Finder.Forgotten(ctx, up, client); refused != nil {
		return errors.Join(refused, err)
	}
	return fault.New(fault.Unavailable, up.Title+" had forgotten Frontdesk, which has introduced itself again; nothing was saved; connect once more", err)
}

// refusesClient reports whether an authorization server says that it does not know our client, or lets it do nothing.
func refusesClient(err error) bool {
	said, back := errors.AsType[*oauth.AuthorizationError](err)
	answered, asked := errors.AsType[*oauth.TokenError](err)
	return back && (said.Code == oauth.CodeInvalidClient || said.Code == oauth.CodeUnauthorizedClient) || asked && answered.Failure == oauth.ClientRefused
}

// found fills in what an upstream's authorization server is, where that is to be found; others stay as they are.
func (d *Desk) found(ctx context.Context, up *catalog.Upstream) (*catalog.Upstream, error) {
	if d.Finder == nil || up.Resource == "" || up.Provider.OAuth != nil {
		return up, nil
	}
	return d.Finder.Find(ctx, up)
}

// swapLife is how long a person has to say which account he means.
const swapLife = 10 * time.Minute
