package stage_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// twoRoles is a gateway and its broker, with an agent of alice's, who has connected the tracker.
func twoRoles(t *testing.T) (*stage.Stage, *world.Agent) {
	t.Helper()
	a := twoAccounts(t)
	s := start(t, stage.Options{Database: a.broker, Domains: a.domains(t)})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Desk().Broker.Log())
		}
	})
	alice := agent(t, world.AgentConfig{URL: s.Desk().MCP("issues"), Name: "an agent", Era: world.Era2025November, Browser: s.Person("alice", "Connect Tracker", "Done")})
	serves(t, alice, "to begin with")
	return s, alice
}

// serves waits until an agent of alice's is answered.
func serves(t *testing.T, a *world.Agent, when string) {
	t.Helper()
	until(t, "alice is served "+when, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		r, err := a.Call(ctx, "whoami", nil)
		return err == nil && !r.IsError && strings.Contains(world.Text(r), "octo-alice")
	})
}

// TestBrokerStopsAndIsAway: a call that runs when its broker is asked to stop ends well, with its outcome on record. While none is there, agents,
// people and operators are told so, nothing reaches a server, and all goes on by itself afterwards.
func TestBrokerStopsAndIsAway(t *testing.T) {
	s, alice := twoRoles(t)
	d := s.Desk()
	type outcome struct {
		text string
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		r, err := alice.Call(within(t), "slow", map[string]any{"steps": 40, "every_ms": 50})
		if err != nil {
			done <- outcome{"", err}
			return
		}
		done <- outcome{world.Text(r), nil}
	}()
	until(t, "the call runs", func() bool { return s.Legacy.Running() > 0 })
	if err := d.Broker.Stop(); err != nil {
		t.Error(err)
	}
	if got := <-done; got.err != nil || !strings.Contains(got.text, "40 steps done") {
		t.Errorf("the call that ran: %q, %v", got.text, got.err)
	}
	until(t, "the gateway is not ready", func() bool { return status(d.Ops+"/readyz") == http.StatusServiceUnavailable })
	if got := status(d.Ops + "/healthz"); got != http.StatusOK {
		t.Errorf("health: %d; a restart would help nobody", got)
	}
	before := s.Legacy.Count("/mcp")
	r, err := alice.Call(within(t), "whoami", nil)
	said := fmt.Sprint(err)
	if err == nil {
		said = world.Text(r)
	}
	if err == nil && !r.IsError || !strings.Contains(said, "try again") {
		t.Errorf("an agent is told %q", said)
	}
	if n := s.Legacy.Count("/mcp"); n != before {
		t.Errorf("%d requests reached the server", n-before)
	}
	person := s.Person("alice")
	if err := person.Open(within(t), d.Public+"/portal/"); err == nil || !strings.Contains(person.Page().Text(), "try again") {
		t.Errorf("a person is told: %v %s", err, person.Page().Text())
	}
	if out, err := d.Run("doctor"); err == nil || !strings.Contains(out, "does not answer") {
		t.Error("an operator is told:", err, out)
	}
	if err := d.Broker.Start(within(t)); err != nil {
		t.Fatal(err)
	}
	serves(t, alice, "when it is back")
	if out, err := d.Broker.Run("audit", "tail", "--json"); err != nil || strings.Contains(out, `"unknown"`) {
		t.Error("the outcome of what ran is not on record:", err, out)
	}
	if out, err := d.Broker.Run("audit", "verify"); err != nil {
		t.Error(err, out)
	}
}

