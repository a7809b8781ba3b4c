package rehearsal

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Account is the documented call that tells whose a credential is.
type Account struct {
	URL    string            `json:"url"`
	Method string            `json:"method"` // "" is GET
	Proof  *Place            `json:"proof"`  // where the token goes, if not where it goes on others
	Form   map[string]string `json:"form"`   // in the place of any proof
	Body   json.RawMessage   `json:"body"`
	Answer json.RawMessage   `json:"answer"`
	Label  string            `json:"label"` // the name that people know
	ID     string            `json:"id"`

	Scopes    []string `json:"scopes"`    // without which it is refused
	Otherwise *Account `json:"otherwise"` // its answer of an account without the usual name
}

// Key is one that people make at the vendor, and paste.
type Key struct {
	First   string   `json:"first"` // what he writes before it
	Written string   `json:"written"`
	Places  []Place  `json:"places"`  // where it goes on requests
	Account *Account `json:"account"` // whose it is, where that is another call
	Goes    string   `json:"goes"`    // where a request for / arrives, where that is another place
}

// Sites is how a vendor says, after the consent, at which of its sites an account is: by one of Param, Pointer and Call.
type Sites struct {
	Authorization string          `json:"authorization"` // of all sites, where those of OAuth are at one
	Token         string          `json:"token"`
	Param         string          `json:"param"`   // of the callback
	Pointer       string          `json:"pointer"` // name in the token answer
	Call          string          `json:"call"`
	Proof         *Place          `json:"proof"`  // where the token goes on the call
	Answer        json.RawMessage `json:"answer"` // of the call; the list of entries in the place of "ENTRIES", or one entry in that of "ENTRY"
	Entry         json.RawMessage `json:"entry"`  // with SITE and LABEL to be filled in
	At            []Site          `json:"at"`
}

// Site is one, and what happens there.
type Site struct {
	Says    string            `json:"says"`  // the vendor, of it
	Label   string            `json:"label"` // its name, for people
	Path    string            `json:"path"`  // of a request, as servers send it
	Goes    string            `json:"goes"`  // where it has to arrive
	Headers map[string]string `json:"headers"`
	Account *Account          `json:"account"`
	Within  string            `json:"within"`  // the id of the account, where several are behind one site
	Foreign []string          `json:"foreign"` // paths of other accounts there, which are none of this connection's
}

// Named is how people name the site of their account before the consent, because the vendor has no page but at one.
type Named struct {
	Input   string   `json:"input"`   // that the config leaves out
	Listed  []string `json:"listed"`  // by the operator, where the vendor's own name does not keep sites with it
	Site    string   `json:"site"`    // the one that is meant
	Written []string `json:"written"` // by people, for it
	Path    string   `json:"path"`
	Goes    string   `json:"goes"`
	Account *Account `json:"account"`
}

// vendor plays the vendor for a person who connects an account and for a server that uses it.
type vendor struct {
	*stage
	sites   *Sites
	account *Account
	refuses *http.Response // the account's call, in its place
	key     *Key           // that was pasted
	says    []Site         // the account's sites
	answers *http.Response // to the call that lists them, in its place
	away    bool           // no answer to that call

	arrived *http.Request // the last request of a server
	strayed []string      // requests to places that are none of this vendor's
}

var errAsked = errors.New("the person is asked for his site again")

// scopes are those that the person is asked for.
func (v *vendor) scopes() []string {
	if v.vendor.OAuth == nil {
		return nil
	}
	return v.stage.scopes()
}

// consents is the vendor's page: the person says yes, and comes back with what the vendor adds.
func (v *vendor) consents(address string) (url.Values, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	q := u.Query()
	u.RawQuery = ""
	if err := different("the address of the consent", u.String(), v.fill(v.vendor.OAuth.Authorization)); err != nil {
		return nil, err
	}
	v.challenge = q.Get("code_challenge")
	back := url.Values{"code": {code}, "state": {q.Get("state")}}
	if v.sites != nil && v.sites.Param != "" && len(v.says) > 0 {
		back.Set(v.sites.Param, v.says[0].Says)
	}
	if name := v.vendor.OAuth.MAC; name != "" {
		back.Set("timestamp", "1337178173")
		mac := hmac.New(sha256.New, []byte(hush))
		_, _ = fmt.Fprintf(mac, "code=%s&state=%s&timestamp=1337178173", code, q.Get("state")) // a hash takes everything
		back.Set(name, hex.EncodeToString(mac.Sum(nil)))
	}
	return back, nil
}

