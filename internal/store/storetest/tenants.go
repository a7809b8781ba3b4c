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
	"frontdesk.dev/frontdesk/internal/store/storetest/check"
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
	w := check.Writer(1)
	s := things{user: check.Filled[identity.User](), conn: check.Connection("c1"), key: check.Filled[keyring.Key](), request: check.Request("r1"), waits: waits{check.Filled[connect.Flow](), check.Filled[connect.Device]()}, grant: check.Filled[connect.Grant](),
		client: check.Filled[issuer.Client](), code: check.Filled[issuer.Code](), family: check.Filled[issuer.Family](), session: check.Filled[sessions.Session](), intent: w.Row(audit.KindIntent, ""), ending: check.Filled[vault.Ending](), consent: check.Filled[issuer.Consented](), found: check.Filled[discovery.Found](), task: check.Filled[gateway.Task]()}
	s.device.Status = connect.Open
	s.code.Used, s.ending.GivenUp = time.Time{}, time.Time{}
	var err error
	if s.user, err = db.EnsureUser(ctx, s.user); err != nil {
		t.Fatal(err)
	}
	s.conn.User, s.intent.User = s.user.ID, s.user.ID
	_, err = db.OpenRequest(ctx, s.request)
	check.OK(t, err)
	for _, err := range []error{db.Connect(ctx, s.conn, 0), db.AddKey(ctx, s.key), db.PutFlow(ctx, s.flow), db.PutGrant(ctx, s.grant), db.PutClient(ctx, s.client),
		db.PutCode(ctx, s.code), db.PutFamily(ctx, s.family), check.Err(db.PutSession(ctx, s.session, check.Most)), db.Append(ctx, []audit.Row{s.intent}), db.AddEnding(ctx, s.ending), db.PutConsent(ctx, s.consent), db.PutFound(ctx, s.found), db.PutTask(ctx, s.task), db.PutDevice(ctx, s.device)} {
		check.OK(t, err)
	}
	return s
}

// strange is one method, called with another tenant and everything else right. It says what it must come to.
type strange func(ctx context.Context, db *store.DB, s things) (any, error)

