package traffic

import (
	"context"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/outbound"
)

const (
	attempts = 3                      // of one request, the first among them
	patience = 5 * time.Second        // the longest Retry-After that is waited for here; a longer one is the server's to wait for
	pause    = 250 * time.Millisecond // before the second attempt, where the vendor says nothing; twice that before the third
)

// send sends the request, and once or twice more where the vendor asks for it and it can do no harm.
func (l *lease) send(r *http.Request) (*http.Response, error) {
	if !l.repeatable(r) {
		return l.once(r)
	}
	for attempt := 1; ; attempt++ {
		resp, err := l.once(r.Clone(r.Context())) // placing a credential changes a request
		wait, worth := l.again(resp, err, attempt)
		if !worth || attempt >= attempts || !fits(r.Context(), wait) {
			return resp, err
		}
		after := time.NewTimer(wait)
		select {
		case <-r.Context().Done():
			after.Stop()
			return resp, err
		case <-after.C:
		}
		if resp != nil {
			_ = resp.Body.Close() // what it says does not matter any more
		}
	}
}

// repeatable reports whether a request may be sent twice: it changes nothing, or the vendor knows it again by its key. A body is gone
// once it was sent.
func (l *lease) repeatable(r *http.Request) bool {
	rules := l.act.Upstream.Provider.Retries
	if len(rules.Status) == 0 || r.Body != nil && r.Body != http.NoBody || r.Header.Get("Upgrade") != "" {
		return false
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return true
	}
	return rules.Key != "" && r.Header.Get(rules.Key) != ""
}

// again says whether another attempt is worth it, and after how long.
func (l *lease) again(resp *http.Response, err error, attempt int) (time.Duration, bool) {
	rules := l.act.Upstream.Provider.Retries.Status
	wait := pause << (attempt - 1)
	wait += rand.N(wait / 2) // so that many do not come back at once
	switch {
	case err != nil && l.refused != "":
		return 0, false // by us
	case err != nil:
		mayRepeat := slices.ContainsFunc(rules, func(s int) bool { return s >= http.StatusInternalServerError })
		return wait, outbound.Unsent(err) || mayRepeat && outbound.Down(err)
	case !slices.Contains(rules, resp.StatusCode):
		return 0, false
	}
	if v := resp.Header.Get("Retry-After"); v != "" {
		n, err := strconv.Atoi(v)
		if said := time.Duration(n) * time.Second; err == nil && n >= 0 && said <= patience {
			return max(said, wait) + wait/4, l.openIn(said)
		}
		return 0, false // a date, or long: the server is told
	}
	return wait, resp.StatusCode != http.StatusTooManyRequests && l.openIn(wait)
}

// fits reports whether there is time to wait and then for an answer.
func fits(ctx context.Context, wait time.Duration) bool {
	end, ok := ctx.Deadline()
	return !ok || time.Until(end) > 2*wait
}

func (l *lease) openIn(wait time.Duration) bool {
	return l.door.waiting.openIn(windowOf(l.caller, l.act), l.door.Now().Add(wait))
}
