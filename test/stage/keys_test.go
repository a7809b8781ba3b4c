package stage_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // PostgreSQL, as whoever writes to it past Frontdesk

	"frontdesk.dev/frontdesk/test/pg"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// onBoth runs a test on either database.
func onBoth(t *testing.T, f func(t *testing.T, database string)) {
	t.Run("SQLite", func(t *testing.T) { t.Parallel(); f(t, "") })
	t.Run("PostgreSQL", func(t *testing.T) { t.Parallel(); f(t, pg.Start(t)) })
}

// behindItsBack runs SQL at the database of a stage, past Frontdesk.
func behindItsBack(t *testing.T, s *stage.Stage) *sql.DB {
	t.Helper()
	driver, dsn := "sqlite", "file:"+filepath.Join(s.Desk().Dir, "frontdesk.db")+"?_pragma=busy_timeout(5000)"
	if s.Database != "" {
		driver, dsn = "pgx", s.Database
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func execute(t *testing.T, db *sql.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(query, err)
	}
}

func blob(t *testing.T, db *sql.DB, query string, args ...any) (b []byte) {
	t.Helper()
	if err := db.QueryRowContext(t.Context(), query, args...).Scan(&b); err != nil {
		t.Fatal(query, err)
	}
	return b
}

// asking is an agent of alice's, whose questions she answers.
func asking(t *testing.T, s *stage.Stage) *world.Agent {
	t.Helper()
	person := s.Person("alice", "Continue to Tracker")
	return agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "an agent", Era: world.Era2026July, Browser: s.Person("alice", "Connect Tracker", "Done"),
		Elicit: world.OpenerFunc(func(ctx context.Context, address string) error { return person.Open(ctx, address) })})
}

// damages are what can become of a sealed field; other is one of another person's.
var damages = map[string]func(sealed, other []byte) []byte{
	"truncated":             func(sealed, _ []byte) []byte { return sealed[:len(sealed)/2] },
	"cut to its head":       func(sealed, _ []byte) []byte { return sealed[:3] },
	"a bit flipped":         func(sealed, _ []byte) []byte { b := bytes.Clone(sealed); b[len(b)-9] ^= 1; return b },
	"of another format":     func(sealed, _ []byte) []byte { b := bytes.Clone(sealed); b[0] = 9; return b },
	"by a key that is gone": func(sealed, _ []byte) []byte { b := bytes.Clone(sealed); b[3] ^= 0xff; return b },
	"another person's":      func(_, other []byte) []byte { return other },
	"emptied":               func(_, _ []byte) []byte { return []byte{} },
}

// TestDamagedConnections: a connection of which a sealed field does not open, whatever happened to it, says so and asks for its person; on the
// command line, in the log and to him. Another person's goes on, and once he has connected again so does his.
func TestDamagedConnections(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		s := start(t, stage.Options{Database: database})
		d, db := s.Desk(), behindItsBack(t, s)
		alice := asking(t, s)
		bob := agent(t, world.AgentConfig{URL: d.MCP("modern"), Name: "an agent of bob", Era: world.Era2026July, Browser: s.Person("bob", "Connect Tracker", "Done")})
		idle := agent(t, world.AgentConfig{URL: d.MCP("modern"), Name: "an agent nobody answers", Era: world.Era2026July, Browser: s.Person("alice", later)})
		serves(t, alice, "at first")
		works := func(who string, a *world.Agent) {
			t.Helper()
			if r := call(t, a, "whoami", nil); r.IsError || !strings.Contains(world.Text(r), "octo-"+who) {
				t.Fatalf("%s: %s", who, world.Text(r))
			}
		}
		works("bob", bob)
		works("alice", idle)
		for _, field := range []string{"access", "refresh"} {
			for name, damage := range damages {
				const one = "SELECT %s FROM connections WHERE upstream = 'tracker' AND label = '%s'"
				if err := d.Stop(); err != nil {
					t.Fatal(err)
				}
				sealed, other := blob(t, db, fmt.Sprintf(one, field, "octo-alice")), blob(t, db, fmt.Sprintf(one, field, "octo-bob"))
				execute(t, db, "UPDATE connections SET "+field+" = $1 WHERE upstream = 'tracker' AND label = 'octo-alice'", damage(sealed, other))
				if err := d.Start(within(t)); err != nil {
					t.Fatal(err)
				}
				works("bob", bob)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				if r, err := idle.Call(ctx, "whoami", nil); err == nil && !r.IsError && strings.Contains(world.Text(r), "octo-alice") {
					t.Errorf("%s %s: it is served all the same", field, name)
				}
				cancel()
				out, err := d.Run("connections", "list", "--user", "emp-alice")
				if err != nil || !strings.Contains(out, "needs_reconnect") || !strings.Contains(out, "does not open") {
					t.Errorf("%s %s: connections list: %v %s", field, name, err, out)
				}
				if out, err := d.Run("audit", "tail", "--user", "emp-alice"); err != nil || !strings.Contains(out, "vault.tamper") {
					t.Errorf("%s %s: audit tail: %v %s", field, name, err, out)
				}
				if out, err := d.Run("doctor"); !strings.Contains(out, "wait for their users to connect again") {
					t.Errorf("%s %s: doctor: %v %s", field, name, err, out)
				}
				works("alice", alice) // she is asked, and connects again
				works("alice", idle)
			}
		}
	})
}

