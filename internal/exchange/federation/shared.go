package federation

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/jwt"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/vault"
)

// githubApp serves github_app: a token of an installation of a GitHub App, narrowed to repositories and permissions. It acts as
// the App and not as the person, so it is a shared credential.
type githubApp struct{ *Federation }

// Ready implements exchange.Method.
func (m *githubApp) Ready(_ context.Context, r exchange.Request) error {
	if _, err := settings[*catalog.GitHub](r); err != nil {
		return err
	}
	if m.Clients.Secret(r.Upstream, r.Method.Kind, vault.PrivateKey).IsZero() {
		return fault.New(fault.NotFound, "has no private_key in the config", nil)
	}
	return owned(r)
}

const (
	githubAPI = "https://api.github.com"
	// githubClock is how far an App's statement is dated back: GitHub refuses one that seems to come from the future.
	githubClock = time.Minute
)

// Obtain implements exchange.Method.
func (m *githubApp) Obtain(ctx context.Context, r exchange.Request) (*exchange.Credential, error) {
	if err := m.Ready(ctx, r); err != nil {
		return nil, err
	}
	s, err := settings[*catalog.GitHub](r)
	if err != nil {
		return nil, err
	}
	narrowed, err := json.Marshal(struct {
		Repositories []string          `json:"repositories,omitempty"`
		Permissions  map[string]string `json:"permissions,omitempty"`
	}{s.Repositories, s.Permissions})
	if err != nil {
		return nil, err
	}
	key := keyOf("github_app", r.Method.Client, s.Installation, s.API, string(narrowed))
	t, until, err := do(ctx, m.Federation, r, key, func(ctx context.Context) (oauth.Token, time.Time, error) {
		t, err := m.installation(ctx, r, s, narrowed)
		return t, t.Expires, err
	})
	if err != nil {
		return nil, err
	}
	t.Expires = until
	return m.bearer(r, t), nil
}

func (m *githubApp) installation(ctx context.Context, r exchange.Request, s *catalog.GitHub, narrowed []byte) (oauth.Token, error) {
	app, err := m.sign(ctx, r, jwt.TypeJWT, "", assertionLife, statement{"iss": r.Method.Client, "nbf": m.Now().Add(-githubClock).Unix()})
	if err != nil {
		return oauth.Token{}, err
	}
	return m.token(ctx, r, tokenCall{step: "GitHub's App installation", url: either(s.API, githubAPI) + "/app/installations/" + url.PathEscape(s.Installation) + "/access_tokens",
		bearer: app, body: narrowed, want: http.StatusCreated, read: func(answer []byte) (string, time.Time, error) {
			var a struct {
				Token   string    `json:"token"`
				Expires time.Time `json:"expires_at"`
			}
			err := json.Unmarshal(answer, &a)
			return a.Token, a.Expires, err
		}})
}

// serviceKey serves service_key: a static key of the config, for everybody, which the operator must own up to by accept_risk.
type serviceKey struct{ *Federation }

// Ready implements exchange.Method.
func (m *serviceKey) Ready(_ context.Context, r exchange.Request) error {
	if m.Clients.Secret(r.Upstream, r.Method.Kind, vault.StaticKey).IsZero() {
		return fault.New(fault.NotFound, "has no key in the config", nil)
	}
	return owned(r)
}

// Obtain implements exchange.Method.
func (m *serviceKey) Obtain(ctx context.Context, r exchange.Request) (*exchange.Credential, error) {
	if err := m.Ready(ctx, r); err != nil {
		return nil, err
	}
	in := r.Upstream.Provider.Injection
	if k := r.Upstream.Provider.APIKey; k != nil && k.Injection != nil {
		in = *k.Injection
	}
	c, key := &exchange.Credential{Method: r.Method.Kind}, m.Clients.Secret(r.Upstream, r.Method.Kind, vault.StaticKey)
	c.Place, c.Marks = vault.Place(in, key)
	c.Fill = vault.Fill(key)
	return c, nil
}

// passthrough serves passthrough: the token with which the caller came goes on. Only a token of the company's IdP does, and only
// one that names this upstream among its audiences; a token that we issued never does.
type passthrough struct{ *Federation }

// Ready implements exchange.Method.
func (m *passthrough) Ready(_ context.Context, r exchange.Request) error {
	s, err := settings[*catalog.Forward](r)
	if err != nil {
		return err
	}
	if err := owned(r); err != nil {
		return err
	}
	if r.Caller.Local || r.Caller.Raw().IsZero() {
		return fault.New(fault.NotFound, "forwards only a token of the company's IdP; this caller came with one of ours", nil)
	}
	// Its signature was verified when it came in; what is read here says for whom else it was made.
	claims, ok := oauth.PeekJWT(r.Caller.Raw().Expose())
	if !ok || s.Audience == "" || !slices.Contains(claims.Audience, s.Audience) {
		return fault.New(fault.NotFound, "forwards only a token whose audience is "+s.Audience, nil)
	}
	return nil
}

// Obtain implements exchange.Method.
func (m *passthrough) Obtain(ctx context.Context, r exchange.Request) (*exchange.Credential, error) {
	if err := m.Ready(ctx, r); err != nil {
		return nil, err
	}
	return m.bearer(r, oauth.Token{Access: r.Caller.Raw(), Expires: r.Caller.Expires}), nil
}
