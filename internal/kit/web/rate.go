package web

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Rate counts what each party did of late. It is safe for concurrent use; its zero value has seen nobody.
type Rate struct {
	mu   sync.Mutex
	seen map[string][]time.Time // guarded by mu
}

// maxParties bounds the table: when more are known, all are forgotten.
const maxParties = 10_000

// Allow reports whether a party may do it once more: fewer than limit times within the window. What was refused is not counted.
func (c *Rate) Allow(who string, now time.Time, window time.Duration, limit int) bool {
	return c.room(who, now, window, limit, true)
}

// Full reports whether Allow would say no. It counts nothing.
func (c *Rate) Full(who string, now time.Time, window time.Duration, limit int) bool {
	return !c.room(who, now, window, limit, false)
}

func (c *Rate) room(who string, now time.Time, window time.Duration, limit int, count bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.seen == nil || len(c.seen) > maxParties {
		c.seen = map[string][]time.Time{}
	}
	recent := slices.DeleteFunc(c.seen[who], func(at time.Time) bool { return now.Sub(at) > window })
	free := len(recent) < limit
	if free && count {
		recent = append(recent, now)
	}
	if delete(c.seen, who); len(recent) > 0 {
		c.seen[who] = recent
	}
	return free
}

// Address is whose request it is, for counting; of IPv6 the network that one party is given.
func Address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	if ip, err := netip.ParseAddr(host); err == nil && ip.Is6() && !ip.Is4In6() {
		if p, err := ip.WithZone("").Prefix(64); err == nil {
			return p.String()
		}
	}
	return host
}
