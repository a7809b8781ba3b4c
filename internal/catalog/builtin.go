package catalog

import (
	"cmp"
	"embed"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/goccy/go-yaml"

	"frontdesk.dev/frontdesk/internal/kit/oauth"
)

//go:embed providers/*.yaml
var providerFiles embed.FS

// Providers reads the built-in catalogue: one file a vendor, by id.
func Providers() (map[string]*Provider, error) {
	files, err := providerFiles.ReadDir("providers")
	if err != nil {
		return nil, err
	}
	all := map[string]*Provider{}
	for _, f := range files {
		text, err := providerFiles.ReadFile("providers/" + f.Name())
		if err != nil {
			return nil, err
		}
		p := &Provider{}
		if err := yaml.UnmarshalWithOptions(text, p, yaml.Strict()); err != nil {
			return nil, fmt.Errorf("provider %s: %w", f.Name(), err)
		}
		if err := p.Check(); err != nil {
			return nil, fmt.Errorf("provider %s: %w", f.Name(), err)
		}
		all[p.ID] = p
	}
	return all, nil
}

// Source is the text of a built-in entry, "" where there is none.
func Source(id string) string {
	text, err := providerFiles.ReadFile("providers/" + id + ".yaml")
	if err != nil {
		return ""
	}
	return string(text)
}

// Text is the entry in the form of its file, without what it does not say.
func (p *Provider) Text() (string, error) {
	text, err := yaml.MarshalWithOptions(p, yaml.OmitEmpty(), yaml.OmitZero())
	return string(text), err
}

// JSON is the entry with the names of its file.
func (p *Provider) JSON() (any, error) {
	text, err := p.Text()
	if err != nil {
		return nil, err
	}
	var v any
	return v, yaml.Unmarshal([]byte(text), &v)
}

// Check says what is wrong with a provider's facts, the first thing alone.
func (p *Provider) Check() error {
	if p.Name == "" || len(p.Hosts) == 0 {
		return fmt.Errorf("a provider needs a name and hosts")
	}
	if p.OAuth == nil && p.APIKey == nil && len(p.Federation) == 0 {
		return fmt.Errorf("a provider needs oauth, api_key or federation")
	}
	if p.OAuth != nil && strings.ContainsAny(p.OAuth.Refresh.ScopeNeeded, " ,") {
		return fmt.Errorf("oauth.refresh.scope_needed is one scope, not a sentence")
	}
	for _, shape := range p.TokenShapes {
		if _, err := regexp.Compile(shape); err != nil {
			return fmt.Errorf("token_shapes: %w", err)
		}
	}
	if err := p.checkEndpoints(); err != nil {
		return err
	}
	for name, in := range p.Inputs {
		if _, err := regexp.Compile(in.Pattern); err != nil || !strings.HasPrefix(in.Pattern, "^") || !strings.HasSuffix(in.Pattern, "$") {
			return fmt.Errorf("inputs.%s: its pattern must be a regular expression from ^ to $", name)
		}
	}
	for _, s := range p.Signals {
		if err := s.check(); err != nil {
			return err
		}
	}
	for _, h := range p.Hints {
		if err := h.Check(); err != nil {
			return err
		}
	}
	for _, q := range p.Quotas {
		if q.Remaining == "" || q.Reset == "" && q.Every <= 0 || q.Per != "" && q.Per != PerUser && q.Per != PerAll {
			return fmt.Errorf("quotas: a quota has remaining, reset or every, and per is user or all")
		}
	}
	if slices.ContainsFunc(p.Retries.Status, func(s int) bool { return !slices.Contains(repeatable, s) }) || p.Retries.Key != "" && len(p.Retries.Status) == 0 {
		return fmt.Errorf("retries: status is some of 429, 502, 503 and 504")
	}
	if err := p.Account.check(); err != nil {
		return err
	}
	if err := p.APIKey.check(); err != nil {
		return err
	}
	if err := p.Sites.check(); err != nil {
		return fmt.Errorf("sites: %w", err)
	}
	if p.OAuth != nil {
		if err := p.OAuth.check(); err != nil {
			return fmt.Errorf("oauth.%w", err)
		}
		if p.OAuth.DPoP == DPoPAlways && p.Injection != (Injection{}) {
			return fmt.Errorf("oauth.dpop: a bound token goes into Authorization, as RFC 9449 says, so leave out injection")
		}
	}
	if s := p.Egress.TicketShape; s != "" {
		if _, err := ParseShape(s); err != nil {
			return fmt.Errorf("egress.ticket_shape: %w", err)
		}
	}
	if err := p.Egress.TokenIn.check(); err != nil {
		return fmt.Errorf("egress.token_in.%w", err)
	}
	for _, in := range []Injection{p.InjectionOf(""), p.InjectionOf(APIKey)} {
		if err := in.check(); err != nil {
			return err
		}
	}
	return nil
}

