package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
)

// shape reads what a server's keycards look like.
func (k *checker) shape(at, shape string, s *catalog.Server, ups map[string]Upstream) {
	if shape == "vendor" {
		if shape = ""; len(s.Needs) > 0 {
			if p := k.Vendors[ups[string(s.Needs[0].Upstream)].Provider]; p != nil {
				shape = p.Egress.TicketShape
			}
		}
		if shape == "" {
			k.wrong(at+".ticket_shape", "the catalogue does not know what this vendor's tokens look like", "write it as ghp_{36}: {n} letters and digits, {dn} digits, {xn} hexadecimal digits")
		}
	}
	if shape == "" {
		return
	}
	var err error
	if s.Shape, err = catalog.ParseShape(shape); err != nil {
		k.wrong(at+".ticket_shape", err.Error(), "as ghp_{36} or xoxb-{d12}-{d12}-{24}")
	}
	if s.Deliver == catalog.DeliverHeader || s.VerifyJWT {
		k.wrong(at+".ticket_shape", "this server gets no keycard that could have a shape", "")
	}
}

// catalogue joins the built-in providers with those of the file.
func (k *checker) catalogue() {
	built, err := catalog.Providers()
	if err != nil {
		panic(err) // the built-in files are part of the program, and tested
	}
	k.Vendors = built
	all := maps.Clone(built)
	for id, p := range k.Providers {
		if !k.doc.Sound("providers." + id) {
			continue
		}
		at, builtIn := "providers."+id, all[id] != nil
		if p.Like != "" {
			base := all[p.Like]
			if base == nil {
				k.wrong(at+".like", fmt.Sprintf("there is no built-in provider %q", p.Like), near(p.Like, all))
				continue
			}
			whole := *base
			k.doc.Over(at, &whole, &p)
			p = whole
		}
		p.ID = id
		if p.Name == "" {
			p.Name = id
		}
		if err := p.Check(); err != nil {
			help := "`frontdesk providers show NAME` shows how the built-in ones say it"
			if builtIn && p.Like == "" {
				help = "this stands in the place of the whole built-in entry; add  like: " + id + "  to change only what you write"
			}
			k.wrong(at, err.Error(), help)
			continue
		}
		k.Vendors[id] = &p
	}
}

// near helps with the name of a provider that is none.
func near(name string, all map[string]*catalog.Provider) string {
	if id := Meant(name, all); id != "" {
		return fmt.Sprintf("did you mean %q?", id)
	}
	return "`frontdesk providers list` names the built-in ones; or describe it under providers"
}

// inputsOf says which inputs there are.
func inputsOf(p *catalog.Provider) string {
	if len(p.Inputs) == 0 {
		return "it has none: leave inputs out"
	}
	return "its inputs are " + strings.Join(slices.Sorted(maps.Keys(p.Inputs)), ", ") + ": write them as  inputs: {NAME: VALUE}"
}

// Meant is the provider that somebody means by a name which none has: the one that has it among its own names, as jira, or is nearly
// called so. "": nobody knows.
func Meant(name string, all map[string]*catalog.Provider) string {
	ids := slices.Sorted(maps.Keys(all))
	if len(name) > 2 {
		for _, id := range ids {
			title, _, _ := strings.Cut(catalog.Source(id), ": facts of the vendor")
			if slices.ContainsFunc(strings.FieldsFunc(strings.ToLower(title+" "+all[id].Name), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }), func(word string) bool { return word == strings.ToLower(name) }) {
				return id
			}
		}
	}
	return conf.Nearest(strings.ToLower(name), ids)
}

