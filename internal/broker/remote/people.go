package remote

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault"
)

// visited is what a visitor asks for; each operation uses of it what it needs.
type visited struct {
	Visitor    connect.Visitor      `json:"visitor"`
	Start      *connect.Start       `json:"start,omitempty"`
	Answer     *connect.Answer      `json:"answer,omitempty"`
	Connection vault.ConnectionID   `json:"connection,omitempty"`
	Client     identity.ClientID    `json:"client,omitempty"`
	Server     catalog.ServerName   `json:"server,omitempty"`
	Upstream   catalog.UpstreamName `json:"upstream,omitempty"`
	Family     string               `json:"family,omitempty"`
	Grant      *connect.Grant       `json:"grant,omitempty"`
	Request    connect.RequestID    `json:"request,omitempty"`
	Device     string               `json:"device,omitempty"`
	Before     audit.CallID         `json:"before,omitempty"`
	Limit      int                  `json:"limit,omitempty"`
	Names      []string             `json:"names,omitempty"`
}

// Begin implements broker.Flows.
func (c *Client) Begin(ctx context.Context, v connect.Visitor, s connect.Start) (connect.Next, error) {
	return say[connect.Next](ctx, c, opBegin, visited{Visitor: v, Start: &s})
}

// Complete implements broker.Flows.
func (c *Client) Complete(ctx context.Context, v connect.Visitor, a connect.Answer) (connect.Result, error) {
	return say[connect.Result](ctx, c, opComplete, visited{Visitor: v, Answer: &a})
}

// End implements broker.Flows.
func (c *Client) End(ctx context.Context, v connect.Visitor, id vault.ConnectionID) (connect.Ending, error) {
	return say[connect.Ending](ctx, c, opEnd, visited{Visitor: v, Connection: id})
}

// renewal is whose sign-in is asked about.
type renewal struct {
	Tenant identity.Tenant `json:"tenant"`
	User   identity.UserID `json:"user"`
	IDP    string          `json:"idp"`
}

// Renew implements broker.Flows.
func (c *Client) Renew(ctx context.Context, t identity.Tenant, u identity.UserID, idp string) error {
	return c.do(ctx, opRenew, renewal{t, u, idp})
}

// Admit implements broker.Notary.
func (c *Client) Admit(ctx context.Context, v connect.Visitor, a broker.Admission) (string, error) {
	return say[string](ctx, c, opAdmit, visited{Visitor: v, Client: a.Client, Server: a.Server.Name, Family: a.Family})
}

// signing is what is signed.
type signing struct {
	Tenant   identity.Tenant       `json:"tenant"`
	Standing string                `json:"standing"`
	Claims   identity.AccessClaims `json:"claims"`
}

// Sign implements broker.Notary.
func (c *Client) Sign(ctx context.Context, t identity.Tenant, standing string, claims identity.AccessClaims) (string, error) {
	return say[string](ctx, c, opSign, signing{t, standing, claims})
}

// Record implements broker.Notary.
func (c *Client) Record(ctx context.Context, r audit.Record) error { return c.do(ctx, opRecord, r) }

// Advance is the writing half of identity.EpochStore: faces end browsers' sessions and clients' sign-ins, and nothing else.
func (c *Client) Advance(ctx context.Context, e identity.Epoch) (identity.Epoch, error) {
	return say[identity.Epoch](ctx, c, opEnds, e)
}

// Verify says who presents a token at a resource, as the broker's side sees it.
func (c *Client) Verify(ctx context.Context, t identity.Tenant, resource, token string) (*identity.Caller, error) {
	return say[*identity.Caller](ctx, c, opVerify, presented{t, resource, token})
}

// presented is a token as it came.
type presented struct {
	Tenant   identity.Tenant `json:"tenant"`
	Resource string          `json:"resource"`
	Token    string          `json:"token"`
}

// JWKS implements issuer.PublicKeys.
func (c *Client) JWKS(ctx context.Context, t identity.Tenant) ([]byte, error) {
	return say[[]byte](ctx, c, opJWKS, t)
}

// asking opens a connect request.
type asking struct {
	Caller  caller            `json:"caller"`
	Tool    string            `json:"tool"`
	Client  string            `json:"client"`
	Missing []catalog.Missing `json:"missing"`
}

// Ask implements the first of gateway.Asks.
func (c *Client) Ask(ctx context.Context, who *identity.Caller, s *catalog.Server, tool, clientName string, missing []catalog.Missing) (connect.Request, error) {
	return say[connect.Request](ctx, c, opAsk, asking{caller{Tenant: s.Tenant, Server: s.Name, Token: who.Raw().Expose()}, tool, clientName, missing})
}

// asked names a connect request.
type asked struct {
	Tenant identity.Tenant   `json:"tenant"`
	ID     connect.RequestID `json:"id"`
}

// State implements the last of gateway.Asks.
func (c *Client) State(ctx context.Context, t identity.Tenant, id connect.RequestID) (connect.State, error) {
	return say[connect.State](ctx, c, opAsked, asked{t, id})
}

// Request implements portal.Requests, as do Pending, Refuse and Device.
func (c *Client) Request(ctx context.Context, v connect.Visitor, id connect.RequestID) (connect.Request, error) {
	return say[connect.Request](ctx, c, opRequest, visited{Visitor: v, Request: id})
}

// Pending lists the visitor's open requests.
func (c *Client) Pending(ctx context.Context, v connect.Visitor) ([]connect.Request, error) {
	return say[[]connect.Request](ctx, c, opPending, visited{Visitor: v})
}

// Refuse closes the visitor's request with a no.
func (c *Client) Refuse(ctx context.Context, v connect.Visitor, id connect.RequestID) error {
	return c.do(ctx, opRefuse, visited{Visitor: v, Request: id})
}

