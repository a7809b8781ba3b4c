package stage_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/authserver"
	"frontdesk.dev/frontdesk/test/world/capture"
)

const canary = "canary-5f2b9c71d0e84a66"

// seen is what one party got to see or a place holds.
type seen struct {
	where string
	text  []byte
}

// TestLeavesNoTrace drives credentials of every kind through every path there is, the failing ones too, at debug level and with
// every trace kept; then nothing of them is found, in any of the forms that package capture knows, in logs, traces, metrics, the
// audit log, answers of commands, pages, what agents and servers got, the files of the deployment, and a backup. Each place is
// searched for a canary that is planted there as well, so that a search that finds nothing has shown that it can find.
func TestLeavesNoTrace(t *testing.T) {
	got := &spans{}
	collector := httptest.NewServer(got)
	t.Cleanup(collector.Close)
	s := start(t, stage.Options{Config: "telemetry: {traces: " + collector.URL + ", sample: 100%, log_level: debug}\n", Tracker: world.TrackerConfig{AccessLifetime: 2 * time.Second}})
	w := &walk{t: t, s: s}
	wrong := w.drive(within(t))

	secrets := map[string]string{w.key: "a pasted key", wrong: "a key that no vendor knows", world.FrontdeskSecret: "our client secret"}
	kinds := map[string]int{}
	for _, token := range s.Tracker.Tokens() {
		secrets[token.Value] = "a " + token.Kind + " of the tracker"
		kinds[token.Kind]++
	}
	for _, token := range s.IdP.Tokens() {
		if token.Kind == "refresh" { // the home credential; access tokens are the agents' own
			secrets[token.Value] = "a home credential"
			kinds["home"]++
		}
	}
	if kinds["code"] == 0 || kinds["access"] < 3 || kinds["refresh"] < 3 || kinds["home"] == 0 {
		t.Errorf("too little was given out: %v", kinds)
	}
	memory(t, s.Desk().Pid(), secrets)
	for _, place := range w.places(got) {
		hits, lower := 0, bytes.ToLower(place.text)
		for secret, what := range secrets {
			for _, f := range capture.Forms(secret) {
				if found(place.text, lower, f) {
					t.Errorf("%s holds %s (%s)", place.where, what, f.Name)
				}
			}
		}
		planted := bytes.Clone(place.text)
		for _, f := range capture.Forms(canary) {
			planted = append(append(planted, f.Text...), '\n')
		}
		lower = bytes.ToLower(planted)
		for _, f := range capture.Forms(canary) {
			if found(planted, lower, f) {
				hits++
			}
		}
		if hits != len(capture.Forms(canary)) || len(place.text) == 0 {
			t.Errorf("%s: %d bytes, and of %d planted forms %d were found", place.where, len(place.text), len(capture.Forms(canary)), hits)
		}
	}
}

// found looks for a form; lower is the text in small letters, for forms whose digits may be either.
func found(text, lower []byte, f capture.Form) bool {
	if f.AnyCase {
		return bytes.Contains(lower, bytes.ToLower([]byte(f.Text)))
	}
	return bytes.Contains(text, []byte(f.Text))
}

