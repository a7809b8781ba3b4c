package attacks_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite" // the driver of the database that is tampered with
)

// database opens the SQLite file beside the running server.
func database(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// TestA155_tampering: whoever can write to the database cannot change the log unseen. That its end is cut off, or all hashed
// anew, checkpoints show (TestA124_A155_putBack).
func TestA155_tampering(t *testing.T) {
	r := theRealm(t)
	r.connected(t, "modern")
	verify := func(dir string) (string, error) {
		out, err := exec.CommandContext(t.Context(), r.Desk().Binary, "--data-dir", dir, "audit", "verify").CombinedOutput()
		return string(out), err
	}
	live := database(t, filepath.Join(r.Desk().Dir, "frontdesk.db"))
	const middle = `(SELECT writer, seq FROM audit WHERE kind = 'event' AND seq > 1 ORDER BY seq LIMIT 1)`
	for name, change := range map[string]string{
		"nothing":           `SELECT 1`,
		"one is edited":     `UPDATE audit SET record = CAST(replace(CAST(record AS TEXT), '"action":"', '"action":"x') AS BLOB) WHERE (writer, seq) = ` + middle,
		"one is deleted":    `DELETE FROM audit WHERE (writer, seq) = ` + middle,
		"one is inserted":   `INSERT INTO audit (writer, seq, tenant, user_id, kind, call, at, record, hash) SELECT writer, seq + 1000000, tenant, user_id, kind, '', at, record, hash FROM audit WHERE (writer, seq) = ` + middle,
		"whose it was":      `UPDATE audit SET user_id = 'somebody' WHERE (writer, seq) = ` + middle,
		"another tenant's":  `UPDATE audit SET tenant = 'globex' WHERE (writer, seq) = ` + middle,
		"its hash":          `UPDATE audit SET hash = zeroblob(32) WHERE (writer, seq) = ` + middle,
		"its kind":          `UPDATE audit SET kind = 'late' WHERE (writer, seq) = ` + middle,
		"two change places": `UPDATE audit SET seq = CASE seq WHEN 3 THEN -2 ELSE -3 END WHERE seq IN (2, 3); UPDATE audit SET seq = -seq WHERE seq < 0`,
		"its writer":        `UPDATE audit SET writer = char(27) || '[2K' || char(13) || 'whole: 9 records' || char(155) WHERE (writer, seq) = ` + middle,
		"an outcome is cut": `DELETE FROM audit WHERE (writer, seq) = (SELECT writer, seq FROM audit WHERE kind = 'outcome' ORDER BY seq LIMIT 1)`,
	} {
		dir := t.TempDir()
		if _, err := live.ExecContext(t.Context(), "VACUUM INTO ?", filepath.Join(dir, "frontdesk.db")); err != nil {
			t.Fatal(err)
		}
		db := database(t, filepath.Join(dir, "frontdesk.db"))
		res, err := db.ExecContext(t.Context(), change)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if n, _ := res.RowsAffected(); n == 0 && name != "nothing" {
			t.Errorf("%s: nothing was changed", name)
		}
		_ = db.Close()
		out, err := verify(dir)
		if whole := err == nil; whole != (name == "nothing") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if strings.ContainsAny(out, "\x1b\r\u009b") {
			t.Errorf("%s: whoever altered it writes to the terminal: %q", name, out)
		}
		if name != "nothing" && !strings.Contains(out, "NOT WHOLE at ") {
			t.Errorf("%s: the first broken record is not named: %s", name, out)
		}
	}
}

// TestA156_noRecordNoAct: while the log cannot be written nothing leaves.
func TestA156_noRecordNoAct(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	_, k := r.connected(t, "modern")
	db := database(t, filepath.Join(r.Desk().Dir, "frontdesk.db"))
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	release := sync.OnceValue(func() error { // also where the test fails: others need the database
		_, err := conn.ExecContext(context.WithoutCancel(t.Context()), "ROLLBACK")
		return errors.Join(err, conn.Close())
	})
	defer func() { _ = release() }()
	before, calls := r.Modern.Count("/mcp"), r.calls()
	got := r.call(t, "", "modern", k.Access, callBody("whoami", "{}"))
	if !refused(got) && got.Status != http.StatusServiceUnavailable || r.Modern.Count("/mcp") != before || r.calls() != calls {
		t.Errorf("with a log that cannot be written: %d %s", got.Status, got.Body)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if got = r.call(t, "", "modern", k.Access, callBody("whoami", "{}")); strings.Contains(got.Body, "octo-alice") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("once it can be written again: %d %s", got.Status, got.Body)
		}
	}
}

