package world

import (
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/publicsuffix"

	"frontdesk.dev/frontdesk/test/world/capture"
	"frontdesk.dev/frontdesk/test/world/page"
)

const (
	maxHops = 20      // redirects and refreshes of one click
	maxPage = 4 << 20 // bytes of a page that are read
)

// Browser is one person's browser, with JavaScript turned off: it keeps cookies, follows redirects and
// <meta http-equiv=refresh>, obeys `form-action`, and says by Sec-Fetch-Site and Origin where a request came from, as
// the common ones do. Several browsers share nothing. One browser is used by one goroutine at a time.
type Browser struct {
	Recorder capture.Recorder // everything it sent and received

	client  *http.Client
	current *Shown
	history []Visit
}

// Shown is what the browser shows now.
type Shown struct {
	*page.Page
	Status int
	Header http.Header
	Body   []byte
}

// Visit is one request that the browser made.
type Visit struct {
	Method string
	URL    string
	Status int
}

// NewBrowser opens a fresh one.
func NewBrowser() *Browser {
	jar, err := cookiejar.New(&cookiejar.Options{PublicSuffixList: publicsuffix.List})
	if err != nil {
		panic(err) // cookiejar.New returns none
	}
	b := &Browser{}
	b.client = &http.Client{
		Jar: jar, Timeout: time.Minute,
		Transport:     b.Recorder.Transport(http.DefaultTransport.(*http.Transport).Clone()),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return b
}

// Close lets go of idle connections.
func (b *Browser) Close() { b.client.CloseIdleConnections() }

// Page is what is shown now; nil before the first visit.
func (b *Browser) Page() *Shown { return b.current }

// History is every request so far.
func (b *Browser) History() []Visit { return slices.Clone(b.history) }

// Visited reports whether a request went to an address that begins so.
func (b *Browser) Visited(prefix string) bool {
	return slices.ContainsFunc(b.history, func(v Visit) bool { return strings.HasPrefix(v.URL, prefix) })
}

// Cookies are those that would be sent to this address.
func (b *Browser) Cookies(address string) []*http.Cookie {
	u, err := url.Parse(address)
	if err != nil {
		return nil
	}
	return b.client.Jar.Cookies(u)
}

// Open types an address.
func (b *Browser) Open(ctx context.Context, address string) (*Shown, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	return b.travel(ctx, trip{method: http.MethodGet, to: u})
}

// Fill writes into a field of the page, found by its label or name.
func (b *Browser) Fill(field, value string) error {
	if b.current == nil {
		return errNoPage
	}
	return b.current.Fill(field, value)
}

// Click presses the button or follows the link that reads so.
func (b *Browser) Click(ctx context.Context, words string) (*Shown, error) {
	if b.current == nil {
		return nil, errNoPage
	}
	req, err := b.current.Click(words)
	if err != nil {
		return nil, err
	}
	t := trip{method: req.Method, to: req.To, from: b.current.URL}
	if req.Form != nil {
		t.body = req.Form.Encode()
		t.formAction = formActions(b.current.Header)
	}
	return b.travel(ctx, t)
}

var errNoPage = errors.New("the browser shows no page yet")

// trip is one navigation with all its redirects.
type trip struct {
	method     string
	to, from   *url.URL // from is nil for a typed address
	body       string
	formAction []string // nil: anything goes
	site       string   // Sec-Fetch-Site so far
}

func (b *Browser) travel(ctx context.Context, t trip) (*Shown, error) {
	for range maxHops {
		if !t.formActionAllows() {
			return nil, fmt.Errorf("the page's form-action (%s) stops the way to %s", strings.Join(t.formAction, " "), t.to.Host)
		}
		resp, body, err := b.fetch(ctx, &t)
		if err != nil {
			return nil, err
		}
		b.history = append(b.history, Visit{t.method, t.to.String(), resp.StatusCode})
		if to, err := resp.Location(); err == nil && resp.StatusCode >= 300 && resp.StatusCode < 400 {
			t.follow(resp.StatusCode, to)
			continue
		}
		if err := b.show(t.to, resp, body); err != nil {
			return nil, err
		}
		next := b.current.Refresh()
		if next == nil {
			return b.current, nil
		}
		if next.After > 5*time.Second {
			return b.current, nil // a page that polls: the person decides
		}
		t = trip{method: http.MethodGet, to: next.To, from: b.current.URL}
	}
	return nil, fmt.Errorf("%d redirects in a row, the last to %s", maxHops, t.to.Redacted())
}

func (b *Browser) fetch(ctx context.Context, t *trip) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, t.method, t.to.String(), strings.NewReader(t.body))
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", t.to.Redacted(), err)
	}
	t.widenSite()
	req.Header.Set("User-Agent", "Mozilla/5.0 (world browser)")
	req.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	req.Header.Set("Accept-Language", "en")
	req.Header.Set("Sec-Fetch-Mode", "navigate")
	req.Header.Set("Sec-Fetch-Dest", "document")
	req.Header.Set("Sec-Fetch-User", "?1")
	req.Header.Set("Sec-Fetch-Site", t.site)
	if t.method != http.MethodGet {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if t.from != nil {
			req.Header.Set("Origin", origin(t.from))
		}
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("open %s: %w", t.to.Redacted(), err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage))
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", t.to.Redacted(), err)
	}
	return resp, body, nil
}

