package stage_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"frontdesk.dev/frontdesk/test/pg"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// accounts are the two of a database: its owner, whom the broker is, and the gateway's.
type accounts struct {
	broker, gateway, name string
}

func twoAccounts(t *testing.T) accounts {
	t.Helper()
	root := pg.Start(t)
	cfg, err := pgx.ParseConfig(root)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	owner, name := "b_"+cfg.Database, "g_"+cfg.Database
	for _, q := range []string{"CREATE ROLE " + owner + " LOGIN", "CREATE ROLE " + name + " LOGIN", "ALTER DATABASE " + cfg.Database + " OWNER TO " + owner, "ALTER SCHEMA public OWNER TO " + owner} {
		if _, err := conn.Exec(t.Context(), q); err != nil {
			t.Fatal(q, err)
		}
	}
	as := func(user string) string { return strings.Replace(root, "user=postgres", "user="+user, 1) }
	if as("x") == root {
		t.Fatal("the DSN names nobody: ", root)
	}
	return accounts{as(owner), as(name), name}
}

func (a accounts) domains(t *testing.T) *stage.Domains {
	return &stage.Domains{Gateway: a.gateway, Account: a.name, Grant: func(ctx context.Context, statements string) error {
		conn, err := pgx.Connect(ctx, a.broker)
		if err != nil {
			return err
		}
		_, err = conn.Exec(ctx, statements)
		return errors.Join(err, conn.Close(ctx))
	}}
}

// TestTwoDomains is the story with gateway and broker as two processes over PostgreSQL, an account for each: sign-in, connection, a call
// through egress and one to the vendor's own server, in every era; and what operators ask.
func TestTwoDomains(t *testing.T) {
	a := twoAccounts(t)
	s := start(t, stage.Options{Database: a.broker, Domains: a.domains(t), Allow: "[group:engineering]"})
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Desk().Broker.Log())
		}
	})
	ctx := within(t)
	for server, era := range map[string]string{"issues": world.Era2025November, "modern": world.Era2026July, "tracker": world.Era2025November} {
		t.Run(server, func(t *testing.T) {
			person := s.Person("alice", "Connect Tracker", "Done")
			agent := agent(t, world.AgentConfig{URL: s.Desk().MCP(server), Name: "an agent", Era: era, Browser: person})
			for range 3 {
				r, err := agent.Call(ctx, "whoami", nil)
				if err != nil || r.IsError || !strings.Contains(world.Text(r), "octo-alice") {
					t.Fatal(err, world.Text(r))
				}
			}
		})
	}
	for _, args := range [][]string{{"connections", "list", "--user", "emp-alice"}, {"audit", "tail"}, {"explain", "--user", "emp-alice", "--server", "issues", "--tool", "whoami"}} {
		if out, err := s.Desk().Broker.Run(args...); err != nil || !strings.Contains(out, "tracker") && !strings.Contains(out, "whoami") {
			t.Error(args, err, out)
		}
	}
	if out, err := s.Desk().Run("connections", "list", "--user", "emp-alice"); err == nil || !strings.Contains(out, "ask the broker's") {
		t.Error("the gateway's process tells of connections:", out)
	}
	for d, want := range map[*stage.Desk]string{s.Desk(): "exposure: no key and no stored credential is here", s.Desk().Broker: "opens nothing without the key file"} {
		if out, err := d.Run("doctor"); err != nil || !strings.Contains(out, want) {
			t.Error(out, err)
		}
	}
	for d, want := range map[*stage.Desk]string{s.Desk(): "account, tried: sessions", s.Desk().Broker: "the broker: every credential"} {
		if out, err := d.Run("doctor", "--blast-radius"); err != nil || !strings.Contains(out, want) {
			t.Error(out, err)
		}
	}
	for _, d := range []*stage.Desk{s.Desk(), s.Desk().Broker} {
		if out, err := d.Run("reload"); err != nil {
			t.Error(out, err)
		}
	}
	if out, err := s.Desk().Broker.Run("audit", "verify"); err != nil {
		t.Error(out, err)
	}
}

// TestSeveralOfBoth: two gateways before two brokers. A broker dies, and calls go on at the other one, in every era and at a server that a
// gateway runs; a gateway dies, and they go on at the other gateway.
func TestSeveralOfBoth(t *testing.T) {
	a := twoAccounts(t)
	s := start(t, stage.Options{Database: a.broker, Domains: a.domains(t), Replicas: 2, Servers: ownServer(t)})
	t.Cleanup(func() {
		if t.Failed() {
			for _, d := range s.Desks {
				t.Log(d.Log(), d.Broker.Log())
			}
		}
	})
	s.Pin(0)
	agents := map[string]*world.Agent{"own": connected(t, s, "bob", "own")}
	for server, era := range map[string]string{"issues": world.Era2025November, "modern": world.Era2026July, "tracker": world.Era2025November} {
		agents[server] = agent(t, world.AgentConfig{URL: s.Desk().MCP(server), Name: "an agent", Era: era, Browser: s.Person("alice", "Connect Tracker", "Done")})
	}
	all := func(when string) {
		t.Helper()
		for server, agent := range agents {
			until(t, server+" answers "+when, func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				r, err := agent.Call(ctx, "whoami", nil)
				return err == nil && !r.IsError && strings.Contains(world.Text(r), "octo-")
			})
		}
	}
	all("at the first gateway")
	s.Pin(1)
	all("at the second gateway")
	s.Pin(0)
	if err := s.Desks[0].Broker.Kill(); err != nil {
		t.Fatal(err)
	}
	all("at the first gateway, without its broker")
	s.Pin(1)
	all("at the second gateway")
	if out, err := s.Desks[0].Run("doctor"); err == nil || strings.Count(out, "answers\n") == 0 || strings.Count(out, "does not answer") != 1 || strings.Count(out, "the broker at ") != 2 {
		t.Error("doctor at the first gateway:", err, out)
	}
	if err := s.Desks[0].Kill(); err != nil {
		t.Fatal(err)
	}
	issues, modern := agents["issues"], agents["modern"]
	delete(agents, "issues") // whose servers know the first one's egress alone
	delete(agents, "modern")
	all("at the second gateway, which is alone")
	agents["issues"], agents["modern"] = issues, modern
	for _, d := range []*stage.Desk{s.Desks[0].Broker, s.Desks[0]} {
		if err := d.Start(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	s.Pin(0)
	all("at the first gateway, which is back")
	if out, err := s.Desks[1].Broker.Run("audit", "verify"); err != nil {
		t.Error(out, err)
	}
}