// byTenant has every method that takes a tenant. What each gives must be nothing: fault.NotFound, or an empty answer.
var byTenant = map[string]strange{
	"User": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.User(ctx, check.Theirs, s.user.ID)
	},
	"FindUsers": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.FindUsers(ctx, check.Theirs, string(s.user.ID))
	},
	"Rows": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Rows(ctx, audit.Query{Tenant: check.Theirs, User: s.user.ID})
	},
	"Found": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Found(ctx, check.Theirs, s.found.Upstream)
	},
	"Connections": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Connections(ctx, check.Theirs, s.user.ID, s.conn.Upstream)
	},
	"ConnectionsFrom": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.ConnectionsFrom(ctx, check.Theirs, "", 10)
	},
	"Connection": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Connection(ctx, check.Theirs, s.conn.ID)
	},
	"Connect": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.conn.Tenant, s.conn.Generation = check.Theirs, 2
		return nil, db.Connect(ctx, s.conn, 1)
	},
	"Prefer": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.conn.Tenant = check.Theirs
		return nil, db.Prefer(ctx, s.conn, check.Day)
	},
	"Update": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.conn.Tenant = check.Theirs
		return nil, db.Update(ctx, s.conn)
	},
	"Claim": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.conn.Tenant = check.Theirs
		_, won, err := db.Claim(ctx, s.conn, refresh.Lease{Attempt: "try", Owner: "me", Time: time.Minute})
		return won, err
	},
	"Due": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Due(ctx, check.Theirs, s.conn.Upstream, check.Day.Add(24*time.Hour), 10)
	},
	"Proved": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Proved(ctx, check.Theirs, s.conn.Upstream, check.Day.Add(24*time.Hour))
	},
	"Unused": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Unused(ctx, check.Theirs, check.Day.Add(24*time.Hour), 10)
	},
	"EndingsOf": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.EndingsOf(ctx, check.Theirs, s.ending.User)
	},
	"TryEnding": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.ending.Tenant = check.Theirs
		return db.TryEnding(ctx, s.ending, check.Day)
	},
	"FailEnding": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.ending.Tenant, s.ending.GivenUp = check.Theirs, check.Day
		return []int{}, db.FailEnding(ctx, s.ending)
	},
	"Endings": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Endings(ctx, check.Theirs, 10)
	},
	"EndingCounts": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.EndingCounts(ctx, check.Theirs)
	},
	"MarkRevoking": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.MarkRevoking(ctx, check.Theirs, ending.Whose{All: true}, "why", 10)
	},
	"Retire": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.conn.Tenant = check.Theirs
		return db.Retire(ctx, []ending.Retired{{Connection: s.conn}})
	},
	"DropAccess": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.DropAccess(ctx, check.Theirs, ending.Whose{All: true}, check.Day.Add(24*time.Hour))
	},
	"DropSignIn": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.DropSignIn(ctx, check.Theirs, s.family.IDP, s.family.Auth.SID)
	},
	"UserBySubject": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.UserBySubject(ctx, check.Theirs, s.user.IDP, s.user.Subject)
	},
	"UsersOf": func(ctx context.Context, db *store.DB, s things) (any, error) {
		l, n, err := db.UsersOf(ctx, check.Theirs, s.user.IDP, 0, 100)
		if n != 0 {
			return n, err
		}
		return l, err
	},
	"UsersByEmail": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.UsersByEmail(ctx, check.Theirs, s.user.IDP, s.user.Email)
	},
	"SetGone": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return nil, db.SetGone(ctx, check.Theirs, s.user.ID, identity.Deleted, time.Now())
	},
	"Sent": func(ctx context.Context, db *store.DB, s things) (any, error) {
		held, _, err := db.Claim(ctx, s.conn, refresh.Lease{Attempt: "try", Owner: "me", Time: time.Minute})
		if held.Tenant = check.Theirs; err != nil {
			return nil, err
		}
		return db.Sent(ctx, held)
	},
	"Settle": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.conn.Tenant = check.Theirs
		return db.Settle(ctx, s.conn, 1)
	},
	"Fail": func(ctx context.Context, db *store.DB, s things) (any, error) {
		held, err := db.Connection(ctx, check.Ours, s.conn.ID)
		if held.Tenant = check.Theirs; err != nil {
			return nil, err
		}
		return db.Fail(ctx, held)
	},
	"Keys": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Keys(ctx, check.Theirs, s.key.Purpose)
	},
	"UpdateKey": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.key.Tenant = check.Theirs
		return nil, db.UpdateKey(ctx, s.key)
	},
	"Request": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Request(ctx, check.Theirs, s.request.ID)
	},
	"Requests": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Requests(ctx, check.Theirs, s.request.User, connect.Open)
	},
	"SetState": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.request.Tenant, s.request.State = check.Theirs, connect.Refused
		return nil, db.SetState(ctx, s.request)
	},
	"TakeFlow": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.TakeFlow(ctx, check.Theirs, s.flow.State)
	},
	"Grants": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Grants(ctx, check.Theirs, s.grant.User)
	},
	"DeleteGrants": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.DeleteGrants(ctx, connect.Grant{Tenant: check.Theirs, User: s.grant.User})
	},
	"Client": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Client(ctx, check.Theirs, s.client.ID)
	},
	"TouchClient": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return nil, db.TouchClient(ctx, check.Theirs, s.client.ID, check.Day)
	},
	"Consented": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Consented(ctx, check.Theirs, s.consent.User, s.consent.Client, s.consent.Resource)
	},
	"UseCode": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.UseCode(ctx, check.Theirs, s.code.Hash, check.Day)
	},
	"Family": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Family(ctx, check.Theirs, s.family.ID)
	},
	"RotateFamily": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.family.Tenant = check.Theirs
		return nil, db.RotateFamily(ctx, s.family, s.family.Current)
	},
	"DropFamilies": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.DropFamilies(ctx, check.Theirs, s.family.User, "", s.family.ID)
	},
	"SealedUnder": func(ctx context.Context, db *store.DB, s things) (any, error) {
		m, err := db.SealedUnder(ctx, check.Theirs)
		return len(m), err
	},
	"SealedElse": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.SealedElse(ctx, check.Theirs, "another", "", 10)
	},
	"Reseal": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.conn.Tenant = check.Theirs
		return db.Reseal(ctx, s.conn, s.conn.Sealed)
	},
	"DropKeys": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.DropKeys(ctx, check.Theirs, s.key.Purpose, s.key.Generation)
	},
	"Session": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Session(ctx, check.Theirs, s.session.ID, check.Day)
	},
	"Task": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Task(ctx, check.Theirs, s.task.Server, s.task.ID)
	},
	"Device": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return db.Device(ctx, check.Theirs, s.device.State)
	},
	"SetDevice": func(ctx context.Context, db *store.DB, s things) (any, error) {
		s.device.Tenant = check.Theirs
		return db.SetDevice(ctx, s.device)
	},
	"DropSession": func(ctx context.Context, db *store.DB, s things) (any, error) {
		return nil, db.DropSession(ctx, check.Theirs, s.session.ID)
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
	r.Tenant, r.ID = check.Theirs, "r2"
	check.Same(t, check.Must(db.OpenRequest(t.Context(), r))(t), r)
}

