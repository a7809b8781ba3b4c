package connect_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

const given = `{"access_token":"at-1","refresh_token":"rt-1","token_type":"Bearer","who":"octo-alice","expires_in":600}`

// meanwhile is a vault beside which something happens once: after a row was read, and after one was stored.
type meanwhile struct {
	connect.Vault
	read, stored func()
}

func (m *meanwhile) Connection(ctx context.Context, t identity.Tenant, id vault.ConnectionID) (vault.Connection, error) {
	c, err := m.Vault.Connection(ctx, t, id)
	if f := m.read; f != nil {
		m.read = nil
		f()
	}
	return c, err
}

func (m *meanwhile) Connect(ctx context.Context, c vault.Connection, s vault.Secrets) (vault.Connection, error) {
	c, err := m.Vault.Connect(ctx, c, s)
	if f := m.stored; f != nil {
		m.stored = nil
		f()
	}
	return c, err
}

func (w *waiting) living(t *testing.T) []vault.Connection {
	t.Helper()
	l, err := w.Vault.Connections(t.Context(), visitor.Tenant, visitor.User, "own")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// keep is a connection of hers.
func (w *waiting) keep(t *testing.T, account, refresh string) vault.Connection {
	t.Helper()
	c, err := w.Vault.Connect(t.Context(), vault.Connection{Tenant: visitor.Tenant, User: visitor.User, Upstream: "own", Method: catalog.DeviceCode, Account: account, Status: vault.Active,
		Created: w.now, Renewed: w.now, Expires: w.now.Add(time.Hour), Refreshes: true}, vault.Secrets{Access: secret.New("at of " + account), Refresh: secret.New(refresh)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestRemovedMeanwhile: somebody whom the company removes while a vendor waits for him to enter a code, or is slow to answer, or while its answer
// is being stored, leaves no connection behind; what the vendor gave is ended there.
func TestRemovedMeanwhile(t *testing.T) {
	for when, c := range map[string]struct {
		asked bool
		at    func(w *waiting, gone func())
	}{
		"before the code is entered": {false, func(_ *waiting, gone func()) { gone() }},
		"while the vendor answers":   {true, func(w *waiting, gone func()) { w.vendor.before = func() { w.vendor.before = nil; gone() } }},
		"while it is stored":         {true, func(w *waiting, gone func()) { w.Vault = &meanwhile{Vault: w.Vault, stored: gone} }},
	} {
		t.Run(when, func(t *testing.T) {
			w := newWaiting(t, given)
			x := w.begin(t)
			c.at(w, func() {
				if err := w.db.SetGone(t.Context(), visitor.Tenant, visitor.User, identity.Deleted, w.now); err != nil {
					t.Error(err)
				}
			})
			if asked := w.after(t, 5); asked > 0 != c.asked {
				t.Errorf("the vendor was asked %d times", asked)
			}
			if l := w.living(t); len(l) > 0 || w.look(t, x.State).Status != connect.Refused {
				t.Errorf("%d connections of somebody who is gone, the page says %q", len(l), w.look(t, x.State).Status)
			}
			if c.asked && !slices.Equal(w.vendor.ended, []string{"rt-1"}) {
				t.Errorf("the vendor was asked to end %q", w.vendor.ended)
			}
		})
	}
}

// TestEndsTheNewest: a renewal that is stored in the moment in which its connection is ended: the vendor is asked to end what it gave last.
func TestEndsTheNewest(t *testing.T) {
	w := newWaiting(t)
	c := w.keep(t, "octo-alice", "rt-old")
	v := w.Vault.(*vault.Vault)
	w.Vault = &meanwhile{Vault: v, read: func() {
		next := c
		next.Version, next.Renewed = c.Version+1, w.now
		if err := v.Seal(t.Context(), &next, vault.Secrets{Access: secret.New("at-new"), Refresh: secret.New("rt-new")}); err != nil {
			t.Error(err)
		}
		if ok, err := w.db.Settle(t.Context(), next, c.Version); err != nil || !ok {
			t.Errorf("it was not renewed: %v", err)
		}
	}}
	if got, err := w.End(t.Context(), visitor, c.ID); err != nil || got != vault.EndedConfirmed || !slices.Equal(w.vendor.ended, []string{"rt-new"}) {
		t.Errorf("%s %v; the vendor was asked to end %q", got, err, w.vendor.ended)
	}
	if row, err := w.db.Connection(t.Context(), c.Tenant, c.ID); err != nil || row.Status != vault.Revoked || len(row.Sealed.Refresh) > 0 {
		t.Errorf("%s %v", row.Status, err)
	}
}

// TestUsedAfterAll: of connections that nobody used for long one is used while a vendor is slow to end another: it stays.
func TestUsedAfterAll(t *testing.T) {
	w := newWaiting(t)
	l := []vault.Connection{w.keep(t, "one", "rt-one"), w.keep(t, "two", "rt-two")}
	w.now = w.now.Add(91 * 24 * time.Hour)
	w.Unused, w.UnusedAfter = w.db, func() time.Duration { return 90 * 24 * time.Hour }
	var used vault.Connection
	w.vendor.before = func() {
		w.vendor.before = nil
		for _, c := range l {
			if row, err := w.db.Connection(t.Context(), c.Tenant, c.ID); err == nil && row.Status == vault.Active {
				used = row
			}
		}
		if err := w.db.Used(t.Context(), used.Tenant, used.ID, w.now); err != nil {
			t.Error(err)
		}
	}
	if err := w.EndUnused(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := w.living(t); len(left) != 1 || left[0].ID != used.ID || len(w.vendor.ended) != 1 {
		t.Errorf("%d are left, and the vendor was asked to end %q", len(left), w.vendor.ended)
	}
}
