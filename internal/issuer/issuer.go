// Package issuer is the authorization server that MCP clients sign in to (OAuth 2.1, RFC 8414, RFC 9207, RFC 8707).
//
// It registers clients, asks the person on a page of its own before any redirect, and issues short access tokens with
// rotating refresh tokens. Signing in is the company's IdP's business (broker.Flows); signing is the broker's (Notary).
// It trusts nothing that a client says about itself, and holds no key and no upstream credential.
package issuer

import (
	"context"
	"time"

	"frontdesk.dev/frontdesk/internal/identity"
)

// Registration is how we came to know a client.
type Registration string

const (
	RegisteredConfig   Registration = "config"   // by the operator
	RegisteredDocument Registration = "document" // client ID metadata document: its host stands for it
	RegisteredDynamic  Registration = "dynamic"  // RFC 7591, unverified
)

// Client is an OAuth client of ours.
type Client struct {
	Tenant       identity.Tenant
	ID           identity.ClientID
	Name         string // foreign text
	URI          string // client_uri, foreign text
	RedirectURIs []string
	How          Registration
	SecretHash   []byte // SHA-256, of confidential clients from the config alone
	Created      time.Time
	LastUsed     time.Time
}

// Code is an authorization code that was handed out; the code itself is stored as its SHA-256.
type Code struct {
	Tenant    identity.Tenant
	Hash      []byte
	Family    string // of the tokens that it will give
	Client    identity.ClientID
	User      identity.UserID
	Redirect  string
	Challenge string // S256
	Resource  string
	Scopes    []string
	Auth      identity.Authentication
	IDP       string
	Expires   time.Time
	Ends      time.Time // when the sign-in ends at the latest
	Used      time.Time // zero: not yet
	Standing  []byte    // by which its tokens will be signed, sealed under a key that only the code gives
}

// Family is one sign-in of one client: its refresh tokens, of which one is current.
type Family struct {
	Tenant   identity.Tenant
	ID       string // 128 random bits
	Client   identity.ClientID
	User     identity.UserID
	Resource string
	Scopes   []string
	Auth     identity.Authentication
	IDP      string
	Created  time.Time
	Ends     time.Time // when the sign-in ends at the latest
	Rotated  time.Time
	Current  []byte    // SHA-256 of the current refresh token
	Previous []byte    // SHA-256 of the one before
	Next     []byte    // the current token, sealed under a key that only the previous token gives (the grace of a lost answer)
	HomeAt   time.Time // when the home credential was last found alive
	Standing []byte    // by which its tokens are signed (broker.Notary), sealed under a key that only the current refresh token gives
}

// Clients keeps clients that registered dynamically, or were fetched.
type Clients interface {
	PutClient(ctx context.Context, c Client) error
	Client(ctx context.Context, t identity.Tenant, id identity.ClientID) (Client, error)
	// TouchClient moves LastUsed.
	TouchClient(ctx context.Context, t identity.Tenant, id identity.ClientID, at time.Time) error
	// DropUnused removes dynamic clients created before that were never used.
	DropUnused(ctx context.Context, createdBefore time.Time) (int, error)
}

// Consented is what a person said yes to, as the client was then. It stands for no yes: every sign-in of a client asks. It lets
// the page say what has changed since.
type Consented struct {
	Tenant       identity.Tenant
	User         identity.UserID
	Client       identity.ClientID
	Resource     string
	Name         string // foreign text
	RedirectHost string
	RedirectURIs []string
	Scopes       []string
	Given        time.Time
}

// ConsentStore keeps the last yes of a person to a client for a resource.
type ConsentStore interface {
	PutConsent(ctx context.Context, c Consented) error // replaces
	// Consented returns fault.NotFound where there was none.
	Consented(ctx context.Context, t identity.Tenant, u identity.UserID, c identity.ClientID, resource string) (Consented, error)
}

// Grants keeps codes and families. (Not the grants of package connect: these are OAuth's.)
type Grants interface {
	PutCode(ctx context.Context, c Code) error
	// UseCode marks the code used and returns it as it was before: of two users one sees Used zero.
	UseCode(ctx context.Context, t identity.Tenant, hash []byte, at time.Time) (Code, error)
	Families
}

// Families keeps families.
type Families interface {
	PutFamily(ctx context.Context, f Family) error
	Family(ctx context.Context, t identity.Tenant, id string) (Family, error)
	// RotateFamily stores f if the current token's digest is still was; fault.Conflict if not.
	RotateFamily(ctx context.Context, f Family, was []byte) error
	// DropFamilies removes families of the user, of one client or all (""), or the one with the id; it returns their ids.
	DropFamilies(ctx context.Context, t identity.Tenant, u identity.UserID, c identity.ClientID, id string) ([]string, error)
}
