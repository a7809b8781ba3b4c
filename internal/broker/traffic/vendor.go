package traffic

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
)

// longest is how long a vendor is believed.
const longest = time.Hour

// quota is what an answer says of one of the vendor's limits.
type quota struct {
	per   catalog.Per
	left  int64
	until time.Time // when it is renewed
}

// usual are the headers of most vendors.
var usual = []catalog.Quota{{Remaining: "X-Ratelimit-Remaining", Reset: "X-Ratelimit-Reset"}, {Remaining: "Ratelimit-Remaining", Reset: "Ratelimit-Reset"}, {Remaining: "X-Rate-Limit-Remaining", Reset: "X-Rate-Limit-Reset"}}

// quotas reads what an answer says of the vendor's limits, by the headers that its entry names, else by those that are usual. A time that
// has passed, or that nobody can read, says nothing; one beyond an hour counts as an hour.
func quotas(p *catalog.Provider, resp *http.Response, now time.Time) (l []quota) {
	add := func(per catalog.Per, left string, until time.Time) {
		n, err := strconv.ParseFloat(strings.TrimSpace(left), 64)
		if err == nil && n >= 0 && n < 1e15 && until.After(now) {
			l = append(l, quota{per, int64(n), earlier(until, now.Add(longest))})
		}
	}
	named := p.Quotas
	if len(named) == 0 {
		named = usual
		for _, v := range resp.Header.Values("Ratelimit") { // draft-ietf-httpapi-ratelimit-headers: "policy";r=50;t=30, …
			for item := range strings.SplitSeq(v, ",") {
				add(catalog.PerUser, parameter(item, "r"), moment(parameter(item, "t"), now))
			}
		}
	}
	for _, q := range named {
		left := resp.Header.Get(q.Remaining)
		if left == "" {
			continue
		}
		until := moment(resp.Header.Get(q.Reset), now)
		if until.IsZero() && q.Every > 0 {
			until = now.Add(time.Duration(q.Every) * time.Second)
		}
		add(q.Per, left, until)
	}
	return l
}

// toldToWait is until when the vendor wants no more requests of whoever sent this one (RFC 9110 section 10.2.3); zero where it wants
// some. With a success, Retry-After means something else.
func toldToWait(resp *http.Response, now time.Time) time.Time {
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusForbidden:
		if until := moment(resp.Header.Get("Retry-After"), now); until.After(now) {
			return earlier(until, now.Add(longest))
		}
	}
	return time.Time{}
}

// moment reads what vendors write for a time: seconds from now, seconds or milliseconds since 1970, a date (RFC 9110 or RFC 3339), or a
// duration as 6m0s; zero where it is none of these.
func moment(v string, now time.Time) time.Time {
	v = strings.TrimSpace(v)
	if n, err := strconv.ParseFloat(v, 64); err == nil {
		switch {
		case !(n >= 0 && n < 1e15):
			return time.Time{}
		case n > 1e12:
			return time.UnixMilli(int64(n))
		case n > 1e9:
			return time.Unix(int64(n+0.999), 0)
		}
		return now.Add(min(time.Duration(n+0.999), 2*longest/time.Second) * time.Second)
	}
	if t, err := http.ParseTime(v); err == nil {
		return t
	}
	if t, err := time.Parse(time.RFC3339, v); err == nil {
		return t
	}
	if after, err := time.ParseDuration(v); err == nil && after > 0 {
		return now.Add(after)
	}
	return time.Time{}
}

// parameter is the value of an item's parameter in a structured field, as far as numbers go (RFC 9651).
func parameter(item, name string) string {
	_, params, _ := strings.Cut(item, ";")
	for p := range strings.SplitSeq(params, ";") {
		if k, v, ok := strings.Cut(strings.TrimSpace(p), "="); ok && k == name {
			return v
		}
	}
	return ""
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
