package broker

import (
	"context"
	"net/http"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/hosted"
	"frontdesk.dev/frontdesk/internal/identity"
)

// host sends a message to a server that we run ourselves.
type host struct{ *lease }

// RoundTrip implements Sender. The call is booked on the process that serves it before the message is there, so that no API
// request comes too early.
func (l host) RoundTrip(r *http.Request) (*http.Response, error) {
	return l.broker.Hosts.RoundTrip(hosted.Ask{Caller: l.entry.Caller, Server: l.act.Server, Request: r,
		Open: func(ctx context.Context) (*hosted.Card, error) {
			return l.broker.Process(ctx, l.entry.Caller, l.act.Server)
		},
		Join: func(process audit.CallID) error { l.broker.Calls.Join(l.entry.Call, process); return nil }})
}

// Process opens the act under which a new process runs: decided, on record, and with the keycard that it holds for its life.
func (b *Broker) Process(ctx context.Context, c *identity.Caller, s *catalog.Server) (*hosted.Card, error) {
	door, err := b.Open(ctx, c, Act{Kind: KindProcess, Server: s})
	if err != nil {
		return nil, err
	}
	opened := door.(*lease) // what Open makes
	return &hosted.Card{Act: opened.entry.Call, Keycard: opened.credential.Token, Expires: opened.credential.Expires,
		Valid: func() bool { return b.Calls.Holds(opened.entry.Call, b.Access.Alive) },
		Close: func(r audit.Result, detail string) { opened.Close(context.Background(), Outcome{r, detail}) }}, nil
}
