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

	Param   string `yaml:"param" doc:"parameter of the callback that holds it"`
	Pointer string `yaml:"pointer" doc:"or JSON pointer into the token answer"`
	URL     string `yaml:"url" doc:"or a call of the API, with the new credential, that lists them"`
	List    string `yaml:"list" doc:"of the call: JSON pointer to the list; default: the answer itself. What is no list is one site"`
	Value   string `yaml:"value" doc:"of the call: JSON pointer to the site within an entry"`
	Label   string `yaml:"label" doc:"of the call: JSON pointer to its name, for people, within an entry"`

	Headers  map[string]string `yaml:"headers" doc:"sent with each request to host, {site} filled in"`
	Account  string            `yaml:"account" doc:"account.url then; may hold {site}"`
	Instead  []string          `yaml:"instead" doc:"inputs that are not given then"`
	Endpoint SiteEndpoints     `yaml:"endpoints" doc:"endpoints that are not the same then"`
}

// SiteEndpoints are those of the vendor that serve every site.
type SiteEndpoints struct {
	Authorization string `yaml:"authorization_endpoint" doc:"in the place of that of oauth"`
	Token         string `yaml:"token_endpoint" doc:"in the place of that of oauth"`
	Revocation    string `yaml:"revocation_endpoint" doc:"in the place of that of oauth"`
}

// Site is one, as a connection keeps it. The zero Site is where the config says.
type Site struct {
	Value string `json:"value,omitzero"`
	Label string `json:"label,omitzero"` // its name, for people
}

const maxSites = 200

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
	return Site{value, label}, err == nil
}

// In lists the sites in the answer of a call, without those that no credential may go to.
func (s *Sites) In(answer []byte) []Site {
	doc, list := oauth.Read(answer), s.List
	if n := doc.Len(list); n < 0 {
		return s.entry(doc, list)
	}
	var l []Site
	for i := range min(doc.Len(list), maxSites) {
		for _, one := range s.entry(doc, list+"/"+strconv.Itoa(i)) {
			if !slices.ContainsFunc(l, func(o Site) bool { return o.Value == one.Value }) {
				l = append(l, one)
			}
		}
	}
	return l
}

func (s *Sites) entry(doc oauth.Document, at string) []Site {
	text := func(pointer string) string {
		if l, ok := doc.Texts(at + pointer); ok && pointer != "" && len(l) == 1 && len(l[0]) <= 1024 {
			return l[0]
		}
		return ""
	}
	if one, ok := s.Of(text(s.Value), text(s.Label)); ok {
		return []Site{one}
	}
	return nil
}

// At is where the requests of a connection at this site go.
func (s *Sites) At(value string) (*url.URL, error) {
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
	for _, w := range []string{s.Param, s.Pointer, s.URL} {
		if w != "" {
			ways++
		}
	}
	switch {
	case ways != 1:
		return fmt.Errorf("one of param, pointer and url says where a site is read")
	case s.Host == "" || strings.ContainsAny(s.Host, "/{"):
		return fmt.Errorf("host is a name, as api.example.com")
	case s.URL != "" && s.Value == "":
		return fmt.Errorf("a call needs value: where the site stands in an entry")
	case !strings.HasPrefix(s.Pattern, "^") || !strings.HasSuffix(s.Pattern, "$"):
		return fmt.Errorf("its pattern must be a regular expression from ^ to $")
	}
	for _, e := range []string{s.Pattern, s.Extract} {
		if _, err := regexp.Compile(e); err != nil {
			return err
		}
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