// TestDamagedKeys: rows of keys that do not open, while others do, are named at a start with what is lost and how to go on: put back, they are taken
// up; given up, each person is asked for what they had sealed, and the rest goes on. Damaged while the server runs, nobody is asked for what may
// come back.
func TestDamagedKeys(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		s := start(t, stage.Options{Database: database})
		d, db := s.Desk(), behindItsBack(t, s)
		alice := asking(t, s)
		serves(t, alice, "at first")
		stop := func() {
			t.Helper()
			if err := d.Stop(); err != nil {
				t.Fatal(err)
			}
		}
		begin := func(args ...string) {
			t.Helper()
			d.Args = args
			if err := d.Start(within(t)); err != nil {
				t.Fatal(err)
			}
		}
		for _, purpose := range []string{"tenant", "issuer", "client", "ticket", "ca", "checkpoint"} {
			t.Run(purpose, func(t *testing.T) {
				var there int
				if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM keys WHERE purpose = $1", purpose).Scan(&there); err != nil {
					t.Fatal(err)
				}
				if there == 0 {
					if purpose != "client" { // made when a vendor first wants an assertion
						t.Fatal("there is no such key")
					}
					return
				}
				stop()
				sealed := blob(t, db, "SELECT sealed FROM keys WHERE purpose = $1 ORDER BY generation DESC LIMIT 1", purpose)
				id := string(blob(t, db, "SELECT id FROM keys WHERE purpose = $1 ORDER BY generation DESC LIMIT 1", purpose))
				broken := bytes.Clone(sealed)
				broken[len(broken)-1] ^= 1
				put := func(b []byte) { execute(t, db, "UPDATE keys SET sealed = $1 WHERE id = $2", b, id) }
				put(broken)
				d.Args = nil
				err := d.Start(within(t))
				said := fmt.Sprint(err)
				if purpose == "tenant" { // the rest works, and comes back whole without a restart
					if said = strings.Join(d.LogLines("what some data keys sealed cannot be used"), ""); err != nil || said == "" {
						t.Fatalf("it does not go on: %v", err)
					}
					if out, err := d.Run("doctor"); err == nil || !strings.Contains(out, "bad   keys: 1 of the ") || !strings.Contains(out, id) {
						t.Errorf("doctor: %v %s", err, out)
					}
					if got := whoami(t, alice); !strings.Contains(got, "sealed with a data key that does not open") && !strings.Contains(got, "the vault's key does not open") {
						t.Errorf("what it sealed: %s", got)
					}
				} else if err == nil {
					t.Fatal("it starts without saying anything")
				}
				for _, want := range []string{"1 of the ", id + ": ", "Put the rows back", "--forget-keys"} {
					if !strings.Contains(said, want) {
						t.Errorf("it does not say %q: %s", want, said)
					}
				}
				put(sealed)
				if purpose == "tenant" {
					serves(t, alice, "with the row put back while it serves")
					stop()
				}
				begin()
				serves(t, alice, "with the row put back")
				stop()
				put(broken)
				if purpose == "checkpoint" {
					d.Args = []string{"--forget-keys", id}
					if err := d.Start(within(t)); err == nil || !strings.Contains(err.Error(), "put its row back") {
						t.Errorf("the log's key is given up: %v", err)
					}
					put(sealed)
					begin()
					serves(t, alice, "with the row put back once more")
					return
				}
				d.Args = []string{"--forget-keys", "t0123456789abcdef"}
				if err := d.Start(within(t)); err == nil || !strings.Contains(err.Error(), "is not the id of a key that does not open") {
					t.Errorf("a key that is none is given up: %v", err)
				}
				begin("--forget-keys", id)
				serves(t, alice, "with the key given up")
				until(t, "it is on record", func() bool {
					out, err := d.Run("audit", "tail")
					return err == nil && strings.Contains(out, "keys.forgotten")
				})
				stop()
				begin("--forget-keys", id) // as it stands in somebody's unit file still
				serves(t, alice, "once more")
				if out, err := d.Run("doctor"); strings.Contains(out, "keys:") {
					t.Errorf("doctor: %v %s", err, out)
				}
				if out, err := d.Run("audit", "verify"); err != nil {
					t.Errorf("audit verify: %v %s", err, out)
				}
			})
		}
	})
}

