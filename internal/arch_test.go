package internal

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "frontdesk.dev/frontdesk/"

// floors lists every package from the ground up. A package may import only lower floors, never sideways.
var floors = [][]string{
	{"internal/kit/fault", "internal/kit/secret", "internal/kit/outbound", "internal/kit/redact", "internal/kit/conf", "internal/kit/dpop"},
	{"internal/kit/jwt", "internal/kit/oauth", "internal/kit/mcp", "internal/kit/web"},
	{"internal/identity", "internal/catalog/openapi"},
	{"internal/catalog", "internal/catalog/live", "internal/audit"},
	{"internal/policy", "internal/policy/pack", "internal/policy/content", "internal/vault", "internal/vault/keyring", "internal/vault/kms", "internal/hosted/sandbox", "internal/hosted/image"},
	{"internal/exchange", "internal/exchange/refresh", "internal/exchange/federation", "internal/connect", "internal/connect/discovery", "internal/connect/intake", "internal/hosted", "internal/ending"},
	{"internal/broker", "internal/broker/booking", "internal/broker/traffic", "internal/broker/visits", "internal/broker/remote/frame", "internal/gateway/inbound", "internal/gateway/traits", "internal/gateway/sessions", "internal/gateway/streams", "internal/catalog/rehearsal"},
	{"internal/gateway", "internal/gateway/pending", "internal/egress", "internal/egress/forms", "internal/issuer", "internal/portal", "internal/admin", "internal/signals", "internal/broker/remote", "internal/store/database", "internal/store/whole"},
	{"cmd/frontdesk/config", "cmd/frontdesk/console", "internal/store", "internal/store/backup"}, // store stands above the faces, so that it can serve them all and only cmd may import it
	{"cmd/frontdesk/premises", "cmd/frontdesk/operate", "cmd/frontdesk/setup", "cmd/frontdesk/doctor", "cmd/frontdesk/traces", "internal/store/storetest/check"},
	{"cmd/frontdesk", "internal/store/storetest/records", "internal/store/storetest/credentials"},
	{"internal/store/storetest"}, // the contract stands above the store that it tries, and nothing of the product on it
}

// nested are the imports that go sideways by design: packages of one room, and the one error vocabulary.
var nested = map[string]string{"internal/catalog/live": "internal/catalog", "internal/vault": "internal/vault/keyring", "internal/store/backup": "internal/store", "internal/store/whole": "internal/store/database", "internal/policy/content": "internal/policy", "internal/broker/traffic": "internal/broker", "internal/broker/visits": "internal/broker", "internal/broker": "internal/broker/booking", "internal/exchange": "internal/exchange/refresh", "internal/exchange/federation": "internal/exchange", "internal/connect": "internal/connect/discovery",
	"internal/kit/outbound": "internal/kit/fault", "internal/kit/dpop": "internal/kit/secret", "internal/kit/oauth": "internal/kit/jwt", "internal/gateway": "internal/gateway/pending", "internal/egress": "internal/egress/forms", "internal/hosted/image": "internal/hosted/sandbox", "cmd/frontdesk/doctor": "cmd/frontdesk/premises"}

// outside are trees that are no part of the product's floors; they may import anything but are imported by nothing here.
var outside = []string{"test/", "bench", "docs/", "deploy/"}

// doors are the ways to reach the network; only kit/outbound may use them.
var doors = []string{"http.DefaultClient", "http.DefaultTransport", "http.Client{", "new(http.Client)", "http.Get(", "http.Post(", "net.Dial", "tls.Dial"}

// blind rooms never hold a credential: a lease sends for them.
var blind = map[string]bool{"internal/gateway": true, "internal/gateway/inbound": true, "internal/gateway/traits": true, "internal/gateway/sessions": true, "internal/gateway/streams": true, "internal/gateway/pending": true, "internal/egress": true, "internal/egress/forms": true, "internal/issuer": true, "internal/portal": true, "internal/admin": true, "internal/signals": true}

func TestFloors(t *testing.T) {
	floor := map[string]int{}
	for i, pkgs := range floors {
		for _, p := range pkgs {
			floor[p] = i
			if _, err := os.Stat("../" + p); err != nil {
				t.Errorf("the plan names a package that is gone: %v", err)
			}
		}
	}
	for _, f := range productFiles(t) {
		here, ok := floor[f.pkg]
		if !ok {
			t.Errorf("%s is on no floor: add it to the plan", f.pkg)
			continue
		}
		for _, imp := range f.imports {
			dep, ours := strings.CutPrefix(imp, module)
			if !ours {
				continue
			}
			if at, known := floor[dep]; (!known || at >= here) && nested[f.pkg] != dep {
				t.Errorf("%s (floor %d) imports %s (floor %d)", f.path, here, dep, at)
			}
			if dep == "internal/store/database" && !strings.HasPrefix(f.pkg, "internal/store") {
				t.Errorf("%s: the database is spoken to in the store alone", f.path)
			}
			if dep == "internal/kit/secret" && blind[f.pkg] {
				t.Errorf("%s: this room may not hold secrets", f.path)
			}
		}
	}
}

func TestOneDoorToTheWorld(t *testing.T) {
	for _, f := range productFiles(t) {
		for _, door := range doors {
			if f.pkg != "internal/kit/outbound" && strings.Contains(f.text, door) {
				t.Errorf("%s opens its own door to the world: %s", f.path, door)
			}
		}
		if blind[f.pkg] && strings.Contains(f.text, ".Expose()") {
			t.Errorf("%s: this room may not see secrets", f.path)
		}
		// kit/outbound hands x/oauth2 its client in the only way that it takes one.
		if f.pkg != "internal/kit/web" && f.pkg != "internal/kit/outbound" && strings.Contains(f.text, "context.WithValue") {
			t.Errorf("%s: the caller is an argument, never fished from a context", f.path)
		}
		if strings.Contains(f.text, "\nfunc init()") {
			t.Errorf("%s: no init functions", f.path)
		}
	}
}

func TestTheWaistStaysSmall(t *testing.T) {
	lines := 0
	for _, f := range productFiles(t) {
		if f.pkg == "internal/broker" && f.path != "../internal/broker/broker.go" {
			for line := range strings.Lines(f.text) {
				if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "//") {
					lines++
				}
			}
		}
	}
	if lines == 0 || lines > 300 {
		t.Errorf("the broker has %d lines of code beside its contract, want 1 to 300: rules go to policy, mechanics to exchange", lines)
	}
}

type productFile struct {
	path, pkg, text string
	imports         []string
}

// productFiles reads the files themselves rather than asking the go command, so that the test cache sees edits.
func productFiles(t *testing.T) []productFile {
	t.Helper()
	var files []productFile
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		pkg := filepath.ToSlash(filepath.Dir(strings.TrimPrefix(path, "../")))
		for _, o := range outside {
			if strings.HasPrefix(pkg+"/", o) || strings.HasPrefix(pkg, o) {
				return nil
			}
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ImportsOnly)
		if err != nil {
			return err
		}
		f := productFile{path: path, pkg: pkg, text: string(src)}
		for _, spec := range file.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			f.imports = append(f.imports, imp)
		}
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 20 {
		t.Fatalf("only %d files were found: the test looks in the wrong place", len(files))
	}
	return files
}
