package traffic

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// longest is how long a vendor is believed.
const longest = time.Hour

// closedUntil reads from an answer until when the vendor wants no more requests of this kind; zero where it wants some. Known
// are Retry-After (RFC 9110 section 10.2.3) with 429, 503 and 403, and a remaining of 0 beside a reset, in the spellings of
// the RateLimit drafts and of most vendors: seconds from now, or a time since 1970 in seconds or milliseconds.
func closedUntil(resp *http.Response, now time.Time) time.Time {
	var until time.Time
	later := func(t time.Time) {
		if t.After(until) {
			until = t
		}
	}
	if v := resp.Header.Get("Retry-After"); v != "" && (resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable || resp.StatusCode == http.StatusForbidden) {
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			later(at(n, now))
		} else if t, err := http.ParseTime(v); err == nil {
			later(t)
		}
	}
	for _, prefix := range []string{"X-Ratelimit-", "Ratelimit-", "X-Rate-Limit-"} {
		if strings.TrimSpace(resp.Header.Get(prefix+"Remaining")) != "0" {
			continue
		}
		if n, err := strconv.ParseFloat(resp.Header.Get(prefix+"Reset"), 64); err == nil && n > 0 && n < 1e15 {
			later(at(int64(n+0.999), now))
		}
	}
	if !until.After(now) {
		return time.Time{}
	}
	if most := now.Add(longest); until.After(most) {
		return most
	}
	return until
}

// at reads a number as seconds from now, or since 1970, or as milliseconds since 1970.
func at(n int64, now time.Time) time.Time {
	switch {
	case n < 0:
		return time.Time{}
	case n > 1e12:
		return time.UnixMilli(n)
	case n > 1e9:
		return time.Unix(n, 0)
	case n > int64(longest/time.Second):
		return now.Add(longest)
	}
	return now.Add(time.Duration(n) * time.Second)
}
