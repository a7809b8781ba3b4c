package traffic_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/broker/traffic"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// shop is a vendor that fails a few times, as it was told, and then is well.
type shop struct {
	broker.Door
	fails  []failing
	got    []string // what arrived, method and key
	detail string   // of the outcome
}

type failing struct {
	status int
	after  string // Retry-After
	err    error
}

func (s *shop) Open(context.Context, *identity.Caller, broker.Act) (broker.Lease, error) {
	return &sale{s: s}, nil
}

type sale struct {
	broker.Lease
	s *shop
}

func (v *sale) Do(r *http.Request) (*http.Response, error) {
	n := len(v.s.got)
	v.s.got = append(v.s.got, r.Method+r.Header.Get("Authorization"))
	r.Header.Set("Authorization", " twice") // as placing does
	f := failing{status: 200}
	if n < len(v.s.fails) {
		f = v.s.fails[n]
	}
	if f.err != nil {
		return nil, f.err
	}
	h := http.Header{}
	if f.after != "" {
		h.Set("Retry-After", f.after)
	}
	return &http.Response{StatusCode: f.status, Header: h, Body: io.NopCloser(strings.NewReader("x"))}, nil
}

func (v *sale) Close(_ context.Context, o broker.Outcome) { v.s.detail = o.Detail }

// TestRetries: what failed is sent again where the vendor asks for it, it can do no harm, and it is soon over.
func TestRetries(t *testing.T) {
	hungUp := fault.New(fault.Unavailable, "hung up", io.ErrUnexpectedEOF)
	refused := fault.New(fault.Unavailable, "cannot be reached", &net.OpError{Op: "dial", Err: io.EOF})
	all := catalog.Retries{Status: []int{429, 502, 503, 504}, Key: "Idempotency-Key"}
	twice := []failing{{status: 503}, {status: 503}}
	for name, c := range map[string]struct {
		rules  catalog.Retries
		method string
		header string
		body   bool
		fails  []failing
		sent   int
		status int // of the answer in the end; 0: an error
	}{
		"twice away":                         {rules: all, method: "GET", fails: twice, sent: 3, status: 200},
		"away for longer":                    {rules: all, method: "GET", fails: append(twice, failing{status: 504}), sent: 3, status: 504},
		"nothing is said of this vendor":     {method: "GET", fails: twice, sent: 1, status: 503},
		"it changes something":               {rules: all, method: "POST", fails: twice, sent: 1, status: 503},
		"it deletes":                         {rules: all, method: "DELETE", fails: twice, sent: 1, status: 503},
		"known again by its key":             {rules: all, method: "POST", header: "Idempotency-Key", fails: twice, sent: 3, status: 200},
		"a key that this vendor knows not":   {rules: catalog.Retries{Status: all.Status}, method: "POST", header: "Idempotency-Key", fails: twice, sent: 1, status: 503},
		"a body":                             {rules: all, method: "GET", body: true, fails: twice, sent: 1, status: 503},
		"a body, with a key":                 {rules: all, method: "POST", header: "Idempotency-Key", body: true, fails: twice, sent: 1, status: 503},
		"an upgrade":                         {rules: all, method: "GET", header: "Upgrade", fails: twice, sent: 1, status: 503},
		"another failure":                    {rules: all, method: "GET", fails: []failing{{status: 500}}, sent: 1, status: 500},
		"no fault of the vendor's":           {rules: all, method: "GET", fails: []failing{{status: 404}}, sent: 1, status: 404},
		"too fast, for two seconds":          {rules: all, method: "GET", fails: []failing{{status: 429, after: "2"}}, sent: 2, status: 200},
		"too fast, for a minute":             {rules: all, method: "GET", fails: []failing{{status: 429, after: "60"}}, sent: 1, status: 429},
		"too fast, for nobody knows":         {rules: all, method: "GET", fails: []failing{{status: 429}}, sent: 1, status: 429},
		"too fast, until a date":             {rules: all, method: "GET", fails: []failing{{status: 429, after: "Thu, 26 Nov 2026 12:00:00 GMT"}}, sent: 1, status: 429},
		"no connection":                      {rules: all, method: "GET", fails: []failing{{err: refused}}, sent: 2, status: 200},
		"hung up":                            {rules: all, method: "HEAD", fails: []failing{{err: hungUp}}, sent: 2, status: 200},
		"hung up, and reading may change":    {rules: catalog.Retries{Status: []int{429}}, method: "GET", fails: []failing{{err: hungUp}}, sent: 1},
		"no connection, and reading may too": {rules: catalog.Retries{Status: []int{429}}, method: "GET", fails: []failing{{err: refused}}, sent: 2, status: 200},
		"refused by ourselves":               {rules: all, method: "GET", fails: []failing{{err: fault.New(fault.Denied, "no", nil)}}, sent: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &shop{fails: c.fails}
				d := &traffic.Door{Door: s, Now: time.Now}
				a := broker.Act{Kind: broker.KindAPI, Server: &catalog.Server{Tenant: "default"}, Holding: &broker.Holding{}, Host: "api.example.com", Path: "/x",
					Upstream: &catalog.Upstream{Name: "shop", Title: "Shop", Provider: &catalog.Provider{Retries: c.rules}}}
				l, err := d.Open(t.Context(), &identity.Caller{User: "alice"}, a)
				if err != nil {
					t.Fatal(err)
				}
				var body io.Reader
				if c.body {
					body = strings.NewReader("x")
				}
				r, err := http.NewRequestWithContext(t.Context(), c.method, "https://api.example.com/x", body)
				if err != nil {
					t.Fatal(err)
				}
				if c.header != "" {
					r.Header.Set(c.header, "1")
				}
				resp, err := l.Do(r)
				status := 0
				if err == nil {
					status = resp.StatusCode
					_ = resp.Body.Close()
				}
				if len(s.got) != c.sent || status != c.status {
					t.Errorf("sent %d times, the answer is %d, %v; want %d times and %d", len(s.got), status, err, c.sent, c.status)
				}
				for _, got := range s.got {
					if got != c.method {
						t.Errorf("sent was %q: what an attempt did to the request shows in the next one", got)
					}
				}
				l.Close(t.Context(), broker.Outcome{})
				if said := strings.Contains(s.detail, "times"); said != (c.sent > 1) {
					t.Errorf("the log says %q", s.detail)
				}
			})
		})
	}
}