// TestA157_injection: what strangers write stays inside its field, and is cut.
func TestA157_injection(t *testing.T) {
	r := theRealm(t)
	r.oracles(t)
	const nasty = "x\n{\"outcome\":\"allowed\"}\r\n\x1b[31m\u009b31m\u202e\",\"result\":\"ok"
	a := r.app(t, "", nasty)
	k := a.signedIn(t, r.person("alice", later))
	encoded, err := json.Marshal(nasty)
	if err != nil {
		t.Fatal(err)
	}
	large, err := json.Marshal(nasty + strings.Repeat("A", 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range [][]byte{encoded, large} {
		body := strings.Replace(callBody("whoami", "{}"), `"whoami"`, string(name), 1)
		got := send(t, http.MethodPost, r.Desk().MCP("modern"), body, "Content-Type", "application/json", "Accept", "application/json, text/event-stream", "MCP-Protocol-Version", "2026-07-28", "Authorization", "Bearer "+k.Access, "User-Agent", "x\t[31m\u009b", "Mcp-Method", "tools/call")
		if got.Status >= 500 {
			t.Errorf("%d %s", got.Status, got.Body)
		}
	}
	legacy := send(t, http.MethodPost, r.Desk().MCP("issues"), `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":`+string(large)+`,"version":"1"}}}`, "Content-Type", "application/json", "Accept", "application/json, text/event-stream",
		"Authorization", "Bearer "+a.at("issues").signedIn(t, r.person("alice", later)).Access)
	if session := legacy.Header.Get("Mcp-Session-Id"); session != "" {
		got := send(t, http.MethodPost, r.Desk().MCP("issues"), `{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":`+string(large)+`,"arguments":{}}}`, "Content-Type", "application/json", "Accept", "application/json, text/event-stream",
			"Authorization", "Bearer "+a.at("issues").signedIn(t, r.person("alice", later)).Access, "Mcp-Session-Id", session, "MCP-Protocol-Version", "2025-11-25")
		if got.Status >= 500 {
			t.Errorf("%d", got.Status)
		}
	}
	// Names that only a form, or the IdP, says.
	alice := r.person("alice", later)
	open(t, alice, r.Desk().Public+"/portal/")
	if got := r.form(t, alice, "/portal/grant/end", url.Values{"client": {nasty + strings.Repeat("A", 50_000)}, "server": {nasty}, "upstream": {nasty}}); got.Status != http.StatusSeeOther {
		t.Errorf("the end of what was never given: %d %s", got.Status, got.Body)
	}
	if strings.Contains(r.tail(t, "default"), "AAAAAAAA") {
		t.Error("the end of what was never given is on record")
	}
	named, err := r.IdP.MintAccessToken("alice", "api://frontdesk", map[string]any{"client_id": nasty})
	if err != nil {
		t.Fatal(err)
	}
	if got := r.call(t, "", "modern", named, callBody("whoami", "{}")); got.Status >= http.StatusInternalServerError {
		t.Errorf("%d %s", got.Status, got.Body)
	}
	for what, out := range map[string]string{"audit tail": r.tail(t, "default"), "the log": r.Desk().Log()} {
		for line := range strings.Lines(out) {
			if strings.HasPrefix(line, "{") && !json.Valid([]byte(line)) {
				t.Errorf("%s: a line is no object: %.200s", what, line)
			}
			if strings.ContainsAny(line, "\x1b\u009b\u202e\x7f") {
				t.Errorf("%s lets a control through: %.300q", what, line)
			}
			if len(line) > 64<<10 {
				t.Errorf("%s has a line of %d bytes", what, len(line))
			}
		}
	}
}

// TestA158_killedBetween: what was open when the process died has one outcome afterwards. `make crash` does it a hundred times
// under load.
func TestA158_killedBetween(t *testing.T) {
	r := theRealm(t)
	a, _ := r.connected(t, "modern")
	for range 2 {
		k := a.signedIn(t, r.person("alice", later))
		running := r.Modern.Running()
		go func() {
			req, err := http.NewRequest(http.MethodPost, r.Desk().MCP("modern"), strings.NewReader(callBody("slow", `{"steps":200,"every_ms":50}`)))
			if err != nil {
				return
			}
			for name, v := range map[string]string{"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "slow", "Authorization": "Bearer " + k.Access} {
				req.Header.Set(name, v)
			}
			if resp, err := http.DefaultTransport.RoundTrip(req); err == nil {
				_ = resp.Body.Close()
			}
		}()
		for end := time.Now().Add(10 * time.Second); r.Modern.Running() == running; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the call does not run")
			}
		}
		if err := r.Desk().Kill(); err != nil {
			t.Fatal(err)
		}
		if err := r.Desk().Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		out, err := r.Desk().Run("audit", "verify")
		if err != nil || !strings.Contains(out, "whole") {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if _, err := os.Stat(r.socket(t)); err != nil {
		t.Error(err)
	}
}
