// Package catalog answers: what may be called?
//
// It knows the servers, the upstreams with their hosts and methods, and the facts of providers as data. It holds no
// secret and decides nothing. A Snapshot is made from one config file and never changes; Catalog swaps whole ones.
package catalog

import (
	"cmp"
	"context"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog/openapi"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// ServerName names an MCP server within a tenant: lower-case letters, digits and hyphens, at most 32.
type ServerName string

// UpstreamName names an upstream within a tenant, by the same rule.
type UpstreamName string

// Delivery is what a server gets to hold.
type Delivery string

const (
	DeliverEgress Delivery = "egress" // a transaction token, exchanged at egress
	DeliverHeader Delivery = "header" // the upstream's credential: the server is the upstream
)

// Server is an MCP server behind the gateway.
type Server struct {
	Tenant         identity.Tenant
	Name           ServerName
	Title          string // for pages
	URL            *url.URL
	Deliver        Delivery
	TokenHeader    string // header that carries the credential or ticket; "" = Authorization: Bearer
	Placeholder    identity.TicketKind
	VerifyJWT      bool // tickets are ES256 with the server's URL as audience
	Needs          []Need
	CallLimit      time.Duration
	CheckArguments bool     // look for credentials in messages too
	Shape          Shape    // of its keycards, where it checks what its token looks like; zero: they are JWTs
	SmuggleHeaders []string // request headers of clients that are refused, beside the built-in ones
	Methods        []string // MCP requests of clients that pass, beside those of the protocol
	Observe        bool     // what policy refuses is recorded, and passes
	Limits         Limits
	Program        *Program // what we run ourselves; nil where the server runs elsewhere
}

// Limits are how much may pass in a minute; 0 is as much as there is.
type Limits struct {
	Calls, UserCalls int64 // API requests; of all, and of each person
	Bytes, UserBytes int64 // of their bodies, both ways

	Share float64 // of what remains of a quota that the vendor gives to all, for each person; 0: half
}

// Program is how a server of our own is run: one process a user, which speaks MCP on its standard input and output.
type Program struct {
	Image     string            // that it is in, as internal/hosted/image reads it; "" = it is one of this machine's
	Argv      []string          // with an image: instead of its entrypoint and arguments; nil = those
	Args      []string          // of an image's program, instead of the image's own; nil = those
	Env       map[string]string // values may hold {keycard} and {egress:<upstream>}
	Read      []string          // paths that it may read, beside the system's programs and libraries
	Require   []string          // sandbox measures without which it is not started
	Memory    int64             // bytes; 0 = unbounded
	Scratch   int64             // bytes that it may write; 0 = 64 MiB
	Processes int               // threads counted; 0 = unbounded
	CPU       int               // percent of one processor's time; 0 = unbounded
	Idle      time.Duration     // after which a process without a call ends
}

// Need is one upstream that a server uses.
type Need struct {
	Upstream UpstreamName
	Scopes   []string // beyond the upstream's own
	Optional bool     // the server can do without
	Tools    []string // tool name patterns (path.Match) that need it; empty = all
}

// Upstream is an API in another trust domain.
type Upstream struct {
	Tenant    identity.Tenant
	Name      UpstreamName
	Title     string // the vendor's name, for pages
	Provider  *Provider
	Origins   []*url.URL           // scheme and host, with a path prefix on the first where the API has one; the first is the default
	Aliases   []Alias              // further hosts under which servers address it
	Methods   []Method             // in the order in which they are tried
	Scopes    []string             // asked for by default
	Risk      string               // accept_risk: the operator's reason, "" where nothing needs one
	WebSocket bool                 // connections may be upgraded to WebSockets
	Described *openapi.Description // names its operations; nil: nothing does
	CutLeaks  bool                 // on_leak: an answer that holds the credential is cut off there, not only cleaned

	// Resource is the URL of the MCP server that this upstream is, where the vendor's authorization server is found from it and not
	// known: until then the provider has no OAuth. Issuers are those that may be found; none: any public one.
	Resource string
	Issuers  []string

	// Sites says how each connection's own site is learned, where the first origin only stands for it; nil: the origins are the API.
	Sites *Sites

	Limits Limits // of all its requests
}

// Method is the one of a kind; where the config lists none, it has nothing but its kind.
func (u *Upstream) Method(k MethodKind) Method {
	for _, m := range u.Methods {
		if m.Kind == k {
			return m
		}
	}
	return Method{Kind: k}
}

// Through is the method by another registration of ours than the current one, that through which something was given; "": by the current
// one.
func (m Method) Through(client string) Method {
	if client != "" {
		m.Client = client
	}
	return m
}

// Leaked says whether an answer that held the credential may go on, now that it is taken out and on record (err: it is not).
// Nil is the vendor's own server, whose answers go on.
func (u *Upstream) Leaked(err error) error {
	if u != nil && u.CutLeaks {
		return fault.New(fault.Unavailable, "the answer held a credential and was cut off", err)
	}
	return err
}

// Alias is a host that servers call, and where their requests are sent instead, paths and all.
type Alias struct{ From, To *url.URL }

// Snapshot is everything that one config says exists. It is immutable.
type Snapshot struct {
	Servers   map[identity.Tenant]map[ServerName]*Server
	Upstreams map[identity.Tenant]map[UpstreamName]*Upstream
	shapes    shapes
	origins   origins
}

// Catalog is the current snapshot. The zero Catalog is empty.
type Catalog struct {
	now  atomic.Pointer[Snapshot]
	Live Live // nil: nobody wants to know
}

// Live is told what vendors show of themselves (live.Register).
type Live interface {
	Showed(ctx context.Context, up *Upstream, shown []Showing)
}

// Showing is what an answer of a vendor's has shown of its entry.
type Showing struct {
	Aspect Aspect
	Fits   bool
	Said   string // in our words; nothing of what the vendor sent stands in it
}

// Aspect is what of an entry an answer can show.
type Aspect string

const (
	AspectToken      Aspect = "token"      // its token endpoint, and how we prove ourselves there
	AspectLifetime   Aspect = "lifetime"   // how long its tokens live
	AspectRefresh    Aspect = "refresh"    // its refresh tokens: that there are any, and what becomes of a used one
	AspectIdle       Aspect = "idle"       // how long those live
	AspectShapes     Aspect = "shapes"     // what its credentials look like
	AspectPlace      Aspect = "place"      // where the credential goes on a request
	AspectAccount    Aspect = "account"    // by what its accounts are told apart
	AspectLabel      Aspect = "label"      // how they are called
	AspectSites      Aspect = "sites"      // at which sites they are
	AspectQuotas     Aspect = "quotas"     // what is left of its limits
	AspectRevocation Aspect = "revocation" // how a credential ends
	AspectDead       Aspect = "dead"       // how its API says that a token is good no more
	AspectScope      Aspect = "scope"      // how its API says that something is not allowed
)

// Showed passes on what an answer has shown, where the upstream's entry has something that was not seen in a source.
func (c *Catalog) Showed(ctx context.Context, up *Upstream, shown func() []Showing) {
	if c.Live == nil || up.Provider == nil || len(up.Provider.LowTrust) == 0 {
		return
	}
	if l := shown(); len(l) > 0 {
		c.Live.Showed(ctx, up, l)
	}
}

// Set makes s the current snapshot; calls that run keep what they had.
func (c *Catalog) Set(s *Snapshot) { c.now.Store(s) }

// Snapshot returns the current one, never nil.
func (c *Catalog) Snapshot() *Snapshot {
	if s := c.now.Load(); s != nil {
		return s
	}
	return &Snapshot{}
}

// Server returns nil where there is none.
func (c *Catalog) Server(t identity.Tenant, n ServerName) *Server { return c.Snapshot().Servers[t][n] }

// Upstream returns nil where there is none.
func (c *Catalog) Upstream(t identity.Tenant, n UpstreamName) *Upstream {
	return c.Snapshot().Upstreams[t][n]
}

// Replace puts an upstream with more facts in the place of one that is still the current one. False: it is not, any more.
func (c *Catalog) Replace(old, with *Upstream) bool {
	for {
		s := c.now.Load()
		if s == nil || s.Upstreams[old.Tenant][old.Name] != old {
			return false
		}
		next := &Snapshot{Servers: s.Servers, Upstreams: maps.Clone(s.Upstreams)}
		next.Upstreams[old.Tenant] = maps.Clone(s.Upstreams[old.Tenant])
		next.Upstreams[old.Tenant][old.Name] = with
		if c.now.CompareAndSwap(s, next) {
			return true
		}
	}
}

// Siblings are the upstreams whose connections share their fate with those of up: the same vendor's, through the same OAuth
// client, up among them. None where the vendor knows no such fate.
func (c *Catalog) Siblings(up *Upstream, m Method) []UpstreamName {
	if up.Provider.OAuth == nil || up.Provider.OAuth.Refresh.SiblingLock != SiblingAppUser {
		return nil
	}
	return c.Through(up, m)
}

// Through are the upstreams of the same vendor whose connections are made through the same OAuth client as up's, up among them.
func (c *Catalog) Through(up *Upstream, m Method) []UpstreamName {
	l := []UpstreamName{up.Name}
	for _, other := range c.Snapshot().Upstreams[up.Tenant] {
		if other.Name != up.Name && other.Provider.ID == up.Provider.ID && slices.ContainsFunc(other.Methods, func(o Method) bool { return o.Client == m.Client }) {
			l = append(l, other.Name)
		}
	}
	slices.Sort(l)
	return l
}

// Why says what is missing between a caller and an upstream.
type Why string

const (
	WhyNotConnected Why = "not_connected" // there is no connection
	WhyReconnect    Why = "reconnect"     // there was one, and only its user can mend it
	WhyScope        Why = "scope"         // the connection lacks scopes
	WhyGrant        Why = "grant"         // connected, but this client at this server has no grant
)

// Missing is one thing that a person must do before a call can go on. It is a value that is handed back up, never an alarm.
type Missing struct {
	Upstream UpstreamName `json:"upstream"`
	Scopes   []string     `json:"scopes"` // all that is needed, not only what is new
	Why      Why          `json:"why"`
	Reason   string       `json:"reason,omitzero"` // for people, where there is more to say

	// Connection is the one that lacks it, where there is one: of several accounts of a person the one that this client uses.
	Connection string `json:"connection,omitzero"`
}

// Needed reports that a person must act first. It is returned as an error by what would have released a credential.
type Needed struct{ Missing []Missing }

func (n *Needed) Error() string {
	var l []string
	for _, m := range n.Missing {
		l = append(l, string(m.Upstream)+cmp.Or(whyInWords[m.Why], " is missing"))
	}
	return strings.Join(l, ", ")
}

var whyInWords = map[Why]string{WhyNotConnected: " is not connected", WhyReconnect: " has to be connected again", WhyScope: " needs more than was allowed",
	WhyGrant: " may not be used by this agent yet"}

// Wants are the scopes that a need asks of its upstream: the upstream's own and the need's.
func (n Need) Wants(up *Upstream) []string {
	if len(n.Scopes) == 0 {
		return up.Scopes
	}
	all := slices.Concat(up.Scopes, n.Scopes)
	slices.Sort(all)
	return slices.Compact(all)
}

// Need returns the server's need of the upstream, none or one.
func (s *Server) Need(up UpstreamName) []Need {
	for i := range s.Needs {
		if s.Needs[i].Upstream == up {
			return s.Needs[i : i+1]
		}
	}
	return nil
}

// NeedsOf are the needs without which the tool cannot do; of a list ("") those of every tool.
func (s *Server) NeedsOf(tool string) []Need {
	if all := func(n Need) bool { return !n.Optional && len(n.Tools) == 0 }; !slices.ContainsFunc(s.Needs, func(n Need) bool { return !all(n) }) {
		return s.Needs // the common case allocates nothing
	}
	var needs []Need
	for _, n := range s.Needs {
		if !n.Optional && n.covers(tool) {
			needs = append(needs, n)
		}
	}
	return needs
}

func (n Need) covers(tool string) bool {
	return len(n.Tools) == 0 || slices.ContainsFunc(n.Tools, func(p string) bool {
		ok, err := path.Match(p, tool)
		return ok && err == nil
	})
}
