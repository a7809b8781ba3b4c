package world_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/authserver"
)

// zitadel/oidc logs every refusal to the default logger; here they are asked for.
func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	os.Exit(m.Run())
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func closing(t *testing.T, c interface{ Close() error }) {
	t.Helper()
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

func newIdP(t *testing.T, cfg world.IdPConfig) *world.IdP {
	t.Helper()
	idp := must[*world.IdP](t)(world.NewIdP(cfg))
	closing(t, idp)
	return idp
}

func newTracker(t *testing.T, cfg world.TrackerConfig) *world.Tracker {
	t.Helper()
	tr := must[*world.Tracker](t)(world.NewTracker(cfg))
	closing(t, tr)
	return tr
}

// site is a relying party in miniature: it starts authorizations and redeems codes.
type site struct {
	*httptest.Server
	cfg  oauth2.Config
	back chan url.Values
}

type issuer interface {
	URL() string
	Register(redirectURIs ...string)
}

// newSite registers itself at an issuer.
func newSite(t *testing.T, at issuer, scopes ...string) *site {
	t.Helper()
	s := &site{back: make(chan url.Values, 8)}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.back <- r.URL.Query()
		_, _ = io.WriteString(w, "back at the site")
	}))
	t.Cleanup(s.Server.Close)
	s.cfg = oauth2.Config{
		ClientID: world.FrontdeskClient, ClientSecret: world.FrontdeskSecret,
		Endpoint:    oauth2.Endpoint{AuthURL: at.URL() + "/authorize", TokenURL: at.URL() + "/oauth/token", AuthStyle: oauth2.AuthStyleInHeader},
		RedirectURL: s.Server.URL + "/callback", Scopes: scopes,
	}
	at.Register(s.cfg.RedirectURL)
	return s
}

const verifier = "a-verifier-that-is-long-enough-for-rfc-7636-which-asks-for-43"

func (s *site) start(more ...oauth2.AuthCodeOption) string {
	return s.cfg.AuthCodeURL("the-state", append([]oauth2.AuthCodeOption{oauth2.S256ChallengeOption(verifier)}, more...)...)
}

// visit has a person go through an authorization and gives what came back.
func (s *site) visit(t *testing.T, p *world.Person, more ...oauth2.AuthCodeOption) url.Values {
	t.Helper()
	if err := p.Open(within(t), s.start(more...)); err != nil {
		t.Fatal(err)
	}
	select {
	case q := <-s.back:
		return q
	default:
		t.Fatalf("nobody came back; the browser shows %s: %s", p.Page().URL, p.Page().Text())
		return nil
	}
}

func (s *site) redeem(t *testing.T, code string) (*oauth2.Token, error) {
	return s.cfg.Exchange(within(t), code, oauth2.VerifierOption(verifier))
}

func (s *site) signIn(t *testing.T, p *world.Person, more ...oauth2.AuthCodeOption) *oauth2.Token {
	t.Helper()
	tok, err := s.redeem(t, s.visit(t, p, more...).Get("code"))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func (s *site) refresh(t *testing.T, refreshToken string) (*oauth2.Token, error) {
	return s.cfg.TokenSource(within(t), &oauth2.Token{RefreshToken: refreshToken}).Token()
}

// oauthError is the code of a refusal at a token endpoint; "" for nil.
func oauthError(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var re *oauth2.RetrieveError
	if !errors.As(err, &re) {
		t.Fatalf("not an OAuth error: %v", err)
	}
	return re.ErrorCode
}

func atIdP(idp *world.IdP, name string) *world.Person {
	return world.NewPerson("Authorize").HasAccount(idp.URL(), name)
}

func atTracker(tr *world.Tracker, name string) *world.Person {
	return world.NewPerson("Authorize").HasAccount(tr.URL(), name)
}

// trackerToken signs a customer in and gives his tokens.
func trackerToken(t *testing.T, tr *world.Tracker, name string, scopes ...string) *oauth2.Token {
	t.Helper()
	if len(scopes) == 0 {
		scopes = []string{world.ScopeRead, world.ScopeWrite, "offline_access"}
	}
	s := newSite(t, tr, scopes...)
	return s.signIn(t, atTracker(tr, name))
}

// get asks with a Bearer token and gives status and body.
func get(t *testing.T, address, token string) (int, string) {
	t.Helper()
	return send(t, http.MethodGet, address, token, "")
}

func send(t *testing.T, method, address, token, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(within(t), method, address, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func getJSON(t *testing.T, address, token string) map[string]any {
	t.Helper()
	status, body := get(t, address, token)
	if status != http.StatusOK {
		t.Fatalf("GET %s: %d %s", address, status, body)
	}
	var out map[string]any
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// idToken verifies what the IdP signed.
func idToken(t *testing.T, idp *world.IdP, raw string) map[string]any {
	t.Helper()
	p, err := oidc.NewProvider(within(t), idp.URL())
	if err != nil {
		t.Fatal(err)
	}
	tok, err := p.Verifier(&oidc.Config{ClientID: world.FrontdeskClient}).Verify(within(t), raw)
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := tok.Claims(&claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

func outcomes(rs []authserver.Redemption) []authserver.Outcome {
	var out []authserver.Outcome
	for _, r := range rs {
		out = append(out, r.Outcome)
	}
	return out
}

func decode(t *testing.T, r io.Reader, out any) {
	t.Helper()
	if err := json.NewDecoder(r).Decode(out); err != nil {
		t.Fatal(err)
	}
}
