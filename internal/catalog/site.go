package catalog

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"frontdesk.dev/frontdesk/internal/kit/oauth"
)

// Sites is how a vendor says, only after the consent, at which of its sites an account is: a company's own host, or an id that
// stands in every path. It counts where the config leaves that to each person's connection (site: connection). What the vendor says
// becomes a place that credentials are sent to, so it is taken for what Pattern allows within Base, and never for an address.
type Sites struct {
	Host    string `yaml:"host" doc:"the name by which servers and policies call the API then, whichever site it is"`
	Base    string `yaml:"base" doc:"where the requests to it go: a URL with {site} in it"`
	Pattern string `yaml:"pattern" doc:"regular expression from ^ to $ of what may stand for {site}. A security control: within base, it is where credentials go"`
	Extract string `yaml:"extract" doc:"regular expression whose first group is the site, where the vendor gives more, as a URL; default: all of it"`

	Param   string   `yaml:"param" doc:"parameter of the callback that holds it"`
	Pointer string   `yaml:"pointer" doc:"or JSON pointer into the token answer"`
	Call    SiteCall `yaml:"call" doc:"or a call of the API, with the new credential, that lists them"`

	Accounts string            `yaml:"accounts" doc:"regular expression whose first group is the id of an account in a path, where several are behind one site (call.account): requests for another one than the connection's are refused"`
	Headers  map[string]string `yaml:"headers" doc:"sent with each request to host, {site} filled in"`
	Account  string            `yaml:"account" doc:"account.url then; may hold {site}"`
	Whole    bool              `yaml:"is_account" doc:"the vendor tells nobody which person it is: the site is all that tells one account from another"`
	Instead  []string          `yaml:"instead" doc:"inputs that are not given then"`
	Endpoint SiteEndpoints     `yaml:"endpoints" doc:"endpoints that are not the same then"`

	asked *asked // site: person: its person says it before the consent; nil: the vendor after it
}

// asked are sites that people name themselves, because without its name there is no page of the vendor to go to.
type asked struct {
	facts  *Provider         // of the vendor, with nothing filled in
	given  map[string]string // the inputs of the config
	input  string            // the one that is asked for
	listed []string          // all that may be said; none: what the pattern allows
}

// SiteCall lists the sites of an account.
type SiteCall struct {
	URL       string     `yaml:"url" doc:"asked with GET"`
	Injection *Injection `yaml:"injection" doc:"where the credential goes on this call; default: as on others"`
	List      string     `yaml:"list" doc:"JSON pointer to the list; default: the answer itself. What is no list is one site"`
	Value     string     `yaml:"value" doc:"JSON pointer to the site within an entry"`
	Label     string     `yaml:"label" doc:"JSON pointer to its name, for people, within an entry"`
	Account   string     `yaml:"account" doc:"JSON pointer within an entry to the id of the account, where several are behind one site: each is offered by its name"`
}

// SiteEndpoints are those of the vendor that serve every site.
type SiteEndpoints struct {
	Authorization string `yaml:"authorization_endpoint" doc:"in the place of that of oauth"`
	Token         string `yaml:"token_endpoint" doc:"in the place of that of oauth"`
	Revocation    string `yaml:"revocation_endpoint" doc:"in the place of that of oauth"`
}

// Site is one, as a connection keeps it. The zero Site is where the config says.
type Site struct {
	Value   string `json:"value,omitzero"`
	Label   string `json:"label,omitzero"`   // its name, for people
	Account string `json:"account,omitzero"` // which of those behind it; "": it is one, or whichever
}

// ID tells it apart from others: where it is, and which of the accounts there.
func (s Site) ID() string {
	if s.Account == "" {
		return s.Value
	}
	return s.Value + "/" + s.Account
}

// Of is an account at this site: the same one at another is another connection.
func (s Site) Of(account, label string) (string, string) {
	switch {
	case s.Value == "":
		return account, label
	case label == "":
		return account + "@" + s.ID(), s.Label
	}
	return account + "@" + s.ID(), label + " (" + s.Label + ")"
}

// Moved is the account of s, by what Of has made of it, at another site.
func (s Site) Moved(to Site, account, label string) (string, string) {
	own, _ := strings.CutSuffix(account, "@"+s.ID())
	name, _ := strings.CutSuffix(label, " ("+s.Label+")")
	if label == s.Label {
		name = ""
	}
	return to.Of(own, name)
}

// MaxSites is how many a person is shown, the vendor's first: their names travel in the address of the page that asks.
const MaxSites = 100

