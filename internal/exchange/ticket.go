package exchange

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
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
	return &Credential{Method: TicketMethod, Expires: t.Expires, Place: func(r *http.Request) error {
		r.Header[http.CanonicalHeaderKey(name)] = []string{line}
		return nil
	}}, nil
}
