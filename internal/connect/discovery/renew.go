package discovery

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// renewEvery is how old a registration is before the vendor is believed that it has forgotten it. What it refuses sooner it refuses for
// another reason, and would refuse the next one too.
const renewEvery = 10 * time.Minute

// ByItself reports whether our client at this upstream was registered by ourselves (RFC 7591), so that its server may forget it: it is
// neither the config's nor a document of ours, which whoever has forgotten it reads again.
func (f *Finder) ByItself(up *catalog.Upstream) bool {
	configured := f.asConfigured(up)
	if configured == up {
		return false
	}
	client, _ := f.configured(configured)
	return client == "" && !strings.HasPrefix(up.Method(catalog.AuthorizationCode).Client, f.URL(up.Tenant, DocumentPath+string(up.Name)))
}

// Forgotten registers Frontdesk anew at an authorization server that knows its client no more, for whoever connects from now on; what the
// client was given stays its own. Where another process was faster, its registration counts. It is fault.Denied where nothing is renewed,
// because the client is not of our own making, or is too young to have been forgotten.
func (f *Finder) Forgotten(ctx context.Context, up *catalog.Upstream, client string) (*catalog.Upstream, error) {
	f.discovering.Lock()
	defer f.discovering.Unlock()
	now := f.Catalog.Upstream(up.Tenant, up.Name)
	if now == nil || !f.ByItself(now) {
		return nil, fault.New(fault.Denied, up.Title+" refuses Frontdesk's client; ask an operator", nil)
	}
	configured := f.asConfigured(now)
	row, x, err := f.row(ctx, configured)
	switch {
	case err != nil:
		return nil, err
	case x.Client != client: // renewed already
		return f.known(ctx, now)
	case f.Now().Sub(row.Created) < renewEvery:
		f.Log.Error("an authorization server refuses the client that it has just registered for Frontdesk; nothing is connected there until it takes it", "upstream", up.Name, "issuer", x.Issuer, "client", client)
		return nil, fault.New(fault.Denied, up.Title+" refuses the client that it has just registered for Frontdesk; ask an operator", nil)
	}
	found, err := f.discover(ctx, configured)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(found)
	if err != nil {
		return nil, err
	}
	with := Found{Tenant: up.Tenant, Upstream: up.Name, Issuer: found.Issuer, Created: f.Now(), Facts: text}
	if found.Issuer == row.Issuer {
		_, err = f.Store.RenewFound(ctx, row, with)
	} else {
		err = f.Store.PutFound(ctx, with)
	}
	if err != nil {
		return nil, err
	}
	f.Log.Warn("an authorization server had forgotten Frontdesk's client, and has registered another one", "upstream", up.Name, "issuer", found.Issuer, "client", found.Client, "forgotten", client)
	return f.known(ctx, now) // what all replicas go by
}