// Do implements oauth.Doer and connect.Sender.
func (v *vendor) Do(r *http.Request) (*http.Response, error) {
	switch at := r.URL.String(); {
	case v.sites != nil && v.sites.Call != "" && at == v.fill(v.sites.Call):
		if v.away {
			return nil, errors.New("connection reset")
		}
		if v.wrong = v.proof(r, v.sites.Proof); v.wrong != nil {
			return respond(http.StatusUnauthorized, `{}`), nil
		}
		if v.answers != nil {
			return v.answers, nil
		}
		return respond(http.StatusOK, v.listed()), nil
	case v.account != nil && v.bare(r) == v.fill(v.account.URL):
		method := v.account.Method
		if method == "" {
			method = http.MethodGet
		}
		if v.wrong = errors.Join(different("the method of the account's call", r.Method, method), v.introduced(r)); v.wrong != nil {
			return respond(http.StatusUnauthorized, `{}`), nil
		}
		if v.refuses != nil {
			return v.refuses, nil
		}
		return respond(http.StatusOK, string(v.account.Answer)), nil
	case v.vendor.OAuth != nil && at == v.fill(v.vendor.OAuth.Token):
		return v.stage.Do(r)
	}
	v.strayed = append(v.strayed, r.URL.String())
	return respond(http.StatusNotFound, `{}`), nil
}

// proof is what is wrong with how a request shows its token.
func (v *vendor) proof(r *http.Request, p *Place) error {
	if v.key != nil {
		var wrong []error
		for _, at := range v.key.Places {
			wrong = append(wrong, different(at.Header, at.of(r), v.fill(at.Value)))
		}
		return errors.Join(wrong...)
	}
	if p == nil {
		p = v.vendor.Place
	}
	if p == nil {
		return nil
	}
	wrong := different(p.Header, p.of(r), strings.ReplaceAll(v.fill(p.Value), "{token}", v.access()))
	if own := v.vendor.Proof; own != nil {
		wrong = errors.Join(wrong, different(own.Query, own.of(r), own.Value))
	}
	return wrong
}

// bare is the address of a request without our client's proof in it.
func (v *vendor) bare(r *http.Request) string {
	own := v.vendor.Proof
	if own == nil {
		return r.URL.String()
	}
	u := *r.URL
	u.RawQuery = strings.Join(slices.DeleteFunc(strings.Split(u.RawQuery, "&"), func(p string) bool { return strings.HasPrefix(p, own.Query+"=") }), "&")
	return u.String()
}

// introduced is what is wrong with how the account's call shows whose it is about.
func (v *vendor) introduced(r *http.Request) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if len(v.account.Body) > 0 {
		var want bytes.Buffer
		if err = json.Compact(&want, v.account.Body); err == nil {
			err = different("the body of the account's call", string(body), strings.ReplaceAll(want.String(), "{token}", v.access()))
		}
	}
	if len(v.account.Form) == 0 {
		return errors.Join(err, v.proof(r, v.account.Proof))
	}
	got, coding, err := read(r.Header.Get("Content-Type"), body)
	wrong := []error{err, different("its coding", coding, "form"), different("Authorization", r.Header.Get("Authorization"), "")}
	for name, want := range v.account.Form {
		wrong = append(wrong, different(name, got[name], strings.NewReplacer("{token}", v.access(), "{client_id}", client, "{client_secret}", hush).Replace(want)))
	}
	return errors.Join(wrong...)
}

// RoundTrip implements exchange.Sender: the API.
func (v *vendor) RoundTrip(r *http.Request) (*http.Response, error) {
	v.arrived = r
	return respond(http.StatusOK, `{}`), nil
}

// listed is the answer of the call.
func (v *vendor) listed() string {
	var l []string
	for _, s := range v.says {
		site, _ := json.Marshal(s.Says)
		label, _ := json.Marshal(s.Label)
		l = append(l, strings.NewReplacer(`"SITE"`, string(site), `"LABEL"`, string(label), "WITHIN", s.Within).Replace(string(v.sites.Entry)))
	}
	if one := strings.Join(l, ","); one != "" && strings.Contains(string(v.sites.Answer), `"ENTRY"`) {
		return strings.ReplaceAll(string(v.sites.Answer), `"ENTRY"`, one)
	}
	return strings.NewReplacer(`"ENTRY"`, "{}", `"ENTRIES"`, "["+strings.Join(l, ",")+"]").Replace(string(v.sites.Answer))
}