// Of is what a vendor's value says: false where that is no site that credentials may go to.
func (s *Sites) Of(value, label string) (Site, bool) {
	if s.Extract != "" {
		m := regexp.MustCompile(s.Extract).FindStringSubmatch(value)
		if len(m) < 2 {
			return Site{}, false
		}
		value = m[1]
	}
	if label == "" {
		label = value
	}
	_, err := s.At(value)
	return Site{Value: value, Label: label}, err == nil
}

// In lists the sites in the answer of the call, without those that no credential may go to. Of entries that lead to one place one is made,
// with their names, unless the entry tells accounts there apart; where two have one name, they are told apart by what they are. False:
// the answer is no JSON.
func (s *Sites) In(answer []byte) ([]Site, bool) {
	doc, list := oauth.Read(answer), s.Call.List
	if doc.IsZero() {
		return nil, false
	}
	if n := doc.Len(list); n < 0 {
		return s.entry(doc, list), true
	}
	var l []Site
	for i := 0; i < doc.Len(list) && len(l) < MaxSites; i++ {
		for _, one := range s.entry(doc, list+"/"+strconv.Itoa(i)) {
			l = join(l, one)
		}
	}
	return apart(l), true
}

const maxLabel = 1024

// join adds a site, or its name to that of the same one.
func join(l []Site, one Site) []Site {
	i := slices.IndexFunc(l, func(o Site) bool { return o.ID() == one.ID() })
	if i < 0 {
		return append(l, one)
	}
	if has := strings.Split(l[i].Label, ", "); !slices.Contains(has, one.Label) && len(l[i].Label)+len(one.Label) < maxLabel {
		l[i].Label += ", " + one.Label
	}
	return l
}

// apart adds to the names of several sites which of them each is.
func apart(l []Site) []Site {
	count := map[string]int{}
	for _, o := range l {
		count[o.Label]++
	}
	for i, o := range l {
		if count[o.Label] > 1 {
			l[i].Label += " (" + o.ID() + ")"
		}
	}
	return l
}

func (s *Sites) entry(doc oauth.Document, at string) []Site {
	text := func(pointer string) string {
		if l, ok := doc.Texts(at + pointer); ok && pointer != "" && len(l) == 1 && len(l[0]) <= maxLabel {
			return l[0]
		}
		return ""
	}
	one, ok := s.Of(text(s.Call.Value), text(s.Call.Label))
	one.Account = text(s.Call.Account)
	if !ok || s.Call.Account != "" && one.Account == "" {
		return nil
	}
	return []Site{one}
}

// Foreign reads paths for a connection's own account: the account of another connection that a path is about; "" where it is about its
// own, or about none.
func (s *Sites) Foreign(own string) func(path string) string {
	if s.Accounts == "" || own == "" {
		return func(string) string { return "" }
	}
	named := regexp.MustCompile(s.Accounts) // compiled once before, by check
	return func(path string) string {
		for _, m := range named.FindAllStringSubmatch(path, -1) {
			if !strings.EqualFold(m[1], own) {
				return m[1]
			}
		}
		return ""
	}
}

// At is where the requests of a connection at this site go.
func (s *Sites) At(value string) (*url.URL, error) {
	if s.asked != nil && len(s.asked.listed) > 0 && !slices.Contains(s.asked.listed, value) {
		return nil, fmt.Errorf("%q is none of the sites that are set up here", value)
	}
	if ok, err := regexp.MatchString(s.Pattern, value); err != nil || !ok {
		return nil, fmt.Errorf("%q is no site: it does not match %s", value, s.Pattern)
	}
	u, err := url.Parse(strings.ReplaceAll(s.Base, "{site}", value))
	if err != nil || !oauth.UsableEndpoint(u.String()) || u.RawQuery != "" {
		return nil, fmt.Errorf("%q makes no address", value)
	}
	return u, nil
}

// Onto sends a request to this site instead, and sets the headers that name it.
func (s *Sites) Onto(r *http.Request, at *url.URL, value string) {
	u := *r.URL
	u.Scheme, u.Host = at.Scheme, at.Host
	raw := strings.TrimSuffix(at.EscapedPath(), "/") + r.URL.EscapedPath()
	u.Path, u.RawPath = strings.TrimSuffix(at.Path, "/")+r.URL.Path, raw
	r.URL = &u
	if r.Host != "" {
		r.Host = at.Host
	}
	for k, v := range s.Headers {
		r.Header.Set(k, strings.ReplaceAll(v, "{site}", value))
	}
}

// Below is what a path at a site is to those who know the name of all sites alone: without the site's own path.
func (s *Sites) Below(path string) string {
	_, base, _ := strings.Cut(s.Base, "://")
	_, base, _ = strings.Cut(strings.TrimSuffix(base, "/"), "/")
	if base == "" {
		return path
	}
	parts := strings.SplitN(path, "/", strings.Count(base, "/")+3)
	if len(parts) < strings.Count(base, "/")+3 {
		return "/"
	}
	return "/" + parts[len(parts)-1]
}

