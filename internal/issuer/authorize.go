package issuer

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/broker/visits"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/web"
)

// pending is an authorization request that was found good, sealed into the consent page and bound to browser and person.
type pending struct {
	Client    identity.ClientID
	Redirect  string
	State     string
	Challenge string
	Resource  string
	Scopes    []string
	User      identity.UserID
	Expires   time.Time
	Family    string // of the tokens that the client will get, and the standing by which they are signed: once he said yes
	Standing  string
}

const (
	purposeConsent = "issuer/consent"
	purposeLeave   = "issuer/leave"
	consentLife    = 10 * time.Minute
	doorLife       = 30 * time.Minute
)

// authorize is the authorization endpoint (RFC 6749 section 4.1.1). Before client and redirect URI are proven, an error is a
// page; after that it goes to the client, if its address is not one that anybody may have named. Before the person has said
// yes, nothing goes to the client but errors.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request, t identity.Tenant) error {
	q, err := single(r.URL.RawQuery)
	if err != nil {
		return err
	}
	client, err := s.Clients.Client(r.Context(), t, identity.ClientID(q.Get("client_id")), web.Address(r))
	if err != nil {
		return asPage(err)
	}
	redirect := q.Get("redirect_uri")
	if redirect == "" && len(client.RedirectURIs) == 1 {
		redirect = client.RedirectURIs[0]
	}
	if !client.allowsRedirect(redirect) {
		return fault.New(fault.Invalid, "the address to which this client wants to be sent back is not the one it registered; nothing was done", nil)
	}
	p, err := s.read(t, q, client, redirect)
	if err != nil && !s.Clients.trusts(client, redirect) {
		return asPage(err)
	}
	if err != nil {
		return s.backWith(w, r, t, redirect, q.Get("state"), err)
	}
	session, ok := s.Browser.Session(r)
	if !ok {
		http.Redirect(w, r, s.path(t, "/signin?return="+url.QueryEscape(r.URL.RequestURI())), http.StatusSeeOther)
		return nil
	}
	p.User, p.Expires = identity.UserID(session.User), s.Now().Add(consentLife)
	return s.ask(w, r, t, client, p, session)
}

// asPage turns an OAuth error into one for a page: nobody has proven where else it could go.
func asPage(err error) error {
	if e, ok := errors.AsType[*oauthError](err); ok {
		return fault.New(fault.Invalid, e.description, err)
	}
	return err
}

// maxQuery is more than any honest request needs, and less than what would be carried through every page of a sign-in, and kept during it.
const maxQuery = 8 << 10

// single refuses a parameter that is said twice (RFC 6749 section 3.1), but resource, of which RFC 8707 allows several.
func single(raw string) (url.Values, error) {
	if len(raw) > maxQuery {
		return nil, fault.New(fault.Invalid, "the request's parameters are longer than 8 KiB", nil)
	}
	q, err := url.ParseQuery(raw)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the request's parameters could not be read", nil)
	}
	for name, v := range q {
		if len(v) > 1 && name != "resource" {
			return nil, fault.New(fault.Invalid, "the request says "+strings.Trim(web.Foreign(name), `"`)+" twice", nil)
		}
	}
	return q, nil
}

func (s *Server) read(t identity.Tenant, q url.Values, client Client, redirect string) (pending, error) {
	p := pending{Client: client.ID, Redirect: redirect, State: q.Get("state"), Challenge: q.Get("code_challenge")}
	if q.Get("response_type") != "code" {
		return p, refuse(oauth.CodeUnsupportedResponse, "only response_type=code is supported")
	}
	if q.Get("code_challenge_method") != oauth.ChallengeMethod || len(p.Challenge) != 43 {
		return p, refuse(oauth.CodeInvalidRequest, "PKCE with code_challenge_method=S256 is required")
	}
	if m := q.Get("response_mode"); m != "" && m != "query" {
		return p, refuse(oauth.CodeInvalidRequest, "only response_mode=query is supported")
	}
	var err error
	if _, p.Resource, err = s.resource(t, q["resource"], q.Get("scope")); err != nil {
		return p, err
	}
	p.Scopes, err = scope(q.Get("scope"))
	return p, err
}

