package credentials

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/store/storetest/check"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
	"frontdesk.dev/frontdesk/internal/vault/kms"
)

// dial is a clock that is set by hand, safe for concurrent use.
type dial struct {
	mu  sync.Mutex
	now time.Time
}

func (d *dial) Now() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.now
}

func (d *dial) add(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now = d.now.Add(by)
}

// replicas are two vaults over one store, as in two processes, and the rotation that each runs.
func replicas(t *testing.T, a, b *store.DB, wrap keyring.Wrapper, clock *dial) [2]*vault.Rotation {
	var l [2]*vault.Rotation
	for i, db := range []*store.DB{a, b} {
		l[i] = &vault.Rotation{Vault: &vault.Vault{Store: db, Keys: db, Wrap: wrap, Now: clock.Now}, Rows: db, Turns: db, Owner: fmt.Sprint("replica ", i), Tenants: func() []identity.Tenant { return []identity.Tenant{check.Ours} }, Log: slog.New(slog.DiscardHandler)}
	}
	return l
}

const rows = 250 // more than two batches

// fillVault stores a connection for each of many people.
func fillVault(t *testing.T, v *vault.Vault) {
	for i := range rows {
		c := vault.Connection{Tenant: check.Ours, User: identity.UserID(fmt.Sprintf("u%d", i)), Upstream: "tracker", Status: vault.Active, Created: check.Day}
		check.Must(v.Connect(t.Context(), c, vault.Secrets{Access: secret.New(fmt.Sprint("a", i)), Refresh: secret.New(fmt.Sprint("r", i)), Identity: secret.New(fmt.Sprint("i", i)), Proof: secret.New(fmt.Sprint("k", i))}))(t)
	}
}

// vaultOpens: the first of them open to what was stored, the others not at all.
func vaultOpens(t *testing.T, v *vault.Vault, want int) {
	t.Helper()
	for i := range rows {
		l := check.Must(v.Connections(t.Context(), check.Ours, identity.UserID(fmt.Sprintf("u%d", i)), "tracker"))(t)
		s, err := v.Open(t.Context(), l[0])
		if i >= want {
			if !errors.Is(err, vault.ErrSealed) {
				t.Fatalf("row %d opens with a key that is gone: %v", i, err)
			}
		} else if err != nil || s.Access.Expose() != fmt.Sprint("a", i) || s.Refresh.Expose() != fmt.Sprint("r", i) || s.Identity.Expose() != fmt.Sprint("i", i) || s.Proof.Expose() != fmt.Sprint("k", i) {
			t.Fatalf("row %d: %v", i, err)
		}
	}
}

