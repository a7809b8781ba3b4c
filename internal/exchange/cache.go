package exchange

import (
	"slices"
	"strings"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/vault"
)

// cacheLife bounds how long a credential is used without looking at its row again, and how long its plaintext is kept.
const cacheLife = 2 * time.Minute

// cacheUsers bounds one generation of the cache.
const cacheUsers = 10_000

// key is everything that a credential depends on beside the passing of time and the user's access epoch.
type key struct {
	owner    owner
	upstream catalog.UpstreamName
	up       *catalog.Upstream // a reload makes new ones
	scopes   string
	of       vault.ConnectionID
	client   identity.ClientID // the agent: a delegation names it
	proof    string            // of a token of the company's IdP: which one, since federation may have gone out from it
}

type owner struct {
	tenant    identity.Tenant
	principal string
}

func keyOf(c *identity.Caller, up *catalog.Upstream, scopes []string, of vault.ConnectionID) key {
	k := key{owner: owner{c.Tenant, c.Principal()}, upstream: up.Name, up: up, of: of, client: c.Client}
	if !c.Local {
		k.proof = c.Proof()
	}
	switch {
	case len(scopes) == 1:
		k.scopes = scopes[0]
	case len(scopes) > 1 && !slices.Equal(scopes, up.Scopes):
		k.scopes = strings.Join(scopes, " ")
	}
	return k
}

type held struct {
	credential *Credential
	until      time.Time
	kind       catalog.MethodKind // that is ready
	readyUntil time.Time
}

// cache holds credentials by owner, in two generations: when the younger is full, the older is forgotten whole.
type cache struct {
	mu         sync.RWMutex
	young, old map[owner]map[key]held
	stamps     map[owner]uint64 // how often the owner was forgotten lately; guards against storing what was obtained before that
	forgotten  uint64
	cleared    uint64 // the same, of everybody
}

func (c *cache) look(k key) (held, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if h, ok := c.young[k.owner][k]; ok {
		return h, true
	}
	h, ok := c.old[k.owner][k]
	return h, ok
}

func (c *cache) get(k key, now time.Time) *Credential {
	if h, ok := c.look(k); ok && now.Before(h.until) {
		return h.credential
	}
	return nil
}

func (c *cache) ready(k key, now time.Time) catalog.MethodKind {
	h, ok := c.look(k)
	switch {
	case ok && now.Before(h.until):
		return h.credential.Method
	case ok && now.Before(h.readyUntil):
		return h.kind
	}
	return ""
}

// stamp is taken before a credential is obtained and given back with it.
func (c *cache) stamp(k key) uint64 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.stampOf(k.owner)
}

func (c *cache) stampOf(o owner) uint64 { return max(c.stamps[o], c.cleared) }

func (c *cache) put(k key, stamp uint64, cred *Credential, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stampOf(k.owner) != stamp {
		return // the user was forgotten meanwhile: this credential may be of a connection that has ended
	}
	h := c.slot(k.owner)[k]
	h.credential, h.until = cred, until
	c.slot(k.owner)[k] = h
}

func (c *cache) putReady(k key, kind catalog.MethodKind, until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.slot(k.owner)[k]
	h.kind, h.readyUntil = kind, until
	c.slot(k.owner)[k] = h
}

// slot is the owner's map in the younger generation. c.mu is held.
func (c *cache) slot(o owner) map[key]held {
	if c.young == nil || len(c.young) >= cacheUsers {
		c.young, c.old, c.stamps = map[owner]map[key]held{}, c.young, map[owner]uint64{}
	}
	m := c.young[o]
	if m == nil {
		m = map[key]held{}
		c.young[o] = m
	}
	return m
}

// forget drops what is kept of a principal; of identity.Everybody all, whichever tenant's: it is rare, and cheap to fetch anew.
func (c *cache) forget(t identity.Tenant, principal string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if principal == identity.Everybody {
		c.forgotten++
		c.young, c.old, c.stamps, c.cleared = nil, nil, nil, c.forgotten
		return
	}
	o := owner{t, principal}
	delete(c.young, o)
	delete(c.old, o)
	if c.stamps == nil {
		c.stamps = map[owner]uint64{}
	}
	c.forgotten++
	c.stamps[o] = c.forgotten
}
