// Package connect answers: what must a person do first?
//
// It opens connect requests, sends browsers to the company's IdP and to vendors, takes them back, and ends in the
// vault. We are the OAuth client here. It trusts a callback only from the browser that left, and completes a request
// only for the user for whom it was opened. It also keeps the grants: a user's yes for one client at one server.
package connect

import (
	"context"
	"net/url"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/vault"
)

// RequestID names a connect request: 128 random bits in base64url. It opens nothing by itself.
type RequestID string

// State is where a connect request stands.
type State string

const (
	Open    State = "open"
	Done    State = "done"
	Refused State = "refused"
	Expired State = "expired"
)

// Request is one pending question to a user: let this client, using this server, act for you at these upstreams,
// with these scopes, until then.
type Request struct {
	Tenant     identity.Tenant
	ID         RequestID
	User       identity.UserID
	Client     identity.ClientID
	ClientName string // as registered: foreign text
	Server     catalog.ServerName
	Tool       string
	Missing    []catalog.Missing
	State      State
	Created    time.Time
	Expires    time.Time
}

// GoesOn ends the link of a request whose agent goes on by itself once it is answered. Whose link has no such end has to be asked
// again. It only words a page: anybody may put it there.
const GoesOn = "?then=on"

// Grant is a user's yes for one client at one server to use one of his connections to one upstream.
type Grant struct {
	Tenant     identity.Tenant
	User       identity.UserID
	Client     identity.ClientID
	Server     catalog.ServerName
	Upstream   catalog.UpstreamName
	Connection vault.ConnectionID // "" in rows from before there could be several: the account that new grants take
	Scopes     []string
	Created    time.Time
	Expires    time.Time
	LastUsed   time.Time
}

// FlowKind is why a browser was sent away.
type FlowKind string

const (
	FlowSignIn  FlowKind = "sign_in" // to the company's IdP
	FlowConnect FlowKind = "connect" // to an upstream's authorization server, or to our page that takes a key
	FlowDevice  FlowKind = "device"  // to wherever he likes, with a code (Device)
	FlowSite    FlowKind = "site"    // to our page that asks which of the account's sites is meant
	FlowSwap    FlowKind = "swap"    // to our page that asks which of two accounts is meant
)

// Flow is one browser that was sent away and has not come back. It is single-use: taking it deletes it.
type Flow struct {
	Tenant   identity.Tenant
	State    string // the OAuth `state`: 256 random bits; for a pasted key the form's one-time value
	Kind     FlowKind
	Binding  []byte          // digest of the cookie of the browser that left
	User     identity.UserID // FlowConnect: who left
	Upstream catalog.UpstreamName
	Method   catalog.MethodKind // FlowConnect
	Request  RequestID          // "" where the person began in the portal
	Scopes   []string

	Meant

	Issuer   string // expected `iss`, "" where the vendor sends none
	Nonce    string
	Verifier []byte // sealed: the PKCE verifier; of FlowSwap the credential that waits
	Return   string // local path to go to afterwards
	Expires  time.Time
}

// Meant is the account for which a browser leaves.
type Meant struct {
	Connection vault.ConnectionID // one of those that are connected already. "": a new one
	Site       string             // at which it is, where its person says so before (catalog.Sites.Asked)
	Client     string             // the registration of ours by which he leaves, where vendors may forget ours
}

// Visitor is the browser in front of us: who is signed in there, and the digest of its binding cookie.
type Visitor struct {
	Tenant  identity.Tenant
	User    identity.UserID // "" before sign-in
	Binding []byte
	Proof   string // of his sign-in (SignedIn.Proof); package broker/visits looks at it before anybody gets here
}

// Start says what a visitor wants to begin.
type Start struct {
	Kind     FlowKind
	Request  RequestID            // connect for an open request
	Upstream catalog.UpstreamName // which of the request's upstreams, or the portal's choice without a request
	Scopes   []string             // beyond the upstream's own; only without a request
	Return   string               // local path
	Login    string               // login_hint for sign-in, optional

	// Which account is meant: one that is connected already, or Another. Neither is the one that new grants take, if there is one.
	Connection vault.ConnectionID
	Another    bool

	Method catalog.MethodKind // which of the ways that ask a person; "" is the first
	Site   string             // as the person wrote it, where he is asked (Next.Site)
}

