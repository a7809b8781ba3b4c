// Package rehearsal answers: does an entry of the catalogue get along with its vendor as the vendor documents itself?
//
// It plays the vendor: it takes what Frontdesk sends by the entry, in the way that the vendor's documentation says, and answers as
// documented, with the faults that vendors have. What it knows of vendors is in documented.json, gathered apart from the entries,
// so that the two can disagree. Nothing leaves the process. It does not know whether the documentation is true.
package rehearsal

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

//go:embed documented.json
var documented []byte

// Vendor is what a vendor's documentation says of itself.
type Vendor struct {
	ID     string  `json:"id"`
	OAuth  *Server `json:"oauth"`
	Revoke *Call   `json:"revoke"` // the call that ends one token
	Never  bool    `json:"never"`  // there is none that Frontdesk may make
	Place  *Place  `json:"place"`
	Proof  *Place  `json:"proof"` // of our client, beside the token
	Answers

	Key     *Key     `json:"key"`     // that people paste
	Account *Account `json:"account"` // whose a credential is
	Sites   *Sites   `json:"sites"`   // where accounts are, said after the consent
	Named   *Named   `json:"named"`   // where they are, said by their people before it

	Sources map[string]string `json:"sources"` // where facts were seen that an entry once marked as unproven, by the mark

	Failures []Failure `json:"failures"` // those that an agent is told about
	Retries  Retries   `json:"retries"`  // what the vendor asks to send again
}

// Answers are those of the API that are about the credential.
type Answers struct {
	Dead  *Example `json:"dead"`
	Scope *Example `json:"scope"`
	Right *Example `json:"right"`
}

// Server is a vendor's authorization server.
type Server struct {
	Authorization string            `json:"authorization"`
	Token         string            `json:"token"`
	Refresh       string            `json:"refresh"`
	Auth          string            `json:"auth"`
	Request       string            `json:"request"`
	Separator     string            `json:"separator"`
	Response      string            `json:"response_separator"`
	ScopeParam    string            `json:"scope_param"`
	Authorize     map[string]string `json:"authorize_params"`
	Params        map[string]string `json:"token_params"`
	PKCE          string            `json:"pkce"`
	Answer        json.RawMessage   `json:"answer"` // with ACCESS, REFRESH, SCOPE, EXPIRES_AT and JWT to be filled in
	Refreshes     bool              `json:"refreshes"`
	MAC           string            `json:"callback_mac"` // parameter that says for the others of a callback that they are the vendor's
	Renews        string            `json:"renews"`       // grant type by which an access token renews itself
}

// Call is a documented call that ends a token.
type Call struct {
	Endpoint string   `json:"endpoint"`
	Method   string   `json:"method"`
	Auth     string   `json:"auth"` // token (as at the token endpoint), client basic, post, bearer, body or none
	Body     string   `json:"body"` // form, json or none
	Fields   []string `json:"fields"`
}

// Place is where a token goes on a request of the API.
type Place struct {
	Header string `json:"header"`
	Query  string `json:"query"` // parameter, in the place of a header
	Value  string `json:"value"`
}

// of is what stands there in a request.
func (p *Place) of(r *http.Request) string {
	if p.Query != "" {
		return strings.Join(r.URL.Query()[p.Query], " and ")
	}
	return r.Header.Get(p.Header)
}

// Example is an answer of the API.
type Example struct {
	Status  int               `json:"status"`
	Headers map[string]string `json:"headers"`
	Body    json.RawMessage   `json:"body"`
	Scopes  []string          `json:"scopes"`
}

// Retries are the statuses after which to try again, and the header that makes it safe.
type Retries struct {
	Status []int  `json:"status"`
	Key    string `json:"key"`
}

// Failure is a known one, by the name that the entry's hint has.
type Failure struct {
	Name string `json:"name"`
	Example
}

func (e *Example) header() http.Header {
	h := http.Header{}
	for k, v := range e.Headers {
		h.Set(k, v)
	}
	return h
}

// Documented are the vendors that are known, by id.
func Documented() (map[string]Vendor, error) {
	var l []Vendor
	if err := json.Unmarshal(documented, &l); err != nil {
		return nil, err
	}
	m := map[string]Vendor{}
	for _, v := range l {
		m[v.ID] = v
	}
	return m, nil
}

// Step is one thing that was tried.
type Step struct {
	Name string `json:"name"`
	Err  error  `json:"-"` // nil: the entry and the documentation agree
}

