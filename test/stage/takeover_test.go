package stage_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
	"frontdesk.dev/frontdesk/internal/vault/kms"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/capture"
)

// TestTakeover takes over the gateway's process, after people have signed in, connected and called in every way: all of its memory is
// read, that of a server that it runs, all of its files, and all that its database account reads. No credential is there, nor what opens one: no access or refresh token
// of the vendor's, no home credential, no client secret of ours, no key of the vault, none that signs. Then the same search in the broker's
// process finds them, so the search can find.
func TestTakeover(t *testing.T) {
	a := twoAccounts(t)
	s := start(t, stage.Options{Database: a.broker, Domains: a.domains(t), Servers: ownServer(t), Tracker: world.TrackerConfig{AccessLifetime: 20 * time.Second}})
	ctx := within(t)
	for server, era := range map[string]string{"issues": world.Era2025November, "modern": world.Era2026July, "tracker": world.Era2025November} {
		person := s.Person("alice", "Connect Tracker", "Done")
		agent := agent(t, world.AgentConfig{URL: s.Desk().MCP(server), Name: "an agent", Era: era, Browser: person})
		for range 3 {
			if r, err := agent.Call(ctx, "whoami", nil); err != nil || r.IsError {
				t.Fatal(server, err, world.Text(r))
			}
		}
		if server == "tracker" {
			continue
		}
		// The API says the credential back.
		if r, err := agent.Call(ctx, "fetch", map[string]any{"path": "/echo"}); err != nil || r.IsError {
			t.Fatal(server, err, world.Text(r))
		}
	}
	for range 3 {
		if text := world.Text(call(t, connected(t, s, "bob", "own"), "whoami", nil)); !strings.Contains(text, "octo-bob") {
			t.Fatal(text)
		}
	}
	secrets := secretsOf(t, s, a)
	gateway, broker := s.Desk(), s.Desk().Broker
	memoryOfGateway, memoryOfBroker := image(t, gateway.Pid()), image(t, broker.Pid())
	for _, p := range running(t, s) {
		memoryOfGateway = append(memoryOfGateway, image(t, p.Pid)...)
	}
	for _, place := range append(memoryOfGateway, append(filesOf(t, filepath.Dir(gateway.ConfigPath)), tables(t, a)...)...) {
		for _, k := range secrets {
			if form := k.in(place.text); form != "" {
				t.Errorf("%s holds %s (%s)", place.where, k.what, form)
			}
		}
	}
	if len(memoryOfGateway) == 0 {
		t.Log("memory could not be read, as it should be for all but root")
		return
	}
	if !bytes.Contains(memoryOfGateway[0].text, []byte(gateway.Public)) {
		t.Error("the gateway's memory does not hold its own address: it was not read")
	}
	found := map[string]bool{}
	for _, place := range memoryOfBroker {
		for _, k := range secrets {
			if k.in(place.text) != "" {
				found[k.what] = true
			}
		}
	}
	for _, what := range []string{"an access token of the tracker", "a refresh token of the tracker", "the key that wraps the vault's keys", "a data key", "a signing key", "the key of keycards", "our client secret"} {
		if !found[what] {
			t.Errorf("%s was not found in the broker's memory either: the search finds nothing", what)
		}
	}
	t.Logf("found in the broker's memory alone: %v", found)
}

// sought is one secret, in the forms in which memory could hold it.
type sought struct {
	what  string
	forms []capture.Form
}

func (k sought) in(text []byte) string {
	for _, f := range k.forms {
		if bytes.Contains(text, []byte(f.Text)) {
			return f.Name
		}
	}
	return ""
}

// ofText is a secret that is text; ofBytes one that is not.
func ofText(what, v string) sought { return sought{what, capture.Forms(v)} }

func ofBytes(what string, v []byte) sought {
	back := slices.Clone(v)
	slices.Reverse(back)
	return sought{what, []capture.Form{{Name: "as it is", Text: string(v)}, {Name: "backwards", Text: string(back)}, {Name: "hex", Text: hex.EncodeToString(v)},
		{Name: "base64", Text: base64.RawStdEncoding.EncodeToString(v)}, {Name: "base64url", Text: base64.RawURLEncoding.EncodeToString(v)}}}
}

// secretsOf are all that opens anything at anybody.
func secretsOf(t *testing.T, s *stage.Stage, a accounts) []sought {
	t.Helper()
	l := []sought{ofText("our client secret", world.FrontdeskSecret)}
	given := map[string]string{"access": "an access token of the tracker", "refresh": "a refresh token of the tracker"}
	kinds := map[string]int{}
	for _, token := range s.Tracker.Tokens() {
		if what := given[token.Kind]; what != "" {
			l = append(l, ofText(what, token.Value))
			kinds[what]++
		}
	}
	for _, token := range s.IdP.Tokens() {
		if token.Kind == "refresh" {
			l = append(l, ofText("a home credential", token.Value))
			kinds["home"]++
		}
	}
	if len(kinds) != 3 {
		t.Errorf("too little was given out: %v", kinds)
	}
	return append(l, keysOf(t, s, a)...)
}

