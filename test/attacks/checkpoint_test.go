package attacks_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// TestA124_A155_putBack: whoever can write to the database, and knows how the log is hashed, puts things back, moves them, cuts
// the log off and writes it anew. Each is found with what was kept outside, and named; a restore that the operator knows of is
// no fault.
func TestA124_A155_putBack(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	binary, err := built()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	kept, key := filepath.Join(home, "kept.checkpoints"), filepath.Join(home, "log.key")
	s, err := stage.New(ctx, home, stage.Options{Binary: binary, Tracker: world.TrackerConfig{AccessLifetime: 2 * time.Second}, Refresh: "{rotation: none, scope_needed: offline_access}",
		Config: "audit: {paranoid: true, checkpoints: [{file: " + kept + "}]}\n"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	d := s.Desk()
	public, err := d.Run("audit", "key")
	if err != nil || os.WriteFile(key, []byte(public), 0o600) != nil {
		t.Fatal(err, public)
	}
	path := filepath.Join(d.Dir, "frontdesk.db")
	copied := func(name string) string {
		t.Helper()
		to := filepath.Join(home, name)
		if err := os.MkdirAll(to, 0o700); err != nil {
			t.Fatal(err)
		}
		db := database(t, path)
		if _, err := db.ExecContext(ctx, "VACUUM INTO ?", filepath.Join(to, "frontdesk.db")); err != nil {
			t.Fatal(err)
		}
		return to
	}
	people := map[string]*world.Agent{}
	for _, name := range []string{"alice", "bob"} {
		a, err := world.NewAgent(world.AgentConfig{URL: d.MCP("modern"), Name: "agent", Era: world.Era2026July, Browser: s.Person(name, "Connect Tracker", "Done")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.Close() })
		people[name] = a
	}
	call := func(name string) string {
		t.Helper()
		r, err := people[name].Call(ctx, "whoami", nil)
		if err != nil {
			t.Fatal(err)
		}
		return world.Text(r)
	}
	whoAmI := func(name string) {
		t.Helper()
		if text := call(name); !strings.Contains(text, "octo-"+name) {
			t.Fatal(text)
		}
	}
	whoAmI("alice")
	whoAmI("bob")
	if err := d.Stop(); err != nil { // with a checkpoint
		t.Fatal(err)
	}
	before := copied("before")
	if err := d.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for version := int64(1); version < 2; { // until alice's was renewed
		whoAmI("alice")
		db := database(t, path)
		if err := db.QueryRowContext(ctx, "SELECT version FROM connections WHERE upstream = 'tracker' AND label = 'octo-alice'").Scan(&version); err != nil {
			t.Fatal(err)
		}
		_ = db.Close()
		time.Sleep(200 * time.Millisecond)
	}
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	verify := func(dir string, more ...string) (code int, said string) {
		c := exec.CommandContext(ctx, d.Binary, append([]string{"--data-dir", dir, "audit", "verify", "--pubkey", key, "--checkpoint", kept, "--vault"}, more...)...)
		out, err := c.CombinedOutput()
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			return e.ExitCode(), string(out)
		}
		if err != nil {
			t.Fatal(err)
		}
		return 0, string(out)
	}
	if code, said := verify(d.Dir); code != 0 || !strings.Contains(said, "all of them here") {
		t.Fatalf("untouched: %d %s", code, said)
	}
	const older = "ATTACH '%' AS old"
	for name, c := range map[string]struct {
		change string
		do     func(*sql.DB) error
		code   int
		says   string
	}{
		"a row put back":       {change: "UPDATE connections SET (access, refresh, previous, version, expires, renewed) = (SELECT access, refresh, previous, version, expires, renewed FROM old.connections AS o WHERE o.id = connections.id) WHERE label = 'octo-alice'", code: 1, says: "older credential was put back"},
		"a row moved":          {change: "UPDATE connections SET (access, refresh, version) = (SELECT access, refresh, version FROM connections AS o WHERE o.label = 'octo-bob') WHERE label = 'octo-alice'", code: 1, says: "connection"},
		"a row deleted":        {change: "DELETE FROM connections WHERE label = 'octo-alice'", code: 1, says: "its row is gone"},
		"the end cut off":      {change: "DELETE FROM audit WHERE (writer, seq) IN (SELECT writer, max(seq) FROM audit GROUP BY writer)", code: 2, says: "are missing, which checkpoint"},
		"its checkpoint too":   {change: "DELETE FROM checkpoints WHERE number = (SELECT max(number) FROM checkpoints); DELETE FROM audit WHERE (writer, seq) IN (SELECT writer, max(seq) FROM audit GROUP BY writer)", code: 2, says: "are missing, which checkpoint"},
		"a chain dropped":      {change: "DELETE FROM audit WHERE writer = (SELECT max(writer) FROM audit)", code: 2, says: "are missing, which checkpoint"},
		"written anew":         {do: rewritten, code: 3, says: "written anew"},
		"all checkpoints gone": {change: "DELETE FROM checkpoints", code: 2, says: "kept elsewhere"},
		"the key of the log":   {change: "UPDATE keys SET public = CAST('x' AS BLOB) WHERE purpose = 'checkpoint'", code: 0, says: "whole"},
		"a resurrected one":    {change: "UPDATE connections SET generation = generation - 1, status = 'active' WHERE label = 'octo-bob'", code: 1, says: "put back"},
	} {
		dir := copied(strings.ReplaceAll(name, " ", "-"))
		db := database(t, filepath.Join(dir, "frontdesk.db"))
		if _, err := db.ExecContext(ctx, strings.ReplaceAll(older, "%", filepath.Join(before, "frontdesk.db"))); err != nil {
			t.Fatal(err)
		}
		if c.do == nil {
			res, err := db.ExecContext(ctx, c.change)
			if err != nil {
				t.Fatal(name, err)
			}
			if n, _ := res.RowsAffected(); n == 0 {
				t.Errorf("%s: nothing was changed", name)
			}
		} else if err := c.do(db); err != nil {
			t.Fatal(name, err)
		}
		_ = db.Close()
		if code, said := verify(dir); code != c.code || !strings.Contains(said, c.says) {
			t.Errorf("%s: exit %d, want %d with %q: %s", name, code, c.code, c.says, said)
		}
	}
	if code, said := verify(before); code != 2 || !strings.Contains(said, "are missing, which checkpoint") {
		t.Errorf("the whole database put back: %d %s", code, said)
	}

	// With paranoid a row that was put back is not used either.
	put := func(from string) {
		t.Helper()
		for _, file := range []string{path, path + "-wal", path + "-shm"} {
			_ = os.Remove(file)
		}
		text, err := os.ReadFile(filepath.Join(from, "frontdesk.db"))
		if err != nil || os.WriteFile(path, text, 0o600) != nil {
			t.Fatal(err)
		}
	}
	put(filepath.Join(home, "a-row-put-back"))
	calls := len(s.Tracker.Calls())
	if err := d.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if text := call("alice"); strings.Contains(text, "octo-alice") || len(s.Tracker.Calls()) != calls {
		t.Errorf("an older credential was used: %s", text)
	}
	if out, err := d.Run("connections", "list", "--user", "emp-alice"); err != nil || !strings.Contains(out, "needs_reconnect") {
		t.Errorf("the connection is not marked: %v %s", err, out)
	}
	if out, err := d.Run("audit", "tail"); err != nil || !strings.Contains(out, "vault.tamper") {
		t.Errorf("the log does not say so: %v %s", err, out)
	}
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}

	// The whole database put back, without a word: the start says so, and verify goes on saying it.
	put(before)
	if err := d.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); len(d.LogLines("older than a checkpoint that is kept outside")) == 0; time.Sleep(20 * time.Millisecond) { // it serves meanwhile
		if time.Now().After(end) {
			t.Fatalf("nothing is said at the start: %s", d.Log())
		}
	}
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	if code, said := verify(d.Dir); code != 2 {
		t.Errorf("put back without a word: %d %s", code, said)
	}
	if !bytes.Contains(read(t, kept), []byte("number 1\n")) {
		t.Error("what was kept outside is gone")
	}
}

