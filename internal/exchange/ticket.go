package exchange

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
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
	Opaque   identity.OpaqueTickets
}

// TicketMethod is how a ticket is named in the log.
const TicketMethod catalog.MethodKind = "ticket"

// Mint returns a ticket, to be placed where the server expects its credential.
func (m *TicketMint) Mint(ctx context.Context, s *catalog.Server, t identity.Ticket) (*Credential, error) {
	var token string
	var err error
	if s.Shape.IsZero() {
		token, err = m.signed(ctx, t)
	} else {
		token, err = m.opaque(ctx, s.Shape, t)
	}
	if err != nil {
		msg := "transaction tokens cannot be made now; try again later"
		if fault.KindOf(err) == fault.Unavailable { // by a key service or a database that is away, and says so
			msg = "transaction tokens cannot be made now: " + fault.Message(err)
		}
		return nil, fault.New(fault.Unavailable, msg, err)
	}
	name, line := "Authorization", "Bearer "+token
	if s.TokenHeader != "" {
		name, line = s.TokenHeader, token
	}
	return &Credential{Method: TicketMethod, Expires: t.Expires, Token: secret.New(token), Place: func(r *http.Request) error {
		r.Header[http.CanonicalHeaderKey(name)] = []string{line}
		return nil
	}}, nil
}

// SessionLife bounds what a lost session ticket is worth even if nobody ends anything.
const SessionLife = 12 * time.Hour

// TicketFor says what a ticket is good for: one call, or, where there is a session, that. A session's ticket of a service ends
// with its token; a person's sign-in is checked at every use. At a server that we run it is a process that holds a session's.
func TicketFor(c *identity.Caller, s *catalog.Server, call, session string, now time.Time) identity.Ticket {
	t := identity.Ticket{Tenant: c.Tenant, Kind: identity.TicketCall, Txn: call, Server: string(s.Name), Expires: now.Add(s.CallLimit)}
	if session != "" {
		t.Kind, t.Txn, t.Expires = identity.TicketSession, session, now.Add(SessionLife)
		if s.Program != nil {
			t.Kind = identity.TicketProcess
		}
		if c.User == "" {
			t.Expires = c.Expires
		}
	}
	return t
}

// signed is a ticket that says what it is, and that only we can make.
func (m *TicketMint) signed(ctx context.Context, t identity.Ticket) (string, error) {
	claims, err := json.Marshal(identity.TicketClaims{Issuer: m.Issuer, Audience: m.Audience, Txn: t.Txn, Server: t.Server,
		Tenant: t.Tenant, Kind: t.Kind, Expires: t.Expires.Unix()})
	if err != nil {
		return "", err
	}
	_, kid, err := m.MAC.MAC(ctx, "", nil)
	if err != nil {
		return "", err
	}
	envelope := identity.TicketEnvelope(kid, claims)
	mac, _, err := m.MAC.MAC(ctx, kid, envelope)
	if err != nil {
		return "", err
	}
	envelope = append(envelope, '.')
	return string(base64.RawURLEncoding.AppendEncode(envelope, mac)), nil
}

// opaque is a ticket in the shape that a server looks for. It is a MAC of what it stands for, cut to the shape, so that a
// session has one however often it is made, and nobody can guess it. It is kept, by its hash, because it says nothing.
func (m *TicketMint) opaque(ctx context.Context, shape catalog.Shape, t identity.Ticket) (string, error) {
	var failed error
	var random []byte
	block := uint32(0)
	token := shape.Fill(func() byte {
		if len(random) == 0 && failed == nil {
			// A zero byte first: what is signed for a JWT never begins so.
			data := binary.BigEndian.AppendUint32([]byte{0}, block)
			for _, s := range []string{string(t.Tenant), string(t.Kind), t.Txn, t.Server} {
				data = append(binary.BigEndian.AppendUint32(data, uint32(len(s))), s...)
			}
			random, failed = m.block(ctx, data)
			block++
		}
		if failed != nil {
			return 0
		}
		b := random[0]
		random = random[1:]
		return b
	})
	if failed == nil {
		failed = m.Opaque.PutTicket(ctx, sha256.Sum256([]byte(token)), t)
	}
	return token, failed
}

func (m *TicketMint) block(ctx context.Context, data []byte) ([]byte, error) {
	_, kid, err := m.MAC.MAC(ctx, "", nil)
	if err != nil {
		return nil, err
	}
	mac, _, err := m.MAC.MAC(ctx, kid, data)
	return mac, err
}