// dataKeysRotated: a data key is replaced while two replicas seal and open; no row is lost, a refresh that comes between wins,
// the old key is dropped only when nothing needs it, and what it sealed opens no more.
func dataKeysRotated(t *testing.T, a, b *store.DB) {
	ctx, clock := t.Context(), &dial{now: check.Day}
	wrap := check.Must(kms.OpenKeyFile(filepath.Join(t.TempDir(), "k"), true))(t)
	r := replicas(t, a, b, wrap, clock)
	fillVault(t, r[0].Vault)
	opens := func(v *vault.Vault, want int) { t.Helper(); vaultOpens(t, v, want) }
	opens(r[1].Vault, rows)

	// Two operators ask at once: one new key.
	check.Race(a, b, func(i int, _ *store.DB) { check.OK(t, r[i%2].Rotate(ctx, check.Ours)) })
	states := check.Must(r[0].States(ctx, check.Ours))(t)
	if len(states) != 2 || !states[0].Seals || states[0].Rows != rows || states[1].Rows != 0 {
		t.Fatalf("after the rotation: %+v", states)
	}
	if n := check.Must(r[0].Reseal(ctx, check.Ours))(t); n != 0 {
		t.Errorf("%d rows were sealed with a key that is not in use yet", n)
	}
	if n := check.Must(r[0].Retire(ctx, check.Ours))(t); n != 0 {
		t.Errorf("%d keys were dropped before another one seals", n)
	}

	clock.add(4 * time.Minute)
	// A refresh that read its row before stores its result with the new key; the row is not sealed over by an older one.
	before := check.Must(r[0].Vault.Connections(ctx, check.Ours, "u7", "tracker"))(t)[0]
	after := before
	after.Version++
	check.OK(t, r[1].Vault.Seal(ctx, &after, vault.Secrets{Access: secret.New("a7"), Refresh: secret.New("r7"), Identity: secret.New("i7"), Proof: secret.New("k7")}))
	if !check.Must(a.Settle(ctx, after, before.Version))(t) {
		t.Fatal("the refresh could not be stored")
	}
	stale := before
	check.OK(t, r[0].Vault.Seal(ctx, &stale, vault.Secrets{Access: secret.New("stale")}))
	if check.Must(b.Reseal(ctx, stale, before.Sealed))(t) {
		t.Fatal("an older credential was sealed over a newer one")
	}

	// Both replicas seal anew at once, and are broken off: what one has done counts.
	var sum [2]int
	check.Race(a, b, func(i int, _ *store.DB) {
		if i < 2 {
			n, err := r[i].Reseal(ctx, check.Ours)
			if err != nil {
				t.Error(err)
			}
			sum[i] = n
		}
	})
	if sum[0]+sum[1] != rows-1 {
		t.Errorf("%v rows were sealed anew, want %d in all", sum, rows-1)
	}
	opens(r[0].Vault, rows)
	opens(r[1].Vault, rows)
	if states = check.Must(r[1].States(ctx, check.Ours))(t); states[0].Rows != 0 || states[1].Rows != rows || !states[1].Seals {
		t.Fatalf("after sealing anew: %+v", states)
	}
	check.WantKind(t, check.Err(r[0].Retire(ctx, check.Ours)), fault.Conflict) // flows and endings of the last day
	clock.add(26 * time.Hour)
	if n := check.Must(r[0].Retire(ctx, check.Ours))(t); n != 1 {
		t.Errorf("%d keys were dropped", n)
	}
	opens(r[1].Vault, rows)
	moved := check.Must(r[0].Vault.Connections(ctx, check.Ours, "u9", "tracker"))(t)[0]
	moved.Access = before.Access
	if _, err := r[0].Vault.Open(ctx, moved); !errors.Is(err, vault.ErrSealed) {
		t.Errorf("what a dropped key sealed: %v", err)
	}

	// Shredded: nothing opens, on the other replica within a minute.
	check.Must(r[0].Shred(ctx, check.Ours))(t)
	opens(r[0].Vault, 0)
	clock.add(2 * time.Minute)
	opens(r[1].Vault, 0)
}

// keysWrappedAnew: the wrapping key changes under a chain of both, and the old one opens nothing afterwards.
func keysWrappedAnew(t *testing.T, a, b *store.DB) {
	ctx, clock, dir := t.Context(), &dial{now: check.Day}, t.TempDir()
	old, next := check.Must(kms.OpenKeyFile(filepath.Join(dir, "old"), true))(t), check.Must(kms.OpenKeyFile(filepath.Join(dir, "new"), true))(t)
	r := replicas(t, a, b, old, clock)
	c := vault.Connection{Tenant: check.Ours, User: "alice", Upstream: "tracker", Status: vault.Active, Created: check.Day}
	c = check.Must(r[0].Vault.Connect(ctx, c, vault.Secrets{Access: secret.New("token")}))(t)
	check.Must((&keyring.Signer{Keys: a, Wrap: old, Now: clock.Now}).JWKS(ctx, check.Ours))(t)
	if err := keyring.Check(ctx, a, next, []identity.Tenant{check.Ours}); err == nil {
		t.Fatal("the new key opens what the old one wrapped")
	}
	chain := kms.Chain{next, old}
	if n := check.Must(keyring.Rewrap(ctx, a, chain, next, []identity.Tenant{check.Ours}))(t); n != 3 { // data key, and the two that sign
		t.Errorf("%d keys were wrapped anew", n)
	}
	if n := check.Must(keyring.Rewrap(ctx, b, chain, next, []identity.Tenant{check.Ours}))(t); n != 0 {
		t.Errorf("%d keys were wrapped anew once more", n)
	}
	check.OK(t, keyring.Check(ctx, b, next, []identity.Tenant{check.Ours}))
	if err := keyring.Check(ctx, b, old, []identity.Tenant{check.Ours}); err == nil {
		t.Error("the old key still opens")
	}
	s := check.Must((&vault.Vault{Store: b, Keys: b, Wrap: next, Now: clock.Now}).Open(ctx, c))(t)
	if !bytes.Equal([]byte(s.Access.Expose()), []byte("token")) {
		t.Error("another credential came out")
	}
}

