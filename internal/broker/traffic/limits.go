package traffic

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

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

// name is the counter's within its tenant, for all replicas.
func (c counter) name() string {
	what := "calls"
	if c.bytes {
		what = "bytes"
	}
	return strings.Join([]string{string(c.server), string(c.up), what, c.who}, "/")
}

// maxKept bounds each table; what is full or past is forgotten first.
const maxKept = 100_000

// buckets hold what is left of each limit.
type buckets struct {
	mu    sync.Mutex
	of    map[counter]*bucket // guarded by mu
	draws singleflight.Group
}

// bucket holds what this process may use. Where it is alone, it fills within a minute; else it is drawn, in parts, from the one that all
// replicas share. It may be overdrawn: how large an answer is shows when it is there.
type bucket struct {
	left  float64
	at    time.Time
	dry   time.Time // until then the shared one has nothing
	draws bool      // somebody draws in the background
	wait  int64     // requests that wait for a draw
}

func (b *bucket) fill(now time.Time, perMinute int64) {
	b.left = min(float64(perMinute), b.left+now.Sub(b.at).Minutes()*float64(perMinute))
	b.at = now
}

// lacks says whether there is no room for one more request, and how long that lasts.
func (b *bucket) lacks(r rule) (time.Duration, bool) {
	need := 1 - b.left
	if r.bytes && b.left > 0 || !r.bytes && need <= 0 {
		return 0, false
	}
	return max(time.Duration(max(need, 1)/float64(r.perMinute)*float64(time.Minute)), time.Second), true
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

// part is how much is drawn from a shared bucket at once: a twentieth, three seconds' worth.
func (r rule) part() int64 { return max(1, r.perMinute/20) }

func (r rule) refusal(wait time.Duration) error {
	return refusal(r.what+", and they are used up; wait, and ask for less", wait)
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

// maxDraws bounds how often a request goes back for what others took from under it.
const maxDraws = 50

// take counts one call, or says why there is no room for it; then nothing is counted.
func (d *Door) take(ctx context.Context, c *identity.Caller, a broker.Act) error {
	all := rules(c, a)
	for range maxDraws {
		short, wait := d.takeHere(all)
		switch {
		case short == nil:
			return nil
		case wait > 0:
			return short.refusal(wait)
		}
		d.waits(*short, 1)
		err := d.draw(ctx, *short)
		d.waits(*short, -1)
		if err != nil {
			return fault.New(fault.Unavailable, "whether there is room for this request cannot be found out; try again later", err)
		}
	}
	return all[0].refusal(time.Second)
}

// waits counts the requests that wait for a draw, so that it is large enough for them.
func (d *Door) waits(r rule, n int64) {
	d.buckets.mu.Lock()
	defer d.buckets.mu.Unlock()
	d.bucket(r, d.Now()).wait += n
}

// takeHere takes one call from every bucket of this process, or from none: then it says which one is empty, and how long it will be;
// 0: there may be more to draw.
func (d *Door) takeHere(all []rule) (short *rule, wait time.Duration) {
	now := d.Now()
	d.buckets.mu.Lock()
	defer d.buckets.mu.Unlock()
	for i, r := range all {
		b := d.bucket(r, now)
		wait, lacks := b.lacks(r)
		switch {
		case !lacks:
		case d.Shared == nil:
			return &all[i], wait
		case now.Before(b.dry):
			return &all[i], b.dry.Sub(now)
		default:
			return &all[i], 0
		}
	}
	for _, r := range all {
		b := d.bucket(r, now)
		if !r.bytes {
			b.left--
		}
		d.ahead(r, b)
	}
	return nil, 0
}

// ahead draws the next part before it is wanted, and pays what was overdrawn. d.buckets.mu is held.
func (d *Door) ahead(r rule, b *bucket) {
	if d.Shared == nil || b.draws || b.left >= float64(r.part())/2 || d.Now().Before(b.dry) {
		return
	}
	b.draws = true
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), drawTime)
		defer cancel()
		_ = d.draw(ctx, r) // whoever needs it tries again, and hears of it
		d.buckets.mu.Lock()
		defer d.buckets.mu.Unlock()
		b.draws = false
	}()
}

const drawTime = 5 * time.Second

// draw takes a part of the shared bucket; who asks at the same time waits for the same part.
func (d *Door) draw(ctx context.Context, r rule) error {
	_, err, _ := d.buckets.draws.Do(string(r.tenant)+" "+r.name(), func() (any, error) {
		d.buckets.mu.Lock()
		b := d.bucket(r, d.Now())
		owed, want := max(0, -b.left), r.part()
		if !r.bytes {
			want = max(want, b.wait)
		}
		d.buckets.mu.Unlock()
		got, wait, err := d.Shared.Draw(context.WithoutCancel(ctx), Draw{r.tenant, r.name(), r.perMinute, want, int64(owed)})
		if err != nil {
			return nil, err
		}
		d.buckets.mu.Lock()
		defer d.buckets.mu.Unlock()
		b.left += owed + float64(got)
		if got == 0 {
			b.dry = d.Now().Add(max(wait, 100*time.Millisecond))
		}
		return nil, nil
	})
	return err
}

func refusal(msg string, after time.Duration) error {
	return &fault.Error{Kind: fault.RateLimited, Msg: msg, RetryAfter: after}
}

func (d *Door) spend(c *identity.Caller, a broker.Act, n int64) {
	if a.Server.Limits == (catalog.Limits{}) && a.Upstream.Limits == (catalog.Limits{}) {
		return
	}
	now := d.Now()
	d.buckets.mu.Lock()
	defer d.buckets.mu.Unlock()
	for _, r := range rules(c, a) {
		if r.bytes {
			b := d.bucket(r, now)
			b.left -= float64(n)
			d.ahead(r, b)
		}
	}
}

// bucket is a rule's; one of a process that is alone is filled up to now. d.buckets.mu is held.
func (d *Door) bucket(r rule, now time.Time) *bucket {
	b := d.buckets.of[r.counter]
	if b == nil {
		if d.buckets.of == nil {
			d.buckets.of = map[counter]*bucket{}
		}
		if len(d.buckets.of) >= maxKept {
			for k, o := range d.buckets.of {
				if now.Sub(o.at) >= time.Minute && o.left >= 0 {
					delete(d.buckets.of, k)
				}
			}
		}
		b = &bucket{at: now}
		if d.Shared == nil {
			b.left = float64(r.perMinute)
		}
		d.buckets.of[r.counter] = b
	}
	if d.Shared == nil {
		b.fill(now, r.perMinute)
	}
	b.at = now
	return b
}
