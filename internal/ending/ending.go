// Package ending answers: whose access ends, and what ends with it?
//
// It ends many things at once, for an operator, for the company's IdP or for a directory: the sign-ins, grants and
// connections of a user, a client, a server, an upstream or a tenant. Here they end at once and on every replica; what
// vendors have to be told is a list in the database, which any process works off, also after a crash. It trusts its
// caller to have proved who asks (faces do that), never shows a credential, and decides nothing about a single call.
package ending

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Whose says what is ended: exactly one of its fields is set. Its zero value ends nothing.
type Whose struct {
	User     identity.UserID      `json:"user,omitempty"`
	Client   identity.ClientID    `json:"client,omitempty"`
	Server   catalog.ServerName   `json:"server,omitempty"`
	Upstream catalog.UpstreamName `json:"upstream,omitempty"`
	All      bool                 `json:"all,omitempty"` // of the tenant
}

// String names it for records.
func (w Whose) String() string {
	switch {
	case w.User != "":
		return "of the user " + string(w.User)
	case w.Client != "":
		return "of the client " + string(w.Client)
	case w.Server != "":
		return "of the server " + string(w.Server)
	case w.Upstream != "":
		return "of the upstream " + string(w.Upstream)
	}
	return "of everybody"
}

func (w Whose) check() error {
	n := 0
	for _, set := range []bool{w.User != "", w.Client != "", w.Server != "", w.Upstream != "", w.All} {
		if set {
			n++
		}
	}
	if n != 1 || w.User == identity.Everybody || w.Client == identity.Everybody {
		return fault.New(fault.Invalid, "say whose, in one way: a user, a client, a server, an upstream, or all", nil)
	}
	return nil
}

// Store keeps what is ended here.
type Store interface {
	Access
	Connections
}

// Access is what lets a client in.
type Access interface {
	// DropAccess deletes sign-ins, codes and grants: of a user or of everybody those begun at that time or earlier, with his
	// home credential marked Revoking; of a client all. It returns the ids of the sign-ins.
	DropAccess(ctx context.Context, t identity.Tenant, w Whose, until time.Time) ([]string, error)
	// DropSignIn deletes the sign-ins and codes that came of one sign-in at the IdP, by its `sid`; it returns the sign-ins' ids.
	DropSignIn(ctx context.Context, t identity.Tenant, idp, sid string) ([]string, error)
}

// Connections marks them, and takes the marked ones to their end.
type Connections interface {
	// MarkRevoking makes at most limit living connections Revoking, and deletes the grants that lead to them; home credentials
	// are no connections here. It returns how many.
	MarkRevoking(ctx context.Context, t identity.Tenant, w Whose, reason string, limit int) (int, error)
	// Revoking lists marked connections of all tenants, the oldest first.
	Revoking(ctx context.Context, limit int) ([]vault.Connection, error)
	// Retire makes them Revoked and their credentials empty, and keeps their endings, all in one transaction. It returns those
	// that were still Revoking, in the generation that is given: of two processes one gets each.
	Retire(ctx context.Context, l []Retired) ([]Retired, error)
	// EndingCounts says how far the tenant's endings are.
	EndingCounts(ctx context.Context, t identity.Tenant) (Progress, error)
}

// Retired is a connection with what is left to do for it at its vendor.
type Retired struct {
	vault.Connection
	Ending *vault.Ending // nil: nothing
	Note   string        // for the record
}

// Progress is how far the endings of a tenant are.
type Progress struct {
	Marked  int `json:"marked"`   // ended here, their vendors not told yet
	Waiting int `json:"waiting"`  // told, not confirmed; tried again
	GivenUp int `json:"given_up"` // to be ended at the vendor by hand
}

// Epochs makes an end known everywhere (identity.Epochs).
type Epochs interface {
	End(ctx context.Context, t identity.Tenant, k identity.EpochKind, id string) error
	EndAt(ctx context.Context, t identity.Tenant, k identity.EpochKind, id string, at time.Time) error
}

// Events records (audit.Log).
type Events interface {
	Event(ctx context.Context, r audit.Record) error
}

