package storetest

import (
	"context"
	"reflect"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/connect/discovery"
	"frontdesk.dev/frontdesk/internal/ending"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/gateway"
	"frontdesk.dev/frontdesk/internal/gateway/sessions"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/issuer"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
)

// things is one of everything, of one tenant.
type things struct {
	user    identity.User
	conn    vault.Connection
	key     keyring.Key
	request connect.Request
	waits
	grant   connect.Grant
	client  issuer.Client
	code    issuer.Code
	family  issuer.Family
	session sessions.Session
	intent  audit.Row
	ending  vault.Ending
	consent issuer.Consented
	found   discovery.Found
	task    gateway.Task
}

// waits are a person's that are under way.
type waits struct {
	flow   connect.Flow
	device connect.Device
}

func stock(t *testing.T, db *store.DB) things {
	ctx := t.Context()
	w := writer(1)
	s := things{user: filled[identity.User](), conn: fresh("c1"), key: filled[keyring.Key](), request: ask("r1"), waits: waits{filled[connect.Flow](), filled[connect.Device]()}, grant: filled[connect.Grant](),
		client: filled[issuer.Client](), code: filled[issuer.Code](), family: filled[issuer.Family](), session: filled[sessions.Session](), intent: w.row(audit.KindIntent, ""), ending: filled[vault.Ending](), consent: filled[issuer.Consented](), found: filled[discovery.Found](), task: filled[gateway.Task]()}
	s.device.Status = connect.Open
	s.code.Used, s.ending.GivenUp = time.Time{}, time.Time{}
	var err error
	if s.user, err = db.EnsureUser(ctx, s.user); err != nil {
		t.Fatal(err)
	}
	s.conn.User, s.intent.User = s.user.ID, s.user.ID
	_, err = db.OpenRequest(ctx, s.request)
	ok(t, err)
	for _, err := range []error{db.Connect(ctx, s.conn, 0), db.AddKey(ctx, s.key), db.PutFlow(ctx, s.flow), db.PutGrant(ctx, s.grant), db.PutClient(ctx, s.client),
		db.PutCode(ctx, s.code), db.PutFamily(ctx, s.family), alone(db.PutSession(ctx, s.session, most)), db.Append(ctx, []audit.Row{s.intent}), db.AddEnding(ctx, s.ending), db.PutConsent(ctx, s.consent), db.PutFound(ctx, s.found), db.PutTask(ctx, s.task), db.PutDevice(ctx, s.device)} {
		ok(t, err)
	}
	return s
}

// strange is one method, called with another tenant and everything else right. It says what it must come to.
type strange func(ctx context.Context, db *store.DB, s things) (any, error)