// token is the vendor's token answer, with site and account in it where that is their place.
func (v *vendor) token() string {
	answer := v.answer()
	if v.account != nil && v.account.URL == "" {
		answer = strings.TrimSuffix(strings.TrimSpace(answer), "}") + "," + strings.TrimPrefix(strings.TrimSpace(string(v.account.Answer)), "{")
	}
	if v.sites == nil || v.sites.Pointer == "" || len(v.says) == 0 {
		return answer
	}
	site, _ := json.Marshal(v.says[0].Says)
	return strings.TrimSuffix(strings.TrimSpace(answer), "}") + `,"` + v.sites.Pointer + `":` + string(site) + "}"
}

// at is where the request of a server has to arrive, and how.
func (v *vendor) at(goes string, headers map[string]string) error {
	if v.arrived == nil {
		return errors.New("no request arrived")
	}
	wrong := []error{different("where the request goes", v.arrived.URL.String(), v.fill(goes)), v.proof(v.arrived, nil)}
	for name, want := range headers {
		wrong = append(wrong, different(name, v.arrived.Header.Get(name), want))
	}
	return errors.Join(wrong...)
}

// whose compares what is kept of an account with what the vendor says of it.
func whose(c vault.Connection, a *Account, site, label string) error {
	id, name := a.ID, a.Label
	if site != "" {
		id += "@" + site
		if name != "" {
			label = name + " (" + label + ")"
		}
		name = label
	}
	return errors.Join(different("the account's id", c.Account, id), different("the account's name", c.Label, name))
}

// sited plays the sites of accounts, as the vendor names them after the consent.
func (s *stage) sited(ctx context.Context, entry *catalog.Provider, values map[string]string) {
	said := s.vendor.Sites
	const step = "site: "
	p, err := entry.PerConnection()
	if err == nil {
		p, err = p.With(of(p, values))
	}
	if err != nil {
		s.try(step+"entry", func() error { return err })
		return
	}
	play := func(name string, account *Account, says []Site, f func(v *vendor, d *desk) error) {
		s.try(step+name, func() error {
			own := *s
			own.vendor.OAuth, own.entry, own.steps, own.wrong = s.vendor.OAuth.elsewhere(said), p, nil, nil
			v := &vendor{stage: &own, sites: said, account: account, says: says}
			own.body = v.token
			d, err := newDesk(p, p.Sites, v)
			if err != nil {
				return err
			}
			return errors.Join(f(v, d), v.wrong)
		})
	}
	several := said.Call != "" && strings.Contains(string(said.Answer), `"ENTRIES"`)
	for i, at := range said.At {
		play("one, "+at.Says, at.Account, said.At[i:i+1], func(v *vendor, d *desk) error { return v.served(ctx, d, at, "") })
		if several {
			play("of several, "+at.Says, at.Account, said.At, func(v *vendor, d *desk) error { return v.served(ctx, d, at, strconv.Itoa(i)) })
		}
	}
	if several {
		play("several, and none is chosen", nil, said.At, func(v *vendor, d *desk) error {
			return v.refused(d, func() error { _, err := d.connects(ctx, v, "", "none"); return err })
		})
		play("among others that are elsewhere", said.At[0].Account, slices.Concat(elsewhere(said.At[0].Says), said.At[:1]), func(v *vendor, d *desk) error { return v.served(ctx, d, said.At[0], "") })
	}
	refused := func(name string, says []Site, change func(v *vendor)) {
		play(name, said.At[0].Account, says, func(v *vendor, d *desk) error {
			change(v)
			return v.refused(d, func() error { _, err := d.connects(ctx, v, "", ""); return err })
		})
	}
	refused("none", nil, func(*vendor) {})
	play("elsewhere", nil, nil, func(v *vendor, _ *desk) error {
		var wrong []error
		for _, evil := range elsewhere(said.At[0].Says) {
			d, err := newDesk(p, p.Sites, v)
			if err != nil {
				return err
			}
			v.says = []Site{evil}
			if err := v.refused(d, func() error { _, err := d.connects(ctx, v, "", ""); return err }); err != nil {
				wrong = append(wrong, fmt.Errorf("%.60q: %w", evil.Says, err))
			}
		}
		return errors.Join(wrong...)
	})
	if said.Call != "" {
		bad := badLists(said)
		for _, name := range slices.Sorted(maps.Keys(bad)) {
			refused("fault: "+name, nil, func(v *vendor) { v.answers = bad[name] })
		}
		refused("fault: no answer", nil, func(v *vendor) { v.away = true })
	}
	if several {
		play("more than can be shown", said.At[0].Account, many(said.At[0]), func(v *vendor, d *desk) error {
			r, err := d.connects(ctx, v, "", "")
			if long := len(strings.Join(r.Sites, "")); long > maxNames {
				err = fmt.Errorf("their names are %d bytes: no address of a page holds that", long)
			}
			return errors.Join(err, different("how many sites are offered", len(r.Sites), catalog.MaxSites))
		})
	}
}