// ask shows the consent page.
func (s *Server) ask(w http.ResponseWriter, r *http.Request, t identity.Tenant, client Client, p pending, session web.Session) error {
	srv, _, err := s.resource(t, []string{p.Resource}, "")
	if err != nil {
		return err
	}
	plain, err := json.Marshal(p)
	if err != nil {
		return err
	}
	binding := s.Browser.Binding(w, r)
	c := Consent{ClientName: client.Name, ClientHost: hostOf(client, p.Redirect), RedirectHost: redirectHost(p.Redirect), Registration: client.How, Server: string(srv.Name),
		Visitor: connect.Visitor{Tenant: t, User: p.User, Binding: binding, Proof: session.Proof}, Client: p.Client, Person: session.Name, Ticket: s.Browser.Seal(purposeConsent, binding, plain), Until: s.Now().Add(familyLife)}
	if c.Before, c.Changed, err = s.before(r.Context(), t, client, p); err != nil {
		return err
	}
	for _, n := range srv.Needs {
		if up := s.Catalog.Upstream(t, n.Upstream); up != nil {
			c.Upstreams = append(c.Upstreams, up.Title)
		}
	}
	s.Pages.Consent(w, r, c)
	return nil
}

// before says when the person last let this client in, and what of it has changed since: another name, another place to
// which his browser goes back, other addresses in its registration.
func (s *Server) before(ctx context.Context, t identity.Tenant, client Client, p pending) (time.Time, []string, error) {
	was, err := s.Given.Consented(ctx, t, p.User, p.Client, p.Resource)
	if fault.KindOf(err) == fault.NotFound {
		return time.Time{}, nil, nil
	}
	var changed []string
	if was.Name != client.Name {
		changed = append(changed, "what it calls itself; it was “"+web.Foreign(was.Name)+"”")
	}
	if host := redirectHost(p.Redirect); was.RedirectHost != host {
		changed = append(changed, "where your browser goes back to; it was "+web.Host(was.RedirectHost))
	}
	if !slices.Equal(was.RedirectURIs, client.RedirectURIs) {
		changed = append(changed, "the addresses that it is registered with")
	}
	if !slices.Equal(was.Scopes, p.Scopes) {
		changed = append(changed, "what it asks for")
	}
	return was.Given, changed, err
}

// hostOf is who stands behind a client: the host of its document, else of where it wants to be sent back.
func hostOf(c Client, redirect string) string {
	if c.How == RegisteredDocument {
		return redirectHost(string(c.ID))
	}
	return redirectHost(redirect)
}

func redirectHost(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return u.Scheme + "://" + u.Host
	}
	return u.Hostname()
}

// decide takes the answer of the consent page: from the same browser, of the same person, on the same request.
func (s *Server) decide(w http.ResponseWriter, r *http.Request, t identity.Tenant) error {
	if err := r.ParseForm(); err != nil {
		return fault.New(fault.Invalid, "the form could not be read; go back and try again", nil)
	}
	plain, err := s.Browser.Open(purposeConsent, s.Browser.Binding(w, r), r.PostForm.Get("ticket"))
	if err != nil {
		return fault.New(fault.Denied, "this page began in another browser, or is too old; nothing was done; start again from your agent", nil)
	}
	var p pending
	if err := json.Unmarshal(plain, &p); err != nil {
		return err
	}
	session, ok := s.Browser.Session(r)
	if !ok || identity.UserID(session.User) != p.User || !s.Now().Before(p.Expires) {
		return fault.New(fault.Denied, "the sign-in has changed since this page was shown; nothing was done; start again from your agent", nil)
	}
	if r.PostForm.Get("decision") != "allow" {
		return s.leave(w, r, t, p.Redirect, url.Values{"error": {oauth.CodeAccessDenied}, "state": {p.State}})
	}
	client, err := s.Clients.Client(r.Context(), t, p.Client, web.Address(r))
	if err != nil {
		return asPage(err)
	}
	if !client.allowsRedirect(p.Redirect) { // the document changed while the page was open
		return fault.New(fault.Invalid, "this client's registration changed meanwhile; nothing was done; start again from your agent", nil)
	}
	if err := s.Given.PutConsent(r.Context(), Consented{Tenant: t, User: p.User, Client: p.Client, Resource: p.Resource, Name: client.Name, RedirectHost: redirectHost(p.Redirect),
		RedirectURIs: client.RedirectURIs, Scopes: p.Scopes, Given: s.Now()}); err != nil {
		return err
	}
	return s.allow(w, r, t, p, session)
}