func (in Injection) check() error {
	switch in.Kind {
	case "", "header", "basic", "query":
		return nil
	case InjectPair:
		if in.Name == "" || in.Second == "" || in.Format != "" {
			return fmt.Errorf("injection: a pair has name and second, its two headers, and no format")
		}
		return nil
	}
	return fmt.Errorf("injection.kind is %q, want header, basic, query or pair", in.Kind)
}

func (p TokenPlaces) check() error {
	for _, at := range p.JSON {
		if at == "" || !jsontext.Pointer(at).IsValid() {
			return fmt.Errorf("json: %q is no JSON pointer to a member, as /api_key", at)
		}
	}
	for _, v := range p.Protocols {
		if strings.Count(v, "{token}") != 1 || strings.ContainsAny(v, " ,\t") {
			return fmt.Errorf("protocols: %q does not hold {token} once, or is no name of a subprotocol", v)
		}
	}
	for _, m := range p.Messages {
		at := jsontext.Pointer(m.GreetingAt)
		switch {
		case m.Token == "" || !jsontext.Pointer(m.Token).IsValid():
			return fmt.Errorf("messages.token is %q, want a JSON pointer, as /payload/token", m.Token)
		case (m.Greeting == "") != (m.GreetingAt == "") || !at.IsValid():
			return fmt.Errorf("messages.greeting needs messages.greeting_at beside it, a JSON pointer to what tells it from other messages")
		case m.Greeting != "" && !jsontext.Value(m.Greeting).IsValid():
			return fmt.Errorf("messages.greeting is no JSON")
		}
	}
	return nil
}

// repeatable are statuses that say nothing of the request itself.
var repeatable = []int{http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout}

func (a Account) check() error {
	switch {
	case a.Method != "" && a.Method != http.MethodGet && a.Method != http.MethodPost:
		return fmt.Errorf("account.method is %q, want GET or POST", a.Method)
	case len(a.Form) > 0 && (a.Body != "" || a.Method != http.MethodPost):
		return fmt.Errorf("account.form is sent with method POST, and without a body beside it")
	case a.InToken && a.URL != "":
		return fmt.Errorf("account: the account is read from the token answer or by a call, not both")
	}
	return nil
}

func (o *ProviderOAuth) check() error {
	switch o.TokenAuth {
	case "", "basic", "post", "none", "private_key_jwt", "secret_user":
	default:
		return fmt.Errorf("token_auth is %q, want basic, post, none, private_key_jwt or secret_user", o.TokenAuth)
	}
	if o.DPoP != "" && o.DPoP != DPoPAlways && o.DPoP != DPoPNever {
		return fmt.Errorf("dpop is %q, want always or never, or nothing: where the resource's metadata ask for it", o.DPoP)
	}
	if o.Device.Client != "" && o.Device.Client != "none" {
		return fmt.Errorf("device.client is %q, want none, or nothing", o.Device.Client)
	}
	for _, c := range o.Confirm {
		if (c.Param == "") == (c.Pointer == "") || c.Is == "" {
			return fmt.Errorf("confirm wants param or pointer, and is")
		}
	}
	if err := o.Revoke.check(o.Revocation); err != nil {
		return fmt.Errorf("revocation.%w", err)
	}
	if err := o.Refresh.check(); err != nil {
		return fmt.Errorf("refresh.%w", err)
	}
	return nil
}

func (r Revoke) check(endpoint string) error {
	among := func(v string, l ...string) bool { return v == "" || slices.Contains(l, v) }
	switch {
	case !among(r.Method, http.MethodPost, http.MethodDelete):
		return fmt.Errorf("method is %q, want POST or DELETE", r.Method)
	case !among(r.Auth, "client", "basic", "bearer", "none"):
		return fmt.Errorf("auth is %q, want client, basic, bearer or none", r.Auth)
	case !among(r.Body, "form", "json", "none"):
		return fmt.Errorf("body is %q, want form, json or none", r.Body)
	case !among(r.Token, "access", "refresh"):
		return fmt.Errorf("token is %q, want access or refresh", r.Token)
	case !among(string(r.Shared), string(SharedGrant), string(SharedEverybody)):
		return fmt.Errorf("shared is %q, want grant or everybody", r.Shared)
	case strings.Contains(endpoint, "{token}"):
		return fmt.Errorf("the token would stand in a URL; such a call is not made")
	}
	return nil
}

// grantType is the shape of those that are parameters too, and none of those that the code flow has.
var grantType = regexp.MustCompile(`^[a-z]+(_[a-z]+)*_token$`)

func (r Refresh) check() error {
	switch {
	case r.Rotation != "" && r.Rotation != RotationNone && r.Rotation != RotationGrace && r.Rotation != RotationStrict:
		return fmt.Errorf("rotation is %q, want none, grace or strict", r.Rotation)
	case r.SiblingLock != "" && r.SiblingLock != SiblingConnection && r.SiblingLock != SiblingAppUser:
		return fmt.Errorf("sibling_lock is %q, want connection or app+user", r.SiblingLock)
	case r.By != "" && !grantType.MatchString(r.By):
		return fmt.Errorf("by is %q, want the vendor's grant_type, which is the parameter's name too, as fb_exchange_token", r.By)
	case r.LifetimeDays < 0 || r.IdleDays < 0 || r.GraceSeconds < 0:
		return fmt.Errorf("lifetime_days, idle_days and grace_seconds are not below 0")
	}
	for _, e := range r.Expired {
		if e.Status < 200 || e.Status > 499 {
			return fmt.Errorf("expired: status %d cannot mean that a token has expired", e.Status)
		}
	}
	return nil
}