// accounts plays the call that tells whose a credential is.
func (s *stage) accounts(ctx context.Context) {
	said := s.vendor.Account
	s.try("account", func() error { return s.whom(ctx, said, nil) })
	if said.Otherwise != nil {
		other := *said
		other.Answer, other.ID, other.Label = said.Otherwise.Answer, said.Otherwise.ID, said.Otherwise.Label
		s.try("account without the usual name", func() error { return s.whom(ctx, &other, nil) })
	}
	if len(said.Scopes) > 0 && s.vendor.OAuth != nil {
		s.try("account, its scopes not given", func() error {
			refuses := respond(http.StatusForbidden, `{}`)
			if e := s.vendor.Right; e != nil && e.Status == http.StatusUnauthorized {
				refuses = respond(e.Status, string(e.Body))
				refuses.Header = e.header()
			}
			return s.whom(ctx, &Account{URL: said.URL, Method: said.Method, Proof: said.Proof}, refuses)
		})
	}
}

// whom connects an account, and compares what is kept of it.
func (s *stage) whom(ctx context.Context, said *Account, refuses *http.Response) error {
	own := *s
	own.steps, own.wrong = nil, nil
	v := &vendor{stage: &own, account: said, refuses: refuses}
	own.body = v.token
	if s.entry.OAuth == nil {
		v.key = s.vendor.Key
	}
	d, err := newDesk(s.entry, nil, v)
	if err != nil {
		return err
	}
	if _, err := d.connects(ctx, v, "", ""); err != nil || d.memory.kept == nil {
		return errors.Join(err, v.wrong, v.home())
	}
	return errors.Join(whose(*d.memory.kept, said, "", ""), v.home())
}

// pasted connects by a key, and sends a request with it.
func (s *stage) pasted(ctx context.Context, entry *catalog.Provider, values map[string]string) error {
	byKey, err := entry.ByKey().With(values)
	if err != nil {
		return err
	}
	own, said := *s, s.vendor.Key
	own.steps, own.wrong = nil, nil
	v := &vendor{stage: &own, account: s.vendor.Account, key: said}
	if said.Account != nil {
		v.account = said.Account
	}
	p := *byKey
	p.OAuth = nil
	d, err := newDesk(&p, nil, v)
	if err != nil {
		return err
	}
	if _, err := d.connects(ctx, v, "", ""); err != nil || d.memory.kept == nil {
		return errors.Join(err, v.wrong, v.home())
	}
	if err := d.asks(ctx, "/", v); err != nil {
		return err
	}
	wrong := []error{v.proof(v.arrived, nil), v.home()}
	if said.Goes != "" {
		wrong = append(wrong, different("where the request goes", v.arrived.URL.String(), v.fill(said.Goes)))
	}
	if v.account != nil && v.account.URL != "" {
		wrong = append(wrong, whose(*d.memory.kept, v.account, "", ""))
	}
	return errors.Join(wrong...)
}

// of are the values that a provider still takes.
func of(p *catalog.Provider, values map[string]string) map[string]string {
	m := map[string]string{}
	for name := range p.Inputs {
		if v, ok := values[name]; ok {
			m[name] = v
		}
	}
	return m
}

// elsewhere is the same authorization server where it has endpoints for all sites.
func (o *Server) elsewhere(said *Sites) *Server {
	q := *o
	if said.Authorization != "" {
		q.Authorization, q.Token = said.Authorization, said.Token
	}
	return &q
}

