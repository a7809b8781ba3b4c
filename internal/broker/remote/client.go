package remote

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// Client is the broker's side as the gateway's process has it. Make it with NewClient. It is safe for concurrent use. Errors of all that
// it does are those of what it stands for, and fault.Unavailable where no broker's process answers.
type Client struct {
	Trace func(ctx context.Context, h http.Header) // writes the trace that an operation belongs to; nil where nothing is traced
	Hosts broker.Hosts                             // runs the servers that we run ourselves, in this process; nil where there are none

	brokers []Broker
	at      atomic.Int32 // which of them is asked first: the one that answered last
	process string
	catalog *catalog.Catalog
	alive   func(c *identity.Caller) bool
	log     *slog.Logger
	cards   cards
}

// Broker is a broker's process as it is reached (outbound.Pins.To).
type Broker struct {
	Address string
	Wire    http.RoundTripper
}

// NewClient returns a client of these brokers' processes, which serve one database; of several the first that answers is asked, and what
// it has opened is its own. alive says whether a caller's access has not ended (identity.Epochs.Alive), for what is open: the broker's
// side looks itself too.
func NewClient(brokers []Broker, c *catalog.Catalog, alive func(c *identity.Caller) bool, log *slog.Logger) *Client {
	return &Client{brokers: brokers, process: rand.Text() + rand.Text(), catalog: c, alive: alive, log: log}
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

// reach sends a request to one broker, or, where to is nil, to the first that can be reached. Of a request that somebody may have begun to
// read nothing is sent again.
func (c *Client) reach(r *http.Request, to http.RoundTripper) (resp *http.Response, from http.RoundTripper, err error) {
	if to != nil {
		resp, err = to.RoundTrip(r)
		return resp, to, err
	}
	body := &unread{ReadCloser: r.Body}
	if r.Body != nil {
		r.Body = body
	}
	first, n := int(c.at.Load()), len(c.brokers)
	for i := range n {
		at := (first + i) % n
		from = c.brokers[at].Wire
		body.again()
		if resp, err = from.RoundTrip(r); err == nil {
			c.at.Store(int32(at))
			break
		}
		if r.Context().Err() != nil {
			break
		}
		c.at.CompareAndSwap(int32(at), int32((at+1)%n))
		if body.begun.Load() {
			break
		}
	}
	body.settle()
	return resp, from, err
}

// unread is a body that can be sent to somebody else as long as nothing of it was read. The transport closes it all the same.
type unread struct {
	io.ReadCloser
	begun atomic.Bool

	mu      sync.Mutex
	settled bool // guarded by mu, as is what follows: nobody else will be tried
	closed  bool
}

func (b *unread) Read(p []byte) (int, error) {
	b.begun.Store(true)
	return b.ReadCloser.Read(p)
}

func (b *unread) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	if !b.settled && !b.begun.Load() {
		return nil
	}
	return b.ReadCloser.Close()
}

// again forgets that somebody who got nothing of it closed it.
func (b *unread) again() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = false
}

func (b *unread) settle() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.settled = true
	if b.closed && b.ReadCloser != nil {
		_ = b.ReadCloser.Close() // once more does no harm
	}
}

// send returns the answer of a request that was understood, and who gave it; a trouble is its error.
func (c *Client) send(r *http.Request, to http.RoundTripper) (*http.Response, http.RoundTripper, error) {
	resp, from, err := c.reach(r, to)
	if err != nil {
		if r.Context().Err() != nil {
			return nil, nil, fault.New(fault.Unavailable, "it was given up", r.Context().Err())
		}
		return nil, nil, fault.New(fault.Unavailable, fault.Message(errAway), err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, from, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var t trouble
	if resp.StatusCode != statusTrouble || json.NewDecoder(io.LimitReader(resp.Body, maxSaid)).Decode(&t) != nil {
		return nil, nil, fault.New(fault.Unavailable, "the broker's process does not know what this gateway asks for: it is of an earlier version; brokers are upgraded first", nil)
	}
	return nil, nil, t.err()
}

// sayTime bounds an operation that only says something; those that ask vendors wait for them.
const sayTime = 2 * time.Minute

// say asks for one operation.
func say[Out any](ctx context.Context, c *Client, op string, in any) (out Out, err error) {
	return sayTo[Out](ctx, c, nil, op, in)
}

// sayTo asks one broker's process for it; nil is any.
func sayTo[Out any](ctx context.Context, c *Client, to http.RoundTripper, op string, in any) (out Out, err error) {
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
	resp, _, err := c.send(r, to)
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

// Run tells every broker's process that this one lives, until ctx ends: what it has open there stays open.
func (c *Client) Run(ctx context.Context) error {
	tick := time.NewTicker(aliveEvery)
	defer tick.Stop()
	away := map[string]bool{}
	for {
		all := c.Standing(ctx)
		c.goOn(all)
		for address, s := range all {
			if ctx.Err() != nil {
				return nil
			}
			if s.Err != nil && !away[address] {
				c.log.Warn("a broker's process does not answer; where none does, calls are refused", "address", address, "error", s.Err)
			} else if s.Err == nil && away[address] {
				c.log.Info("the broker's process answers again", "address", address)
			}
			away[address] = s.Err != nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// goOn leaves a broker's process that is stopping for another one that is not.
func (c *Client) goOn(all map[string]Standing) {
	at := c.at.Load()
	if !all[c.brokers[at].Address].Stopping {
		return
	}
	for i, b := range c.brokers {
		if s := all[b.Address]; s.Err == nil && !s.Stopping {
			c.at.CompareAndSwap(at, int32(i))
			return
		}
	}
}

// Standing is how a broker's process is.
type Standing struct {
	Version  string // of its program
	Stopping bool
	Err      error // it does not answer
}

// Standing asks each, by address.
func (c *Client) Standing(ctx context.Context) map[string]Standing {
	ctx, cancel := context.WithTimeout(ctx, aliveEvery)
	defer cancel()
	var mu sync.Mutex
	all := map[string]Standing{}
	var asked sync.WaitGroup
	for _, b := range c.brokers {
		asked.Go(func() {
			said, err := sayTo[standing](ctx, c, b.Wire, opAlive, presence{len(c.brokers) > 1})
			mu.Lock()
			defer mu.Unlock()
			all[b.Address] = Standing{said.Version, said.Stopping, err}
		})
	}
	asked.Wait()
	return all
}

// Ping reports whether a broker's process answers.
func (c *Client) Ping(ctx context.Context) (err error) {
	for _, s := range c.Standing(ctx) {
		if err = s.Err; err == nil {
			return nil
		}
	}
	return err
}
