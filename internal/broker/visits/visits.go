// Package visits answers: who is in front of the faces?
//
// Faces say who sits at a browser, and which agent he has let in. Their word is not enough: they stand where strangers knock, and may
// run on another host than the broker. So the broker's side writes down what it saw itself, and the faces hand it back:
//
//   - a visit, after a sign-in that it completed at the company's IdP: this person, in this browser, until then. Every page that
//     acts for somebody carries it (connect.Visitor.Proof).
//   - a standing, after a visitor's yes: this client may have tokens for him, at this resource, as this family. Without it nothing is
//     signed (Notary.Sign).
//
// Both are texts under a MAC of the ticket keys, which never leave that side. They open nothing alone: whoever takes over the faces
// gets those that pass by while he is there, and neither makes nor changes one. What ends a sign-in ends them.
package visits

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Epochs knows what has ended (identity.Epochs).
type Epochs interface {
	Alive(c *identity.Caller) bool
	Session(t identity.Tenant, u identity.UserID, id string, started time.Time) bool
	SignIn(t identity.Tenant, idp, sid string) bool
}

// How long a sign-in is good for at the most. What it let in lasts longer where the company's IdP gave a home credential: then each
// new token asks the IdP. Where it gave none, nobody could.
const (
	Life      = 12 * time.Hour      // of a browser, and of agents without a home credential behind them
	AgentLife = 90 * 24 * time.Hour // of agents with one
)

// Later is the later of two ends; sign-ins from before agents had one of their own have none.
func Later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// visit is a browser in which a person has signed in.
type visit struct {
	Tenant  identity.Tenant         `json:"t"`
	User    identity.UserID         `json:"u"`
	ID      string                  `json:"n"` // of the browser's session: what a sign-out ends
	IDP     string                  `json:"i"`
	SID     string                  `json:"s,omitempty"` // the IdP's name of the sign-in
	Auth    identity.Authentication `json:"a"`
	Started time.Time               `json:"b"`
	Ends    time.Time               `json:"e"`
	Agents  time.Time               `json:"g"` // until when what he lets in may last
	Binding []byte                  `json:"c"` // digest of the cookie that this browser alone has
}

// standing is a client that a person has let in.
type standing struct {
	Tenant   identity.Tenant         `json:"t"`
	User     identity.UserID         `json:"u"`
	Client   identity.ClientID       `json:"l"`
	Resource string                  `json:"r"`
	Family   string                  `json:"f"`
	IDP      string                  `json:"i"`
	SID      string                  `json:"s,omitempty"`
	Auth     identity.Authentication `json:"a"`
	Given    time.Time               `json:"b"`
	Ends     time.Time               `json:"e"`
}

// What a text is; it stands before what is signed, so that none can be taken for another, or for a keycard.
const (
	aVisit    = "frontdesk/visit/v1\x00"
	aStanding = "frontdesk/standing/v1\x00"
)

// maxText bounds what is looked at; ours are some 500 bytes.
const maxText = 4096

var (
	errVisit    = fault.New(fault.Denied, "this sign-in cannot be verified any more; nothing was done; sign in again", nil)
	errStanding = fault.New(fault.Unauthenticated, "this agent's sign-in cannot be verified any more; sign in again", nil)
)

// write makes the text of a visit or standing.
func write(ctx context.Context, mac identity.TicketMAC, what string, v any) (string, error) {
	payload, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	sum, kid, err := mac.MAC(ctx, "", append([]byte(what), payload...))
	if err != nil {
		return "", err
	}
	e := base64.RawURLEncoding
	return e.EncodeToString(payload) + "." + kid + "." + e.EncodeToString(sum), nil
}

// read is the inverse of write. False: it is none of ours. An error: that could not be found out.
func read(ctx context.Context, mac identity.TicketMAC, what, text string, into any) (bool, error) {
	body, rest, _ := strings.Cut(text, ".")
	kid, sum, ok := strings.Cut(rest, ".")
	if !ok || kid == "" || len(text) > maxText {
		return false, nil
	}
	e := base64.RawURLEncoding.Strict()
	payload, err1 := e.DecodeString(body)
	got, err2 := e.DecodeString(sum)
	if err1 != nil || err2 != nil {
		return false, nil
	}
	want, _, err := mac.MAC(ctx, kid, append([]byte(what), payload...))
	if fault.KindOf(err) == fault.Unavailable {
		return false, err
	}
	return err == nil && subtle.ConstantTimeCompare(got, want) == 1 && json.Unmarshal(payload, into) == nil, nil
}

// Desk is what the faces get of the broker's side for browsers: everything in it is done and shown only for who has proved his
// visit. All fields are required but Together. It implements broker.Flows, broker.Notary, and what portal and issuer need.
type Desk struct {
	Flows  Flows
	People People
	Shelf  Shelf
	Tools  Tools
	Signer Signer
	Log    Log
	MAC    identity.TicketMAC
	Epochs Epochs
	URL    func(t identity.Tenant, path string) string // public URL of a path; of "" the issuer itself
	Now    func() time.Time
	// Together: faces and broker are one process. Then the faces' word is the broker's own: families that were begun before there
	// were standings go on, and it is they who ask whether the IdP still lets a person in.
	Together bool
}

// visit checks who the visitor is. Errors: fault.Denied, or fault.Unavailable where that cannot be found out.
func (d *Desk) visit(ctx context.Context, v connect.Visitor) (visit, error) {
	var k visit
	ok, err := read(ctx, d.MAC, aVisit, v.Proof, &k)
	if err != nil {
		return visit{}, err
	}
	if !ok || v.User == "" || k.Tenant != v.Tenant || k.User != v.User || len(k.Binding) == 0 || subtle.ConstantTimeCompare(k.Binding, v.Binding) != 1 ||
		!d.Now().Before(k.Ends) || !d.Epochs.Session(k.Tenant, k.User, k.ID, k.Started) || !d.Epochs.SignIn(k.Tenant, k.IDP, k.SID) {
		return visit{}, errVisit
	}
	return k, nil
}