// TestPairingIsRenewed: the certificates of the gateway and of the broker are changed for others in the order that the docs say, while both
// run and calls go on; at each step neither refuses the other one, a session and what is open stay, and the old ones let nobody in afterwards.
func TestPairingIsRenewed(t *testing.T) {
	s, _ := twoRoles(t)
	d := s.Desk()
	alice := agent(t, world.AgentConfig{URL: d.MCP("modern"), Name: "another agent", Era: world.Era2026July, Browser: s.Person("alice", later)})
	session := agent(t, world.AgentConfig{URL: d.MCP("issues"), Name: "an agent with a session", Era: world.Era2025November, Browser: s.Person("alice", later)})
	home, far, fresh := filepath.Dir(d.ConfigPath), filepath.Dir(d.Broker.ConfigPath), t.TempDir()
	if out, err := exec.Command(d.Binary, "pair", fresh).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	read := func(dir, name string) []byte {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	write := func(dir, name string, text []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	serves(t, session, "before")
	during, stop := context.WithCancel(t.Context())
	var calls, refused atomic.Int32
	var background sync.WaitGroup
	background.Go(func() {
		pace := time.NewTicker(150 * time.Millisecond) // domains.releases bounds a person
		defer pace.Stop()
		for during.Err() == nil {
			<-pace.C
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			if r, err := alice.Call(ctx, "whoami", nil); err != nil || r.IsError {
				refused.Add(1)
			}
			calls.Add(1)
			cancel()
		}
	})
	defer background.Wait()
	defer stop()
	const anew = "were read anew"
	oldCert, oldKey := read(home, "gateway.crt"), read(home, "gateway.key")
	step := func(where *stage.Desk, what string, change func()) {
		t.Helper()
		before, n := len(where.LogLines(anew)), calls.Load()
		change()
		until(t, what+": it is read anew", func() bool { return len(where.LogLines(anew)) > before })
		until(t, what+": calls go on", func() bool { return calls.Load() >= n+3 })
		serves(t, session, what)
	}
	for _, side := range []struct {
		own, other *stage.Desk
		name       string
		home, far  string
	}{{d, d.Broker, "gateway", home, far}, {d.Broker, d, "broker", far, home}} {
		crt, key := side.name+".crt", side.name+".key"
		step(side.other, "with both of the "+side.name+"'s known", func() { write(side.far, crt, append(read(side.far, crt), read(fresh, crt)...)) })
		step(side.own, "with the new one of the "+side.name, func() {
			write(side.home, crt, read(fresh, crt))
			write(side.home, key, read(fresh, key))
		})
		step(side.other, "with the new one of the "+side.name+" alone", func() { write(side.far, crt, read(fresh, crt)) })
	}
	stop()
	background.Wait()
	if refused.Load() > 0 {
		t.Errorf("of %d calls meanwhile %d were refused", calls.Load(), refused.Load())
	}
	if out, err := d.Run("doctor"); err != nil || strings.Count(out, ".crt lasts until 20") != 2 {
		t.Error("doctor:", err, out)
	}
	write(home, "gateway.key", []byte("half of it"))
	until(t, "doctor says that new files cannot be used", func() bool {
		out, err := d.Run("doctor")
		return err != nil && strings.Contains(out, "new certificates between gateway and broker are not used")
	})
	serves(t, session, "with a file that cannot be used")
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	write(home, "gateway.crt", oldCert)
	write(home, "gateway.key", oldKey)
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Second)
	defer cancel()
	if err := d.Start(ctx); err == nil {
		t.Error("the old certificate lets a gateway in")
	}
}

// TestTwoDomainsOperated: what operators do beside a broker, and what comes of it at its gateway: connections are taken over, data keys and
// the key that wraps them are changed, while agents go on.
func TestTwoDomainsOperated(t *testing.T) {
	s, alice := twoRoles(t)
	d := s.Desk()
	file := filepath.Join(t.TempDir(), "old.csv")
	key := s.Tracker.NewAPIKey("octo-dora", world.ScopeRead, world.ScopeWrite)
	if err := os.WriteFile(file, []byte("subject,upstream,access_token,refresh_token,api_key,scopes,account\nemp-dora,tracker,,,"+key+",,\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := d.Run("connections", "import", file, "--new-people"); err == nil {
		t.Error("the gateway's process takes connections over:", out)
	}
	if out, err := d.Broker.Run("connections", "import", file, "--new-people"); err != nil || !strings.Contains(out, "1 stored") {
		t.Fatal(err, out)
	}
	dora := agent(t, world.AgentConfig{URL: d.MCP("modern"), Name: "of dora", Era: world.Era2026July, Browser: s.Person("dora", later)})
	if text := world.Text(call(t, dora, "whoami", nil)); !strings.Contains(text, "octo-dora") {
		t.Error("what was taken over does not serve:", text)
	}
	if out, err := d.Broker.Run("keys", "rotate"); err != nil {
		t.Fatal(err, out)
	}
	serves(t, alice, "with a new data key on its way")
	if out, err := d.Broker.Run("audit", "verify", "--vault"); err != nil {
		t.Error(err, out)
	}
	// Another wrapping key, for which the broker alone is started anew.
	far := filepath.Dir(d.Broker.ConfigPath)
	if out, err := exec.Command(d.Binary, "keys", "make", filepath.Join(far, "next")).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	rewrite(t, d.Broker, "vault: "+filepath.Join(far, "vault.key"), "vault: "+filepath.Join(far, "next", "vault.key")+", previous: {file: "+filepath.Join(far, "vault.key")+"}")
	if err := d.Broker.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := d.Broker.Start(within(t)); err != nil {
		t.Fatal(err)
	}
	serves(t, alice, "under another wrapping key")
	if text := world.Text(call(t, dora, "whoami", nil)); !strings.Contains(text, "octo-dora") {
		t.Error("dora, under another wrapping key:", text)
	}
	for _, place := range image(t, d.Pid()) {
		if form := ofText("dora's key", key).in(place.text); form != "" {
			t.Errorf("%s holds what was taken over (%s)", place.where, form)
		}
	}
}