// keysOf are the vault's key file, and what it opens of the database.
func keysOf(t *testing.T, s *stage.Stage, a accounts) []sought {
	t.Helper()
	path := filepath.Join(filepath.Dir(s.Desk().Broker.ConfigPath), "vault.key")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Key []struct {
			KeyData struct{ Value []byte }
		}
	}
	if err := json.Unmarshal(text, &file); err != nil || len(file.Key) == 0 {
		t.Fatal(err, "the key file is written in another way than the test reads it")
	}
	l := []sought{ofBytes("the key that wraps the vault's keys", inside(file.Key[0].KeyData.Value))}
	wrap, err := kms.OpenKeyFile(path, false)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), store.Config{DSN: a.broker})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	opened := &opener{DB: db}
	if _, err := keyring.Rewrap(t.Context(), opened, wrap, opened, []identity.Tenant{identity.DefaultTenant}); err != nil {
		t.Fatal(err)
	}
	for _, plain := range opened.plain {
		key, err := x509.ParseECPrivateKey(plain)
		switch {
		case err == nil:
			d, err := key.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			l = append(l, ofBytes("a signing key", d))
		case len(plain) == 32:
			l = append(l, ofBytes("the key of keycards", plain))
		case bytes.Contains(plain, []byte{0x1a, 32}):
			l = append(l, ofBytes("a data key", inside(plain)))
		default:
			l = append(l, ofBytes("another key", plain))
		}
	}
	return l
}

// inside is the key of a Tink keyset, or of a key's value: the 32 bytes behind the tag of its field.
func inside(set []byte) []byte {
	_, after, ok := bytes.Cut(set, []byte{0x1a, 32})
	if !ok || len(after) < 32 {
		panic("no key stands in there") // the test's mistake: it would look for nothing
	}
	return after[:32]
}

// opener sees each key in the clear as it would be wrapped anew, and writes nothing.
type opener struct {
	*store.DB
	plain [][]byte
}

func (o *opener) Wrap(_ context.Context, plain, _ []byte) ([]byte, error) {
	o.plain = append(o.plain, bytes.Clone(plain))
	return []byte("x"), nil
}

func (o *opener) Unwrap(context.Context, []byte, []byte) ([]byte, error) {
	return nil, errors.New("not mine")
}

func (o *opener) UpdateKey(context.Context, keyring.Key) error { return nil }

// image is all that a process can write to; none where it cannot be read. Pages of zeros are left out.
func image(t *testing.T, pid int) []seen {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil
	}
	defer func() { _ = mem.Close() }()
	var all []byte
	page, zero := make([]byte, 64<<10), make([]byte, 64<<10)
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var rights string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &rights); n != 3 || !strings.HasPrefix(rights, "rw") || to-from > 1<<31 {
			continue
		}
		for at := from; at < to; at += int64(len(page)) {
			n, _ := mem.ReadAt(page[:min(int64(len(page)), to-at)], at) // what was unmapped meanwhile cannot be read
			if !bytes.Equal(page[:n], zero[:n]) {
				all = append(all, page[:n]...)
			}
		}
	}
	t.Logf("%d MB of memory of process %d", len(all)>>20, pid)
	return []seen{{fmt.Sprintf("the memory of process %d", pid), all}}
}

// filesOf are the files of a host.
func filesOf(t *testing.T, dir string) (all []seen) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		all = append(all, seen{path, b})
		return err
	})
	if err != nil || len(all) < 4 {
		t.Error(len(all), "files", err)
	}
	return all
}

// tables is all that the gateway's account reads; everything else refuses it.
func tables(t *testing.T, a accounts) (all []seen) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), a.gateway)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	names, err := conn.Query(t.Context(), "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm') ORDER BY 1")
	if err != nil {
		t.Fatal(err)
	}
	l, err := pgx.CollectRows(names, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, name := range l {
		rows, err := conn.Query(t.Context(), "SELECT t::text FROM "+name+" t")
		if err != nil {
			continue
		}
		lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
		if err != nil {
			continue
		}
		open = append(open, name)
		all = append(all, seen{"the table " + name, []byte(strings.Join(lines, "\n"))})
	}
	if want := []string{"clients", "codes", "consents", "epochs", "families", "found", "goose_db_version", "sessions", "tasks"}; !slices.Equal(open, want) {
		t.Errorf("the gateway's account reads %v, want %v", open, want)
	}
	for _, q := range []string{"UPDATE users SET groups = '[\"admins\"]'", "DELETE FROM epochs", "INSERT INTO grants SELECT * FROM grants", "INSERT INTO audit SELECT * FROM audit", "UPDATE epoch_counter SET value = 0",
		"UPDATE connections SET user_id = ''", "SELECT access FROM connections", "SELECT sealed FROM keys", "SELECT verifier FROM flows", "SELECT hash FROM tickets", "CREATE TABLE mine (a TEXT)"} {
		if _, err := conn.Exec(t.Context(), q); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("%s: %v", q, err)
		}
	}
	return all
}