// TestA124_restored: a backup that was restored by the command is whole, though more was kept outside.
func TestA124_restored(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	binary, err := built()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	kept := filepath.Join(home, "kept.checkpoints")
	s, err := stage.New(ctx, home, stage.Options{Binary: binary, Config: "audit: {checkpoints: [{file: " + kept + "}]}\n"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	d := s.Desk()
	a, err := world.NewAgent(world.AgentConfig{URL: d.MCP("modern"), Name: "agent", Era: world.Era2026July, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	act := func() {
		t.Helper()
		if _, err := a.Call(ctx, "whoami", nil); err != nil {
			t.Fatal(err)
		}
	}
	act()
	file := filepath.Join(home, "desk.backup")
	if out, err := d.Run("backup", file, "--config", d.ConfigPath); err != nil {
		t.Fatal(out)
	}
	act()
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "-wal", "-shm"} {
		_ = os.Remove(filepath.Join(d.Dir, "frontdesk.db"+name))
	}
	if out, err := d.Run("restore", file, "--config", d.ConfigPath); err != nil {
		t.Fatal(out)
	}
	if err := d.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	out, err := d.Run("audit", "verify", "--vault", "--checkpoint", kept)
	if err != nil || !strings.Contains(out, "of what was lost with a restore or a failover") {
		t.Errorf("%v %s", err, out)
	}
	if lines := d.LogLines("older than a checkpoint"); len(lines) > 0 {
		t.Errorf("a restore is taken for an attack: %v", lines)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// rewritten gives the newest chain another last record, and the hash that is right for it.
func rewritten(db *sql.DB) error {
	var writer string
	var seq int64
	var record, prev []byte
	err := db.QueryRow("SELECT writer, seq, record FROM audit WHERE kind = 'event' AND seq > 1 AND (writer, seq) IN (SELECT writer, max(seq) FROM audit GROUP BY writer) LIMIT 1").Scan(&writer, &seq, &record)
	if errors.Is(err, sql.ErrNoRows) { // any last one
		err = db.QueryRow("SELECT writer, seq, record FROM audit WHERE seq > 1 AND (writer, seq) IN (SELECT writer, max(seq) FROM audit GROUP BY writer) LIMIT 1").Scan(&writer, &seq, &record)
	}
	if err != nil {
		return err
	}
	if err := db.QueryRow("SELECT hash FROM audit WHERE writer = ? AND seq = ?", writer, seq-1).Scan(&prev); err != nil {
		return err
	}
	record = bytes.Replace(record, []byte(`"action":"`), []byte(`"action":"x`), 1)
	sum := sha256.Sum256(record)
	b := binary.BigEndian.AppendUint64(append([]byte{0}, writer...), uint64(seq))
	hash := sha256.Sum256(append(append(b, prev...), sum[:]...))
	_, err = db.Exec("UPDATE audit SET record = ?, hash = ? WHERE writer = ? AND seq = ?", record, hash[:], writer, seq)
	return err
}