// served connects an account at this site, and sends a request there.
func (v *vendor) served(ctx context.Context, d *desk, at Site, choice string) error {
	r, err := d.connects(ctx, v, "", choice)
	if err != nil {
		return err
	}
	if r.Kind != connect.FlowConnect || d.memory.kept == nil {
		return fmt.Errorf("nothing is connected, but %s is asked", r.Kind)
	}
	c := *d.memory.kept
	if err := d.asks(ctx, at.Path, v); err != nil {
		return err
	}
	wrong := []error{whose(c, at.Account, c.Site.ID(), at.Label), v.at(at.Goes, at.Headers), v.home(), different("which account there", c.Site.Account, at.Within)}
	for _, path := range at.Foreign {
		v.arrived = nil
		if err := d.asks(ctx, path, v); fault.KindOf(err) != fault.Denied || v.arrived != nil {
			wrong = append(wrong, fmt.Errorf("a request for another account arrives: %s, %v", path, err))
		}
	}
	return errors.Join(wrong...)
}

// refused wants a sentence for the person, nothing kept, the token ended, and no request anywhere but at the vendor's own addresses.
func (v *vendor) refused(d *desk, f func() error) error {
	err := f()
	if err == nil || fault.Message(err) == "" {
		return fmt.Errorf("the person is told nothing that he could understand: %v", err)
	}
	if strings.Contains(fault.Message(err), "ACCESS") {
		return errors.New("the person is told the token")
	}
	return errors.Join(different("a connection kept", d.memory.kept != nil, false), different("tokens ended", d.memory.ended, 1), v.home())
}

// home is that nothing went to a place that is none of the vendor's.
func (v *vendor) home() error {
	if len(v.strayed) > 0 {
		return fmt.Errorf("a request went to %s", strings.Join(v.strayed, ", "))
	}
	return nil
}

// elsewhere are sites that somebody would name who wants the credential, made from an honest one.
func elsewhere(honest string) []Site {
	scheme, rest, isURL := strings.Cut(honest, "://")
	l := []string{"https://evil.example", "evil.example", "//evil.example", "127.0.0.1", "https://169.254.169.254", "localhost", honest + "@evil.example", honest + ".evil.example", honest + "/../../evil", honest + "#", honest + "?x",
		honest + ":8443", honest + "\\.evil.example", honest + "\n", honest + "\x00", "\u0430" + honest, honest + "%2e", "../" + honest, strings.Repeat("a", 5000)}
	if isURL {
		l = append(l, "http://"+rest, "ftp://"+rest, scheme+"://evil.example/"+rest, scheme+"://evil.example#"+rest, scheme+"://x:y@"+rest, scheme+"://.evil.example."+rest+"/", strings.ToUpper(honest))
	}
	var sites []Site
	for _, v := range l {
		sites = append(sites, Site{Says: v, Label: "Evil", Within: "evil"})
	}
	return sites
}

// maxNames is what an address may hold of names of sites: sealed, they are a third longer, and some proxies take no more than 8 KB.
const maxNames = 5000

// many are more sites than anybody is shown, each with an id of its own: the honest one with other digits in its place.
func many(honest Site) []Site {
	var l []Site
	for i := range catalog.MaxSites + 50 {
		l = append(l, Site{Says: renumbered(honest.Says, i), Within: honest.Within, Label: "A company with a name that is longer than any page is wide, number " + strconv.Itoa(i)})
	}
	return l
}

// renumbered puts three digits in the place of the first three letters or digits of a name, or behind the scheme of a URL.
func renumbered(says string, i int) string {
	scheme, rest, isURL := strings.Cut(says, "://")
	if !isURL {
		return fmt.Sprintf("%03d", i) + says[3:]
	}
	return fmt.Sprintf("%s://x%d%s", scheme, i, rest)
}

// badLists are answers to the call that lists sites, of a vendor in trouble, or of somebody in its place.
func badLists(said *Sites) map[string]*http.Response {
	page := respond(http.StatusOK, "<html>sign in</html>")
	page.Header.Set("Content-Type", "text/html")
	away := respond(http.StatusFound, "")
	away.Header.Set("Location", "https://evil.example/")
	entry := strings.ReplaceAll(string(said.Entry), `"SITE"`, `{"a":["`+said.At[0].Says+`"]}`)
	answer := strings.NewReplacer(`"ENTRY"`, entry, `"ENTRIES"`, "["+entry+"]").Replace(string(said.Answer))
	return map[string]*http.Response{
		"a page in its place": page, "half an answer": respond(http.StatusOK, string(said.Answer)[:len(said.Answer)/2]+"["), "null": respond(http.StatusOK, "null"), "a number": respond(http.StatusOK, "7"),
		"an object in a site's place": respond(http.StatusOK, answer), "a nest": respond(http.StatusOK, strings.Repeat("[", 100_000)), "a huge list": respond(http.StatusOK, "["+strings.Repeat(string(said.Entry)+",", 50_000)+string(said.Entry)+"]"),
		"a redirect": away, "a bad hour": respond(http.StatusBadGateway, "<html>"), "too many requests": respond(http.StatusTooManyRequests, "{}"), "a refusal": respond(http.StatusForbidden, `{"message":"ACCESS is not allowed"}`),
	}
}