// Device is a code that the visitor asked for in this browser.
func (c *Client) Device(ctx context.Context, v connect.Visitor, id string) (connect.Device, error) {
	return say[connect.Device](ctx, c, opDevice, visited{Visitor: v, Device: id})
}

// Grants implements portal.Grants, as do RevokeGrant, Prefer, UseAccount and Consent.
func (c *Client) Grants(ctx context.Context, v connect.Visitor) ([]connect.Grant, error) {
	return say[[]connect.Grant](ctx, c, opGrants, visited{Visitor: v})
}

// RevokeGrant ends a yes of the visitor's.
func (c *Client) RevokeGrant(ctx context.Context, v connect.Visitor, g connect.Grant) error {
	return c.do(ctx, opWithdraw, visited{Visitor: v, Grant: &g})
}

// Prefer makes one of the visitor's accounts the one that new grants take.
func (c *Client) Prefer(ctx context.Context, v connect.Visitor, id vault.ConnectionID) error {
	return c.do(ctx, opPrefer, visited{Visitor: v, Connection: id})
}

// UseAccount makes g's client at g's server use g.Connection.
func (c *Client) UseAccount(ctx context.Context, v connect.Visitor, g connect.Grant) error {
	return c.do(ctx, opUse, visited{Visitor: v, Grant: &g})
}

// Consent gives grants to a client that the visitor has let in.
func (c *Client) Consent(ctx context.Context, v connect.Visitor, client identity.ClientID, s *catalog.Server) error {
	return c.do(ctx, opConsent, visited{Visitor: v, Client: client, Server: s.Name})
}

// Door implements issuer.Offers.
func (c *Client) Door(ctx context.Context, v connect.Visitor, s *catalog.Server) ([]catalog.UpstreamName, error) {
	return say[[]catalog.UpstreamName](ctx, c, opDoor, visited{Visitor: v, Server: s.Name})
}

// Callable says which of these tools the visitor could call through a client.
func (c *Client) Callable(ctx context.Context, v connect.Visitor, client identity.ClientID, s *catalog.Server, names []string) ([]bool, error) {
	see, err := say[[]bool](ctx, c, opCallable, visited{Visitor: v, Client: client, Server: s.Name, Names: names})
	if err == nil && len(see) != len(names) {
		err = errBroken
	}
	return see, err
}

// Connections implements portal.Holdings, as does Endings.
func (c *Client) Connections(ctx context.Context, v connect.Visitor, up catalog.UpstreamName) ([]vault.Connection, error) {
	return say[[]vault.Connection](ctx, c, opHoldings, visited{Visitor: v, Upstream: up})
}

// Endings lists what has ended here, and not yet at the vendor.
func (c *Client) Endings(ctx context.Context, v connect.Visitor) ([]vault.Ending, error) {
	return say[[]vault.Ending](ctx, c, opEndings, visited{Visitor: v})
}

// Activity implements portal.Activity.
func (c *Client) Activity(ctx context.Context, v connect.Visitor, before audit.CallID, limit int) ([]audit.Row, error) {
	return say[[]audit.Row](ctx, c, opActivity, visited{Visitor: v, Before: before, Limit: limit})
}

// certified is a certificate of egress's authority that is asked for: for this name and this public key.
type certified struct {
	Name string `json:"name"`
	Key  []byte `json:"key"` // PKIX
}

// Certifier implements egress.Certifier: the keys of certificates are made here, and the authority's stays where it is.
type Certifier struct {
	Client *Client
	Now    func() time.Time

	mu     sync.Mutex
	key    *ecdsa.PrivateKey           // guarded by mu, as is what follows
	leaves map[string]*tls.Certificate // by name, of names alone that are in the config
}

// Leaf returns a certificate for a name of the config; fault.Denied for any other.
func (c *Certifier) Leaf(ctx context.Context, name string) (*tls.Certificate, error) {
	now := c.Now()
	c.mu.Lock()
	l, key := c.leaves[name], c.key
	c.mu.Unlock()
	if l != nil && now.After(l.Leaf.NotBefore) && now.Before(l.Leaf.NotBefore.Add(l.Leaf.NotAfter.Sub(l.Leaf.NotBefore)/2)) {
		return l, nil
	}
	var err error
	if key == nil {
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, err
		}
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	der, err := say[[]byte](ctx, c.Client, opLeaf, certified{name, public})
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.New(fault.Unavailable, fault.Message(errBroken), err)
	}
	l = &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key == nil {
		c.key, c.leaves = key, map[string]*tls.Certificate{}
	}
	if c.key == key {
		c.leaves[name] = l
	}
	return l, nil
}

// Heard hands on, unread, what the company's IdP and directory say: the broker's side verifies it.
func (c *Client) Heard(w http.ResponseWriter, r *http.Request) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.Host, out.RequestURI = "https", "broker", "", ""
	out.URL.Path, out.URL.RawPath = root+opHeard+r.URL.Path, ""
	out.Header.Set(headerProcess, c.process)
	out.Header.Set(headerFrom, r.RemoteAddr)
	for _, name := range []string{"Connection", "Keep-Alive", "Te", "Transfer-Encoding", "Upgrade"} {
		out.Header.Del(name)
	}
	resp, _, err := c.reach(out, nil)
	if err != nil {
		http.Error(w, fault.Message(errAway), http.StatusServiceUnavailable)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	copyAnswer(w, resp)
}

// headerFrom is the address of who sent what is handed on, for counting.
const headerFrom = "Frontdesk-From"

var (
	_ broker.Flows  = (*Client)(nil)
	_ broker.Notary = (*Client)(nil)
)
