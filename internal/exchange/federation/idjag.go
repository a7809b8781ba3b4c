package federation

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/kit/dpop"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
)

// idJAG serves id_jag (draft-ietf-oauth-identity-assertion-authz-grant): the company's IdP states to the upstream's
// authorization server who the person is, and that one gives a token. The statement is good once, so it is not kept.
type idJAG struct{ *Federation }

// Ready implements exchange.Method.
func (m *idJAG) Ready(ctx context.Context, r exchange.Request) error {
	s, err := settings[*catalog.IDJAG](r)
	if err != nil {
		return err
	}
	return m.ready(ctx, r.Caller, s.Subject)
}

// Obtain implements exchange.Method.
func (m *idJAG) Obtain(ctx context.Context, r exchange.Request) (*exchange.Credential, error) {
	s, err := settings[*catalog.IDJAG](r)
	if err != nil {
		return nil, err
	}
	sub, err := m.of(ctx, r.Caller, s.Subject)
	if err != nil {
		return nil, err
	}
	key := keyOf("id_jag", string(r.Upstream.Name), entry(r), strings.Join(r.Scopes, " "), sub.mark())
	t, until, err := do(ctx, m.Federation, r, key, func(ctx context.Context) (oauth.Token, time.Time, error) {
		t, err := m.redeem(ctx, r, s, sub)
		return t, first(t.Expires, sub.until), err
	})
	if err != nil {
		return nil, err
	}
	t.Expires = until
	return m.bearer(r, t), nil
}

// redeem takes both steps.
func (m *idJAG) redeem(ctx context.Context, r exchange.Request, s *catalog.IDJAG, sub subject) (oauth.Token, error) {
	meta, binds, err := m.server(ctx, r, s)
	if err != nil {
		return oauth.Token{}, err
	}
	idp, err := m.IdPs.Get(r.Caller.Tenant, r.Caller.IDP)
	if err != nil {
		return oauth.Token{}, err
	}
	at, err := idp.Endpoint(ctx)
	if err != nil {
		return oauth.Token{}, err
	}
	var resources []string
	if s.Resource != "" {
		resources = []string{s.Resource}
	}
	jag, err := m.OAuth.ExchangeToken(ctx, at, oauth.ExchangeGrant{Subject: sub.token, SubjectType: sub.kind, Requested: oauth.TokenTypeIDJAG,
		Audiences: []string{meta.Issuer}, Resources: resources, Scopes: r.Scopes})
	if err != nil {
		return oauth.Token{}, refused(r, "the company's sign-in service", err)
	}
	// A statement for somebody else must not reach this server, nor one that another client could use (section 4.3).
	claims, ok := oauth.PeekJWT(jag.Access.Expose())
	if !ok || !slices.Equal(claims.Audience, []string{meta.Issuer}) || claims.ClientID != "" && claims.ClientID != r.Method.Client {
		return oauth.Token{}, fault.New(fault.Unavailable, r.Upstream.Title+" could not be opened: the company's sign-in service stated it for another server or client; ask an operator", nil)
	}
	e, err := m.endpoint(r, meta.TokenEndpoint, meta.Issuer)
	if err != nil {
		return oauth.Token{}, err
	}
	if o := r.Upstream.Provider.OAuth; binds && (o == nil || o.DPoP != catalog.DPoPNever) {
		e.Key = dpop.NewKey
	}
	t, err := m.OAuth.Assertion(ctx, e, oauth.AssertionGrant{Assertion: jag.Access, Scopes: r.Scopes, Resources: resources})
	if err != nil {
		return oauth.Token{}, refused(r, r.Upstream.Title+"'s authorization server", err)
	}
	return t, nil
}

// server is the upstream's authorization server: the configured one, or the one that the resource's own metadata names; they may ask
// for tokens that are bound to a key.
func (m *idJAG) server(ctx context.Context, r exchange.Request, s *catalog.IDJAG) (meta oauth.Metadata, binds bool, err error) {
	issuer, res := s.Issuer, oauth.ResourceMetadata{}
	if issuer == "" {
		if res, err = m.found.resource(ctx, m.Federation, s.Resource); err != nil {
			return oauth.Metadata{}, false, away(r, err)
		}
		if len(res.AuthorizationServers) == 0 {
			return oauth.Metadata{}, false, fault.New(fault.Unavailable, r.Upstream.Title+" could not be opened: its resource names no authorization server; ask an operator", nil)
		}
		issuer = res.AuthorizationServers[0]
	}
	if meta, err = m.found.server(ctx, m.Federation, issuer); err != nil {
		return oauth.Metadata{}, false, away(r, err)
	}
	if meta.TokenEndpoint == "" {
		return oauth.Metadata{}, false, fault.New(fault.Unavailable, r.Upstream.Title+" could not be opened: its authorization server names no token endpoint; ask an operator", nil)
	}
	return meta, meta.Binds(res), nil
}

func away(r exchange.Request, err error) error {
	return fault.New(fault.Unavailable, r.Upstream.Title+" could not be opened: what its authorization server says about itself could not be read, or is not to be trusted; ask an operator", err)
}

// discovered keeps the metadata of servers and resources for an hour. Safe for concurrent use.
type discovered struct {
	mu    sync.Mutex
	known map[string]known
}

type known struct {
	value any
	until time.Time
}

const (
	metadataFresh = time.Hour
	maxDiscovered = 1000
)

func (d *discovered) server(ctx context.Context, f *Federation, issuer string) (oauth.Metadata, error) {
	return look(d, f, "server "+issuer, func() (oauth.Metadata, error) { return oauth.FetchMetadata(ctx, f.OAuth.HTTP, issuer) })
}

func (d *discovered) resource(ctx context.Context, f *Federation, resource string) (oauth.ResourceMetadata, error) {
	return look(d, f, "resource "+resource, func() (oauth.ResourceMetadata, error) {
		return oauth.FetchResourceMetadata(ctx, f.OAuth.HTTP, resource, "")
	})
}

func look[T any](d *discovered, f *Federation, key string, fetch func() (T, error)) (T, error) {
	d.mu.Lock()
	k, ok := d.known[key]
	d.mu.Unlock()
	if v, is := k.value.(T); ok && is && f.Now().Before(k.until) {
		return v, nil
	}
	v, err := fetch()
	if err != nil {
		return v, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil || len(d.known) >= maxDiscovered {
		d.known = map[string]known{}
	}
	d.known[key] = known{v, f.Now().Add(metadataFresh)}
	return v, nil
}