// drive takes everybody's credentials everywhere; it returns a key that no vendor knows, which somebody pasted.
func (w *walk) drive(ctx context.Context) (wrong string) {
	t, s := w.t, w.s
	wrong = "trk_" + strings.Repeat("0123456789abcdef", 2)
	alice := s.Person("alice", "Connect Tracker", "Done")
	w.people = append(w.people, alice.Browser)
	a := w.agent("issues", world.Era2025November, alice)
	ok := func(r *mcp.CallToolResult, err error) {
		t.Helper()
		if err != nil || r.IsError {
			t.Fatal(r, err)
		}
	}
	// By code, through egress, to an API that says the credential back, plainly and compressed, or breaks, or refuses.
	ok(a.Call(ctx, "whoami", nil))
	ok(a.Call(ctx, "fetch", map[string]any{"path": "/echo"}))
	ok(a.Call(ctx, "fetch", map[string]any{"path": "/echo", "method": http.MethodPost, "body": "{}"}))
	_, _ = a.Call(ctx, "fetch", map[string]any{"path": "/gzip"}) // what comes of it is not the question here, nor of the rest
	_, _ = a.Call(ctx, "fetch", map[string]any{"path": "/nothing-there"})
	for _, f := range []authserver.Faults{{Status: http.StatusInternalServerError}, {Down: true}} {
		s.Tracker.SetFaults(f)
		_, _ = a.Call(ctx, "whoami", nil)
		s.Tracker.SetFaults(authserver.Faults{})
	}
	// To the vendor's own server, in its header.
	vendor := s.Person("alice", "Connect Tracker", "Done")
	w.people = append(w.people, vendor.Browser)
	_, _ = w.agent("tracker", world.Era2025November, vendor).Call(ctx, "whoami", nil)
	// Renewed in time; then the vendor gives half an answer to a renewal, and refuses one; and the API a token that still lives.
	for range 2 {
		n := len(s.Tracker.Redemptions())
		until(t, "the token is renewed", func() bool { _, _ = a.Call(ctx, "whoami", nil); return len(s.Tracker.Redemptions()) > n })
		s.Tracker.SetFaults(authserver.Faults{Path: "/oauth/token", Times: 1, EditToken: func(body map[string]any) { body["access_token"] = 5 }})
	}
	if err := errors.Join(s.Tracker.FailNextRefresh("octo-alice"), s.Tracker.ExpireAccess("octo-alice")); err != nil {
		t.Fatal(err)
	}
	n := len(s.Tracker.Redemptions())
	until(t, "a renewal is refused", func() bool { _, _ = a.Call(ctx, "whoami", nil); return len(s.Tracker.Redemptions()) > n })
	w.strangers(ctx, wrong)
	// Ended: here, and at the vendor.
	out, err := s.Desk().Run("connections", "list", "--user", "emp-alice", "--json")
	var l []struct{ ID, Upstream string }
	if err != nil || json.Unmarshal([]byte(out), &l) != nil {
		t.Fatal(err, out)
	}
	for _, c := range l {
		if c.Upstream == "tracker" {
			if out, err := s.Desk().Run("connections", "revoke", c.ID); err != nil {
				t.Fatal(err, out)
			}
		}
	}
	_, _ = a.Call(ctx, "whoami", nil)
	w.pastes(ctx, wrong)
	return wrong
}

// pastes: bob pastes a wrong key, then his own.
func (w *walk) pastes(ctx context.Context, wrong string) {
	t, s := w.t, w.s
	rewrite(t, s.Desk(), "methods: [authorization_code, api_key]", "methods: [api_key]")
	if out, err := s.Desk().Run("reload"); err != nil {
		t.Fatal(err, out)
	}
	bob := s.Person("bob", later)
	a := w.agent("modern", world.Era2026July, bob)
	r, err := a.Call(ctx, "whoami", nil)
	if err != nil || !r.IsError {
		t.Fatal(r, err)
	}
	link := world.Text(r)[strings.LastIndex(world.Text(r), "\n")+1:]
	b := s.Person("bob")
	w.people = append(w.people, bob.Browser, b.Browser)
	w.key = s.Tracker.NewAPIKey("octo-bob", world.ScopeRead, world.ScopeWrite)
	for _, key := range []string{wrong, w.key} {
		if err := b.Open(ctx, link); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Click(ctx, "Paste a key"); err != nil {
			t.Fatal(err)
		}
		if err := b.Fill("Key", key); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Click(ctx, "Test and save"); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := a.Call(ctx, "whoami", nil); err != nil || r.IsError || !strings.Contains(world.Text(r), "octo-bob") {
		t.Fatal(r, err)
	}
	s.Tracker.EndAPIKey(w.key)
	_, _ = a.Call(ctx, "whoami", nil)
}

// strangers sends each face what it cannot read, with the key in the places where one could end up.
func (w *walk) strangers(ctx context.Context, wrong string) {
	d := w.s.Desk()
	for _, q := range []struct{ method, url, body string }{
		{http.MethodPost, d.MCP("issues"), `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"` + wrong},
		{http.MethodPost, d.MCP("modern"), `{"jsonrpc":"2.0","id":1,"method":"` + wrong + `"}`},
		{http.MethodPost, d.Egress + "/egress/tracker/user", wrong},
		{http.MethodGet, d.Egress + "/egress/nowhere/" + wrong, ""},
		{http.MethodPost, d.Public + "/token", "grant_type=refresh_token&refresh_token=" + wrong + "&client_id=x"},
		{http.MethodPost, d.Public + "/token", "grant_type=authorization_code&code=%ZZ" + wrong},
		{http.MethodPost, d.Public + "/register", `{"redirect_uris":["` + wrong},
		{http.MethodGet, d.Public + "/callback/tracker?state=x&code=" + wrong, ""},
		{http.MethodGet, d.Public + "/callback/idp:login?state=x&error=" + wrong, ""},
		{http.MethodPost, d.Public + "/connect/" + wrong, "key=" + wrong},
		{http.MethodPost, d.Public + "/portal/", "x=" + wrong},
	} {
		r, err := http.NewRequestWithContext(ctx, q.method, q.url, strings.NewReader(q.body))
		if err != nil {
			w.t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+wrong)
		r.Header.Set("X-Api-Key", wrong)
		r.Header.Set("Traceparent", "00-"+wrong)
		r.Header.Set("Content-Type", map[bool]string{true: "application/json", false: "application/x-www-form-urlencoded"}[strings.HasPrefix(q.body, "{")])
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			w.t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			w.t.Fatal(err)
		}
		w.answers = append(w.answers, fmt.Appendf(nil, "%v\n%s\n", resp.Header, body)...)
	}
}

