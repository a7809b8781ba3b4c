package federation

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

const (
	googleSTS   = "https://sts.googleapis.com"
	googleIAM   = "https://iamcredentials.googleapis.com"
	googleScope = "https://www.googleapis.com/auth/cloud-platform"
)

// google serves google_workforce: the person's token becomes a federated one at Google's STS, and that, where the config names
// a service account, one of the account. What the person may is decided by Google's IAM, for the person.
type google struct{ *Federation }

// Ready implements exchange.Method.
func (m *google) Ready(ctx context.Context, r exchange.Request) error {
	s, err := settings[*catalog.Google](r)
	if err != nil {
		return err
	}
	return m.ready(ctx, r.Caller, s.Subject)
}

// Obtain implements exchange.Method.
func (m *google) Obtain(ctx context.Context, r exchange.Request) (*exchange.Credential, error) {
	s, err := settings[*catalog.Google](r)
	if err != nil {
		return nil, err
	}
	sub, err := m.of(ctx, r.Caller, s.Subject)
	if err != nil {
		return nil, err
	}
	scopes := googleScopes(r, s)
	key := keyOf("google_workforce", s.Audience, s.Project, s.STS, r.Method.Client, strings.Join(scopes, " "), sub.mark())
	t, until, err := do(ctx, m.Federation, r, key, func(ctx context.Context) (oauth.Token, time.Time, error) {
		t, err := m.federate(ctx, r, s, scopes, sub)
		return t, first(t.Expires, sub.until), err
	})
	if err == nil && s.ServiceAccount != "" {
		federated, made := t, until
		key := keyOf("google_account", s.ServiceAccount, s.IAM, strings.Join(scopes, " "), subject{token: federated.Access}.mark())
		t, until, err = do(ctx, m.Federation, r, key, func(ctx context.Context) (oauth.Token, time.Time, error) {
			t, err := m.impersonate(ctx, r, s, scopes, federated.Access)
			return t, first(t.Expires, made), err
		})
	}
	if err != nil {
		return nil, err
	}
	t.Expires = until
	return m.bearer(r, t), nil
}

// googleScopes are those that the call needs and those that the person's groups bring, sorted.
func googleScopes(r exchange.Request, s *catalog.Google) []string {
	l := slices.Clone(r.Scopes)
	for _, g := range r.Caller.Groups {
		l = append(l, s.Groups[g]...)
	}
	if len(l) == 0 {
		l = []string{googleScope}
	}
	slices.Sort(l)
	return slices.Compact(l)
}

// federate exchanges at the STS (a profile of RFC 8693 that knows no client).
func (m *google) federate(ctx context.Context, r exchange.Request, s *catalog.Google, scopes []string, sub subject) (oauth.Token, error) {
	e, err := m.endpoint(r, either(s.STS, googleSTS)+"/v1/token", "")
	if err != nil {
		return oauth.Token{}, err
	}
	g := oauth.ExchangeGrant{Subject: sub.token, SubjectType: sub.kind, Requested: oauth.TokenTypeAccess, Audiences: []string{s.Audience}, Scopes: scopes}
	if sub.kind == oauth.TokenTypeAccess {
		g.SubjectType = oauth.TokenTypeJWT // Google's access_token means one of its own
	}
	if s.Project != "" {
		options, err := json.Marshal(map[string]string{"userProject": s.Project})
		if err != nil {
			return oauth.Token{}, err
		}
		g.Extra = map[string]string{"options": url.QueryEscape(string(options))}
	}
	t, err := m.OAuth.ExchangeToken(ctx, e, g)
	if err != nil {
		return t, refused(r, "Google's token service", err)
	}
	return t, nil
}

// impersonate asks for a token of the service account (IAM Credentials API, generateAccessToken).
func (m *google) impersonate(ctx context.Context, r exchange.Request, s *catalog.Google, scopes []string, federated secret.Text) (oauth.Token, error) {
	body, err := json.Marshal(map[string]any{"scope": scopes})
	if err != nil {
		return oauth.Token{}, err
	}
	return m.token(ctx, r, tokenCall{step: "Google's service account", url: either(s.IAM, googleIAM) + "/v1/projects/-/serviceAccounts/" + url.PathEscape(s.ServiceAccount) + ":generateAccessToken",
		bearer: federated, body: body, want: http.StatusOK, read: func(answer []byte) (string, time.Time, error) {
			var a struct {
				AccessToken string    `json:"accessToken"`
				ExpireTime  time.Time `json:"expireTime"`
			}
			err := json.Unmarshal(answer, &a)
			return a.AccessToken, a.ExpireTime, err
		}})
}

func either(configured, standard string) string {
	if configured != "" {
		return strings.TrimSuffix(configured, "/")
	}
	return standard
}

// usable reports whether a token can stand in a header.
func usable(token string) bool {
	return token != "" && len(token) <= 16<<10 && !strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' })
}