// byTenant has every method that takes a tenant. What each gives must be nothing: fault.NotFound, or an empty answer.
var byTenant = map[string]strange{
	"User": func(ctx context.Context, db *store.DB, s things) (any, error) { return db.User(ctx, theirs, s.user.ID) },
	"FindUsers": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.FindUsers(ctx, theirs, string(s.user.ID))
	},
	"Rows": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Rows(ctx, audit.Query{Tenant: theirs, User: s.user.ID})
	},
	"Found": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Found(ctx, theirs, s.found.Upstream)
	},
	"Connections": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Connections(ctx, theirs, s.user.ID, s.conn.Upstream)
	},
	"ConnectionsFrom": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.ConnectionsFrom(ctx, theirs, "", 10)
	},
	"Connection": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Connection(ctx, theirs, s.conn.ID)
	},
	"Connect": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.conn.Tenant, s.conn.Generation = theirs, 2
		return nil, db.Connect(ctx, s.conn, 1)
	},
	"Prefer": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.conn.Tenant = theirs
		return nil, db.Prefer(ctx, s.conn, day)
	},
	"Update": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.conn.Tenant = theirs
		return nil, db.Update(ctx, s.conn)
	},
	"Claim": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.conn.Tenant = theirs
		_, won, err := db.Claim(ctx, s.conn, refresh.Lease{Attempt: "try", Owner: "me", Time: leaseTime})
		return won, err
	},
	"Due": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Due(ctx, theirs, s.conn.Upstream, day.Add(24*time.Hour), 10)
	},
	"Proved": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Proved(ctx, theirs, s.conn.Upstream, day.Add(24*time.Hour))
	},
	"Unused": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Unused(ctx, theirs, day.Add(24*time.Hour), 10)
	},
	"EndingsOf": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.EndingsOf(ctx, theirs, s.ending.User)
	},
	"TryEnding": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.ending.Tenant = theirs
		return db.TryEnding(ctx, s.ending, day)
	},
	"FailEnding": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.ending.Tenant, s.ending.GivenUp = theirs, day
		return []int{}, db.FailEnding(ctx, s.ending)
	},
	"Endings": func(ctx context.Context, db *store.DB, s things) (any, error) { return db.Endings(ctx, theirs, 10) },
	"EndingCounts": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.EndingCounts(ctx, theirs)
	},
	"MarkRevoking": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.MarkRevoking(ctx, theirs, ending.Whose{All: true}, "why", 10)
	},
	"Retire": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.conn.Tenant = theirs
		return db.Retire(ctx, []ending.Retired{{Connection: s.conn}})
	},
	"DropAccess": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.DropAccess(ctx, theirs, ending.Whose{All: true}, day.Add(24*time.Hour))
	},
	"DropSignIn": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.DropSignIn(ctx, theirs, s.family.IDP, s.family.Auth.SID)
	},
	"UserBySubject": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.UserBySubject(ctx, theirs, s.user.IDP, s.user.Subject)
	},
	"UsersOf": func(ctx context.Context, db *store.DB, s things) (any, error) {
		l, n, err := db.UsersOf(ctx, theirs, s.user.IDP, 0, 100)
		if n != 0 {
			return n, err
		}
		return l, err
	},
	"UsersByEmail": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.UsersByEmail(ctx, theirs, s.user.IDP, s.user.Email)
	},
	"SetGone": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return nil, db.SetGone(ctx, theirs, s.user.ID, identity.Deleted, time.Now())
	},
	"Sent": func(ctx context.Context, db *store.DB, s things) (any, error) {
		held, _, err := db.Claim(ctx, s.conn, refresh.Lease{Attempt: "try", Owner: "me", Time: leaseTime})
		if held.Tenant = theirs; err != nil {
			return nil, err
		}
		return db.Sent(ctx, held)
	},
	"Settle": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.conn.Tenant = theirs
		return db.Settle(ctx, s.conn, 1)
	},
	"Fail": func(ctx context.Context, db *store.DB, s things) (any, error) {
		held, err := db.Connection(ctx, ours, s.conn.ID)
		if held.Tenant = theirs; err != nil {
			return nil, err
		}
		return db.Fail(ctx, held)
	},
	"Keys": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Keys(ctx, theirs, s.key.Purpose)
	},
	"UpdateKey": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.key.Tenant = theirs
		return nil, db.UpdateKey(ctx, s.key)
	},
	"Request": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Request(ctx, theirs, s.request.ID)
	},
	"Requests": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Requests(ctx, theirs, s.request.User, connect.Open)
	},
	"SetState": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.request.Tenant, s.request.State = theirs, connect.Refused
		return nil, db.SetState(ctx, s.request)
	},
	"TakeFlow": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.TakeFlow(ctx, theirs, s.flow.State)
	},
	"Grants": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Grants(ctx, theirs, s.grant.User)
	},
	"DeleteGrants": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.DeleteGrants(ctx, connect.Grant{Tenant: theirs, User: s.grant.User})
	},
	"Client": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Client(ctx, theirs, s.client.ID)
	},
	"TouchClient": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return nil, db.TouchClient(ctx, theirs, s.client.ID, day)
	},
	"Consented": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Consented(ctx, theirs, s.consent.User, s.consent.Client, s.consent.Resource)
	},
	"UseCode": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.UseCode(ctx, theirs, s.code.Hash, day)
	},
	"Family": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Family(ctx, theirs, s.family.ID)
	},
	"RotateFamily": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.family.Tenant = theirs
		return nil, db.RotateFamily(ctx, s.family, s.family.Current)
	},
	"DropFamilies": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.DropFamilies(ctx, theirs, s.family.User, "", s.family.ID)
	},
	"SealedUnder": func(ctx context.Context, db *store.DB, s things) (any, error) {
		m, err := db.SealedUnder(ctx, theirs)
		return len(m), err
	},
	"SealedElse": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.SealedElse(ctx, theirs, "another", "", 10)
	},
	"Reseal": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.conn.Tenant = theirs
		return db.Reseal(ctx, s.conn, s.conn.Sealed)
	},
	"DropKeys": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.DropKeys(ctx, theirs, s.key.Purpose, s.key.Generation)
	},
	"Session": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Session(ctx, theirs, s.session.ID, day)
	},
	"Task": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Task(ctx, theirs, s.task.Server, s.task.ID)
	},
	"Device": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Device(ctx, theirs, s.device.State)
	},
	"SetDevice": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.device.Tenant = theirs
		return db.SetDevice(ctx, s.device)
	},
	"DropSession": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return nil, db.DropSession(ctx, theirs, s.session.ID)
	},
}

