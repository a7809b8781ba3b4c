package federation

import (
	"context"
	"slices"
	"strconv"
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
	hint := m.found.glance(m.Federation, s)
	// What was got before the resource had said that it wants tokens bound to a key is of no use to it.
	key := keyOf("id_jag", string(r.Upstream.Name), entry(r), strings.Join(r.Scopes, " "), sub.mark(), hint.known.mark())
	t, until, err := do(ctx, m.Federation, r, key, func(ctx context.Context) (oauth.Token, time.Time, error) {
		t, err := m.redeem(ctx, r, s, sub, hint)
		return t, first(t.Expires, sub.until), err
	})
	if err != nil {
		return nil, err
	}
	t.Expires = until
	return m.bearer(r, t), nil
}

// redeem takes both steps.
func (m *idJAG) redeem(ctx context.Context, r exchange.Request, s *catalog.IDJAG, sub subject, h hint) (oauth.Token, error) {
	meta, res, err := m.server(ctx, r, s)
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
	if s.Issuer != "" {
		res = h.settled(ctx)
	}
	if o := r.Upstream.Provider.OAuth; meta.Binds(res) && (o == nil || o.DPoP != catalog.DPoPNever) {
		e.Key = dpop.NewKey
	}
	t, err := m.OAuth.Assertion(ctx, e, oauth.AssertionGrant{Assertion: jag.Access, Scopes: r.Scopes, Resources: resources})
	if err != nil {
		return oauth.Token{}, refused(r, r.Upstream.Title+"'s authorization server", err)
	}
	return t, nil
}

// server is the upstream's authorization server: the configured one, or the one that the resource's own metadata names, which are
// returned too.
func (m *idJAG) server(ctx context.Context, r exchange.Request, s *catalog.IDJAG) (meta oauth.Metadata, res oauth.ResourceMetadata, err error) {
	issuer := s.Issuer
	if issuer == "" {
		if res, err = m.found.resource(ctx, m.Federation, s.Resource); err != nil {
			return meta, res, away(r, err)
		}
		if len(res.AuthorizationServers) == 0 {
			return meta, res, fault.New(fault.Unavailable, r.Upstream.Title+" could not be opened: its resource names no authorization server; ask an operator", nil)
		}
		issuer = res.AuthorizationServers[0]
	}
	if meta, err = m.found.server(ctx, m.Federation, issuer); err != nil {
		return meta, res, away(r, err)
	}
	if meta.TokenEndpoint == "" {
		return meta, res, fault.New(fault.Unavailable, r.Upstream.Title+" could not be opened: its authorization server names no token endpoint; ask an operator", nil)
	}
	return meta, res, nil
}

func away(r exchange.Request, err error) error {
	return fault.New(fault.Unavailable, r.Upstream.Title+" could not be opened: what its authorization server says about itself could not be read, or is not to be trusted; ask an operator", err)
}

// discovered keeps the metadata of servers and resources for an hour. Safe for concurrent use.
type discovered struct {
	mu     sync.Mutex
	known  map[string]known         // guarded by mu
	coming map[string]chan struct{} // guarded by mu: resources that are being asked what they say of themselves; closed when that is known
}

type known struct {
	value any
	until time.Time
}

const (
	metadataFresh = time.Hour
	maxDiscovered = 1000

	hintAgain    = 5 * time.Minute        // after a resource has said nothing that can be read
	hintTime     = 10 * time.Second       // to read it
	hintPatience = 500 * time.Millisecond // of the first call, which has other things to do meanwhile
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

// hint is what the resource of an authorization server that the config names says of itself, which is asked for its word on bound
// tokens (RFC 9728 section 2, dpop_bound_access_tokens_required) and no other. Where it cannot be read, it has said nothing: no call
// waits or fails for it.
type hint struct {
	known  said
	found  *discovered
	key    string
	coming <-chan struct{} // nil: nobody is asking, or what is known is good enough meanwhile
	until  time.Time       // for how long the first call waits
}

// said is a resource's metadata as far as they are known; the zero said are not.
type said oauth.ResourceMetadata

// mark tells what a token for it is like.
func (s said) mark() string {
	return strconv.FormatBool(s.BoundTokens) + strings.Join(s.ProofAlgorithms, " ")
}

// glance returns what is known, and has it read beside the call where it is not, or not any more.
func (d *discovered) glance(f *Federation, s *catalog.IDJAG) hint {
	if s.Issuer == "" || s.Resource == "" {
		return hint{}
	}
	h := hint{found: d, key: "hint " + s.Resource, until: time.Now().Add(hintPatience)}
	d.mu.Lock()
	defer d.mu.Unlock()
	k, before := d.known[h.key]
	if before {
		h.known = k.value.(said)
	}
	if before && f.Now().Before(k.until) {
		return h
	}
	coming, asked := d.coming[h.key]
	if !asked {
		coming = make(chan struct{})
		if d.coming == nil {
			d.coming = map[string]chan struct{}{}
		}
		d.coming[h.key] = coming
		go d.read(f.OAuth.HTTP, s.Resource, h, f.Now())
	}
	if !before {
		h.coming = coming
	}
	return h
}

// read asks a resource; what it said before stands where it says nothing now.
func (d *discovered) read(by oauth.Doer, resource string, h hint, now time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), hintTime)
	defer cancel()
	res, err := oauth.FetchResourceMetadata(ctx, by, resource, "")
	k := known{said(res), now.Add(metadataFresh)}
	if err != nil {
		k = known{h.known, now.Add(hintAgain)}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known == nil || len(d.known) >= maxDiscovered {
		d.known = map[string]known{}
	}
	d.known[h.key] = k
	close(d.coming[h.key])
	delete(d.coming, h.key)
}

// settled is what is known once the other steps are done.
func (h hint) settled(ctx context.Context) oauth.ResourceMetadata {
	if h.coming == nil {
		return oauth.ResourceMetadata(h.known)
	}
	enough := time.NewTimer(time.Until(h.until))
	defer enough.Stop()
	select {
	case <-h.coming:
	case <-enough.C:
	case <-ctx.Done():
	}
	h.found.mu.Lock()
	defer h.found.mu.Unlock()
	if v, ok := h.found.known[h.key].value.(said); ok {
		return oauth.ResourceMetadata(v)
	}
	return oauth.ResourceMetadata{}
}
