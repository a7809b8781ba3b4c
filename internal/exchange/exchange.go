// Package exchange answers: with which credential?
//
// It turns a caller and an upstream into a credential by the first of the upstream's methods that can serve this
// caller, one file a method; package refresh keeps stored ones good. It shows a
// credential to nobody: what it hands out places itself on a request. It does not decide whether the caller may.
package exchange

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/dpop"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Request is what a method is asked.
type Request struct {
	Caller   *identity.Caller
	Upstream *catalog.Upstream
	Method   catalog.Method
	Scopes   []string // all that this call needs

	// Connection is the one that the person's grant names. "": the account that new grants take.
	Connection vault.ConnectionID
}

// Credential opens one upstream for one caller. It is good until Expires, or until the caller's access epoch moves.
type Credential struct {
	// Place puts the credential on the request; it may set a header or sign the whole request.
	Place func(*http.Request) error
	// Fill puts it between two texts instead, within a JSON string (quoted) or as it is; nil where it is no text that could stand there.
	Fill func(before, after string, quoted bool) (string, error)
	// Marks are the byte strings that must never be seen in an answer.
	Marks      [][]byte
	Expires    time.Time // zero: it doesn't expire
	Method     catalog.MethodKind
	Connection vault.ConnectionID // "" where the method stores nothing
	Site       string             // the connection's own, to which requests go in the place of the upstream's first origin
	Token      secret.Text        // of a transaction token alone: itself, for a process that takes it from its environment

	onto  func(*http.Request) error // makes the request one to Site, or refuses it; nil where there is none
	proof *dpop.Token               // nil: to show it is all the proof there is
	again *again                    // nil where another credential would be no better
	says  secret.Text               // sent as the first message of a WebSocket, if any

	// reads is what an answer means for whoever connected the credential; nil where nobody did.
	reads func(*http.Response) *catalog.Needed
}

// Bind makes it a token that is good only with proofs of its key (RFC 9449): it goes to the place that the standard gives it, and no
// other place would do.
func (c *Credential) Bind(t *dpop.Token) {
	c.proof, c.Place, c.Fill, c.Marks = t, t.Place, nil, [][]byte{[]byte(t.Access.Expose())}
}

// Method is one way to obtain a credential. Implementations are safe for concurrent use and keep no secret beyond a call,
// but in caches keyed by everything that the credential depends on.
type Method interface {
	// Ready reports whether Obtain would serve this caller, releasing nothing: nil; *catalog.Needed where a person must
	// act; a fault.NotFound whose message says why this method cannot serve him at all (the next one is tried).
	Ready(ctx context.Context, r Request) error
	// Obtain returns the credential, or the errors of Ready, or fault.Unavailable where the other side is away.
	Obtain(ctx context.Context, r Request) (*Credential, error)
}

// Verdict is what one configured method says of a caller, for `frontdesk explain`.
type Verdict struct {
	Method catalog.MethodKind `json:"method"`
	Used   bool               `json:"used"`
	Why    string             `json:"why"`
}

// Vault is what exchange needs of the vault (vault.Vault).
type Vault interface {
	Connections(ctx context.Context, t identity.Tenant, u identity.UserID, up catalog.UpstreamName) ([]vault.Connection, error)
	Open(ctx context.Context, c vault.Connection) (vault.Secrets, error)
	Update(ctx context.Context, c vault.Connection) error
}

// Exchange obtains credentials. All fields but Log are required; Methods names what is built in.
type Exchange struct {
	Vault   Vault
	Clients *vault.Clients
	OAuth   oauth.Client
	Refresh *refresh.Machine
	Tickets *TicketMint
	Methods map[catalog.MethodKind]Method
	Now     func() time.Time

	cache cache
}