// What we are at the vendor in a rehearsal.
const (
	client   = "desk"
	hush     = "hush"
	redirect = "https://desk.example.com/callback/x"
	code     = "CODE"

	assertion = "ASSERTION"
)

// Play tries an entry, its inputs filled in by values, against what its vendor documents.
func Play(ctx context.Context, entry *catalog.Provider, v Vendor, values map[string]string) []Step {
	p, err := entry.With(values)
	if err != nil {
		return []Step{{"inputs", err}}
	}
	s := &stage{vendor: v, entry: p, fill: filler(values), now: time.Unix(1_800_000_000, 0)}
	s.client = oauth.Client{HTTP: s, Now: func() time.Time { return s.now }}
	if v.OAuth != nil && p.OAuth != nil {
		s.try("authorization request", s.authorize)
		s.try("code", func() error { return s.redeem(ctx) })
		s.faults(ctx)
		if v.OAuth.Refreshes {
			s.try("refresh", func() error { return s.refresh(ctx) })
		}
	}
	if v.Revoke != nil {
		s.try("end at the vendor", func() error { return s.revoke(ctx) })
	}
	if v.Never {
		s.try("nothing is ended for others", func() error {
			if p.OAuth.Ends() {
				return errors.New("the entry names a call that the vendor does not offer for one person")
			}
			return nil
		})
	}
	if v.Place != nil {
		s.try("place of the token", s.place)
	}
	s.answers()
	s.failures()
	s.try("what is sent again", func() error {
		return errors.Join(different("statuses", p.Retries.Status, v.Retries.Status), different("the key", p.Retries.Key, v.Retries.Key))
	})
	if v.Account != nil {
		s.accounts(ctx)
	}
	if v.Key != nil {
		s.try("pasted key", func() error { return s.pasted(ctx, entry, values) })
	}
	if v.Sites != nil {
		s.sited(ctx, entry, values)
	}
	if v.Named != nil {
		s.named(ctx, entry, values)
	}
	return s.steps
}

// filler puts inputs into what a vendor documents.
func filler(values map[string]string) func(string) string {
	var pairs []string
	for name, value := range values {
		pairs = append(pairs, "{"+name+"}", value)
	}
	return strings.NewReplacer(pairs...).Replace
}

type stage struct {
	vendor Vendor
	entry  *catalog.Provider
	client oauth.Client
	fill   func(string) string
	now    time.Time
	steps  []Step

	challenge string
	verifier  secret.Text
	token     oauth.Token
	fault     *http.Response // what the token endpoint answers instead
	wrong     error          // what the vendor found wrong with the last request
	body      func() string  // its token answer, where that is not the usual one
	renewed   int            // access tokens that renewed themselves
}

func (s *stage) try(name string, f func() error) { s.steps = append(s.steps, Step{name, f()}) }

// different says where two things that should be one are two.
func different(what string, got, want any) error {
	if fmt.Sprint(got) != fmt.Sprint(want) {
		return fmt.Errorf("%s is %q, and the vendor documents %q", what, fmt.Sprint(got), fmt.Sprint(want))
	}
	return nil
}

func (s *stage) scopes() []string {
	if s.vendor.OAuth.ScopeParam == catalog.NoScopes {
		return nil
	}
	return []string{"alpha", "beta"}
}

func (s *stage) authorize() error {
	verifier, err := oauth.Verifier(random{})
	if err != nil {
		return err
	}
	o, said := s.entry.OAuth, s.vendor.OAuth
	s.verifier, s.challenge = verifier, oauth.CodeChallenge(verifier)
	raw, err := o.Request(client, redirect, strings.Repeat("s", 43), s.challenge, []string{"alpha", "beta"}).URL()
	if err != nil {
		return err
	}
	u, err := url.Parse(raw)
	if err != nil {
		return err
	}
	q := u.Query()
	u.RawQuery = ""
	wrong := []error{different("its address", u.String(), s.fill(said.Authorization)), different("code_challenge sent", q.Has("code_challenge"), said.PKCE != "unsupported"),
		different("what proves a callback", o.CallbackMAC, said.MAC)}
	for name, want := range said.Authorize {
		wrong = append(wrong, different(name, q.Get(name), s.fill(want)))
	}
	if said.ScopeParam == catalog.NoScopes {
		wrong = append(wrong, different("scope sent", q.Has("scope"), false))
	} else {
		asked := strings.Split(q.Get(said.ScopeParam), said.Separator)
		wrong = append(wrong, different("scopes", asked[:min(2, len(asked))], s.scopes()))
		if a := s.vendor.Account; a != nil && !oauth.HasScopes(asked, a.Scopes...) {
			wrong = append(wrong, fmt.Errorf("it does not ask for %q, without which nobody knows whose account it is", strings.Join(a.Scopes, " ")))
		}
	}
	return errors.Join(wrong...)
}

