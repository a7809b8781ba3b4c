package exchange_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"net/http"
	"regexp"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// ticketKey is a MAC with one key.
type ticketKey string

func (k ticketKey) MAC(_ context.Context, _ string, data []byte) ([]byte, string, error) {
	h := hmac.New(sha256.New, []byte(k))
	h.Write(data)
	return h.Sum(nil), "t1", nil
}

// ticketShelf is what replicas share.
type ticketShelf struct {
	mu sync.Mutex
	m  map[[32]byte]identity.Ticket
}

func (s *ticketShelf) PutTicket(_ context.Context, hash [32]byte, t identity.Ticket) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[hash] = t
	return nil
}

func (s *ticketShelf) OpaqueTicket(_ context.Context, hash [32]byte) (identity.Ticket, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t, ok := s.m[hash]; ok {
		return t, nil
	}
	return identity.Ticket{}, fault.New(fault.NotFound, "none", nil)
}

// TestShapedTickets: a keycard in a vendor's shape stands for the same as a signed one, on every replica, and for no longer.
func TestShapedTickets(t *testing.T) {
	now := time.Date(2026, 11, 26, 9, 0, 0, 0, time.UTC)
	shelf := &ticketShelf{m: map[[32]byte]identity.Ticket{}}
	mint := &exchange.TicketMint{MAC: ticketKey("a key"), Issuer: "https://desk", Audience: "https://desk/egress", Opaque: shelf}
	elsewhere := &identity.Tickets{MAC: ticketKey("a key"), Audience: "https://desk/egress", Opaque: shelf, Now: func() time.Time { return now }}
	shape, err := catalog.ParseShape("ghp_{36}")
	if err != nil {
		t.Fatal(err)
	}
	s := &catalog.Server{Name: "code", Shape: shape}
	token := func(m *exchange.TicketMint, k identity.Ticket) string {
		t.Helper()
		c, err := m.Mint(t.Context(), s, k)
		if err != nil {
			t.Fatal(err)
		}
		r := &http.Request{Header: http.Header{}}
		if err := c.Place(r); err != nil {
			t.Fatal(err)
		}
		return r.Header.Get("Authorization")[len("Bearer "):]
	}
	k := identity.Ticket{Tenant: "default", Kind: identity.TicketSession, Txn: "0000000000000001.7", Server: "code", Expires: now.Add(time.Hour)}
	one := token(mint, k)
	if !regexp.MustCompile(`^ghp_[0-9A-Za-z]{36}$`).MatchString(one) || token(mint, k) != one {
		t.Errorf("a session has one keycard, of the shape: %s, %s", one, token(mint, k))
	}
	if got, err := elsewhere.Check(t.Context(), one); err != nil || got != k {
		t.Errorf("another replica: %+v %v", got, err)
	}
	other := k
	other.Txn = "0000000000000001.8"
	if token(mint, other) == one || token(&exchange.TicketMint{MAC: ticketKey("another"), Opaque: shelf}, k) == one {
		t.Error("two sessions, or two deployments, have one keycard")
	}
	for _, wrong := range []string{one[:len(one)-1] + "!", "ghp_", "ghp_0123456789abcdefGHIJKLMNOPQRSTUVWXYZ", ""} {
		if _, err := elsewhere.Check(t.Context(), wrong); fault.KindOf(err) != fault.Unauthenticated {
			t.Errorf("%q: %v", wrong, err)
		}
	}
	now = now.Add(time.Hour)
	if _, err := elsewhere.Check(t.Context(), one); fault.KindOf(err) != fault.Unauthenticated {
		t.Errorf("it is over: %v", err)
	}
}