// walk is one way through everything.
type walk struct {
	t       *testing.T
	s       *stage.Stage
	agents  []*world.Agent
	people  []*world.Browser
	answers []byte // that strangers got
	key     string // bob's
}

func (w *walk) agent(server, era string, person *world.Person) *world.Agent {
	a := agent(w.t, world.AgentConfig{URL: w.s.Desk().MCP(server), Name: "an agent", Era: era, Browser: person})
	w.agents = append(w.agents, a)
	return a
}

// places collects what there is to be searched. The server is stopped by it: a stop writes the last traces.
func (w *walk) places(got *spans) []seen {
	t, d := w.t, w.s.Desk()
	all := []seen{{"what strangers were answered", w.answers}}
	add := func(where string, text []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(where, err, string(text))
		}
		all = append(all, seen{where, text})
	}
	file := filepath.Join(t.TempDir(), "a.backup")
	for _, args := range [][]string{{"audit", "export"}, {"audit", "tail"}, {"doctor", "--json"}, {"connections", "list", "--user", "emp-bob", "--json"}, {"backup", file, "--config", d.ConfigPath}} {
		out, err := d.Run(args...)
		add("frontdesk "+args[0]+" "+args[1], []byte(out), err)
	}
	b, err := os.ReadFile(file)
	add("the backup", b, err)
	resp, err := http.Get(d.Ops + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	b, err = io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	add("the metrics", b, err)
	resp, err = http.Get(d.Ops + "/debug/pprof/goroutine?debug=2")
	if err != nil {
		t.Fatal(err)
	}
	b, err = io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	add("the goroutines", b, err)
	for _, a := range w.agents {
		add("an agent", written(a.Recorder.Entries(), ""), nil)
	}
	add("the MCP servers", append(written(w.s.Legacy.Recorder.Entries(), ""), written(w.s.Modern.Recorder.Entries(), "")...), nil)
	for _, p := range w.people {
		add("pages", written(p.Recorder.Entries(), d.Public), nil)
	}
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	got.mu.Lock()
	add("the traces", []byte(got.raw.String()), nil)
	got.mu.Unlock()
	add("the log", []byte(d.Log()), nil)
	err = filepath.WalkDir(d.Dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if len(b) > 0 {
			add(e.Name(), b, err)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// written is what a party saw; with an origin only what came from there, without the addresses that lead there from elsewhere.
func written(entries []capture.Entry, from string) []byte {
	var b bytes.Buffer
	for _, e := range entries {
		if from != "" && (e.Way != "received" || !strings.Contains(e.What, " "+from)) {
			continue
		}
		if from == "" {
			b.WriteString(e.What + "\n")
		}
		fmt.Fprintf(&b, "%v\n%s\n", e.Header, e.Body)
	}
	return b.Bytes()
}

// memory counts in how many places of the process's memory each kind of secret stands, as it is. It is measured and not
// promised: what is on its way, cached for the next call, or not yet collected is there (docs/security.md).
func memory(t *testing.T, pid int, secrets map[string]string) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Logf("memory could not be read, as it should be for all but root: %v", err)
		return
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		t.Logf("memory could not be read, as it should be for all but root: %v", err)
		return
	}
	defer func() { _ = mem.Close() }()
	count, size := map[string]int{}, 0
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var rights string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &rights); n != 3 || !strings.HasPrefix(rights, "rw") || to-from > 1<<30 {
			continue
		}
		b := make([]byte, to-from)
		n, _ := mem.ReadAt(b, from) // what was unmapped meanwhile cannot be read
		size += n
		for secret, what := range secrets {
			count[what] += bytes.Count(b[:n], []byte(secret))
		}
	}
	t.Logf("of %d secrets, in %d MB of memory: %v", len(secrets), size>>20, count)
}
