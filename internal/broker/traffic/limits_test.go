package traffic_test

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/broker/traffic"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// inner is the broker's door, and its leases: what reached the vendor, and how acts ended.
type inner struct {
	broker.Door
	sent   int
	header http.Header
	status int
	body   string
	ended  []broker.Outcome
}

func (d *inner) Open(context.Context, *identity.Caller, broker.Act) (broker.Lease, error) {
	return &held{d: d}, nil
}

type held struct {
	broker.Lease
	d *inner
}

func (h *held) Do(*http.Request) (*http.Response, error) {
	h.d.sent++
	return &http.Response{StatusCode: max(h.d.status, 200), Header: h.d.header.Clone(), Body: io.NopCloser(strings.NewReader(h.d.body))}, nil
}

func (h *held) Close(_ context.Context, o broker.Outcome) { h.d.ended = append(h.d.ended, o) }

type desk struct {
	*traffic.Door
	t   *testing.T
	in  *inner
	now time.Time

	quotas []catalog.Quota
}

func newDesk(t *testing.T) *desk {
	d := &desk{t: t, in: &inner{header: http.Header{}}, now: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)}
	d.Door = &traffic.Door{Door: d.in, Now: func() time.Time { return d.now }}
	return d
}

// ask sends one request and returns why it was refused.
func (d *desk) ask(user string, server, up catalog.Limits, path string) error {
	d.t.Helper()
	a := broker.Act{Kind: broker.KindAPI, Server: &catalog.Server{Tenant: "default", Name: "issues", Limits: server},
		Upstream: &catalog.Upstream{Name: "github", Title: "GitHub", Provider: &catalog.Provider{Quotas: d.quotas}, Limits: up}, Host: "api.github.com", Path: path, Holding: &broker.Holding{}}
	l, err := d.Open(d.t.Context(), &identity.Caller{Tenant: "default", User: identity.UserID(user)}, a)
	if err != nil {
		d.t.Fatal(err)
	}
	defer l.Close(d.t.Context(), broker.Outcome{Result: "ok"})
	r, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, "https://api.github.com"+path, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := l.Do(r)
	if err != nil {
		if fault.KindOf(err) != fault.RateLimited || fault.RetryAfter(err) <= 0 || fault.Message(err) == "" {
			d.t.Errorf("refused by %v, which is no limit with a time", err)
		}
		return err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return nil
}

func TestCalls(t *testing.T) {
	d := newDesk(t)
	perUser, all := catalog.Limits{UserCalls: 2}, catalog.Limits{Calls: 3}
	for i, tt := range []struct {
		user string
		ok   bool
	}{{"alice", true}, {"alice", true}, {"alice", false}, {"bob", true}, {"bob", false}, {"carol", false}} {
		if err := d.ask(tt.user, perUser, all, "/x"); (err == nil) != tt.ok {
			t.Errorf("request %d, of %s: %v", i, tt.user, err)
		}
	}
	if d.in.sent != 3 {
		t.Errorf("%d requests reached the vendor", d.in.sent)
	}
	if last := d.in.ended[len(d.in.ended)-1]; last.Result != "failed" || !strings.Contains(last.Detail, "GitHub has room for 3 calls a minute") {
		t.Errorf("the log says %+v", last)
	}
	d.now = d.now.Add(time.Minute)
	if err := d.ask("alice", perUser, all, "/x"); err != nil {
		t.Errorf("a minute later: %v", err)
	}
}

func TestBytes(t *testing.T) {
	d := newDesk(t)
	d.in.body = strings.Repeat("x", 1500)
	l := catalog.Limits{UserBytes: 1000}
	if err := d.ask("alice", catalog.Limits{}, l, "/x"); err != nil {
		t.Errorf("the first: %v", err)
	}
	if err := d.ask("alice", catalog.Limits{}, l, "/x"); err == nil {
		t.Error("an overdrawn bucket gives more")
	}
	if err := d.ask("bob", catalog.Limits{}, l, "/x"); err != nil {
		t.Errorf("somebody else: %v", err)
	}
	d.now = d.now.Add(45 * time.Second)
	if err := d.ask("alice", catalog.Limits{}, l, "/x"); err != nil {
		t.Errorf("when it is filled again: %v", err)
	}
}

// TestVendorsLimits: whoever the vendor told to wait waits here; others, and other parts of the API, do not.
func TestVendorsLimits(t *testing.T) {
	at := func(d *desk, after time.Duration) string { return strconv.FormatInt(d.now.Add(after).Unix(), 10) }
	for name, tt := range map[string]struct {
		status int
		header func(d *desk) http.Header
		wait   time.Duration // 0: nobody waits
	}{
		"Retry-After in seconds": {429, func(*desk) http.Header { return http.Header{"Retry-After": {"30"}} }, 30 * time.Second},
		"Retry-After as a date": {503, func(d *desk) http.Header {
			return http.Header{"Retry-After": {d.now.Add(time.Minute).Format(http.TimeFormat)}}
		}, time.Minute},
		"GitHub": {403, func(d *desk) http.Header {
			return http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {at(d, 10*time.Minute)}}
		}, 10 * time.Minute},
		"the last one that was allowed": {200, func(*desk) http.Header { return http.Header{"Ratelimit-Remaining": {"0"}, "Ratelimit-Reset": {"12"}} }, 12 * time.Second},
		"the draft's own field":         {200, func(*desk) http.Header { return http.Header{"Ratelimit": {`"burst";r=5;t=1, "hour";r=0;t=40`}} }, 40 * time.Second},
		"a field that nobody can read":  {200, func(*desk) http.Header { return http.Header{"Ratelimit": {`r=0, ;;;, "x";r=;t=`}} }, 0},
		"some are left":                 {200, func(*desk) http.Header { return http.Header{"Ratelimit-Remaining": {"1"}, "Ratelimit-Reset": {"12"}} }, 0},
		"Retry-After with success":      {201, func(*desk) http.Header { return http.Header{"Retry-After": {"30"}} }, 0},
		"nonsense": {429, func(*desk) http.Header {
			return http.Header{"Retry-After": {"soon"}, "X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"NaN"}}
		}, 0},
		"the past": {429, func(*desk) http.Header { return http.Header{"Retry-After": {"-5"}} }, 0},
		"a year":   {429, func(*desk) http.Header { return http.Header{"Retry-After": {"31536000"}} }, time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.in.status, d.in.header = tt.status, tt.header(d)
			none := catalog.Limits{}
			if err := d.ask("alice", none, none, "/repos/a"); err != nil {
				t.Fatal(err)
			}
			d.in.status, d.in.header = 200, http.Header{}
			if err := d.ask("alice", none, none, "/repos/b"); (err != nil) != (tt.wait > 0) {
				t.Errorf("the next one: %v", err)
			}
			for _, other := range []error{d.ask("bob", none, none, "/repos/a"), d.ask("alice", none, none, "/search/x")} {
				if other != nil {
					t.Errorf("it is not his limit: %v", other)
				}
			}
			d.now = d.now.Add(tt.wait - time.Second)
			if err := d.ask("alice", none, none, "/repos/b"); tt.wait > time.Second && err == nil {
				t.Error("a second too early")
			}
			d.now = d.now.Add(time.Second)
			if err := d.ask("alice", none, none, "/repos/b"); err != nil {
				t.Errorf("when the time has come: %v", err)
			}
		})
	}
}