// named plays sites that people name themselves.
func (s *stage) named(ctx context.Context, entry *catalog.Provider, values map[string]string) {
	said := s.vendor.Named
	const step = "site by its person: "
	given := of(entry, values)
	delete(given, said.Input)
	p, err := entry.PerPerson(given, said.Listed)
	if err == nil {
		p, err = p.With(of(p, given))
	}
	if err != nil {
		s.try(step+"entry", func() error { return err })
		return
	}
	here := of(entry, values)
	here[said.Input] = said.Site
	play := func(name string, f func(v *vendor, d *desk) error) {
		s.try(step+name, func() error {
			own := *s
			own.entry, own.steps, own.wrong, own.fill = p, nil, nil, filler(here)
			v := &vendor{stage: &own, account: said.Account}
			own.body = v.token
			d, err := newDesk(p, p.Sites, v)
			if err != nil {
				return err
			}
			return errors.Join(f(v, d), v.wrong)
		})
	}
	for _, written := range said.Written {
		play(fmt.Sprintf("%.60q", written), func(v *vendor, d *desk) error {
			r, err := d.connects(ctx, v, written, "")
			if err != nil {
				return err
			}
			if r.Kind != connect.FlowConnect || d.memory.kept == nil {
				return errors.New("nothing is connected")
			}
			c := *d.memory.kept
			if err := d.asks(ctx, said.Path, v); err != nil {
				return err
			}
			return errors.Join(different("the site", c.Site.Value, said.Site), whose(c, said.Account, said.Site, said.Site), v.at(said.Goes, nil), v.home())
		})
	}
	play("elsewhere", func(v *vendor, _ *desk) error {
		var wrong []error
		for _, evil := range append(elsewhere(said.Site), elsewhere(said.Written[len(said.Written)-1])...) {
			d, err := newDesk(p, p.Sites, v)
			if err == nil {
				err = v.stays(ctx, d, evil.Says)
			}
			if err != nil {
				wrong = append(wrong, fmt.Errorf("%.60q: %w", evil.Says, err))
			}
		}
		return errors.Join(wrong...)
	})
}

// stays wants the person asked again for what he wrote, or sent to a site of the vendor's own, and his credential with him.
func (v *vendor) stays(ctx context.Context, d *desk, written string) error {
	said := v.vendor.Named
	next, err := d.Begin(ctx, alice, connect.Start{Kind: connect.FlowConnect, Upstream: d.up.Name, Scopes: v.scopes(), Another: true, Site: written})
	if err != nil || next.Site != nil {
		return err
	}
	for _, f := range d.memory.flows {
		there, err := d.up.At(f.Site)
		if err != nil {
			return err
		}
		api, err := d.up.Sites.At(f.Site)
		if err != nil {
			return err
		}
		places := []string{api.String(), there.Provider.Account.URL, next.URL}
		if o := there.Provider.OAuth; o != nil {
			places = append(places, o.Authorization, o.Token, o.Revocation)
		}
		for _, place := range places {
			u, err := url.Parse(place)
			if err != nil || place != "" && !said.holds(u) {
				return fmt.Errorf("it leads to %q", place)
			}
		}
	}
	return nil
}

// holds reports whether a URL is at a site of this vendor: the one that is meant, or where the vendor's name keeps all sites with it, any.
func (n *Named) holds(u *url.URL) bool {
	home, _ := url.Parse(n.Goes)
	if u.Scheme != "https" || u.Port() != "" || u.User != nil {
		return false
	}
	if u.Host == home.Host || slices.Contains(n.Listed, u.Host) {
		return true
	}
	labels := strings.Split(home.Host, ".")
	return len(n.Listed) == 0 && strings.HasSuffix(u.Host, "."+strings.Join(labels[1:], ".")) && !strings.HasPrefix(u.Host, ".")
}