// untouched: everything is still as it was put. The connection has been claimed by its own tenant meanwhile.
func untouched(t *testing.T, db *store.DB, s things) {
	t.Helper()
	ctx := t.Context()
	check.Same(t, check.Must(db.User(ctx, check.Ours, s.user.ID))(t), s.user)
	c := check.Must(db.Connection(ctx, check.Ours, s.conn.ID))(t)
	if c.Phase != vault.Claimed {
		t.Errorf("the connection is %s: another tenant's send or failure counted", c.Phase)
	}
	c.Machine, s.conn.Machine = vault.Machine{}, vault.Machine{}
	check.Same(t, c, s.conn)
	check.Same(t, check.Must(db.Keys(ctx, check.Ours, s.key.Purpose))(t), []keyring.Key{s.key})
	check.Same(t, check.Must(db.Request(ctx, check.Ours, s.request.ID))(t), s.request)
	check.Same(t, check.Must(db.Grants(ctx, check.Ours, s.grant.User))(t), []connect.Grant{s.grant})
	check.Same(t, check.Must(db.Client(ctx, check.Ours, s.client.ID))(t), s.client)
	check.Same(t, check.Must(db.Family(ctx, check.Ours, s.family.ID))(t), s.family)
	check.Same(t, check.Must(db.Session(ctx, check.Ours, s.session.ID, time.Time{}))(t), s.session)
	check.Same(t, check.Must(db.Rows(ctx, audit.Query{Tenant: check.Ours}))(t), []audit.Row{s.intent})
	check.Same(t, check.Must(db.DueEndings(ctx, s.ending.Next, 10))(t), []vault.Ending{s.ending})
	check.Same(t, check.Must(db.UseCode(ctx, check.Ours, s.code.Hash, check.Day))(t), s.code)
	check.Same(t, check.Must(db.TakeFlow(ctx, check.Ours, s.flow.State))(t), s.flow)
}

// oddTexts: what one database cannot keep, none does.
func oddTexts(t *testing.T, a, _ *store.DB) {
	for _, odd := range []string{"a\x00b", "\xff", "\xed\xa0\x80"} {
		_, err := a.Client(t.Context(), check.Ours, identity.ClientID(odd))
		check.WantKind(t, err, fault.Invalid)
		check.WantKind(t, a.PutClient(t.Context(), issuer.Client{Tenant: check.Ours, ID: "c", Name: odd}), fault.Invalid)
	}
	fine := issuer.Client{Tenant: check.Ours, ID: "c", Name: "Ünï \u202e 😀 ' \" ; -- \\", Created: check.Day}
	check.OK(t, a.PutClient(t.Context(), fine))
	check.Same(t, check.Must(a.Client(t.Context(), check.Ours, "c"))(t), fine)
}

// callersWhoLeft: who went away gets an error, and the next one an answer.
func callersWhoLeft(t *testing.T, a, b *store.DB) {
	gone, leave := context.WithCancel(t.Context())
	leave()
	_, err := a.EnsureUser(gone, identity.User{Tenant: check.Ours, IDP: "corp", Subject: "x"})
	check.WantKind(t, err, fault.Unavailable)
	check.WantKind(t, a.Append(gone, []audit.Row{check.Writer(1).Row(audit.KindEvent, "")}), fault.Unavailable)
	_, err = a.Advance(gone, identity.Epoch{Tenant: check.Ours, Kind: identity.EpochUser, ID: "x", NotBefore: check.Day})
	check.WantKind(t, err, fault.Unavailable)
	check.Same(t, check.Log(t, b), nil)
	check.OK(t, a.Ping(t.Context()))
	_, err = a.EnsureUser(t.Context(), identity.User{Tenant: check.Ours, IDP: "corp", Subject: "x"})
	check.OK(t, err)
}