// Ready implements connect.Readiness: by which method Obtain would serve the caller now. It releases nothing.
func (x *Exchange) Ready(ctx context.Context, c *identity.Caller, up *catalog.Upstream, scopes []string, of vault.ConnectionID) (catalog.MethodKind, error) {
	key := keyOf(c, up, scopes, of)
	if kind := x.cache.ready(key, x.Now()); kind != "" {
		return kind, nil
	}
	_, m, err := x.choose(ctx, Request{Caller: c, Upstream: up, Scopes: scopes, Connection: of})
	if err != nil {
		return "", err
	}
	x.cache.putReady(key, m.Kind, x.Now().Add(cacheLife))
	return m.Kind, nil
}

// Obtain returns the credential of the first method that can serve the caller; of what he connected, that of one connection
// alone. Warm, it is a look into memory.
func (x *Exchange) Obtain(ctx context.Context, c *identity.Caller, up *catalog.Upstream, scopes []string, of vault.ConnectionID) (*Credential, error) {
	key := keyOf(c, up, scopes, of)
	if cred := x.cache.get(key, x.Now()); cred != nil {
		return cred, nil
	}
	stamp := x.cache.stamp(key)
	r, m, err := x.choose(ctx, Request{Caller: c, Upstream: up, Scopes: scopes, Connection: of})
	if err != nil {
		return nil, err
	}
	cred, err := x.Methods[m.Kind].Obtain(ctx, r)
	if err != nil {
		return nil, err
	}
	until := x.Now().Add(cacheLife)
	if !cred.Expires.IsZero() && cred.Expires.Before(until) {
		until = cred.Expires
	}
	x.cache.put(key, stamp, cred, until)
	return cred, nil
}

// choose asks the upstream's methods in order. What a person can mend is kept, in case no later method can serve.
func (x *Exchange) choose(ctx context.Context, r Request) (Request, catalog.Method, error) {
	var first error
	up := r.Upstream
	for _, m := range up.Methods {
		method, ok := x.Methods[m.Kind]
		if !ok {
			return Request{}, m, fault.New(fault.Internal, "", fmt.Errorf("upstream %s: no method %q", up.Name, m.Kind))
		}
		r.Method = m
		err := method.Ready(ctx, r)
		if err == nil {
			return r, m, nil
		}
		if first == nil || fault.KindOf(first) == fault.NotFound {
			first = err
		}
		if k := fault.KindOf(err); k == fault.Unavailable {
			return Request{}, m, err
		}
	}
	if first == nil || fault.KindOf(first) == fault.NotFound {
		first = fault.New(fault.Denied, up.Title+" cannot be used by this caller: none of its methods can serve; an operator can ask `frontdesk explain` why", first)
	}
	return Request{}, catalog.Method{}, first
}

// Explain says of every configured method whether it would be used, and why not.
func (x *Exchange) Explain(ctx context.Context, c *identity.Caller, up *catalog.Upstream, scopes []string, of vault.ConnectionID) []Verdict {
	var l []Verdict
	used := false
	for _, m := range up.Methods {
		v := Verdict{Method: m.Kind}
		method, ok := x.Methods[m.Kind]
		if !ok {
			l = append(l, Verdict{Method: m.Kind, Why: "not built in"})
			continue
		}
		err := method.Ready(ctx, Request{Caller: c, Upstream: up, Method: m, Scopes: scopes, Connection: of})
		switch needed, isNeeded := errors.AsType[*catalog.Needed](err); {
		case err == nil && !used:
			v.Used, v.Why, used = true, "can serve this caller, and is the first that can", true
		case err == nil:
			v.Why = "could serve too, but stands later in the list"
		case isNeeded:
			v.Why = needed.Error()
		default:
			v.Why = fault.Message(err)
		}
		l = append(l, v)
	}
	return l
}

// Forget drops what is cached for a user, because his connections or his access changed.
func (x *Exchange) Forget(t identity.Tenant, principal string) { x.cache.forget(t, principal) }

// Ticket implements broker.Credentials.
func (x *Exchange) Ticket(ctx context.Context, s *catalog.Server, t identity.Ticket) (*Credential, error) {
	return x.Tickets.Mint(ctx, s, t)
}