// turns: of many that want a chore one gets it, keeps it, and loses it when it is over.
func turns(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	var got atomic.Int64
	check.Race(a, b, func(i int, db *store.DB) {
		if check.Must(db.Turn(ctx, "reseal", fmt.Sprint(i), time.Minute))(t) {
			got.Add(1)
		}
	})
	if got.Load() != 1 {
		t.Errorf("%d of %d have the turn", got.Load(), check.Many)
	}
	if !check.Must(a.Turn(ctx, "other", "me", time.Millisecond))(t) || !check.Must(b.Turn(ctx, "other", "me", time.Millisecond))(t) {
		t.Error("who has the turn cannot keep it")
	}
	check.Eventually(t, "a turn that is over is given to somebody else", func() bool { return check.Must(b.Turn(ctx, "other", "you", time.Minute))(t) })
	if check.Must(a.Turn(ctx, "other", "me", time.Minute))(t) {
		t.Error("two have the turn")
	}
}

// keysByCalendar: keys of age get one successor, however many replicas look, and all goes on.
func keysByCalendar(t *testing.T, a, b *store.DB) {
	ctx, clock := t.Context(), &dial{now: check.Day}
	wrap := check.Must(kms.OpenKeyFile(filepath.Join(t.TempDir(), "vault.key"), true))(t)
	r := replicas(t, a, b, wrap, clock)
	signers := [2]*keyring.Signer{{Keys: a, Wrap: wrap, Now: clock.Now}, {Keys: b, Wrap: wrap, Now: clock.Now}}
	for i := range r {
		r[i].Calendar = vault.Calendar{Signer: signers[i], Log: keyring.CheckpointKeys{Signer: signers[i], Log: "desk.example.com/audit"}, Every: func() time.Duration { return 30 * 24 * time.Hour }}
	}
	fillVault(t, r[0].Vault)
	old, kid, err := signers[0].MAC(ctx, "", []byte("x"))
	check.OK(t, err)
	pinned := check.Must(r[0].Calendar.Log.CheckpointKeys(ctx))(t)
	token := check.Must(signers[0].Sign(ctx, check.Ours, identity.AccessType, []byte("{}")))(t)
	count := func(purpose string) int {
		whose := check.Ours
		if purpose == "ticket" || purpose == "checkpoint" {
			whose = ""
		}
		return len(check.Must(a.Keys(ctx, whose, purpose))(t))
	}
	round := func() { check.Race(a, b, func(i int, _ *store.DB) { check.OK(t, r[i%2].ByCalendar(ctx, check.Ours)) }) }
	round()
	for _, p := range []string{"tenant", "issuer", "ticket", "checkpoint"} {
		if n := count(p); n != 1 {
			t.Errorf("before its time: %d keys of %s", n, p)
		}
	}
	clock.add(31 * 24 * time.Hour)
	round()
	for _, p := range []string{"tenant", "issuer", "ticket", "checkpoint"} {
		if n := count(p); n != 2 {
			t.Errorf("of age: %d keys of %s, want 2", n, p)
		}
	}
	if again := check.Must(signers[1].Sign(ctx, check.Ours, identity.AccessType, []byte("{}")))(t); head(again) != head(token) {
		t.Error("the new signing key is used before anybody can have read it")
	}
	clock.add(25 * time.Hour)
	if again := check.Must(signers[1].Sign(ctx, check.Ours, identity.AccessType, []byte("{}")))(t); head(again) == head(token) {
		t.Error("the new signing key is not used a check.Day later")
	}
	if _, now, err := signers[1].MAC(ctx, "", nil); err != nil || now == kid {
		t.Errorf("the new ticket key is not used: %v", err)
	}
	if mac, _, err := signers[1].MAC(ctx, kid, []byte("x")); err != nil || !bytes.Equal(mac, old) {
		t.Errorf("a ticket of the old key is refused while it lives: %v", err)
	}
	clock.add(26 * time.Hour)
	if _, _, err := signers[1].MAC(ctx, kid, []byte("x")); fault.KindOf(err) != fault.NotFound {
		t.Errorf("the old ticket key is believed for ever: %v", err)
	}
	if now := check.Must(r[1].Calendar.Log.CheckpointKeys(ctx))(t); len(now) != 2 || now[0].Public != pinned[0].Public || now[1].Name() != "desk.example.com/audit" {
		t.Errorf("the keys of the log: %v", now)
	}
	if n := check.Must(r[0].Reseal(ctx, check.Ours))(t); n != rows {
		t.Errorf("%d connections were sealed anew, want %d", n, rows)
	}
	vaultOpens(t, r[1].Vault, rows)
}