// hostile are values that would leave the place which Base and Pattern mean.
var hostile = []string{"", "evil.test/", "evil.test#", "evil.test?", "a/b", "a@evil.test", "a:1", "a\\b", "a b", "a%2fb", "..", "../x", "a\nb", "\u00e4"}

func (s *Sites) check() error {
	if s == nil {
		return nil
	}
	ways := 0
	for _, w := range []string{s.Param, s.Pointer, s.Call.URL} {
		if w != "" {
			ways++
		}
	}
	switch {
	case ways != 1:
		return fmt.Errorf("one of param, pointer and call.url says where a site is read")
	case s.Host == "" || strings.ContainsAny(s.Host, "/{"):
		return fmt.Errorf("host is a name, as api.example.com")
	case s.Call.URL != "" && s.Call.Value == "":
		return fmt.Errorf("call.value is missing: where the site stands in an entry")
	case !strings.HasPrefix(s.Pattern, "^") || !strings.HasSuffix(s.Pattern, "$"):
		return fmt.Errorf("its pattern must be a regular expression from ^ to $")
	}
	for _, e := range []string{s.Pattern, s.Extract} {
		if _, err := regexp.Compile(e); err != nil {
			return err
		}
	}
	if re, err := regexp.Compile(s.Accounts); err != nil || s.Accounts != "" && re.NumSubexp() != 1 || (s.Accounts == "") != (s.Call.Account == "") {
		return fmt.Errorf("accounts is a regular expression with one group, and call.account says which of them each is")
	}
	if !strings.Contains(s.Base, "{site}") && len(s.Headers) == 0 {
		return fmt.Errorf("base is a URL with {site} in it")
	}
	for _, v := range hostile {
		if ok, _ := regexp.MatchString(s.Pattern, v); ok {
			return fmt.Errorf("its pattern lets %q through, with which a credential could leave the vendor", v)
		}
	}
	if at := strings.Index(s.Base, "{site}"); at >= 0 { // in a host, the vendor's own domain follows
		_, rest, _ := strings.Cut(s.Base, "://")
		host, _, _ := strings.Cut(rest, "/")
		if _, domain, inHost := strings.Cut(host, "{site}"); inHost && (!strings.HasPrefix(domain, ".") || strings.Count(domain, ".") < 2) && !strings.HasPrefix(host, "127.0.0.1") {
			return fmt.Errorf("behind {site} in a host the vendor's domain follows, as {site}.example.com")
		}
	}
	return nil
}

// PerConnection is the provider where each connection has a site of its own.
func (p *Provider) PerConnection() (*Provider, error) {
	s := p.Sites
	if s == nil {
		return nil, fmt.Errorf("%s has no sites to choose from", p.Name)
	}
	q := *p
	q.Inputs = maps.Clone(p.Inputs)
	open := func(text string) bool {
		return slices.ContainsFunc(s.Instead, func(n string) bool { return strings.Contains(text, "{"+n+"}") })
	}
	q.Hosts = append([]string{s.Host}, slices.DeleteFunc(slices.Clone(p.Hosts), func(h string) bool { return open(h) || h == s.Host })...)
	q.APIKey = nil // a pasted key does not say where its account is
	if s.Account != "" {
		q.Account.URL = s.Account
	}
	if p.OAuth != nil {
		o := *p.OAuth
		for to, from := range map[*string]string{&o.Authorization: s.Endpoint.Authorization, &o.Token: s.Endpoint.Token, &o.Revocation: s.Endpoint.Revocation} {
			if from != "" {
				*to = from
			}
		}
		o.Confirm = slices.DeleteFunc(slices.Clone(o.Confirm), func(c Confirm) bool { return open(c.Is) })
		q.OAuth = &o
		if open(o.Authorization + o.Token + o.Revocation + o.Refreshing + o.Pushed + o.Issuer) {
			return nil, fmt.Errorf("%s has endpoints at each site: it has to be configured", p.Name)
		}
	}
	for _, n := range s.Instead {
		delete(q.Inputs, n)
	}
	return &q, nil
}

