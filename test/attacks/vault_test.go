package attacks_test

import (
	"bytes"
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"

	_ "modernc.org/sqlite" // the attacker writes to the file
)

// TestA123_A126_theStolenDatabase: whoever can write to the database, and has no key, gets no credential and no request under
// another name; the person is asked to connect again.
func TestA123_A126_theStolenDatabase(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	binary, err := built()
	if err != nil {
		t.Fatal(err)
	}
	s, err := stage.New(ctx, t.TempDir(), stage.Options{Binary: binary, Tracker: world.TrackerConfig{AccessLifetime: time.Hour}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	agents := map[string]*world.Agent{}
	for _, name := range []string{"alice", "bob"} {
		a, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "agent", Era: world.Era2026July, Browser: s.Person(name, "Connect Tracker", "Done")})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = a.Close() })
		if r, err := a.Call(ctx, "whoami", nil); err != nil || !strings.Contains(world.Text(r), "octo-"+name) {
			t.Fatal(r, err)
		}
		agents[name] = a
	}
	db, err := sql.Open("sqlite", filepath.Join(s.Desk().Dir, "frontdesk.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(ctx, query, args...); err != nil {
			t.Fatal(query, err)
		}
	}
	type row struct {
		id, user                  string
		access, refresh, previous []byte
		version                   int64
	}
	rows := func() (l []row) {
		r, err := db.QueryContext(ctx, "SELECT id, user_id, access, refresh, previous, version FROM connections WHERE upstream = 'tracker' ORDER BY label")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Close() }()
		for r.Next() {
			var c row
			if err := r.Scan(&c.id, &c.user, &c.access, &c.refresh, &c.previous, &c.version); err != nil {
				t.Fatal(err)
			}
			l = append(l, c)
		}
		if len(l) != 2 || r.Err() != nil {
			t.Fatal(l, r.Err())
		}
		return l
	}
	good := rows()
	alice, bob := good[0], good[1]
	restart := func(change func()) {
		t.Helper()
		if err := s.Desk().Stop(); err != nil {
			t.Fatal(err)
		}
		change()
		if err := s.Desk().Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	put := func(c row) {
		exec("UPDATE connections SET access = ?, refresh = ?, previous = coalesce(?, x''), version = ?, status = 'active', reason = '' WHERE id = ?", c.access, c.refresh, c.previous, c.version, c.id)
	}
	flow := func() []byte {
		var b []byte
		if err := db.QueryRowContext(ctx, "SELECT sealed FROM keys WHERE purpose = 'tenant' AND tenant <> ''").Scan(&b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, change := range map[string]func(c *row){
		"A-123 bob's access token": func(c *row) { c.access = bob.access },
		"A-123 all of bob's": func(c *row) {
			c.access, c.refresh, c.previous, c.version = bob.access, bob.refresh, bob.previous, bob.version
		},
		"A-123 columns swapped":         func(c *row) { c.access, c.refresh = c.refresh, c.access },
		"A-123 another sealed thing":    func(c *row) { c.access = flow() },
		"A-124 an older version's seal": func(c *row) { c.version++ },
		"A-125 another format":          func(c *row) { c.access = append([]byte{2}, c.access[1:]...) },
		"A-125 format none":             func(c *row) { c.access = append([]byte{0}, []byte("token")...) },
		"A-125 another key":             func(c *row) { c.access = append([]byte{1, 1, 0, 0, 0, 9}, c.access[6:]...) },
		"A-125 empty":                   func(c *row) { c.access = []byte{} },
		"A-125 half":                    func(c *row) { c.access = c.access[:len(c.access)/2] },
		"A-125 1 MiB":                   func(c *row) { c.access = bytes.Repeat([]byte{1}, 1<<20) },
		"A-125 a flipped bit":           func(c *row) { c.access = bytes.Clone(c.access); c.access[len(c.access)-1] ^= 1 },
	} {
		bad := alice
		change(&bad)
		before := len(s.Tracker.Calls())
		restart(func() { put(bad) })
		r, err := agents["alice"].Call(ctx, "whoami", nil)
		if err != nil || !strings.Contains(world.Text(r), "/connect/") && !strings.Contains(world.Text(r), "connecting again") {
			t.Errorf("%s: %v %v", name, err, r)
		}
		if n := len(s.Tracker.Calls()); n != before {
			t.Errorf("%s: %v reached the tracker", name, s.Tracker.Calls()[before:])
		}
		if out, err := s.Desk().Run("connections", "list", "--user", "emp-alice"); err != nil || !strings.Contains(out, "needs_reconnect") {
			t.Errorf("%s: the connection is not marked: %v %s", name, err, out)
		}
	}
	// the user of a row is part of what it opens for.
	restart(func() {
		put(alice)
		exec("UPDATE connections SET user_id = CASE user_id WHEN ? THEN ? ELSE ? END || '#' WHERE upstream = 'tracker'", alice.user, bob.user, alice.user)
		exec("UPDATE connections SET user_id = replace(user_id, '#', '') WHERE upstream = 'tracker'")
	})
	if r, err := agents["alice"].Call(ctx, "whoami", nil); err != nil || strings.Contains(world.Text(r), "octo-") {
		t.Errorf("A-123: alice acted with bob's connection: %v %v", r, err)
	}
	// Put right, it works again: nothing was lost.
	restart(func() {
		exec("UPDATE connections SET user_id = ? WHERE id = ?", alice.user+"#", alice.id)
		exec("UPDATE connections SET user_id = ? WHERE id = ?", bob.user, bob.id)
		exec("UPDATE connections SET user_id = ? WHERE id = ?", alice.user, alice.id)
		put(alice)
		put(bob)
	})
	if r, err := agents["alice"].Call(ctx, "whoami", nil); err != nil || !strings.Contains(world.Text(r), "octo-alice") {
		t.Errorf("the row as it was: %v %v", r, err)
	}
	// another key, no key, an open key: none of them starts.
	if err := s.Desk().Stop(); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(s.Desk().Dir, "vault.key")
	own, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(filepath.Join(s.Desk().Dir, "faces.key"))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text []byte
		mode os.FileMode
		says string
	}{"another key": {other, 0o600, "key"}, "no key": {nil, 0, "missing"}, "readable by others": {own, 0o644, "0644"}, "readable by the group": {own, 0o640, "0640"}, "writable by others": {own, 0o602, "0602"}, "empty": {[]byte{}, 0o600, "damaged"}} {
		_ = os.Remove(key)
		if c.text != nil {
			if err := os.WriteFile(key, c.text, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(key, c.mode); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Desk().Start(ctx); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("A-126 %s: %v", name, err)
			_ = s.Desk().Stop()
		}
		if _, err := os.Stat(key); c.text == nil && err == nil {
			t.Errorf("A-126 %s: a new key was made in silence", name)
		}
	}
}