func (s *stage) endpoint() oauth.Endpoint {
	e := s.entry.OAuth.Endpoint()
	e.ClientID, e.Secret = client, secret.New(hush)
	switch e.Auth {
	case oauth.AuthNone:
		e.Secret = secret.Text{}
	case oauth.AuthJWT:
		e.Secret, e.Assert = secret.Text{}, func(context.Context) (secret.Text, error) { return secret.New(assertion), nil }
	}
	return e
}

func (s *stage) redeem(ctx context.Context) error {
	g := oauth.CodeGrant{Code: secret.New(code), RedirectURI: redirect}
	if !s.entry.OAuth.NoPKCE {
		g.Verifier = s.verifier
	}
	t, err := s.client.Exchange(ctx, s.endpoint(), g)
	if err != nil {
		return errors.Join(s.wrong, err)
	}
	s.token = t
	return errors.Join(s.came(t), different("renewed at once", s.renewed > 0, s.vendor.OAuth.Renews != ""))
}

// came compares what was read with what the vendor gave.
func (s *stage) came(t oauth.Token) error {
	answer := string(s.vendor.OAuth.Answer)
	wrong := []error{different("the access token", strings.HasPrefix(t.Access.Expose(), "ACCESS") || strings.Contains(answer, `"JWT"`), true),
		different("a refresh token", !t.Refresh.IsZero(), strings.Contains(answer, `"REFRESH"`) || s.vendor.OAuth.Renews != "")}
	if strings.Contains(answer, `"SCOPE"`) && s.vendor.OAuth.ScopeParam != catalog.NoScopes {
		wrong = append(wrong, different("granted scopes", t.Scopes, []string{"alpha", "beta"}))
	}
	ends := strings.Contains(answer, "3600") || strings.Contains(answer, "EXPIRES_AT") || strings.Contains(answer, `"JWT"`)
	want := time.Time{}
	if ends {
		want = s.now.Add(time.Hour)
	}
	return errors.Join(append(wrong, different("its end", t.Expires.Unix(), want.Unix()))...)
}

func (s *stage) refresh(ctx context.Context) error {
	token := "REFRESH"
	if s.vendor.OAuth.Renews != "" {
		token = "ACCESS"
	}
	t, err := s.client.Refresh(ctx, s.endpoint(), oauth.RefreshGrant{Refresh: secret.New(token)})
	if err != nil {
		return errors.Join(s.wrong, err)
	}
	return s.came(t)
}

// faults are what no vendor's answer may do.
func (s *stage) faults(ctx context.Context) {
	answer := func(status int, kind, body string) *http.Response {
		return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {kind}, "Location": {"https://evil.example/"}}, Body: io.NopCloser(strings.NewReader(body))}
	}
	for name, f := range map[string]struct {
		resp *http.Response
		want oauth.Failure
	}{
		"error under status 200": {answer(200, "application/json", `{"ok":false,"error":"invalid_grant"}`), oauth.GrantRefused},
		"a proxy's bad hour":     {answer(502, "text/html", "<html>invalid_grant"), oauth.Temporary},
		"a page in its place":    {answer(200, "text/html", "<html>"), oauth.Malformed},
		"half an answer":         {answer(200, "application/json", `{"access_token":"AC`), oauth.Malformed},
		"too long an answer":     {answer(200, "application/json", strings.Repeat(" ", 2<<20)), oauth.Oversized},
		"a redirect":             {answer(307, "application/json", `{"error":"invalid_grant"}`), oauth.Malformed},
	} {
		s.try("fault: "+name, func() error {
			s.fault = f.resp
			defer func() { s.fault = nil }()
			_, err := s.client.Exchange(ctx, s.endpoint(), oauth.CodeGrant{Code: secret.New(code), Verifier: s.verifier, RedirectURI: redirect})
			if te, ok := errors.AsType[*oauth.TokenError](err); !ok || te.Failure != f.want {
				return fmt.Errorf("it is read as %v, and is %s", err, f.want)
			}
			return nil
		})
	}
	slices.SortStableFunc(s.steps, func(a, b Step) int { return strings.Compare(faultName(a), faultName(b)) })
}

