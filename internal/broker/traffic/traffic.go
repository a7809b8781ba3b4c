// Package traffic answers: how do API requests get to a vendor without harm, and what does it mean that one failed?
//
// Its Door stands before the broker's, for egress. It counts calls and bytes by person, server and upstream; it keeps back whoever the
// vendor told to wait, so that an agent that does not listen costs its user nothing, and a vendor is asked once; it sends nothing to an
// upstream that is down, and again what failed where the vendor asks for that; and it notes on the call what its agent can do about a
// failure that the vendor is known for. It trusts the vendor's headers for at
// most an hour. Replicas share what they count as far as Shared says; circuits are each one's own.
package traffic

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Door is a broker's door with rules for traffic. Door, Now and Log are required.
type Door struct {
	broker.Door
	Now      func() time.Time
	Log      *slog.Logger
	Circuits Circuits
	Shared   Shared // nil where there is one process
	Replica  string // this process, among those that share

	buckets buckets
	waiting waiting
}

// Open implements broker.Door.
func (d *Door) Open(ctx context.Context, c *identity.Caller, a broker.Act) (broker.Lease, error) {
	l, err := d.Door.Open(ctx, c, a)
	if err != nil || a.Kind != broker.KindAPI {
		return l, err
	}
	return &lease{Lease: l, door: d, caller: c, act: a}, nil
}

// lease is one API request.
type lease struct {
	broker.Lease
	door    *Door
	caller  *identity.Caller
	act     broker.Act
	refused string // what was said instead of sending it
	failed  string // the failure that the vendor is known for
	sent    int    // how often
}

// Do implements broker.Lease.
func (l *lease) Do(r *http.Request) (*http.Response, error) {
	resp, err := l.send(r)
	if l.refused != "" {
		l.act.Holding.Tell(l.refused)
	}
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		l.look(resp)
	}
	return resp, err
}

// once sends the request, if there is room for it and the upstream is not down.
func (l *lease) once(r *http.Request) (*http.Response, error) {
	if err := l.room(r.Context()); err != nil {
		return nil, l.refuse(err)
	}
	answered, err := l.door.Circuits.enter(l.caller, l.act)
	if err != nil {
		return nil, l.refuse(err)
	}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &counted{r.Body, l}
	}
	l.sent++
	resp, err := l.Lease.Do(r)
	answered(resp, err)
	if err != nil {
		return nil, err
	}
	l.door.waiting.learn(l.act.Upstream.Provider, windowOf(l.caller, l.act), resp, l.door.Now())
	if _, both := resp.Body.(io.Writer); !both && resp.Body != nil { // an upgraded connection stays one
		resp.Body = &counted{resp.Body, l}
	}
	return resp, nil
}

// room counts the request, or says why there is no room for it.
func (l *lease) room(ctx context.Context) error {
	up, now := l.act.Upstream, l.door.Now()
	share := cmp.Or(up.Limits.Share, halfOfIt)
	if wait, why := l.door.waiting.wait(windowOf(l.caller, l.act), share, now); wait > 0 {
		return refusal(up.Title+" "+why+" until "+now.Add(wait).UTC().Format(time.TimeOnly)+" UTC; do something else until then", wait)
	}
	return l.door.take(ctx, l.caller, l.act)
}

func (l *lease) refuse(err error) error {
	l.refused = fault.Message(err)
	return err
}

// Close implements broker.Lease: what was refused here says so in the log, and what a failure meant.
func (l *lease) Close(ctx context.Context, o broker.Outcome) {
	switch {
	case l.refused != "":
		o = broker.Outcome{Result: audit.ResultFailed, Detail: l.refused}
	case l.failed != "" && (o.Result == audit.ResultOK || o.Result == audit.ResultFailed):
		o = broker.Outcome{Result: audit.ResultFailed, Detail: l.failed}
	}
	if l.sent > 1 {
		o.Detail = strings.TrimPrefix(o.Detail+"; sent "+strconv.Itoa(l.sent)+" times", "; ")
	}
	l.Lease.Close(ctx, o)
}