func (b *Browser) show(at *url.URL, resp *http.Response, body []byte) error {
	text := string(body)
	if !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
		text = "<pre>" + html.EscapeString(text) + "</pre>"
	}
	p, err := page.Parse(at, strings.NewReader(text))
	if err != nil {
		return err
	}
	b.current = &Shown{Page: p, Status: resp.StatusCode, Header: resp.Header, Body: body}
	return nil
}

// follow turns the trip to where a redirect points; only 307 and 308 keep method and body.
func (t *trip) follow(status int, to *url.URL) {
	if status != http.StatusTemporaryRedirect && status != http.StatusPermanentRedirect {
		t.method, t.body = http.MethodGet, ""
	}
	to.Fragment = ""
	t.to = to
}

// widenSite works out Sec-Fetch-Site, which over redirects only ever gets wider.
func (t *trip) widenSite() {
	order := []string{"", "none", "same-origin", "same-site", "cross-site"}
	now := "none"
	if t.from != nil {
		now = "cross-site"
		switch {
		case origin(t.from) == origin(t.to):
			now = "same-origin"
		case t.from.Scheme == t.to.Scheme && site(t.from) == site(t.to):
			now = "same-site"
		}
	}
	if slices.Index(order, now) > slices.Index(order, t.site) {
		t.site = now
	}
}

// formActionAllows checks the target of a submission and of each redirect after it, as Chromium does.
func (t *trip) formActionAllows() bool {
	if t.formAction == nil {
		return true
	}
	for _, source := range t.formAction {
		switch {
		case source == "*", source == origin(t.to), source == t.to.Scheme+":":
			return true
		case source == "'self'" && t.from != nil && origin(t.from) == origin(t.to):
			return true
		}
	}
	return false
}

// formActions reads the directive from a page's policy; nil where there is none.
func formActions(h http.Header) []string {
	for _, policy := range h.Values("Content-Security-Policy") {
		for directive := range strings.SplitSeq(policy, ";") {
			words := strings.Fields(directive)
			if len(words) > 0 && strings.EqualFold(words[0], "form-action") {
				return words[1:len(words):len(words)]
			}
		}
	}
	return nil
}

func origin(u *url.URL) string { return u.Scheme + "://" + u.Host }

// site is the registrable domain; an address is its own.
func site(u *url.URL) string {
	if d, err := publicsuffix.EffectiveTLDPlusOne(u.Hostname()); err == nil && strings.ContainsAny(d, "abcdefghijklmnopqrstuvwxyz") {
		return d
	}
	return u.Hostname()
}

// Opener is whoever opens a link that an agent shows: a person at a browser.
type Opener interface {
	Open(ctx context.Context, address string) error
}

// OpenerFunc makes an Opener of a function.
type OpenerFunc func(ctx context.Context, address string) error

// Open calls the function.
func (f OpenerFunc) Open(ctx context.Context, address string) error { return f(ctx, address) }

// ErrDeclined is what an Opener returns for a person who does not want to open the link.
var ErrDeclined = errors.New("the person declined")

// Person is somebody at a browser who signs in wherever there is an account for it, presses the buttons in Yes, and
// stops at a page that offers neither.
type Person struct {
	*Browser

	mu       sync.Mutex
	accounts map[string]account // by origin
	yes      []string
}

type account struct{ name, password string }

// NewPerson is one with a fresh browser. The first button of `yes` that a page has is pressed.
func NewPerson(yes ...string) *Person {
	return &Person{Browser: NewBrowser(), accounts: map[string]account{}, yes: yes}
}

// HasAccount tells the person a name to sign in with, at the site with this URL; the password is Password.
func (p *Person) HasAccount(at, name string) *Person {
	u, err := url.Parse(at)
	if err != nil {
		panic(err) // a test's mistake
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.accounts[origin(u)] = account{name, Password}
	return p
}

// Open goes to the address and on, until there is nothing to do. It is an error if that ends on an error page.
func (p *Person) Open(ctx context.Context, address string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	shown, err := p.Browser.Open(ctx, address)
	for range maxHops {
		if err != nil {
			return err
		}
		words, ok := p.next(shown)
		if !ok {
			if shown.Status >= 400 {
				return fmt.Errorf("%d at %s: %.300s", shown.Status, shown.URL.Redacted(), shown.Text())
			}
			return nil
		}
		shown, err = p.Click(ctx, words)
	}
	return fmt.Errorf("still not through after %d pages, now at %s", maxHops, shown.URL.Redacted())
}

// next fills in what the page asks for and says which button comes next.
func (p *Person) next(shown *Shown) (string, bool) {
	who, known := p.accounts[origin(shown.URL)]
	for _, f := range shown.Forms {
		for i, field := range f.Fields {
			if field.Type != "password" || !known || shown.Status >= 400 || len(f.Buttons) == 0 {
				continue
			}
			for _, before := range f.Fields[:i] {
				if before.Type != "hidden" {
					before.Value = who.name
				}
			}
			field.Value = who.password
			return f.Buttons[0].Words, true
		}
	}
	for _, words := range p.yes {
		if slices.Contains(shown.Clickable(), words) {
			return words, true
		}
	}
	return "", false
}