// PerPerson is the provider where each person names the site of his account before he connects it: the value of the one input of its
// host that given leaves out. Listed are all that he may name; where the pattern would let any host through, there has to be a list.
func (p *Provider) PerPerson(given map[string]string, listed []string) (*Provider, error) {
	template := p.Hosts[0]
	open := slices.DeleteFunc(slices.Collect(maps.Keys(p.Inputs)), func(n string) bool { return given[n] != "" || !strings.Contains(template, "{"+n+"}") })
	if len(open) != 1 {
		return nil, fmt.Errorf("%s does not leave one input of its host to be asked for: its API has one host, or inputs say which", p.Name)
	}
	name := open[0]
	if !strings.Contains(template, "://") {
		template = "https://" + template
	}
	in := p.Inputs[name]
	s := &Sites{Host: p.ID + ".invalid", Base: strings.ReplaceAll(template, "{"+name+"}", "{site}"), Pattern: in.Pattern, asked: &asked{p, given, name, listed}}
	if s.anywhere() && len(listed) == 0 {
		return nil, fmt.Errorf("any host could be named: sites has to list those that may be")
	}
	for _, v := range hostile {
		if len(listed) == 0 && matches(in.Pattern, v) {
			return nil, fmt.Errorf("the pattern of the input %q lets %q through, with which a credential could leave the vendor", name, v)
		}
	}
	for i, v := range listed {
		if _, err := s.At(v); err != nil {
			return nil, err
		}
		if slices.Contains(listed[:i], v) {
			return nil, fmt.Errorf("%q stands twice", v)
		}
	}
	q := *p
	q.Inputs = maps.Clone(p.Inputs)
	delete(q.Inputs, name)
	q.Hosts = append([]string{s.Host}, slices.DeleteFunc(slices.Clone(p.Hosts[1:]), func(h string) bool { return strings.Contains(h, "{"+name+"}") })...)
	q.Sites = s
	return &q, nil
}

// anywhere reports whether the pattern alone does not keep a site with the vendor.
func (s *Sites) anywhere() bool {
	_, host, _ := strings.Cut(s.Base, "://")
	host, _, _ = strings.Cut(host, "/")
	if _, domain, _ := strings.Cut(host, "{site}"); strings.HasPrefix(domain, ".") && strings.Count(domain, ".") > 1 || strings.HasPrefix(host, "127.0.0.1:") {
		return false
	}
	return slices.ContainsFunc([]string{"evil.test", "localhost", "127.0.0.1", "10.0.0.1", "169.254.169.254", "2130706433", "metadata.google.internal"}, func(v string) bool {
		return matches(s.Pattern, v)
	})
}

// Asked reports whether people name the site of their account themselves.
func (s *Sites) Asked() bool { return s != nil && s.asked != nil }

// Listed are the sites that people may name, none where the vendor's pattern says it.
func (s *Sites) Listed() []string {
	if !s.Asked() {
		return nil
	}
	return s.asked.listed
}

// SiteQuestion is what the page that asks a person for a site needs.
type SiteQuestion struct {
	Before, After string   // what stands around it in its address
	Listed        []string // all that may be said; none: he writes it
	Written       string   // what he wrote, which is none
}

// Question asks for a site, again where something was written.
func (s *Sites) Question(written string) *SiteQuestion {
	q := &SiteQuestion{Listed: s.Listed(), Written: written}
	q.Before, q.After, _ = strings.Cut(s.Base, "{site}")
	return q
}

// Named reads what a person wrote as the name of a site: the name alone, or an address within it. False: it is none that a
// credential may go to.
func (s *Sites) Named(text string) (string, bool) {
	name := strings.ToLower(strings.TrimSpace(text))
	before, after, _ := strings.Cut(s.Base, "{site}")
	scheme, before, _ := strings.Cut(before, "://")
	after, _, _ = strings.Cut(after, "/")
	address := name
	if !strings.Contains(address, "://") {
		address = scheme + "://" + address
	}
	if u, err := url.Parse(address); err == nil && (address == name || before+after != "") && strings.HasPrefix(u.Host, before) && strings.HasSuffix(u.Host, after) && len(u.Host) > len(before)+len(after) {
		if u.Scheme != scheme || u.User != nil {
			return "", false
		}
		name = u.Host[len(before) : len(u.Host)-len(after)]
	}
	_, err := s.At(name)
	return name, err == nil
}

// At is the upstream for an account at this site: where people name it, with it filled in everywhere. It is an error where nothing may
// be sent to such a site, any more.
func (u *Upstream) At(site string) (*Upstream, error) {
	if !u.Sites.Asked() {
		return u, nil
	}
	if _, err := u.Sites.At(site); err != nil {
		return nil, err
	}
	a := u.Sites.asked
	values := maps.Clone(a.given)
	if values == nil {
		values = map[string]string{}
	}
	values[a.input] = site
	p, err := a.facts.With(values)
	if err != nil {
		return nil, err
	}
	there, q := *u, *u.Provider
	q.OAuth, q.APIKey, q.Account, q.Injection = p.OAuth, p.APIKey, p.Account, p.Injection
	there.Provider = &q
	return &there, nil
}
