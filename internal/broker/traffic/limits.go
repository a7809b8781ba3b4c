package traffic

import (
	"fmt"
	"io"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// counter is what is counted: the calls or bytes of one person, or of all, at a server or an upstream.
type counter struct {
	tenant identity.Tenant
	server catalog.ServerName   // or
	up     catalog.UpstreamName // one of the two
	who    string               // "" for all
	bytes  bool
}

// window is what a vendor counts together, as far as that can be seen from outside: a person's requests to one part of the API.
// Vendors count searches apart, and GraphQL; both have a first segment of their own.
type window struct {
	tenant    identity.Tenant
	up        catalog.UpstreamName
	who, part string
}

// maxKept bounds both tables; what is full or past is forgotten first.
const maxKept = 100_000

// bucket holds what is left, and fills within a minute. It may be overdrawn: how large an answer is shows when it is there.
type bucket struct {
	left float64
	at   time.Time
}

func (b *bucket) fill(now time.Time, perMinute int64) {
	b.left = min(float64(perMinute), b.left+now.Sub(b.at).Minutes()*float64(perMinute))
	b.at = now
}

func (l *lease) window() window {
	part, _, _ := strings.Cut(strings.TrimPrefix(l.act.Path, "/"), "/")
	return window{l.act.Server.Tenant, l.act.Upstream.Name, l.caller.Principal(), l.act.Host + "/" + part}
}

// counted counts what passes.
type counted struct {
	io.ReadCloser
	l *lease
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	if n > 0 {
		c.l.door.spend(c.l.caller, c.l.act, int64(n))
	}
	return n, err
}

// rule is one limit that an act is under.
type rule struct {
	counter
	perMinute int64
	what      string
}

func rules(c *identity.Caller, a broker.Act) (all []rule) {
	add := func(k counter, l catalog.Limits, name string) {
		for _, r := range []struct {
			n     int64
			bytes bool
			who   string
			what  string
		}{{l.Calls, false, "", "calls"}, {l.UserCalls, false, c.Principal(), "calls of one person"}, {l.Bytes, true, "", "bytes"}, {l.UserBytes, true, c.Principal(), "bytes of one person"}} {
			if r.n > 0 {
				k.who, k.bytes = r.who, r.bytes
				all = append(all, rule{k, r.n, fmt.Sprintf("%s has room for %d %s a minute", name, r.n, r.what)})
			}
		}
	}
	if l := a.Server.Limits; l != (catalog.Limits{}) {
		add(counter{tenant: a.Server.Tenant, server: a.Server.Name}, l, "server "+string(a.Server.Name))
	}
	if l := a.Upstream.Limits; l != (catalog.Limits{}) {
		add(counter{tenant: a.Server.Tenant, up: a.Upstream.Name}, l, a.Upstream.Title)
	}
	return all
}

// take counts one call, or says why there is no room for it; then nothing is counted.
func (d *Door) take(c *identity.Caller, a broker.Act) error {
	l := lease{caller: c, act: a}
	now := d.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if until, ok := d.closed[l.window()]; ok && now.Before(until) {
		return refusal(a.Upstream.Title+" has no more requests for this person until "+until.UTC().Format(time.TimeOnly)+" UTC; do something else until then", until.Sub(now))
	}
	all := rules(c, a)
	for _, r := range all {
		b := d.bucket(r, now)
		if need := 1 - b.left; r.bytes && b.left <= 0 || !r.bytes && need > 0 {
			wait := time.Duration(max(need, 1) / float64(r.perMinute) * float64(time.Minute))
			return refusal(r.what+", and they are used up; wait, and ask for less", max(wait, time.Second))
		}
	}
	for _, r := range all {
		if !r.bytes {
			d.bucket(r, now).left--
		}
	}
	return nil
}

func refusal(msg string, after time.Duration) error {
	return &fault.Error{Kind: fault.RateLimited, Msg: msg, RetryAfter: after}
}

func (d *Door) spend(c *identity.Caller, a broker.Act, n int64) {
	if a.Server.Limits == (catalog.Limits{}) && a.Upstream.Limits == (catalog.Limits{}) {
		return
	}
	now := d.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range rules(c, a) {
		if r.bytes {
			d.bucket(r, now).left -= float64(n)
		}
	}
}

// bucket is a rule's, filled up to now. d.mu is held.
func (d *Door) bucket(r rule, now time.Time) *bucket {
	b := d.left[r.counter]
	if b == nil {
		if d.left == nil {
			d.left = map[counter]*bucket{}
		}
		if len(d.left) >= maxKept {
			for k, o := range d.left {
				if now.Sub(o.at) >= time.Minute && o.left >= 0 {
					delete(d.left, k)
				}
			}
		}
		b = &bucket{float64(r.perMinute), now}
		d.left[r.counter] = b
	}
	b.fill(now, r.perMinute)
	return b
}

func (d *Door) close(w window, until time.Time) {
	now := d.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed == nil {
		d.closed = map[window]time.Time{}
	}
	if len(d.closed) >= maxKept {
		for k, t := range d.closed {
			if !now.Before(t) {
				delete(d.closed, k)
			}
		}
	}
	if len(d.closed) < maxKept {
		d.closed[w] = until
	}
}
