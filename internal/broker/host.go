package broker

import (
	"context"
	"net/http"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/hosted"
)

// hosted reports whether an act is a message to a server that we run ourselves.
func (a Act) hosted() bool {
	return a.Server.Program != nil && a.Kind != KindAPI && a.Kind != KindProcess
}

// host sends a message to a server that we run ourselves.
type host struct{ *lease }

// RoundTrip implements Sender. The call is booked on the process that serves it before the message is there, so that no API
// request comes too early.
func (l host) RoundTrip(r *http.Request) (*http.Response, error) {
	return l.broker.Hosts.RoundTrip(hosted.Ask{Caller: l.entry.Caller, Server: l.act.Server, Request: r, Open: l.process,
		Join: func(process audit.CallID) { l.broker.Calls.Join(l.entry, process) }})
}

// process opens the act under which a new process runs: decided, on record, and with the keycard that it holds for its life.
func (l host) process(ctx context.Context) (*hosted.Card, error) {
	door, err := l.broker.Open(ctx, l.entry.Caller, Act{Kind: KindProcess, Server: l.act.Server})
	if err != nil {
		return nil, err
	}
	opened := door.(*lease) // what Open makes
	valid := func() bool { return l.broker.Calls.Holds(opened.entry.Call, l.broker.Access.Alive) }
	return &hosted.Card{Act: opened.entry.Call, Keycard: opened.credential.Token, Expires: opened.credential.Expires, Valid: valid,
		Close: func(r audit.Result, detail string) { opened.Close(context.Background(), Outcome{r, detail}) }}, nil
}
