package federation

import (
	"cmp"
	"context"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/jwt"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// tokenExchange serves token_exchange (RFC 8693) at an authorization server that believes the company's IdP: impersonation,
// or with an actor delegation.
type tokenExchange struct{ *Federation }

// Ready implements exchange.Method.
func (m *tokenExchange) Ready(ctx context.Context, r exchange.Request) error {
	s, err := settings[*catalog.Exchange](r)
	if err != nil {
		return err
	}
	return m.ready(ctx, r.Caller, s.Subject)
}

// Obtain implements exchange.Method.
func (m *tokenExchange) Obtain(ctx context.Context, r exchange.Request) (*exchange.Credential, error) {
	s, err := settings[*catalog.Exchange](r)
	if err != nil {
		return nil, err
	}
	e, err := m.endpoint(r, s.Endpoint, "")
	if err != nil {
		return nil, err
	}
	sub, err := m.of(ctx, r.Caller, s.Subject)
	if err != nil {
		return nil, err
	}
	key := keyOf("token_exchange", string(r.Upstream.Name), e.URL, entry(r), string(r.Caller.Client), strings.Join(r.Scopes, " "), sub.mark())
	t, until, err := do(ctx, m.Federation, r, key, func(ctx context.Context) (oauth.Token, time.Time, error) {
		g := oauth.ExchangeGrant{Subject: sub.token, SubjectType: sub.kind, Requested: s.Requested, Scopes: r.Scopes}
		if s.Type != "" {
			g.SubjectType = s.Type
		}
		if s.Audience != "" {
			g.Audiences = []string{s.Audience}
		}
		if s.Resource != "" {
			g.Resources = []string{s.Resource}
		}
		if s.Actor {
			actor, err := m.actor(ctx, r, e.URL)
			if err != nil {
				return oauth.Token{}, time.Time{}, err
			}
			g.Actor, g.ActorType = actor, oauth.TokenTypeJWT
		}
		t, err := m.OAuth.ExchangeToken(ctx, e, g)
		if err != nil {
			err = refused(r, r.Upstream.Title+"'s token exchange", err)
		}
		return t, first(t.Expires, sub.until), err
	})
	if err != nil {
		return nil, err
	}
	t.Expires = until
	return m.bearer(r, t), nil
}

// actor states which agent acts for the person (RFC 8693 section 4.1 gives it the claim act).
func (m *tokenExchange) actor(ctx context.Context, r exchange.Request, audience string) (secret.Text, error) {
	agent := cmp.Or(string(r.Caller.Client), "frontdesk")
	return m.sign(ctx, r, jwt.TypeJWT, "", assertionLife, statement{"iss": m.Issuer(r.Upstream.Tenant), "sub": agent, "aud": audience})
}

// jwtBearer serves jwt_bearer (RFC 7523): a signed statement about the person, by us or by the company's IdP, becomes a token;
// or is one, where the upstream verifies it itself.
type jwtBearer struct{ *Federation }

// Ready implements exchange.Method.
func (m *jwtBearer) Ready(ctx context.Context, r exchange.Request) error {
	s, err := settings[*catalog.Assertion](r)
	if err != nil {
		return err
	}
	return m.ready(ctx, r.Caller, s.Subject)
}

// Obtain implements exchange.Method.
func (m *jwtBearer) Obtain(ctx context.Context, r exchange.Request) (*exchange.Credential, error) {
	s, err := settings[*catalog.Assertion](r)
	if err != nil {
		return nil, err
	}
	scopes := strings.Join(r.Scopes, " ")
	if s.Direct {
		key := keyOf("jwt_direct", string(r.Upstream.Name), entry(r), scopes)
		t, until, err := do(ctx, m.Federation, r, key, func(ctx context.Context) (oauth.Token, time.Time, error) {
			jwt, err := m.state(ctx, r, s, s.Audience)
			return oauth.Token{Access: jwt}, m.Now().Add(life(s)).Truncate(time.Second), err
		})
		if err != nil {
			return nil, err
		}
		t.Expires = until
		return m.bearer(r, t), nil
	}
	e, err := m.endpoint(r, s.Endpoint, "")
	if err != nil {
		return nil, err
	}
	sub := subject{}
	if s.Subject != catalog.SubjectSelf {
		if sub, err = m.of(ctx, r.Caller, s.Subject); err != nil {
			return nil, err
		}
	}
	key := keyOf("jwt_bearer", string(r.Upstream.Name), e.URL, entry(r), scopes, sub.mark())
	t, until, err := do(ctx, m.Federation, r, key, func(ctx context.Context) (oauth.Token, time.Time, error) {
		g := oauth.AssertionGrant{Assertion: sub.token, Scopes: r.Scopes}
		if s.Subject == catalog.SubjectSelf {
			jwt, err := m.state(ctx, r, s, cmp.Or(s.Audience, e.URL))
			if err != nil {
				return oauth.Token{}, time.Time{}, err
			}
			g.Assertion = jwt
		}
		t, err := m.OAuth.Assertion(ctx, e, g)
		if err != nil {
			err = refused(r, r.Upstream.Title+"'s authorization server", err)
		}
		return t, first(t.Expires, sub.until), err
	})
	if err != nil {
		return nil, err
	}
	t.Expires = until
	return m.bearer(r, t), nil
}

func life(s *catalog.Assertion) time.Duration { return cmp.Or(s.Life, assertionLife) }

// state is our statement about the person.
func (m *jwtBearer) state(ctx context.Context, r exchange.Request, s *catalog.Assertion, audience string) (secret.Text, error) {
	if audience == "" {
		return secret.Text{}, fault.New(fault.Unavailable, r.Upstream.Title+" could not be opened: the config names no audience for what is signed; ask an operator", nil)
	}
	who, err := m.person(ctx, r.Caller, s.Person)
	if err != nil {
		return secret.Text{}, err
	}
	st := statement{}
	for name, v := range s.Claims {
		st[name] = v
	}
	st["iss"], st["sub"], st["aud"] = cmp.Or(s.Issuer, r.Method.Client, m.Issuer(r.Upstream.Tenant)), who, audience
	return m.sign(ctx, r, jwt.TypeJWT, s.KeyID, life(s), st)
}

// entra serves entra_obo: the on-behalf-of flow of Microsoft Entra. The person's token must be an access token for our
// application there; Entra refuses ID tokens and tokens of applications.
type entra struct{ *Federation }

// Ready implements exchange.Method.
func (m *entra) Ready(ctx context.Context, r exchange.Request) error {
	if _, err := settings[*catalog.Entra](r); err != nil {
		return err
	}
	if r.Caller.User == "" {
		return fault.New(fault.NotFound, "acts on behalf of people; this caller is a service", nil)
	}
	return m.ready(ctx, r.Caller, catalog.SubjectAccess)
}

// Obtain implements exchange.Method.
func (m *entra) Obtain(ctx context.Context, r exchange.Request) (*exchange.Credential, error) {
	s, err := settings[*catalog.Entra](r)
	if err != nil {
		return nil, err
	}
	e, err := m.endpoint(r, s.Endpoint, "")
	if err != nil {
		return nil, err
	}
	sub, err := m.of(ctx, r.Caller, catalog.SubjectAccess)
	if err != nil {
		return nil, err
	}
	key := keyOf("entra_obo", string(r.Upstream.Name), e.URL, entry(r), strings.Join(r.Scopes, " "), sub.mark())
	t, until, err := do(ctx, m.Federation, r, key, func(ctx context.Context) (oauth.Token, time.Time, error) {
		t, err := m.OAuth.Assertion(ctx, e, oauth.AssertionGrant{Assertion: sub.token, Scopes: r.Scopes, Extra: map[string]string{"requested_token_use": "on_behalf_of"}})
		if err != nil {
			err = refused(r, "Entra", err)
		}
		return t, first(t.Expires, sub.until), err
	})
	if err != nil {
		return nil, err
	}
	t.Expires = until
	return m.bearer(r, t), nil
}