// faultName sorts faults among themselves and leaves the others in front, in their order.
func faultName(s Step) string {
	if strings.HasPrefix(s.Name, "fault: ") {
		return s.Name
	}
	return ""
}

func (s *stage) revoke(ctx context.Context) error {
	o := s.entry.OAuth
	if !o.Ends() {
		return errors.New("the vendor documents a call that ends one token, and the entry has none")
	}
	e := s.endpoint()
	e.URL = o.Revocation
	token, hint := "REFRESH", "refresh_token"
	if o.Revoke.Token == "access" || !s.vendor.OAuth.Refreshes {
		token, hint = "ACCESS", "access_token"
	}
	s.wrong = nil
	return errors.Join(s.client.RevokeBy(ctx, e, o.Ending(), secret.New(token), hint), s.wrong)
}

func (s *stage) place() error {
	r, err := http.NewRequest(http.MethodGet, "https://api.example.com/", nil)
	if err != nil {
		return err
	}
	put, _ := vault.Place(s.entry.Injection, secret.New("ACCESS"))
	if err := put(r); err != nil {
		return err
	}
	return different(s.vendor.Place.Header, r.Header.Get(s.vendor.Place.Header), strings.ReplaceAll(s.fill(s.vendor.Place.Value), "{token}", "ACCESS"))
}

// answers are the API's own.
func (s *stage) answers() {
	for _, a := range []struct {
		name string
		e    *Example
		want catalog.Meaning
	}{{"a dead token", s.vendor.Dead, catalog.MeansDead}, {"a missing scope", s.vendor.Scope, catalog.MeansScope}, {"a missing right", s.vendor.Right, catalog.MeansRight}} {
		if a.e == nil {
			continue
		}
		s.try("answer: "+a.name, func() error {
			means, scopes := s.entry.Says(a.e.Status, a.e.header(), func() []byte { return a.e.Body }, nil)
			return errors.Join(different("its meaning", means, a.want), different("what is missing", scopes, a.e.Scopes))
		})
	}
}

// failures are what an agent is told about: each by its own hint, and no hint for what nobody documents.
func (s *stage) failures() {
	played := map[string]bool{}
	for _, f := range s.vendor.Failures {
		played[f.Name] = true
		s.try("hint: "+f.Name, func() error {
			h := s.entry.Hint(&catalog.Answer{Status: f.Status, Header: f.header(), Body: func() []byte { return f.Body }})
			if h == nil {
				return errors.New("the entry has no hint that fits")
			}
			return different("the hint", h.Name, f.Name)
		})
	}
	for _, h := range s.entry.Hints {
		if !played[h.Name] {
			s.try("hint: "+h.Name, func() error { return errors.New("no failure of this name is documented") })
		}
	}
}

// Do implements oauth.Doer: the vendor.
func (s *stage) Do(r *http.Request) (*http.Response, error) {
	if s.fault != nil {
		return s.fault, nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	params, coding, err := read(r.Header.Get("Content-Type"), body)
	if err != nil {
		return nil, err
	}
	u := *r.URL
	u.RawQuery = ""
	said := s.vendor.OAuth
	switch at := u.String(); {
	case s.vendor.Revoke != nil && at == s.fill(strings.ReplaceAll(s.vendor.Revoke.Endpoint, "{client_id}", client)):
		s.wrong = s.ended(r, params, coding)
		return respond(http.StatusOK, `{"ok":true}`), nil
	case at == s.fill(said.Token) || said.Refresh != "" && at == s.fill(said.Refresh):
		if s.wrong = s.asked(r, params, coding, at); s.wrong != nil {
			return respond(http.StatusBadRequest, `{"error":"invalid_request"}`), nil
		}
		if s.body != nil {
			return respond(http.StatusOK, s.body()), nil
		}
		return respond(http.StatusOK, s.answer()), nil
	}
	return nil, fmt.Errorf("it went to %s, which the vendor does not document", u.String())
}

// read gives the parameters of a body as text, and how they were coded.
func read(kind string, body []byte) (map[string]string, string, error) {
	params := map[string]string{}
	switch {
	case kind == "application/json":
		return params, "json", json.Unmarshal(body, &params)
	case len(body) == 0:
		return params, "none", nil
	}
	q, err := url.ParseQuery(string(body))
	for k := range q {
		params[k] = q.Get(k)
	}
	return params, "form", err
}

func respond(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader([]byte(body)))}
}