// Vendors prepares what a vendor has to be told (vault.Endings).
type Vendors interface {
	Prepare(ctx context.Context, up *catalog.Upstream, c vault.Connection, s vault.Secrets) (vault.Ending, bool, error)
}

// Opener opens connections (vault.Vault).
type Opener interface {
	Open(ctx context.Context, c vault.Connection) (vault.Secrets, error)
}

// Office ends. All fields are required.
type Office struct {
	Store   Store
	People  People
	Vault   Opener
	Vendors Vendors
	Catalog *catalog.Catalog
	Epochs  Epochs
	Events  Events
	Log     *slog.Logger
	Now     func() time.Time
}

// markAtOnce bounds one transaction, for which other writers wait.
const markAtOnce = 2000

// Revoke ends connections here and at once, whoever uses them; their vendors are told by Run. Of a client or a server they
// are those that somebody let it use. After an error some may have ended already, and the same request ends the rest.
func (o *Office) Revoke(ctx context.Context, t identity.Tenant, w Whose, why string) (int, error) {
	if err := w.check(); err != nil {
		return 0, err
	}
	total := 0
	for {
		n, err := o.Store.MarkRevoking(ctx, t, w, why, markAtOnce)
		total += n
		if err != nil {
			return total, err
		}
		if n < markAtOnce {
			break
		}
	}
	whom := identity.Everybody
	if w.User != "" {
		whom = string(w.User)
	}
	if err := o.Epochs.End(ctx, t, identity.EpochAccess, whom); err != nil {
		return total, err
	}
	return total, o.event(ctx, t, w, audit.Record{Action: "connections.revoked", Detail: strconv.Itoa(total) + " connections " + w.String() + ": " + why})
}

// Access ends what a user, a client or everybody was given up to that time: tokens, browser sessions, streams, hosted
// processes, grants and the home credential. What begins later is not touched, so an old message ends nothing new.
func (o *Office) Access(ctx context.Context, t identity.Tenant, w Whose, until time.Time, why string) error {
	if err := w.check(); err != nil {
		return err
	}
	kind, id := identity.EpochUser, string(w.User)
	switch {
	case w.Client != "":
		kind, id = identity.EpochClient, string(w.Client)
	case w.All:
		id = identity.Everybody
	case w.User == "":
		return fault.New(fault.Invalid, "access is ended of a user, of a client, or of all", nil)
	}
	if now := o.Now(); until.After(now) {
		until = now
	}
	if err := o.Epochs.EndAt(ctx, t, kind, id, until); err != nil { // before anything else: what follows is for what outlives tokens
		return err
	}
	families, err := o.Store.DropAccess(ctx, t, w, until)
	if err != nil {
		return err
	}
	if w.User != "" { // one that was refreshed after the message was written is over too
		if err := o.families(ctx, t, families); err != nil {
			return err
		}
	}
	if w.User == "" { // what was refreshed while they were dropped; new ones have none to come from
		if err := o.Epochs.End(ctx, t, kind, id); err != nil {
			return err
		}
	}
	if w.Client != "" {
		id = identity.Everybody
	}
	if err := o.Epochs.End(ctx, t, identity.EpochAccess, id); err != nil { // grants are remembered by user
		return err
	}
	return o.event(ctx, t, w, audit.Record{Action: "access.ended", Detail: strconv.Itoa(len(families)) + " sign-ins " + w.String() + ": " + why})
}

func (o *Office) families(ctx context.Context, t identity.Tenant, ids []string) error {
	for _, id := range ids {
		if err := o.Epochs.End(ctx, t, identity.EpochFamily, id); err != nil {
			return err
		}
	}
	return nil
}

// Progress says how far the vendors are.
func (o *Office) Progress(ctx context.Context, t identity.Tenant) (Progress, error) {
	return o.Store.EndingCounts(ctx, t)
}

func (o *Office) event(ctx context.Context, t identity.Tenant, w Whose, r audit.Record) error {
	r.Kind, r.Time, r.Tenant, r.Result = audit.KindEvent, o.Now(), t, audit.ResultOK
	r.User, r.Client, r.Server, r.Upstream = w.User, w.Client, string(w.Server), string(w.Upstream)
	r.Detail = strings.ToValidUTF8(r.Detail, "?")
	return o.Events.Event(ctx, r)
}
