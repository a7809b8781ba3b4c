package credentials

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/store/storetest/check"
	"frontdesk.dev/frontdesk/internal/vault"
)

const (
	leaseTime = time.Minute
	brief     = 20 * time.Millisecond
)

// step runs one step of the machine and says whether it went through.
func step(t *testing.T, won bool, err error) bool {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
	return won
}

func claim(t *testing.T, db *store.DB, c vault.Connection, attempt string, lease time.Duration) vault.Connection {
	t.Helper()
	var held vault.Connection
	check.Eventually(t, "the lease is over", func() bool {
		h, won, err := db.Claim(t.Context(), c, refresh.Lease{Attempt: attempt, Owner: "owner of " + attempt, Time: lease})
		held = h
		return step(t, won, err)
	})
	return held
}

func machine(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := check.Connection("c1")
	check.OK(t, a.Connect(ctx, c, 0))
	held := claim(t, a, c, "try", leaseTime)
	if left := time.Until(held.LeaseUntil); left < leaseTime/2 || left > 2*leaseTime {
		t.Errorf("the lease lasts %v, want about %v", left, leaseTime)
	}
	want := c
	want.Phase, want.Attempt, want.LeaseOwner, want.LeaseUntil, want.LeaseEpoch = vault.Claimed, "try", "owner of try", held.LeaseUntil, 1
	check.Same(t, held, want)
	check.Same(t, check.Must(b.Connection(ctx, check.Ours, "c1"))(t), want)

	if _, won, err := b.Claim(ctx, c, refresh.Lease{Attempt: "other", Owner: "them", Time: leaseTime}); step(t, won, err) {
		t.Error("a lease that is held was given away")
	}
	stranger := held
	stranger.Attempt = "other"
	if won, err := b.Sent(ctx, stranger); step(t, won, err) {
		t.Error("somebody without the lease may send")
	}
	if won, err := b.Fail(ctx, stranger); step(t, won, err) {
		t.Error("somebody without the lease gave it back")
	}
	if won, err := a.Sent(ctx, held); !step(t, won, err) {
		t.Error("the holder may not send")
	}
	if won, err := a.Sent(ctx, held); step(t, won, err) {
		t.Error("the holder may send twice")
	}
	want.Phase = vault.Sent
	check.Same(t, check.Must(b.Connection(ctx, check.Ours, "c1"))(t), want)

	failed := want
	failed.Status, failed.Reason, failed.Failures, failed.Recoveries, failed.NotBefore = vault.Suspect, "no", 5, 1, check.Day
	if won, err := a.Fail(ctx, failed); !step(t, won, err) {
		t.Error("the holder cannot give the lease back")
	}
	failed.Phase, failed.Attempt, failed.LeaseOwner, failed.LeaseUntil = vault.Idle, "", "", time.Time{}
	check.Same(t, check.Must(b.Connection(ctx, check.Ours, "c1"))(t), failed)

	held = claim(t, b, failed, "second", leaseTime)
	next := held
	next.Sealed = vault.Sealed{Access: []byte("a2"), Refresh: []byte("r2"), Previous: []byte("r1"), Proof: []byte("k2")}
	next.Expires, next.Renewed, next.NotBefore, next.Scopes, next.Status, next.Reason = check.Day.Add(time.Hour), check.Day, time.Time{}, []string{"new"}, vault.Active, ""
	next.Failures, next.Recoveries, next.Refreshes = 0, 0, false
	if won, err := b.Settle(ctx, next, 1); !step(t, won, err) {
		t.Error("the new credential was not stored")
	}
	next.Version, next.Phase, next.Attempt, next.LeaseOwner, next.LeaseUntil = 2, vault.Idle, "", "", time.Time{}
	check.Same(t, check.Must(a.Connection(ctx, check.Ours, "c1"))(t), next)
	for _, stale := range []vault.Machine{{Generation: 1, Version: 1}, {Generation: 2, Version: 2}} {
		c.Machine = stale
		if _, won, err := a.Claim(ctx, c, refresh.Lease{Attempt: "stale", Owner: "me", Time: leaseTime}); step(t, won, err) {
			t.Errorf("generation %d, version %d was claimed, which is not there", stale.Generation, stale.Version)
		}
	}
}