// TestQuotasByName: where a vendor has headers of its own, they are read, in whatever form it writes a time; and no others are.
func TestQuotasByName(t *testing.T) {
	for name, tt := range map[string]struct {
		quota  catalog.Quota
		header http.Header
		wait   bool
	}{
		"a duration":          {catalog.Quota{Remaining: "X-Left", Reset: "X-At"}, http.Header{"X-Left": {"0"}, "X-At": {"6m0s"}}, true},
		"a date":              {catalog.Quota{Remaining: "X-Left", Reset: "X-At"}, http.Header{"X-Left": {"0"}, "X-At": {"2026-11-24T12:05:00Z"}}, true},
		"a date that is past": {catalog.Quota{Remaining: "X-Left", Reset: "X-At"}, http.Header{"X-Left": {"0"}, "X-At": {"2026-11-24T11:00:00Z"}}, false},
		"by the clock":        {catalog.Quota{Remaining: "X-Left", Every: 10}, http.Header{"X-Left": {"0"}}, true},
		"another's":           {catalog.Quota{Remaining: "X-Left", Every: 10}, http.Header{"X-Ratelimit-Remaining": {"0"}, "X-Ratelimit-Reset": {"30"}}, false},
		"no number":           {catalog.Quota{Remaining: "X-Left", Every: 10}, http.Header{"X-Left": {"none"}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.quotas, d.in.header = []catalog.Quota{tt.quota}, tt.header
			none := catalog.Limits{}
			if err := d.ask("alice", none, none, "/x"); err != nil {
				t.Fatal(err)
			}
			if err := d.ask("alice", none, none, "/x"); (err != nil) != tt.wait {
				t.Errorf("the next one: %v", err)
			}
		})
	}
}