// checkEndpoints refuses addresses to which no browser and no secret may go, before anything does. Inputs are filled in later,
// and hold what their patterns allow.
func (p *Provider) checkEndpoints() error {
	if p.OAuth == nil {
		return nil
	}
	fill := []string{"{client_id}", "x"}
	for name, in := range p.Inputs {
		fill = append(fill, "{"+name+"}", cmp.Or(in.Default, "x"))
	}
	for name, v := range map[string]string{"authorization_endpoint": p.OAuth.Authorization, "token_endpoint": p.OAuth.Token, "revocation_endpoint": p.OAuth.Revocation,
		"refresh_endpoint": p.OAuth.Refreshing, "par_endpoint": p.OAuth.Pushed, "device.authorization_endpoint": p.OAuth.Device.Authorization} {
		if v = strings.NewReplacer(fill...).Replace(v); v != "" && !oauth.UsableEndpoint(v) {
			return fmt.Errorf("oauth.%s is not a usable URL: https (http on loopback alone), without user, fragment or odd characters", name)
		}
	}
	return nil
}

// With fills in the inputs. It returns which one is missing or does not match its pattern.
func (p *Provider) With(values map[string]string) (*Provider, error) {
	for name := range values {
		if _, ok := p.Inputs[name]; !ok {
			return nil, fmt.Errorf("%s has no input %q", p.Name, name)
		}
	}
	var pairs []string
	for name, in := range p.Inputs {
		v := values[name]
		if v == "" {
			v = in.Default
		}
		if v == "" && in.Optional {
			continue
		}
		if v == "" {
			return nil, fmt.Errorf("%s needs the input %q", p.Name, name)
		}
		if ok, err := regexp.MatchString(in.Pattern, v); err != nil || !ok {
			return nil, fmt.Errorf("the input %q does not match %s", name, in.Pattern)
		}
		pairs = append(pairs, "{"+name+"}", v)
	}
	fill := strings.NewReplacer(pairs...).Replace
	q := *p
	q.Hosts = make([]string, len(p.Hosts))
	for i, h := range p.Hosts {
		q.Hosts[i] = fill(h)
	}
	q.Account.URL = fill(p.Account.URL)
	q.Egress.Aliases = nil
	for _, a := range p.Egress.Aliases {
		if a = (ProviderAlias{fill(a.Host), fill(a.To)}); !strings.Contains(a.Host+a.To, "{") {
			q.Egress.Aliases = append(q.Egress.Aliases, a)
		}
	}
	q.Injection.Format = fill(p.Injection.Format)
	if p.Sites != nil {
		s := *p.Sites
		s.Base = fill(s.Base)
		q.Sites = &s
	}
	q.APIKey = p.APIKey.filled(fill)
	if q.Hosts = q.reachable(); len(q.Hosts) == 0 {
		return nil, fmt.Errorf("%s needs the inputs of one of its hosts: %s", p.Name, strings.Join(p.Hosts, ", "))
	}
	if p.OAuth != nil {
		o := *p.OAuth
		o.Authorize, o.TokenParams = maps.Clone(o.Authorize), maps.Clone(o.TokenParams)
		for _, s := range []*string{&o.Issuer, &o.Authorization, &o.Token, &o.Revocation, &o.Refreshing, &o.Pushed, &o.Device.Authorization} {
			*s = fill(*s)
		}
		o.Confirm = slices.Clone(o.Confirm)
		for i := range o.Confirm {
			o.Confirm[i].Is = fill(o.Confirm[i].Is)
		}
		for k, v := range o.Authorize {
			o.Authorize[k] = fill(v)
		}
		q.OAuth = &o
	}
	return &q, nil
}

// reachable are the hosts of which everything is known, without those that an alias speaks for.
func (p *Provider) reachable() []string {
	return slices.DeleteFunc(slices.Clone(p.Hosts), func(h string) bool {
		unknown := slices.ContainsFunc(slices.Collect(maps.Keys(p.Inputs)), func(n string) bool { return p.Inputs[n].Optional && strings.Contains(h, "{"+n+"}") })
		return unknown || slices.ContainsFunc(p.Egress.Aliases, func(a ProviderAlias) bool { return a.Host == h })
	})
}

func (k *ProviderAPIKey) filled(fill func(string) string) *ProviderAPIKey {
	if k == nil {
		return nil
	}
	q := *k
	if k.Injection != nil {
		in := *k.Injection
		in.Format = fill(in.Format)
		q.Injection = &in
	}
	if k.Account != nil {
		a := *k.Account
		a.URL = fill(a.URL)
		q.Account = &a
	}
	return &q
}
