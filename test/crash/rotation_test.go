//go:build crash

package crash_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/kms"
	"frontdesk.dev/frontdesk/test/pg"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/authserver"
)

const (
	sealedRows = 3000 // so many that to seal them anew takes a while

	sealsAfter  = 150 * time.Second // a new data key is read by all for that long, before it seals
	resealAfter = time.Minute       // a process looks for the first time after its start
)

// TestRotationKilled: the data key is rotated under load that refreshes nearly all the time, and the process killed when the key has
// been added, when it begins to seal, and again and again in the middle of sealing anew; then the key that wraps it is replaced,
// and the process killed in the middle of that. It goes on after each restart, and nothing is lost.
func TestRotationKilled(t *testing.T) {
	slog.SetDefault(slog.New(slog.DiscardHandler))
	binary, err := stage.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, database := range []string{"sqlite", "postgres"} {
		t.Run(database, func(t *testing.T) {
			t.Parallel()
			o := stage.Options{Binary: binary, Allow: "[everyone]", Refresh: rules[authserver.RotationGrace],
				Tracker: world.TrackerConfig{Rotation: authserver.RotationGrace, AccessLifetime: 2 * time.Second}}
			if database == "postgres" {
				o.Database = pg.Start(t)
			}
			k := &rotation{}
			storm(t, o, 7, k.step)
		})
	}
}

// rotation is where a rotation stands.
type rotation struct{ asked time.Time }

func (k *rotation) step(r *run, ctx context.Context, n int) {
	r.t.Helper()
	d := r.s.Desk()
	kill := func(what string) {
		r.t.Helper()
		r.killed[what]++
		if err := d.Kill(); err != nil {
			r.t.Fatal(err)
		}
	}
	start := func() {
		r.t.Helper()
		if err := d.Start(ctx); err != nil {
			r.t.Fatal(err)
		}
	}
	switch n {
	case 0: // many more connections, and a new key, which does not seal yet
		kill("before")
		v, done := openVault(r.t, r.s)
		for i := range sealedRows {
			c := vault.Connection{Tenant: identity.DefaultTenant, User: identity.UserID(fmt.Sprint("user", i)), Upstream: "tracker", Method: catalog.APIKey, Status: vault.Active, Created: time.Now()}
			if _, err := v.Connect(ctx, c, vault.Secrets{Access: secret.New(fmt.Sprint("key", i))}); err != nil {
				r.t.Fatal(err)
			}
		}
		done()
		start()
		k.asked = time.Now()
		if out, err := d.Run("keys", "rotate"); err != nil {
			r.t.Fatal(err, out)
		}
		kill("a key was added")
		start()
	case 1: // it begins to seal
		time.Sleep(time.Until(k.asked.Add(sealsAfter - 100*time.Millisecond + time.Duration(rand.IntN(300))*time.Millisecond)))
		kill("the key begins to seal")
		start()
	case 2, 3, 4: // in the middle of sealing anew
		sealed := k.sealed(r)
		for end := time.Now().Add(resealAfter + 30*time.Second); k.sealed(r) < sealed+50; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				r.t.Fatalf("nothing was sealed anew: %d of %d", sealed, sealedRows)
			}
		}
		kill(fmt.Sprintf("%d hundreds are sealed anew", k.sealed(r)/100))
		start()
	case 5: // left alone, it ends
		for end := time.Now().Add(resealAfter + time.Minute); k.sealed(r) < sealedRows; time.Sleep(time.Second) {
			if time.Now().After(end) {
				r.t.Fatalf("%d of %d are sealed anew", k.sealed(r), sealedRows)
			}
		}
	case 6: // another wrapping key
		kill("before")
		place := vaultKeyAt(r.s)
		if err := os.Rename(place, place+".old"); err != nil {
			r.t.Fatal(err)
		}
		if _, err := kms.OpenKeyFile(place, true); err != nil {
			r.t.Fatal(err)
		}
		config, err := os.ReadFile(d.ConfigPath)
		if err != nil {
			r.t.Fatal(err)
		}
		write := func(keys string) {
			text := string(config)
			if strings.Contains(text, "\nkeys: {") {
				text = strings.Replace(text, "\nkeys: {", "\nkeys: {"+keys, 1)
			} else if keys != "" {
				text += "\nkeys: {" + strings.TrimSuffix(keys, ", ") + "}\n"
			}
			if err := os.WriteFile(d.ConfigPath, []byte(text), 0o600); err != nil {
				r.t.Fatal(err)
			}
		}
		write("previous: {file: " + place + ".old}, ")
		for range 12 {
			begun, stop := context.WithTimeout(ctx, time.Duration(20+rand.IntN(100))*time.Millisecond)
			_ = d.Start(begun) // it is killed before it is ready
			stop()
			kill("keys are wrapped anew")
		}
		start()
		kill("they all are")
		write("")
		if err := os.Remove(place + ".old"); err != nil {
			r.t.Fatal(err)
		}
		v, done := openVault(r.t, r.s)
		opened := 0
		if err := v.Store.(vault.All).EachConnection(ctx, func(c vault.Connection) error {
			s, err := v.Open(ctx, c)
			if err == nil && c.Method == catalog.APIKey && s.Access.Expose() != strings.Replace(string(c.User), "user", "key", 1) {
				err = fmt.Errorf("%s holds another credential", c.ID)
			}
			opened++
			return err
		}); err != nil || opened < sealedRows {
			r.t.Errorf("%d connections open: %v", opened, err)
		}
		done()
		start()
	}
}

// sealed is how many connections the newest key has sealed.
func (k *rotation) sealed(r *run) int {
	r.t.Helper()
	out, err := r.s.Desk().Run("keys", "--json")
	var l []vault.KeyState
	if err != nil || json.Unmarshal([]byte(out), &l) != nil || len(l) < 2 {
		r.t.Fatalf("%v %s", err, out)
	}
	return l[len(l)-1].Rows
}

func vaultKeyAt(s *stage.Stage) string {
	if own := filepath.Join(s.Desk().Dir, "vault.key"); exists(own) {
		return own
	}
	return filepath.Join(s.Dir, "vault.key")
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

// openVault opens the vault of a desk that does not run.
func openVault(t *testing.T, s *stage.Stage) (*vault.Vault, func()) {
	t.Helper()
	wrap, err := kms.OpenKeyFile(vaultKeyAt(s), false)
	if err != nil {
		t.Fatal(err)
	}
	c := store.Config{DSN: s.Database}
	if c.DSN == "" {
		c.Path = filepath.Join(s.Desk().Dir, "frontdesk.db")
	}
	db, err := store.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return &vault.Vault{Store: db, Keys: db, Wrap: wrap, Now: time.Now}, func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}