func (k *checker) upstream(t identity.Tenant, n string, u Upstream) *catalog.Upstream {
	at := Place(t, "upstreams."+n)
	if !name.MatchString(n) {
		k.wrong(at, "an upstream's name is 1 to 32 lower-case letters, digits and hyphens", "")
	}
	p, ok := k.Vendors[u.Provider]
	if _, own := k.Providers[u.Provider]; !ok && own {
		return nil // it is there, and wrong: that is told
	}
	if u.Provider == "" {
		p, ok = k.toBeFound(at, u)
		if !ok {
			return nil
		}
	} else if len(u.Issuers) > 0 {
		k.wrong(at+".issuers", "issuers is for an upstream without a provider: the vendor's facts name its own", "")
	}
	if !ok {
		k.wrong(at+".provider", fmt.Sprintf("there is no provider %q", u.Provider), near(u.Provider, k.Vendors))
		return nil
	}
	if p = k.keyed(at, u, p); p == nil {
		return nil
	}
	if p = k.sited(at, u, p); p == nil {
		return nil
	}
	help := inputsOf(p)
	p, err := p.With(u.Inputs)
	if err != nil {
		k.wrong(at+".inputs", err.Error(), help)
		return nil
	}
	if u.ClientID == FillIn {
		k.wrong(at+".client_id", "client_id is not filled in", "register an OAuth app at "+p.Name+" ("+cmp.Or(p.Console, p.Docs)+") and put its id here")
	}
	up := &catalog.Upstream{Tenant: t, Name: catalog.UpstreamName(n), Title: cmp.Or(u.Title, p.Name), Provider: p, Scopes: u.Scopes, Risk: u.AcceptRisk, CutLeaks: u.OnLeak == "cut",
		WebSocket: p.Egress.WebSocket || u.WebSocket}
	if u.OnLeak != "" && u.OnLeak != "cut" && u.OnLeak != "clean" {
		k.wrong(at+".on_leak", "on_leak is clean or cut", "")
	}
	k.traffic(at, u, up)
	slices.Sort(up.Scopes)
	k.described(at+".openapi", u.OpenAPI, up)
	if u.Provider == "" {
		up.Resource, up.Issuers = u.URL.String(), u.Issuers
	}
	if u.Site != "" {
		up.Sites = p.Sites
	}
	if u.URL != nil {
		up.Origins = append(up.Origins, u.URL.URL)
	}
	for _, h := range append(slices.Clone(p.Hosts), u.Hosts...) {
		if o, err := origin(h); err != nil {
			k.wrong(at+".hosts", err.Error(), "write it as api.example.com, or https://api.example.com")
		} else if !slices.ContainsFunc(up.Origins, func(x *url.URL) bool { return x.Host == o.Host }) {
			up.Origins = append(up.Origins, o)
		}
	}
	for _, o := range up.Origins {
		k.notOurselves(at, o)
		if err := new(outbound.Door).SetNamed([]string{o.Scheme + "://" + o.Host}); err != nil {
			k.wrong(at, fault.Message(err), "name hosts of the API itself")
		}
	}
	p.Egress.H2C = p.Egress.H2C || u.H2C // p is this upstream's own
	k.priorKnowledge(at+".h2c", up)
	for _, a := range p.Egress.Aliases {
		from, err := origin(a.Host)
		to, err2 := origin(a.To)
		if err != nil || err2 != nil || !slices.ContainsFunc(up.Origins, func(x *url.URL) bool { return catalog.Canonical(x) == catalog.Canonical(to) }) {
			k.wrong(at+".provider", fmt.Sprintf("the alias %s leads to %s, which is not one of the hosts", a.Host, a.To), "")
			continue
		}
		up.Aliases = append(up.Aliases, catalog.Alias{From: from, To: to})
	}
	up.Methods = k.methods(t, at, u, p)
	return up
}

// keyed is the provider where keys work at other hosts than other credentials, for the one or the other; nil where the upstream wants both.
func (k *checker) keyed(at string, u Upstream, p *catalog.Provider) *catalog.Provider {
	if p.APIKey == nil || len(p.APIKey.Hosts) == 0 {
		return p
	}
	switch keys := slices.ContainsFunc(u.Methods, func(m Method) bool { return m.Kind == catalog.APIKey }); {
	case keys && len(u.Methods) > 1:
		k.wrong(at+".methods", "at "+p.Name+" keys work at other hosts than what the other methods give", "leave api_key out, or make another upstream for it")
		return nil
	case keys, len(u.Methods) == 0 && u.ClientID == "":
		return p.ByKey()
	}
	q := *p
	q.APIKey = nil
	return &q
}