// Next is where the browser goes: to URL, or stays with us and pastes a key (Form; with a URL at the page there), or says first at which
// site of the vendor his account is (Site), and begins again, or waits here until he has entered a code at the vendor (Device: its
// id), or nowhere (Done: the person was connected already, as Connection, and his yes was all that
// was missing).
type Next struct {
	URL        string
	Form       *KeyForm
	Site       *catalog.SiteQuestion
	Device     string
	Done       bool
	Connection vault.ConnectionID
}

// KeyForm is what the page that takes a key needs.
type KeyForm struct {
	State string           // one-time value that the form posts back
	Where string           // in words, where a key is made
	Link  string           // vendor's page for that, may be empty
	First *catalog.KeyPart // what is written before it; nil: a key is all
}

// Answer is what came back: a callback's query, or the unread body of the page that took a key.
type Answer struct {
	Upstream catalog.UpstreamName // of the callback's path; "" for sign-in
	IDP      string               // of the callback's path, for sign-in
	Params   url.Values           // callback
	Body     []byte               // form body of the key page: only this room reads it
}

// Result is what became of it.
type Result struct {
	Kind       FlowKind
	User       identity.User    // sign-in: who he is
	Session    SignedIn         // sign-in
	Connection vault.Connection // connect: without its sealed part
	Changed    string           // FlowSwap: the label of the account that was meant, which is still connected
	Swap       string           // FlowSwap: the `state` to post back with choice=new or choice=old; FlowSite: with choice, counted from 0
	Sites      []string         // FlowSite: their names
	Request    RequestID
	Return     string
}

// SignedIn is what a sign-in at the IdP proved.
type SignedIn struct {
	IDP     string
	SID     string // the IdP's name of it, where it has one
	At      time.Time
	ACR     string
	AMR     []string
	HasHome bool      // the IdP gave a refresh token: the home credential
	ID      string    // of the browser's session that it begins; this and what follows is said by package broker/visits
	Expires time.Time // when the sign-in ends at the latest
	Agents  time.Time // likewise, of agents that he lets in
	Proof   string    // of all this, for faces to hand back
}

// Ending is what is true after a connection was ended.
type Ending = vault.Ended

const (
	EndedAtVendor = vault.EndedConfirmed
	EndedHere     = vault.EndedHere
	EndedTrying   = vault.EndedTrying
)

// Store keeps requests, flows and grants.
type Store interface {
	RequestStore
	FlowStore
	DeviceStore
	GrantStore
}

// RequestStore keeps connect requests.
type RequestStore interface {
	// OpenRequest inserts r, or returns the open, unexpired request of the same user, client and server that asks for the
	// same upstreams and scopes, extended to r's expiry.
	OpenRequest(ctx context.Context, r Request) (Request, error)
	Request(ctx context.Context, t identity.Tenant, id RequestID) (Request, error)
	// SetState moves an open request on; fault.Conflict if it is no longer open. Missing may shrink with it.
	SetState(ctx context.Context, r Request) error
	Requests(ctx context.Context, t identity.Tenant, u identity.UserID, s State) ([]Request, error)
}

// FlowStore keeps flows.
type FlowStore interface {
	PutFlow(ctx context.Context, f Flow) error
	// TakeFlow deletes and returns: of two concurrent takers one gets it, the other fault.NotFound.
	TakeFlow(ctx context.Context, t identity.Tenant, state string) (Flow, error)
}

// GrantStore keeps grants.
type GrantStore interface {
	PutGrant(ctx context.Context, g Grant) error // one a (user, client, server, upstream): replaces
	Grants(ctx context.Context, t identity.Tenant, u identity.UserID) ([]Grant, error)
	// DeleteGrants removes those that match every field that is set in g; Tenant and User must be. A grant that names no
	// connection matches every one.
	DeleteGrants(ctx context.Context, g Grant) (int, error)
	// Prefer makes a living connection of the user's the one that new grants at its upstream take; fault.NotFound if it is none.
	Prefer(ctx context.Context, c vault.Connection, at time.Time) error
}