// machineMarked: what was marked since a replica has read it is not tried once more, and keeps its reason; a renewal that was under
// way can still be stored.
func machineMarked(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := check.Connection("c1")
	check.OK(t, a.Connect(ctx, c, 0))
	held := claim(t, a, c, "try", leaseTime)
	marked := held
	marked.Status, marked.Reason = vault.NeedsReconnect, "because"
	if won, err := a.Fail(ctx, marked); !step(t, won, err) {
		t.Fatal("it was not marked")
	}
	if _, won, err := b.Claim(ctx, c, refresh.Lease{Attempt: "late", Owner: "them", Time: leaseTime}); step(t, won, err) {
		t.Error("a connection that is marked was claimed")
	}
	if now := check.Must(b.Connection(ctx, check.Ours, "c1"))(t); now.Status != vault.NeedsReconnect || now.Reason != "because" {
		t.Errorf("it says %s, %q", now.Status, now.Reason)
	}
	if won, err := a.Settle(ctx, held, held.Version); !step(t, won, err) {
		t.Error("a renewal that came late was not stored")
	}
}

// machineLost: what a database has lost is put back under the version that it had.
func machineLost(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := check.Connection("c1")
	check.OK(t, a.Connect(ctx, c, 0))
	later := c
	later.Version, later.Access = 4, []byte("a4")
	if won, err := a.Settle(ctx, later, 1); !step(t, won, err) {
		t.Fatal("it was not put back")
	}
	if now := check.Must(b.Connection(ctx, check.Ours, "c1"))(t); now.Version != 4 || string(now.Access) != "a4" {
		t.Errorf("version %d, %q", now.Version, now.Access)
	}
	due := check.Connection("c2")
	due.Refreshes, due.Renewed, due.Expires = true, time.Now().Add(-time.Hour), time.Now().Add(time.Minute)
	due.Account = "other"
	check.OK(t, a.Connect(ctx, due, 0))
	good := due
	good.ID, good.Account, good.Renewed, good.Expires = "c3", "third", time.Now(), time.Now().Add(time.Hour)
	check.OK(t, a.Connect(ctx, good, 0))
	n := check.Must(b.Doubt(ctx, "doubted"))(t)
	if now := check.Must(b.Connection(ctx, check.Ours, "c2"))(t); n < 1 || now.Status != vault.Uncertain || now.Reason != "doubted" {
		t.Errorf("of %d, one that was due says %s, %q", n, now.Status, now.Reason)
	}
	if now := check.Must(b.Connection(ctx, check.Ours, "c3"))(t); now.Status != vault.Active {
		t.Errorf("one that was not due says %s, %q", now.Status, now.Reason)
	}
}

// machineRaced: of many at every step, one goes through.
func machineRaced(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := check.Connection("c1")
	check.OK(t, a.Connect(ctx, c, 0))
	for round := range 3 {
		var claimed, sent, ended atomic.Int64
		var winner atomic.Pointer[vault.Connection]
		check.Race(a, b, func(i int, db *store.DB) {
			if held, won, err := db.Claim(ctx, c, refresh.Lease{Attempt: fmt.Sprint(round, " ", i), Owner: "o", Time: leaseTime}); step(t, won, err) {
				claimed.Add(1)
				winner.Store(&held)
			}
		})
		if claimed.Load() != 1 {
			t.Fatalf("%d got one lease", claimed.Load())
		}
		held := *winner.Load()
		check.Race(a, b, func(_ int, db *store.DB) {
			if won, err := db.Sent(ctx, held); step(t, won, err) {
				sent.Add(1)
			}
		})
		check.Race(a, b, func(i int, db *store.DB) {
			n := held
			n.Access = []byte(fmt.Sprint(i))
			if round == 1 {
				if won, err := db.Fail(ctx, n); step(t, won, err) {
					ended.Add(1)
				}
			} else if won, err := db.Settle(ctx, n, held.Version); step(t, won, err) {
				ended.Add(1)
			}
		})
		if sent.Load() != 1 || ended.Load() != 1 {
			t.Errorf("round %d: sent by %d, ended by %d", round, sent.Load(), ended.Load())
		}
		c = check.Must(a.Connection(ctx, check.Ours, "c1"))(t)
	}
	if c.Version != 3 || c.LeaseEpoch != 3 {
		t.Errorf("after two renewals and a failure: version %d, lease %d", c.Version, c.LeaseEpoch)
	}
}