// elsewhere has the methods that no other tenant's call can be made of, with the reason.
var elsewhere = map[string]string{
	"EnsureUser": "makes a user of its own tenant: users", "NameID": "makes an id of its own tenant: names",
	"Append": "writes", "Beat": "has no tenant", "Unfinished": "has no tenant", "Intent": "by an id that names the row, with its tenant", "Ended": "the same", "There": "the same",
	"Chain": "for operators", "EachConnection": "for operators", "Turn": "has no tenant", "GuestRights": "has no tenant", "AddCheckpoint": "has no tenant", "LastCheckpoint": "has no tenant", "Checkpoints": "has no tenant", "CountConnections": "for operators: a number of all tenants", "IndexActs": "a chore",
	"Advance": "writes", "EpochsSince": "for all tenants",
	"AddKey": "writes", "OpenRequest": "looks for its own tenant's, else writes: openRequestElsewhere", "PutFlow": "writes", "PutDevice": "writes", "DueDevices": "for all tenants", "PutGrant": "writes", "PutClient": "writes", "PutConsent": "writes", "PutCode": "writes", "PutFamily": "writes", "PutSession": "writes", "PutTask": "writes", "DropTasks": "a chore",
	"DropUnused": "a chore", "Inherit": "a chore", "Restored": "for operators", "Doubt": "for all tenants", "Moves": "has no tenant", "Lagging": "has no tenant", "Saw": "writes: sightings", "Sightings": "the same", "PutFound": "writes: found servers", "RenewFound": "the same", "AddEnding": "writes", "DueEndings": "for all tenants", "RemoveEnding": "says nothing: endings", "Used": "says nothing: use", "IdleSessions": "a chore", "Revoking": "for all tenants", "KnownMessage": "messages", "PutMessage": "writes: messages",
	"PutTicket": "writes", "OpaqueTicket": "by a hash that nobody else knows: the ticket says its tenant",
	"Snapshot": "for operators", "Fill": "for operators",
	"Draw": "writes, for its own tenant: allowances", "Say": "writes: words", "Said": "for all tenants", "PutNote": "writes: notes", "NotesFor": "by a chain of one process, which serves all tenants", "DropNote": "by an id that nobody else knows", "NoteWaits": "the same",
	"Close": "", "Ping": "", "Run": "", "Watch": "",
}

// tenants: nothing of one tenant is seen or changed by a call that names another one. A method that is in neither list fails.
func tenants(t *testing.T, a, b *store.DB) {
	s := stock(t, a)
	all := reflect.TypeFor[*store.DB]()
	for i := range all.NumMethod() {
		name := all.Method(i).Name
		call, listed := byTenant[name]
		if _, out := elsewhere[name]; listed == out {
			t.Errorf("is %s to be tried with another tenant? say so in one of the two lists", name)
		}
		if !listed {
			continue
		}
		t.Run(name, func(t *testing.T) {
			got, err := call(t.Context(), b, s)
			switch v := reflect.ValueOf(got); {
			case fault.KindOf(err) == fault.NotFound && err != nil:
			case err != nil:
				t.Error(err)
			case got == nil && name != "DropSession":
				t.Error("another tenant's thing was changed, or that it is not there was not said")
			case got != nil && !v.IsZero() && !(v.Kind() == reflect.Slice && v.Len() == 0):
				t.Errorf("another tenant got %+v", got)
			}
		})
	}
	openRequestElsewhere(t, b, s)
	untouched(t, b, s)
}