// asked is what the vendor finds wrong with a token request.
func (s *stage) asked(r *http.Request, params map[string]string, coding, at string) error {
	said := s.vendor.OAuth
	wrong := []error{different("the method", r.Method, http.MethodPost), different("the body", coding, said.Request), s.proven(r, params, said.Auth)}
	for name, want := range said.Params {
		wrong = append(wrong, different(name, params[name], want))
	}
	if said.Renews != "" && params["grant_type"] == said.Renews {
		s.renewed++
		return errors.Join(append(wrong, different("the token to renew", params[said.Renews], "ACCESS"))...)
	}
	if params["refresh_token"] != "" {
		own := said.Refresh != ""
		wrong = append(wrong, different("grant_type", params["grant_type"], map[bool]string{true: "", false: oauth.GrantRefreshToken}[own]),
			different("the refresh token", params["refresh_token"], "REFRESH"))
		if own {
			wrong = append(wrong, different("the refresh endpoint", at, s.fill(said.Refresh)))
		}
		return errors.Join(wrong...)
	}
	wrong = append(wrong, different("grant_type", params["grant_type"], oauth.GrantAuthorizationCode), different("code", params["code"], code),
		different("redirect_uri", params["redirect_uri"], redirect), different("code_verifier sent", params["code_verifier"] != "", said.PKCE != "unsupported"))
	if v := params["code_verifier"]; v != "" && oauth.CodeChallenge(secret.New(v)) != s.challenge {
		wrong = append(wrong, errors.New("code_verifier does not fit its challenge"))
	}
	return errors.Join(wrong...)
}

// proven looks at how the client proves itself: in one place, and not in the others.
func (s *stage) proven(r *http.Request, params map[string]string, auth string) error {
	user, password, basic := r.BasicAuth()
	got := "none"
	switch {
	case basic && user == client && password == hush && params["client_secret"] == "":
		got = "basic"
	case basic && user == hush && password == "":
		got = "secret_user"
	case !basic && params["client_id"] == client && params["client_secret"] == hush:
		got = "post"
	case !basic && params["client_assertion"] == assertion && params["client_secret"] == "":
		got = "jwt"
	}
	return different("how the client proves itself", got, auth)
}

// ended is what the vendor finds wrong with a request to end a token.
func (s *stage) ended(r *http.Request, params map[string]string, coding string) error {
	said := s.vendor.Revoke
	wrong := []error{different("the method", r.Method, said.Method), different("the body", coding, said.Body)}
	for _, f := range said.Fields {
		wrong = append(wrong, different(f+" sent", params[f] != "", true))
	}
	switch line := r.Header.Get("Authorization"); said.Auth {
	case "token":
		wrong = append(wrong, s.proven(r, params, s.vendor.OAuth.Auth))
	case "client basic":
		wrong = append(wrong, s.proven(r, params, "basic"))
	case "post":
		wrong = append(wrong, s.proven(r, params, "post"))
	case "bearer":
		wrong = append(wrong, different("Authorization", line, "Bearer ACCESS"))
	default:
		wrong = append(wrong, different("Authorization", line, ""))
	}
	return errors.Join(wrong...)
}

// answer is a token answer in the vendor's form.
func (s *stage) answer() string {
	said := s.vendor.OAuth
	sep := said.Separator
	if said.Response != "" {
		sep = said.Response
	}
	return strings.NewReplacer("SCOPE", "alpha"+sep+"beta", "EXPIRES_AT", s.now.Add(time.Hour).UTC().Format(time.RFC3339), `"JWT"`, `"`+s.access()+`"`).Replace(string(said.Answer))
}

// access is the token that the vendor gives, or a person pastes.
func (s *stage) access() string {
	if s.vendor.OAuth == nil || !strings.Contains(string(s.vendor.OAuth.Answer), `"JWT"`) {
		return "ACCESS"
	}
	claims := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, s.now.Add(time.Hour).Unix()))
	return "e30." + claims + ".c2ln"
}

// random is no chance at all: nothing here is secret.
type random struct{}

func (random) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(i)
	}
	return len(b), nil
}