// keyService is a transit engine, as far as Frontdesk knows one, that can be away or say no.
type keyService struct {
	*httptest.Server
	mode atomic.Pointer[string]
}

func newKeyService(t *testing.T) *keyService {
	t.Helper()
	k := &keyService{}
	k.is("well")
	gone := t.Context().Done()
	k.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Plaintext  []byte `json:"plaintext"`
			Ciphertext string `json:"ciphertext"`
			Bound      []byte `json:"associated_data"`
		}
		_ = json.NewDecoder(r.Body).Decode(&in)
		switch mode := *k.mode.Load(); mode {
		case "well":
		case "silent":
			select {
			case <-r.Context().Done():
			case <-gone:
			}
			return
		case "failing":
			w.WriteHeader(http.StatusInternalServerError)
			return
		default:
			w.WriteHeader(http.StatusForbidden)
			_, _ = fmt.Fprintf(w, `{"errors":[%q]}`, mode)
			return
		}
		bound := sha256.Sum256(in.Bound)
		if strings.HasPrefix(r.URL.Path, "/v1/transit/encrypt/") {
			_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]string{"ciphertext": "vault:v1:" + base64.StdEncoding.EncodeToString(append(bound[:], in.Plaintext...))}})
			return
		}
		sealed, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(in.Ciphertext, "vault:v1:"))
		if err != nil || !bytes.HasPrefix(sealed, bound[:]) {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string][]byte{"plaintext": sealed[len(bound):]}})
	}))
	t.Cleanup(k.Close)
	t.Cleanup(k.CloseClientConnections)
	return k
}

func (k *keyService) is(mode string) { k.mode.Store(&mode) }

// TestKeyServiceAway: what is open goes on while the key service is silent or says no; a start without it ends soon, and says what is
// missing and how to go on; and once it is back a start is a start.
func TestKeyServiceAway(t *testing.T) {
	onBoth(t, func(t *testing.T, database string) {
		k := newKeyService(t)
		s := start(t, stage.Options{Database: database, Files: map[string]string{"transit.token": "token-of-the-desk"}, Keys: fmt.Sprintf("service: {transit: {url: %q, key: desk, token: file:transit.token}}", k.URL)})
		d := s.Desk()
		alice := agent(t, world.AgentConfig{URL: d.MCP("modern"), Name: "an agent", Era: world.Era2026July, Browser: s.Person("alice", "Connect Tracker", "Done")})
		serves(t, alice, "at first")
		for mode, says := range map[string][]string{
			"silent":            {"the key service Vault Transit does not answer", "nothing was started, and nothing changed", "audit verify"},
			"failing":           {"the key service Vault Transit does not answer", "nothing was started, and nothing changed"},
			"permission denied": {"the key service Vault Transit says that this process may not use the key", "look at its rights"},
		} {
			k.is(mode)
			for range 3 {
				began := time.Now()
				if r := call(t, alice, "whoami", nil); r.IsError || time.Since(began) > 5*time.Second {
					t.Errorf("%s: after %v she is told: %s", mode, time.Since(began), world.Text(r))
				}
			}
			if err := d.Stop(); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			err := d.Start(ctx)
			if err == nil || ctx.Err() != nil {
				t.Fatalf("%s: it starts, or hangs: %v", mode, err)
			}
			cancel()
			for _, want := range says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%s: it does not say %q: %v", mode, want, err)
				}
			}
			if strings.Contains(err.Error(), "token-of-the-desk") {
				t.Error("its token stands in what it says")
			}
			k.is("well")
			if err := d.Start(within(t)); err != nil {
				t.Fatal(err)
			}
			serves(t, alice, "after a start with the service back")
		}
	})
}