// sited is the provider where the site is each connection's own, if the upstream says so; nil where it cannot be.
func (k *checker) sited(at string, u Upstream, p *catalog.Provider) *catalog.Provider {
	if len(u.Sites) > 0 && u.Site != "person" {
		k.wrong(at+".sites", "sites are those that a person may name", "add  site: person")
	}
	var q *catalog.Provider
	var err error
	switch {
	case u.Site == "":
		return p
	case u.URL != nil:
		k.wrong(at+".site", "the url says already where the API is", "leave one of the two out")
		return nil
	case u.Site == "connection":
		q, err = p.PerConnection()
	case u.Site == "person":
		q, err = p.PerPerson(u.Inputs, u.Sites)
	default:
		k.wrong(at+".site", "site is connection or person, or left out", "")
		return nil
	}
	if err != nil {
		help := "leave site out, and write the site under inputs"
		if u.Site == "person" {
			help = "list them under sites, as [acme], or leave site out, and write the site under inputs"
		}
		k.wrong(at+".site", err.Error(), help)
		return nil
	}
	for _, m := range u.Methods {
		if says := m.Kind.Consents() || u.Site == "person" && m.Kind == catalog.APIKey; !says {
			k.wrong(at+".methods", string(m.Kind)+" does not say at which site an account is", "leave it out, or make another upstream with the site under inputs")
		}
	}
	return q
}

// priorKnowledge checks that HTTP/2 without TLS can be had.
func (k *checker) priorKnowledge(at string, up *catalog.Upstream) {
	if !up.Provider.Egress.H2C {
		return
	}
	var named []string
	for _, o := range up.Origins {
		if o.Scheme == "http" {
			named = append(named, "h2c://"+o.Host)
		}
	}
	if len(named) == 0 {
		k.wrong(at, "h2c is for hosts without TLS, and all of them have it", "write url: http://..., or leave h2c out: with TLS, HTTP/2 is agreed on by itself")
		return
	}
	if _, err := outbound.New(outbound.Config{Named: named, Proxy: k.Outbound.Proxy}); err != nil {
		k.wrong(at, fault.Message(err), "reach the API by https, or on loopback")
	}
}

// toBeFound is the provider of an upstream that is a vendor's own MCP server: all but its authorization server.
func (k *checker) toBeFound(at string, u Upstream) (*catalog.Provider, bool) {
	switch {
	case u.URL == nil:
		k.wrong(at, "neither provider nor url says what this is", "name a vendor (provider: github), or the vendor's own MCP server (url: https://mcp.example.com/mcp)")
		return nil, false
	case u.URL.Scheme != "https" && !k.local():
		k.wrong(at+".url", "the URL of a vendor's MCP server is https", "")
	case u.URL.RawQuery != "" || u.URL.Fragment != "":
		k.wrong(at+".url", "the URL of an MCP server has neither query nor fragment", "")
	}
	if len(u.Hosts) > 0 {
		k.wrong(at+".hosts", "an MCP server is one host: its url's", "")
	}
	for i, issuer := range u.Issuers {
		if _, err := oauth.MetadataURLs(issuer); err != nil {
			k.wrong(at+".issuers["+strconv.Itoa(i)+"]", fault.Message(err), "write it exactly as the server's metadata names it, as https://auth.example.com")
		}
	}
	return &catalog.Provider{ID: "mcp:" + u.URL.Host, Name: u.URL.Hostname(), Hosts: []string{u.URL.Scheme + "://" + u.URL.Host}}, true
}

// itself checks that what was got for a vendor's MCP server goes there and nowhere else.
func (k *checker) itself(at, here string, s *catalog.Server, u Upstream) {
	if u.Provider != "" || u.URL == nil {
		return
	}
	if s.Deliver != catalog.DeliverHeader {
		k.wrong(here, "this upstream is a vendor's own MCP server and no API", "add  deliver: header  to the server")
	} else if s.URL == nil || s.URL.String() != u.URL.String() {
		k.wrong(at+".url", "the upstream is another MCP server than this one", "use the same url for both: the credential is for that alone")
	}
}

// traffic is what an upstream's entry says of how requests get there, and what failures mean.
func (k *checker) traffic(at string, u Upstream, up *catalog.Upstream) {
	up.Limits = k.limits(at, u.Limits)
	if u.Share != nil {
		if up.Limits.Share = float64(*u.Share); up.Limits.Share == 0 {
			k.wrong(at+".share", "nobody could send anything", "write it as 25%; 100% lets one person take all")
		}
	}
	for i, h := range u.Hints {
		if err := h.Check(); err != nil {
			k.wrong(at+".hints["+strconv.Itoa(i)+"]", strings.TrimPrefix(err.Error(), "hints: "), "write it as {name: frozen, status: [409], like: \"code freeze\", say: \"The repository is frozen until Monday. Stop.\"}")
		}
	}
	up.Provider.Hints = slices.Concat(u.Hints, up.Provider.Hints) // the facts are this upstream's own copy
}

