package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/jwt"
)

// TicketType is the `typ` of a transaction token. It keeps the draft's form and claims (draft-ietf-oauth-transaction-tokens),
// but travels in Authorization: unmodified servers forward just that.
const TicketType = jwt.TypeTransactionToken

// maxTicket bounds what is looked at; ours are some 400 bytes. No opaque one is shorter than minOpaque.
const maxTicket, minOpaque = 2048, 22

// TicketClaims is the payload of a transaction token on the wire.
type TicketClaims struct {
	Issuer   string     `json:"iss"`
	Audience string     `json:"aud"`
	Txn      string     `json:"txn"`
	Server   string     `json:"srv"`
	Tenant   Tenant     `json:"tnt"`
	Kind     TicketKind `json:"knd"`
	Expires  int64      `json:"exp"`
}

// ticketHeader is compared whole after the kid is cut out of it: we wrote it, so it has one spelling.
func ticketHeader(kid string) string {
	return `{"alg":"HS256","kid":"` + kid + `","typ":"` + TicketType + `"}`
}

// TicketEnvelope returns the signing input of a ticket under kid.
func TicketEnvelope(kid string, claims []byte) []byte {
	h := ticketHeader(kid)
	e := base64.RawURLEncoding
	b := make([]byte, 0, e.EncodedLen(len(h))+1+e.EncodedLen(len(claims))+44)
	b = e.AppendEncode(b, []byte(h))
	b = append(b, '.')
	return e.AppendEncode(b, claims)
}

// Tickets checks transaction tokens of this deployment: those that it MACed, and those that it keeps.
type Tickets struct {
	MAC      TicketMAC
	Opaque   OpaqueTickets // may be nil: there are none
	Audience string        // <issuer>/egress
	Now      func() time.Time
}

var errTicket = fault.New(fault.Unauthenticated, "this is not a transaction token of ours, or its call has ended", nil)

// Check returns what a ticket says, or one and the same fault.Unauthenticated for whatever is wrong with it. That the
// call is still open and the user still welcome is for the caller to see.
func (t *Tickets) Check(ctx context.Context, token string) (Ticket, error) {
	if len(token) > maxTicket {
		return Ticket{}, errTicket
	}
	if !strings.HasPrefix(token, "eyJ") {
		return t.opaque(ctx, token)
	}
	head, rest, ok1 := strings.Cut(token, ".")
	payload, sig, ok2 := strings.Cut(rest, ".")
	if !ok1 || !ok2 {
		return Ticket{}, errTicket
	}
	strict := base64.RawURLEncoding.Strict()
	header, err1 := strict.DecodeString(head)
	body, err2 := strict.DecodeString(payload)
	mac, err3 := strict.DecodeString(sig)
	kid, ok := kidOf(string(header))
	if err1 != nil || err2 != nil || err3 != nil || !ok {
		return Ticket{}, errTicket
	}
	want, _, err := t.MAC.MAC(ctx, kid, []byte(token[:len(head)+1+len(payload)]))
	if fault.KindOf(err) == fault.Unavailable {
		return Ticket{}, err
	}
	if err != nil || subtle.ConstantTimeCompare(mac, want) != 1 {
		return Ticket{}, errTicket
	}
	return t.read(body)
}

// opaque looks a ticket up. Its text holds at least 128 random bits, and it is found by its hash, so neither guessing nor a
// look at the database, nor the time that the look-up takes, is of use to anybody.
func (t *Tickets) opaque(ctx context.Context, token string) (Ticket, error) {
	if t.Opaque == nil || len(token) < minOpaque {
		return Ticket{}, errTicket
	}
	k, err := t.Opaque.OpaqueTicket(ctx, sha256.Sum256([]byte(token)))
	if fault.KindOf(err) == fault.Unavailable {
		return Ticket{}, err
	}
	if err != nil || !t.Now().Before(k.Expires) {
		return Ticket{}, errTicket
	}
	return k, nil
}

// read trusts the bytes' origin, and checks what they are for.
func (t *Tickets) read(body []byte) (Ticket, error) {
	var c TicketClaims
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if d.Decode(&c) != nil || c.Audience != t.Audience || c.Txn == "" || c.Tenant == "" {
		return Ticket{}, errTicket
	}
	expires := time.Unix(c.Expires, 0)
	if !t.Now().Before(expires) || (c.Kind != TicketCall && c.Kind != TicketSession && c.Kind != TicketProcess) {
		return Ticket{}, errTicket
	}
	return Ticket{Tenant: c.Tenant, Kind: c.Kind, Txn: c.Txn, Server: c.Server, Expires: expires}, nil
}

// kidOf accepts exactly the header that TicketEnvelope writes.
func kidOf(header string) (string, bool) {
	rest, ok := strings.CutPrefix(header, `{"alg":"HS256","kid":"`)
	if !ok {
		return "", false
	}
	kid, _, ok := strings.Cut(rest, `"`)
	return kid, ok && kid != "" && header == ticketHeader(kid)
}
