package refresh

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Trouble is why nothing is renewed at an upstream.
type Trouble string

const (
	Misconfigured Trouble = "misconfigured"      // the vendor refuses our registration
	Refusing      Trouble = "refusing_everybody" // so many end at once that the vendor is the likelier one to be wrong
)

// Ailing is an upstream in trouble.
type Ailing struct {
	Tenant   identity.Tenant
	Upstream catalog.UpstreamName
	Trouble  Trouble
	Since    time.Time
}

const (
	probeEvery = time.Minute // one try while there is trouble
	window     = time.Minute // within which refusals are counted
	breakAt    = 5           // refused connections, and at least a fifth of those that were tried
	believe    = time.Hour   // after which a vendor that refuses everybody is believed
)

// health is what this process knows of vendors' token endpoints. The zero health knows of no trouble.
type health struct {
	mu sync.Mutex
	of map[upstream]*vendor // guarded by mu
}

type upstream struct {
	tenant identity.Tenant
	name   catalog.UpstreamName
}

type vendor struct {
	trouble Trouble
	since   time.Time
	next    time.Time         // when the next probe may leave
	entry   *catalog.Upstream // of the config that is in trouble
	tried   []tried
}

// tried is one connection's last answer within the window.
type tried struct {
	c       vault.Connection
	at      time.Time
	refused bool
}

// at is the vendor's record. h.mu is held.
func (h *health) at(up *catalog.Upstream) *vendor {
	k := upstream{up.Tenant, up.Name}
	if h.of == nil {
		h.of = map[upstream]*vendor{}
	}
	if h.of[k] == nil {
		h.of[k] = &vendor{}
	}
	return h.of[k]
}

// enter says whether a refresh may begin: while there is trouble, one a minute. A changed config is tried at once.
func (h *health) enter(up *catalog.Upstream, now time.Time) (time.Duration, Trouble) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.at(up)
	if v.trouble == Misconfigured && v.entry != up {
		v.trouble = ""
	}
	if v.trouble == "" {
		return 0, ""
	}
	if pause := v.next.Sub(now); pause > 0 && pause <= probeEvery {
		return pause, v.trouble
	}
	v.next = now.Add(probeEvery)
	return 0, ""
}

// served ends all trouble.
func (h *health) served(up *catalog.Upstream, c vault.Connection, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.at(up)
	v.trouble = ""
	v.note(tried{c: c, at: now}, now)
}

// misconfigured notes that the vendor refuses us, and reports whether that is news.
func (h *health) misconfigured(up *catalog.Upstream, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.at(up)
	news := v.trouble != Misconfigured
	if news {
		v.since = now
	}
	v.trouble, v.next, v.entry = Misconfigured, now.Add(probeEvery), up
	return news
}

// refused notes that a connection would end, and reports whether it shall not, because the vendor seems to be at fault. When
// that begins, the connections are returned that have ended so since the window began.
func (h *health) refused(up *catalog.Upstream, c vault.Connection, now time.Time) (open bool, earlier []vault.Connection) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.at(up)
	v.note(tried{c: c, at: now, refused: true}, now)
	if v.trouble == Refusing {
		return now.Sub(v.since) < believe, nil
	}
	var dead []vault.Connection
	for _, t := range v.tried {
		if t.refused {
			dead = append(dead, t.c)
		}
	}
	if len(dead) < breakAt || len(dead)*5 < len(v.tried) {
		return false, nil
	}
	v.trouble, v.since, v.next = Refusing, now, now.Add(probeEvery)
	return true, slices.DeleteFunc(dead, func(d vault.Connection) bool { return d.ID == c.ID })
}

// note keeps a connection's last answer.
func (v *vendor) note(t tried, now time.Time) {
	v.tried = slices.DeleteFunc(v.tried, func(o tried) bool { return o.c.ID == t.c.ID || now.Sub(o.at).Abs() > window })
	t.c.Sealed = vault.Sealed{}
	v.tried = append(v.tried, t)
}

// Ailing lists the upstreams that are in trouble, as this process sees them.
func (m *Machine) Ailing() []Ailing {
	m.health.mu.Lock()
	defer m.health.mu.Unlock()
	var l []Ailing
	for k, v := range m.health.of {
		if v.trouble != "" {
			l = append(l, Ailing{k.tenant, k.name, v.trouble, v.since})
		}
	}
	slices.SortFunc(l, func(a, b Ailing) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Upstream, b.Upstream))
	})
	return l
}
