package vault_test

import (
	"context"
	"testing"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault"
)

// shelf is a vault's rows in memory.
type shelf struct {
	vault.Store
	rows map[vault.ConnectionID]vault.Connection
}

func (s shelf) EachConnection(_ context.Context, f func(vault.Connection) error) error {
	for _, c := range s.rows {
		if err := f(c); err != nil {
			return err
		}
	}
	return nil
}

func (s shelf) Connection(_ context.Context, _ identity.Tenant, id vault.ConnectionID) (vault.Connection, error) {
	if c, ok := s.rows[id]; ok {
		return c, nil
	}
	return vault.Connection{}, fault.New(fault.NotFound, "none", nil)
}

func stored(n byte, generation, version int64, sealed string) vault.Connection {
	id := []byte("00000000000000000000000000000000")
	id[31] = n
	return vault.Connection{Tenant: "default", ID: vault.ConnectionID(id), Upstream: catalog.UpstreamName("tracker"), Status: vault.Active,
		Machine: vault.Machine{Generation: generation, Version: version}, Sealed: vault.Sealed{Access: []byte(sealed), Previous: []byte("forgotten by itself")}}
}

func said(c vault.Connection) *audit.Record {
	return &audit.Record{Connection: string(c.ID), Sealed: vault.Fingerprint(c)}
}

// TestLedger: whatever the order in which the log is read, the newest counts, and what cannot be forged is no fault.
func TestLedger(t *testing.T) {
	older, now, next, reborn := stored('1', 1, 2, "b"), stored('1', 1, 3, "c"), stored('1', 1, 4, "d"), stored('1', 2, 1, "e")
	resealed := stored('1', 1, 3, "c, sealed anew")
	without := now
	without.Previous = nil
	ended := now
	ended.Status, ended.Access, ended.Previous = vault.Revoked, nil, nil
	for name, c := range map[string]struct {
		log  []*audit.Record
		row  vault.Connection
		want vault.Standing
	}{
		"as it was stored":           {[]*audit.Record{said(older), said(now)}, now, vault.Same},
		"read the other way round":   {[]*audit.Record{said(now), said(older)}, now, vault.Same},
		"the replaced token is gone": {[]*audit.Record{said(now)}, without, vault.Same},
		"sealed anew":                {[]*audit.Record{said(now), said(resealed)}, resealed, vault.Same},
		"about to be sealed anew":    {[]*audit.Record{said(now), said(resealed)}, now, vault.Same},
		"not in the log yet":         {[]*audit.Record{said(now)}, next, vault.Ahead},
		"connected anew, not yet":    {[]*audit.Record{said(now)}, reborn, vault.Ahead},
		"from before the log":        {nil, now, vault.Unrecorded},
		"an older one":               {[]*audit.Record{said(older), said(now)}, older, vault.RolledBack},
		"of an older generation":     {[]*audit.Record{said(reborn)}, next, vault.RolledBack},
		"another one":                {[]*audit.Record{said(now)}, resealed, vault.Changed},
		"ended":                      {[]*audit.Record{said(now), {Connection: string(now.ID), Sealed: vault.FingerprintGone(now)}}, ended, vault.Same},
		"ended, and back":            {[]*audit.Record{said(now), {Connection: string(now.ID), Sealed: vault.FingerprintGone(now)}}, now, vault.Back},
		"ended, not in the log yet":  {[]*audit.Record{said(now)}, ended, vault.Same},
		"no fingerprint":             {[]*audit.Record{{Connection: string(now.ID), Sealed: "1.x y"}, {Connection: "x", Sealed: "1.1 -"}}, now, vault.Unrecorded},
	} {
		var l vault.Ledger
		for _, r := range c.log {
			l.Read(r)
		}
		if got := l.Compare(c.row); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// TestCompareAllBesideAServer: what is stored, sealed anew or ended between the look at the log and the one at the rows is no fault; a
// row that is gone is.
func TestCompareAllBesideAServer(t *testing.T) {
	one, two, three, late := stored('1', 1, 1, "a"), stored('2', 1, 1, "b"), stored('3', 1, 1, "c"), stored('4', 1, 1, "d")
	sealedAnew := stored('2', 1, 1, "b, anew")
	var l vault.Ledger
	for _, c := range []vault.Connection{one, two, three} {
		l.Read(said(c))
	}
	rows := shelf{rows: map[vault.ConnectionID]vault.Connection{one.ID: one, two.ID: sealedAnew}}
	asked := 0
	got, err := l.CompareAll(t.Context(), rows, func() error {
		asked++
		l.Read(said(sealedAnew))
		l.Read(said(late))
		rows.rows[late.ID] = late
		return nil
	})
	if err != nil || asked != 1 || got.Wrong != 1 || got.Connection != three.ID || got.What != vault.Vanished {
		t.Errorf("got %+v, %v, asked %d times", got, err, asked)
	}
}