func (s *Server) allow(w http.ResponseWriter, r *http.Request, t identity.Tenant, p pending, session web.Session) error {
	srv, _, err := s.resource(t, []string{p.Resource}, "")
	if err != nil {
		return asPage(err)
	}
	v := connect.Visitor{Tenant: t, User: p.User, Binding: s.Browser.Binding(w, r), Proof: session.Proof}
	family, err := oauth.Random(rand.Reader)
	if err != nil {
		return err
	}
	p.Family = family[:22]
	if p.Standing, err = s.Notary.Admit(r.Context(), v, broker.Admission{Client: p.Client, Server: srv, Family: p.Family}); err != nil {
		return err
	}
	offer, err := s.Offers.Door(r.Context(), v, srv)
	if err != nil {
		return err
	}
	if len(offer) == 0 {
		return s.sendCode(w, r, t, p, session)
	}
	p.Expires = s.Now().Add(doorLife)
	plain, err := json.Marshal(p)
	if err != nil {
		return err
	}
	finish := s.path(t, "/authorize/finish?to="+url.QueryEscape(s.Browser.Seal(purposeLeave, v.Binding, plain)))
	// Sealed: what is connected in this visit is granted to this client alone, and only because its consent was just given.
	pass, err := web.DoorPass{User: string(p.User), Server: string(srv.Name), Client: string(p.Client), Ends: p.Expires}.Seal(s.Browser, v.Binding)
	if err != nil {
		return err
	}
	q := url.Values{"server": {string(srv.Name)}, "pass": {pass}, "return": {finish}}
	http.Redirect(w, r, s.path(t, "/door?"+q.Encode()), http.StatusSeeOther)
	return nil
}

// finish ends the visit at the door: the same person in the same browser goes on to the client that he allowed.
func (s *Server) finish(w http.ResponseWriter, r *http.Request, t identity.Tenant) error {
	plain, err := s.Browser.Open(purposeLeave, s.Browser.Binding(w, r), r.URL.Query().Get("to"))
	var p pending
	session, ok := s.Browser.Session(r)
	if err != nil || json.Unmarshal(plain, &p) != nil || !ok || identity.UserID(session.User) != p.User || !s.Now().Before(p.Expires) {
		return fault.New(fault.Denied, "this page began in another browser, or is too old; start again from your agent", nil)
	}
	return s.sendCode(w, r, t, p, session)
}

// sendCode gives the client its code, by way of the browser.
func (s *Server) sendCode(w http.ResponseWriter, r *http.Request, t identity.Tenant, p pending, session web.Session) error {
	code, err := s.issueCode(r, t, p, session)
	if err != nil {
		return err
	}
	return s.leave(w, r, t, p.Redirect, url.Values{"code": {code}, "state": {p.State}})
}

func (s *Server) issueCode(r *http.Request, t identity.Tenant, p pending, session web.Session) (string, error) {
	code, err := oauth.Random(rand.Reader)
	if err != nil {
		return "", err
	}
	now := s.Now()
	hash := sha256.Sum256([]byte(code))
	standing, err := sealUnder(code, ofStanding, p.Standing)
	if err != nil {
		return "", err
	}
	return code, s.Grants.PutCode(r.Context(), Code{Tenant: t, Hash: hash[:], Family: p.Family, Standing: standing, Client: p.Client, User: p.User, Redirect: p.Redirect, Challenge: p.Challenge,
		Resource: p.Resource, Scopes: p.Scopes, Auth: identity.Authentication{ACR: session.ACR, AMR: session.AMR, Time: session.Started, SID: session.SID}, IDP: session.IDP,
		Expires: now.Add(codeLife), Ends: visits.Later(session.Ends, session.Agents)})
}

// backWith tells the client what is wrong with its request.
func (s *Server) backWith(w http.ResponseWriter, r *http.Request, t identity.Tenant, redirect, state string, err error) error {
	e, ok := errors.AsType[*oauthError](err)
	if !ok {
		e = s.asOAuth(err)
	}
	to, uerr := s.clientURL(t, redirect, url.Values{"error": {e.code}, "error_description": {e.description}, "state": {state}})
	if uerr != nil {
		return uerr
	}
	http.Redirect(w, r, to, http.StatusFound)
	return nil
}

func (s *Server) leave(w http.ResponseWriter, r *http.Request, t identity.Tenant, redirect string, params url.Values) error {
	to, err := s.clientURL(t, redirect, params)
	if err != nil {
		return err
	}
	s.Pages.Leave(w, r, to)
	return nil
}

// clientURL adds an answer to a redirect URI, with the issuer's name (RFC 9207).
func (s *Server) clientURL(t identity.Tenant, redirect string, params url.Values) (string, error) {
	u, err := url.Parse(redirect)
	if err != nil {
		return "", err
	}
	q := u.Query()
	for name, v := range params {
		if v[0] != "" {
			q.Set(name, v[0])
		}
	}
	q.Set("iss", s.URL(t, ""))
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// path is a local path of the tenant, for redirects that stay here.
func (s *Server) path(t identity.Tenant, local string) string {
	if t == identity.DefaultTenant {
		return local
	}
	return "/t/" + string(t) + local
}