// head is the part of a token that names its key.
func head(token string) string { h, _, _ := strings.Cut(token, "."); return h }

// sampled: a start finds that rows were put back to an older state, says which, and takes nothing else for wrong.
func sampled(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	wrap, err := kms.OpenKeyFile(filepath.Join(t.TempDir(), "vault.key"), true)
	check.OK(t, err)
	log := check.Must(audit.New(a, a, time.Now, slog.New(slog.DiscardHandler)))(t)
	running, stop := context.WithCancel(ctx)
	over := make(chan error, 1)
	go func() { over <- log.Run(running) }()
	v := &vault.Vault{Store: a, Keys: a, Wrap: wrap, Log: log, Now: time.Now}
	connect := func(user string) (older, newer vault.Connection) {
		c := vault.Connection{Tenant: check.Ours, User: identity.UserID(user), Upstream: "tracker", Status: vault.Active, Created: check.Day}
		older = check.Must(v.Connect(ctx, c, vault.Secrets{Access: secret.New("first")}))(t)
		return older, check.Must(v.Connect(ctx, older, vault.Secrets{Access: secret.New("second")}))(t)
	}
	_, _ = connect("alice")
	older, newer := connect("bob")
	look := func() string {
		t.Helper()
		said := &bytes.Buffer{}
		s := &vault.Sample{Rows: b, Log: b, Events: log, Tenants: func() []identity.Tenant { return []identity.Tenant{check.Ours} }, Slog: slog.New(slog.NewTextHandler(said, nil)), Now: time.Now}
		check.OK(t, s.Run(ctx))
		return said.String()
	}
	if said := look(); !strings.Contains(said, "wrong=0") || strings.Contains(said, "looked_at=0") {
		t.Errorf("of a vault that is whole: %s", said)
	}
	check.OK(t, a.Connect(ctx, older, newer.Generation)) // as who can write to the database can
	if said := look(); !strings.Contains(said, "connection="+string(newer.ID)) || strings.Contains(said, "wrong=0") {
		t.Errorf("of a row that was put back: %s", said)
	}
	stop()
	check.OK(t, <-over)
	l := check.Must(b.Rows(ctx, audit.Query{Tenant: check.Ours, User: "bob"}))(t)
	if !slices.ContainsFunc(l, func(r audit.Row) bool { return bytes.Contains(r.Record, []byte("vault.differs")) }) {
		t.Error("it is not on record")
	}
}