// machineStopped: who holds the lease stops for good, at each step; the next one finds out how far he had come.
func machineStopped(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := check.Connection("c1")
	c.Recoveries = 0
	check.OK(t, a.Connect(ctx, c, 0))

	claim(t, a, c, "stops after its claim", brief)
	held := claim(t, b, c, "stops after it sent", leaseTime)
	if held.Status != vault.Active || held.Recoveries != 0 {
		t.Errorf("nothing had left, and yet it is %s after %d recoveries", held.Status, held.Recoveries)
	}
	if won, err := b.Fail(ctx, held); !step(t, won, err) {
		t.Fatal("the lease could not be given back")
	}
	sent := false
	for i := 0; !sent; i++ { // the lease may be over before it could send
		held = claim(t, b, c, fmt.Sprint("stops after it sent ", i), brief)
		won, err := b.Sent(ctx, held)
		sent = step(t, won, err)
	}
	for n := 1; n <= 2; n++ { // the second one finds a row that the first one claimed, and stopped
		next := claim(t, a, c, fmt.Sprint("recovers ", n), brief)
		if next.Phase != vault.Claimed || next.Status != vault.Uncertain || next.Recoveries != 1 {
			t.Errorf("a request may have left, and it is %s, %s after %d recoveries", next.Phase, next.Status, next.Recoveries)
		}
	}
	claim(t, a, c, held.Attempt, leaseTime) // by the same name, which is not the same lease
	for what, try := range map[string]func() (bool, error){"send": func() (bool, error) { return b.Sent(ctx, held) }, "fail": func() (bool, error) { return b.Fail(ctx, held) }} {
		if won, err := try(); step(t, won, err) {
			t.Errorf("who had stopped woke up, and could %s on a lease that is another's", what)
		}
	}
}

// machineTooLate: whose lease is over may do nothing with it, though nobody else has it yet.
func machineTooLate(t *testing.T, a, b *store.DB) {
	c := check.Connection("c1")
	check.OK(t, a.Connect(t.Context(), c, 0))
	held := claim(t, a, c, "try", -time.Second)
	if won, err := a.Sent(t.Context(), held); step(t, won, err) {
		t.Error("a lease that is over let its holder send")
	}
	if won, err := b.Fail(t.Context(), held); step(t, won, err) {
		t.Error("a lease that is over was given back")
	}
}

// machineOvertaken: the version decides, not the lease. Who was paused too long may store what he got if nobody has newer, and
// never over newer.
func machineOvertaken(t *testing.T, a, b *store.DB) {
	ctx := t.Context()
	c := check.Connection("c1")
	check.OK(t, a.Connect(ctx, c, 0))
	slow := claim(t, a, c, "slow", brief)
	fast := claim(t, b, c, "fast", leaseTime)
	slow.Access, fast.Access = []byte("slow"), []byte("fast")
	if won, err := a.Settle(ctx, slow, 1); !step(t, won, err) {
		t.Error("the only new credential was thrown away")
	}
	if won, err := b.Settle(ctx, fast, 1); step(t, won, err) {
		t.Error("an older credential overwrote a newer one")
	}
	if won, err := b.Fail(ctx, fast); step(t, won, err) {
		t.Error("a failure marked a newer credential")
	}
	if got := check.Must(b.Connection(ctx, check.Ours, "c1"))(t); string(got.Access) != "slow" || got.Version != 2 || got.Phase != vault.Idle || !got.LeaseUntil.IsZero() {
		t.Errorf("it ended with %q, version %d, %s, lease until %v", got.Access, got.Version, got.Phase, got.LeaseUntil)
	}
}
