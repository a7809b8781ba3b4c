package remote

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"time"

	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Client is the broker's side as the gateway's process has it. Make it with NewClient. It is safe for concurrent use. Errors of all that
// it does are those of what it stands for, and fault.Unavailable where the broker's process is away.
type Client struct {
	Trace func(ctx context.Context, h http.Header) // writes the trace that an operation belongs to; nil where nothing is traced
	Hosts broker.Hosts                             // runs the servers that we run ourselves, in this process; nil where there are none

	wire    http.RoundTripper // to the broker's process (outbound.Pins.To)
	process string
	catalog *catalog.Catalog
	alive   func(c *identity.Caller) bool
	log     *slog.Logger
	cards   cards
}

// NewClient returns a client that reaches the broker's process by wire. alive says whether a caller's access has not ended
// (identity.Epochs.Alive), for what is open: the broker's side looks itself too.
func NewClient(wire http.RoundTripper, c *catalog.Catalog, alive func(c *identity.Caller) bool, log *slog.Logger) *Client {
	return &Client{wire: wire, process: rand.Text() + rand.Text(), catalog: c, alive: alive, log: log}
}

// request is one of an operation.
func (c *Client) request(ctx context.Context, op string, body io.Reader) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://broker"+root+op, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set(headerProcess, c.process)
	if c.Trace != nil {
		c.Trace(ctx, r.Header)
	}
	return r, nil
}

// send returns the answer of a request that was understood; a trouble is its error.
func (c *Client) send(r *http.Request) (*http.Response, error) {
	resp, err := c.wire.RoundTrip(r)
	if err != nil {
		if r.Context().Err() != nil {
			return nil, fault.New(fault.Unavailable, "it was given up", r.Context().Err())
		}
		return nil, fault.New(fault.Unavailable, fault.Message(errAway), err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var t trouble
	if resp.StatusCode != statusTrouble || json.NewDecoder(io.LimitReader(resp.Body, maxSaid)).Decode(&t) != nil {
		return nil, fault.New(fault.Unavailable, "the broker's process does not know what this gateway asks for: both have to be of one version", nil)
	}
	return nil, t.err()
}

// sayTime bounds an operation that only says something; those that ask vendors wait for them.
const sayTime = 2 * time.Minute

// say asks for one operation.
func say[Out any](ctx context.Context, c *Client, op string, in any) (out Out, err error) {
	ctx, cancel := context.WithTimeout(ctx, sayTime)
	defer cancel()
	b, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	r, err := c.request(ctx, op, bytes.NewReader(b))
	if err != nil {
		return out, err
	}
	resp, err := c.send(r)
	if err != nil {
		return out, err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxSaid)).Decode(&out); err != nil {
		return out, errBroken
	}
	return out, nil
}

// do asks for one that answers nothing.
func (c *Client) do(ctx context.Context, op string, in any) error {
	_, err := say[struct{}](ctx, c, op, in)
	return err
}

const aliveEvery = 5 * time.Second

// Run tells the broker's process that this one lives, until ctx ends: what it has open stays open.
func (c *Client) Run(ctx context.Context) error {
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	away := false
	for {
		err := c.Ping(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil && !away {
			c.log.Warn("the broker's process does not answer; calls are refused until it does", "error", err)
		} else if err == nil && away {
			c.log.Info("the broker's process answers again")
		}
		away = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Ping reports whether the broker's process answers.
func (c *Client) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, aliveEvery)
	defer cancel()
	return c.do(ctx, opAlive, struct{}{})
}