func openRequestElsewhere(t *testing.T, db *store.DB, s things) {
	r := s.request
	r.Tenant, r.ID = theirs, "r2"
	same(t, must(db.OpenRequest(t.Context(), r))(t), r)
}

// untouched: everything is still as it was put. The connection has been claimed by its own tenant meanwhile.
func untouched(t *testing.T, db *store.DB, s things) {
	t.Helper()
	ctx := t.Context()
	same(t, must(db.User(ctx, ours, s.user.ID))(t), s.user)
	c := must(db.Connection(ctx, ours, s.conn.ID))(t)
	if c.Phase != vault.Claimed {
		t.Errorf("the connection is %s: another tenant's send or failure counted", c.Phase)
	}
	c.Machine, s.conn.Machine = vault.Machine{}, vault.Machine{}
	same(t, c, s.conn)
	same(t, must(db.Keys(ctx, ours, s.key.Purpose))(t), []keyring.Key{s.key})
	same(t, must(db.Request(ctx, ours, s.request.ID))(t), s.request)
	same(t, must(db.Grants(ctx, ours, s.grant.User))(t), []connect.Grant{s.grant})
	same(t, must(db.Client(ctx, ours, s.client.ID))(t), s.client)
	same(t, must(db.Family(ctx, ours, s.family.ID))(t), s.family)
	same(t, must(db.Session(ctx, ours, s.session.ID, time.Time{}))(t), s.session)
	same(t, must(db.Rows(ctx, audit.Query{Tenant: ours}))(t), []audit.Row{s.intent})
	same(t, must(db.DueEndings(ctx, s.ending.Next, 10))(t), []vault.Ending{s.ending})
	same(t, must(db.UseCode(ctx, ours, s.code.Hash, day))(t), s.code)
	same(t, must(db.TakeFlow(ctx, ours, s.flow.State))(t), s.flow)
}

// oddTexts: what one database cannot keep, none does.
func oddTexts(t *testing.T, a, _ *store.DB) {
	for _, odd := range []string{"a\x00b", "\xff", "\xed\xa0\x80"} {
		_, err := a.Client(t.Context(), ours, identity.ClientID(odd))
		wantKind(t, err, fault.Invalid)
		wantKind(t, a.PutClient(t.Context(), issuer.Client{Tenant: ours, ID: "c", Name: odd}), fault.Invalid)
	}
	fine := issuer.Client{Tenant: ours, ID: "c", Name: "Ünï \u202e 😀 ' \" ; -- \\", Created: day}
	ok(t, a.PutClient(t.Context(), fine))
	same(t, must(a.Client(t.Context(), ours, "c"))(t), fine)
}

// callersWhoLeft: who went away gets an error, and the next one an answer.
func callersWhoLeft(t *testing.T, a, b *store.DB) {
	gone, leave := context.WithCancel(t.Context())
	leave()
	_, err := a.EnsureUser(gone, identity.User{Tenant: ours, IDP: "corp", Subject: "x"})
	wantKind(t, err, fault.Unavailable)
	wantKind(t, a.Append(gone, []audit.Row{writer(1).row(audit.KindEvent, "")}), fault.Unavailable)
	_, err = a.Advance(gone, identity.Epoch{Tenant: ours, Kind: identity.EpochUser, ID: "x", NotBefore: day})
	wantKind(t, err, fault.Unavailable)
	same(t, log(t, b), nil)
	ok(t, a.Ping(t.Context()))
	_, err = a.EnsureUser(t.Context(), identity.User{Tenant: ours, IDP: "corp", Subject: "x"})
	ok(t, err)
}
