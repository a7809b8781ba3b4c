package exchange

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// TicketMint makes transaction tokens: what a server gets to hold instead of a credential. They are MACed, because only we
// read them, and one is minted for every call.
type TicketMint struct {
	MAC      identity.TicketMAC
	Issuer   string
	Audience string // <issuer>/egress
}

// TicketMethod is how a ticket is named in the log.
const TicketMethod catalog.MethodKind = "ticket"

// Mint returns a ticket, to be placed where the server expects its credential.
func (m *TicketMint) Mint(ctx context.Context, s *catalog.Server, t identity.Ticket) (*Credential, error) {
	claims, err := json.Marshal(identity.TicketClaims{Issuer: m.Issuer, Audience: m.Audience, Txn: t.Txn, Server: t.Server,
		Tenant: t.Tenant, Kind: t.Kind, Expires: t.Expires.Unix()})
	if err != nil {
		return nil, err
	}
	_, kid, err := m.MAC.MAC(ctx, "", nil)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "transaction tokens cannot be made now; try again later", err)
	}
	envelope := identity.TicketEnvelope(kid, claims)
	mac, _, err := m.MAC.MAC(ctx, kid, envelope)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "transaction tokens cannot be made now; try again later", err)
	}
	envelope = append(envelope, '.')
	token := string(base64.RawURLEncoding.AppendEncode(envelope, mac))
	name, line := "Authorization", "Bearer "+token
	if s.TokenHeader != "" {
		name, line = s.TokenHeader, token
	}
	return &Credential{Method: TicketMethod, Expires: t.Expires, Token: secret.New(token), Place: func(r *http.Request) error {
		r.Header[http.CanonicalHeaderKey(name)] = []string{line}
		return nil
	}}, nil
}

// sessionLife bounds what a lost session ticket is worth even if nobody ends anything.
const sessionLife = 12 * time.Hour

// TicketFor says what a ticket is good for: one call, or, where there is a session, that. A session's ticket of a service ends
// with its token; a person's sign-in is checked at every use.
func TicketFor(c *identity.Caller, s *catalog.Server, call, session string, now time.Time) identity.Ticket {
	t := identity.Ticket{Tenant: c.Tenant, Kind: identity.TicketCall, Txn: call, Server: string(s.Name), Expires: now.Add(s.CallLimit)}
	if session != "" {
		t.Kind, t.Txn, t.Expires = identity.TicketSession, session, now.Add(sessionLife)
		if c.User == "" {
			t.Expires = c.Expires
		}
	}
	return t
}
