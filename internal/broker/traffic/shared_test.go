package traffic_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/broker/traffic"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/test/pg"
)

// replicas are two processes over one PostgreSQL, before a vendor that says of its quota what it is told to say.
type replicas struct {
	t      *testing.T
	doors  [2]*traffic.Door
	limits catalog.Limits
	quotas []catalog.Quota

	mu   sync.Mutex
	says http.Header
	code int
	sent int
}

func twoReplicas(t *testing.T) *replicas {
	t.Helper()
	r := &replicas{t: t, code: 200, says: http.Header{}}
	dsn := pg.Start(t)
	for i := range r.doors {
		db, err := store.Open(t.Context(), store.Config{DSN: dsn})
		if err != nil {
			t.Fatal(err)
		}
		d := &traffic.Door{Door: r, Now: time.Now, Log: slog.New(slog.DiscardHandler), Shared: db, Replica: strconv.Itoa(i)}
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = d.Run(ctx) }()
		t.Cleanup(func() { stop(); <-ended; _ = db.Close() })
		r.doors[i] = d
	}
	return r
}

// Door: what is behind both.
func (r *replicas) Open(context.Context, *identity.Caller, broker.Act) (broker.Lease, error) {
	return &atVendor{r: r}, nil
}
func (r *replicas) Ready(context.Context, *identity.Caller, broker.Act) (broker.Answer, error) {
	return broker.Answer{}, nil
}
func (r *replicas) Holder(context.Context, identity.Tenant, string) (*broker.Holding, error) {
	return nil, nil
}
func (r *replicas) Visible(context.Context, *identity.Caller, *catalog.Server, string, []string) ([]bool, error) {
	return nil, nil
}

type atVendor struct {
	broker.Lease
	r *replicas
}

func (v *atVendor) Do(*http.Request) (*http.Response, error) {
	v.r.mu.Lock()
	defer v.r.mu.Unlock()
	v.r.sent++
	return &http.Response{StatusCode: v.r.code, Header: v.r.says.Clone(), Body: io.NopCloser(strings.NewReader(strings.Repeat("x", 1000)))}, nil
}

func (v *atVendor) Close(context.Context, broker.Outcome) {}

func (r *replicas) say(code int, header ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.code, r.says = code, http.Header{}
	for i := 0; i < len(header); i += 2 {
		r.says.Set(header[i], header[i+1])
	}
}

// ask sends a request through a replica, and returns why it was refused.
func (r *replicas) ask(replica int, who string) error {
	r.t.Helper()
	a := broker.Act{Kind: broker.KindAPI, Server: &catalog.Server{Tenant: "default", Name: "issues"}, Holding: &broker.Holding{}, Host: "api.example.com", Path: "/x",
		Upstream: &catalog.Upstream{Tenant: "default", Name: "api", Title: "Vendor", Provider: &catalog.Provider{Quotas: r.quotas}, Limits: r.limits}}
	l, err := r.doors[replica].Open(r.t.Context(), &identity.Caller{Tenant: "default", User: identity.UserID(who)}, a)
	if err != nil {
		r.t.Fatal(err)
	}
	defer l.Close(r.t.Context(), broker.Outcome{})
	q, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, "https://api.example.com/x", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := l.Do(q)
	if err != nil {
		if fault.KindOf(err) != fault.RateLimited || fault.RetryAfter(err) <= 0 {
			r.t.Errorf("refused by %v, which is no limit with a time", err)
		}
		return err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return nil
}

// passes counts how many of a person's requests, by turns to both replicas and many at once, are let through.
func (r *replicas) passes(who string, n int) (passed int) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if r.ask(i%2, who) == nil {
				mu.Lock()
				passed++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return passed
}

func (r *replicas) eventually(what string, is func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-ctx.Done():
			r.t.Fatalf("it never came true that %s", what)
		case <-tick.C:
		}
	}
}

// TestLimitsOfAllReplicas: two replicas let no more through than one would, and not much less; bytes that one sent count at the other.
func TestLimitsOfAllReplicas(t *testing.T) {
	r := twoReplicas(t)
	r.limits = catalog.Limits{UserCalls: 60}
	start := time.Now()
	n := r.passes("alice", 200)
	filled := int(time.Since(start).Seconds()) + 1 // one a second
	if n < 60-2*5 || n > 60+filled {
		t.Errorf("%d of alice's calls passed, and 60 may in a minute", n)
	}
	if r.passes("bob", 10) != 10 {
		t.Error("bob has none left")
	}
	r.limits = catalog.Limits{Bytes: 20_000}
	for range 40 {
		if r.ask(0, "carol") != nil {
			break
		}
	}
	r.eventually("what one replica sent counts at the other", func() bool { return r.ask(1, "dave") != nil })
}

// TestVendorsWordReachesAllReplicas: whoever a vendor told to wait at one replica waits at the other one too, and he alone.
func TestVendorsWordReachesAllReplicas(t *testing.T) {
	r := twoReplicas(t)
	r.say(429, "Retry-After", "600")
	if err := r.ask(0, "alice"); err != nil {
		t.Fatal(err)
	}
	r.say(200)
	r.eventually("alice waits at the other replica", func() bool { return r.ask(1, "alice") != nil })
	for i := range 2 {
		if err := r.ask(i, "bob"); err != nil {
			t.Errorf("bob waits for alice at %d: %v", i, err)
		}
	}
}

// TestSharedQuota: of a quota that a vendor gives to all nobody takes more than his share, wherever he asks; when it is used up everybody
// waits.
func TestSharedQuota(t *testing.T) {
	r := twoReplicas(t)
	r.quotas = []catalog.Quota{{Remaining: "X-Left", Every: 600, Per: catalog.PerAll}}
	r.say(200, "X-Left", "40")
	for i := range 2 { // each replica has to hear of the quota once
		if err := r.ask(i, "zoe"); err != nil {
			t.Fatal(err)
		}
	}
	sent := 0
	r.eventually("alice has had her share", func() bool {
		err := r.ask(sent%2, "alice")
		if err == nil {
			sent++
			r.say(200, "X-Left", strconv.Itoa(40-sent))
		}
		return err != nil
	})
	if sent < 15 || sent > 30 {
		t.Errorf("alice had %d of 40, and half of what remains is hers", sent)
	}
	r.eventually("she has had it at the other replica too", func() bool { return r.ask(0, "alice") != nil && r.ask(1, "alice") != nil })
	if err := r.ask(0, "bob"); err != nil {
		t.Errorf("nothing is left for bob: %v", err)
	}
	r.say(200, "X-Left", "0")
	if err := r.ask(0, "carol"); err != nil {
		t.Fatal(err)
	}
	r.eventually("all wait at both", func() bool { return r.ask(0, "dave") != nil && r.ask(1, "erin") != nil })
}