// TestRetriesEndWithTheirCall: nobody waits who has gone, or whose call ends before an answer could come.
func TestRetriesEndWithTheirCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shop{fails: []failing{{status: 503, after: "4"}}}
		d := &traffic.Door{Door: s, Now: time.Now}
		a := broker.Act{Kind: broker.KindAPI, Server: &catalog.Server{}, Holding: &broker.Holding{}, Upstream: &catalog.Upstream{Provider: &catalog.Provider{Retries: catalog.Retries{Status: []int{503}}}}}
		for _, most := range []time.Duration{time.Second, 3 * time.Second} {
			s.got = nil
			l, err := d.Open(t.Context(), &identity.Caller{User: identity.UserID(most.String())}, a)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), most)
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example.com/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			resp, err := l.Do(r)
			if err != nil || resp.StatusCode != 503 || len(s.got) != 1 || time.Since(start) > 0 {
				t.Errorf("within %s: %v, sent %d times, after %s", most, err, len(s.got), time.Since(start))
			}
			cancel()
		}
		ctx, cancel := context.WithCancel(t.Context())
		s.got = nil
		l, err := d.Open(t.Context(), &identity.Caller{User: "bob"}, a)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example.com/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, cancel)
		if resp, err := l.Do(r); err != nil || resp.StatusCode != 503 || len(s.got) != 1 {
			t.Errorf("gone: %v, sent %d times", err, len(s.got))
		}
	})
}