func (k *checker) limits(at string, l Limits) catalog.Limits {
	if min(l.Calls, l.UserCalls, l.Megabytes, l.UserMegabytes) < 0 {
		k.wrong(at+".limits", "a limit is not below 0", "leave it out where there is none")
	}
	return catalog.Limits{Calls: int64(l.Calls), UserCalls: int64(l.UserCalls), Bytes: int64(l.Megabytes) << 20, UserBytes: int64(l.UserMegabytes) << 20}
}

// origin reads a host, which may say its scheme.
func origin(h string) (*url.URL, error) {
	if !strings.Contains(h, "://") {
		h = "https://" + h
	}
	u, err := url.Parse(h)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || strings.ContainsAny(u.Host, "*{}") {
		return nil, fmt.Errorf("%q is no host", h)
	}
	u.Host = strings.ToLower(u.Host)
	return u, nil
}

const (
	defaultCallLimit = 5 * time.Minute
	maxCallLimit     = time.Hour
)

// notOurselves refuses what leads back here: a request in a circle ends only at its second turn.
func (k *checker) notOurselves(at string, u *url.URL) {
	if u == nil {
		return
	}
	for _, own := range []string{k.PublicURL.Host, k.Listen, k.Egress.Listen, k.Ops.Listen} {
		if strings.EqualFold(u.Host, own) {
			k.wrong(at, u.Host+" is Frontdesk itself", "name the server or the API that stands behind it")
			return
		}
	}
}

func (k *checker) server(t identity.Tenant, n string, s Server, ups map[string]Upstream) *catalog.Server {
	at := Place(t, "servers."+n)
	if !name.MatchString(n) {
		k.wrong(at, "a server's name is 1 to 32 lower-case letters, digits and hyphens", "")
	}
	out := &catalog.Server{Tenant: t, Name: catalog.ServerName(n), Title: cmp.Or(s.Title, n), Deliver: catalog.Delivery(cmp.Or(s.Deliver, string(catalog.DeliverEgress))),
		TokenHeader: s.TokenHeader, Placeholder: identity.TicketKind(cmp.Or(s.Placeholder, string(identity.TicketCall))), CallLimit: defaultCallLimit, SmuggleHeaders: s.Refuse, CheckArguments: s.Check, Methods: s.Methods, Observe: s.Observe}
	out.Limits = k.limits(at, s.Limits)
	k.whereItRuns(at, s, out)
	k.notOurselves(at, out.URL)
	if s.CallLimit != nil {
		if out.CallLimit = time.Duration(*s.CallLimit); out.CallLimit > maxCallLimit {
			k.wrong(at+".call_limit", "call_limit is at most 1h", "")
		}
	}
	if out.Deliver != catalog.DeliverEgress && out.Deliver != catalog.DeliverHeader {
		k.wrong(at+".deliver", "deliver is egress or header", "")
	}
	if out.Placeholder != identity.TicketCall && out.Placeholder != identity.TicketSession {
		k.wrong(at+".placeholder", "placeholder is call or session", "")
	}
	for i, need := range s.Upstreams {
		here := at + ".upstreams[" + strconv.Itoa(i) + "]"
		if _, ok := ups[need.Name]; !ok {
			help := "add it under upstreams"
			if near := conf.Nearest(need.Name, slices.Sorted(maps.Keys(ups))); near != "" {
				help = fmt.Sprintf("did you mean %q?", near)
			}
			k.wrong(here, fmt.Sprintf("there is no upstream %q", need.Name), help)
			continue
		}
		if len(out.Need(catalog.UpstreamName(need.Name))) > 0 {
			k.wrong(here, fmt.Sprintf("upstream %q stands twice", need.Name), "")
		}
		k.itself(at, here, out, ups[need.Name])
		out.Needs = append(out.Needs, catalog.Need{Upstream: catalog.UpstreamName(need.Name), Scopes: need.Scopes, Optional: need.Optional, Tools: need.Tools})
	}
	k.shape(at, s.TicketShape, out, ups)
	if out.Deliver == catalog.DeliverHeader && len(out.Needs) != 1 {
		k.wrong(at+".deliver", "deliver: header needs exactly one upstream: the one whose credential the server gets", "")
	}
	return out
}
