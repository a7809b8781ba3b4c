package stage_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/internal/catalog/live"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// TestUnprovenFactsAreSeen: what an entry says without proof is held against the first answers of the vendor. The operator is told what
// fits and what does not, also after a restart; nothing that the vendor sent stands there.
func TestUnprovenFactsAreSeen(t *testing.T) {
	s := start(t, stage.Options{Allow: "[everyone]"})
	d := s.Desk()
	rewrite(t, d, "id_pointer: /id}", "id_pointer: /uuid}\n    unproven: [account.id_pointer, account_label, access_token_lifetime, refresh, token_shapes, revocation, errors, pkce]")
	if out, err := d.Run("reload"); err != nil {
		t.Fatal(out)
	}
	// seen is the verdict on each fact.
	seen := func() map[string]live.Verdict {
		t.Helper()
		out, err := d.Run("providers", "seen", "--json")
		var l []live.Fact
		if err != nil || json.Unmarshal([]byte(out), &l) != nil {
			t.Fatal(err, out)
		}
		if strings.Contains(out, "octo-") {
			t.Errorf("the vendor's words stand there: %s", out)
		}
		m := map[string]live.Verdict{}
		for _, f := range l {
			m[f.Fact] = f.Verdict
			if said := f.Said != "" && !f.At.IsZero(); said != (f.Verdict == live.Fits || f.Verdict == live.Differs) {
				t.Errorf("%+v", f)
			}
		}
		return m
	}
	is := func(when string, want map[string]live.Verdict) {
		t.Helper()
		got := seen()
		for fact, v := range want {
			if got[fact] != v {
				t.Errorf("%s, %s is %q, want %q", when, fact, got[fact], v)
			}
		}
	}
	is("before anybody has connected", map[string]live.Verdict{"account.id_pointer": live.Unseen, "refresh": live.Unseen, "errors": live.Unseen, "pkce": live.ByHand})

	a := agent(t, world.AgentConfig{URL: d.MCP("modern"), Name: "agent", Era: world.Era2026July, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if got := whoami(t, a); !strings.Contains(got, "octo-alice") {
		t.Fatal(got)
	}
	connected := map[string]live.Verdict{"account.id_pointer": live.Differs, "account_label": live.Fits, "access_token_lifetime": live.Fits, "refresh": live.Fits, "token_shapes": live.Unseen,
		"revocation": live.Unseen, "errors": live.Unseen, "pkce": live.ByHand}
	is("once somebody has connected", connected)
	if out, _ := d.Run("doctor"); !strings.Contains(out, "upstream tracker is not as its entry says, where that was unproven (account.id_pointer)") {
		t.Errorf("doctor: %s", out)
	}
	if out, err := d.Run("providers", "seen"); err != nil || !strings.Contains(out, "the answer to the account's call has nothing at /uuid") {
		t.Error(err, out)
	}

	// The API refuses a token, and the connection ends.
	if err := s.Tracker.ExpireAccess("octo-alice"); err != nil {
		t.Fatal(err)
	}
	call(t, a, "whoami", nil)
	if out, err := d.Run("connections", "revoke", "--upstream", "tracker", "--wait"); err != nil {
		t.Fatal(err, out)
	}
	connected["errors"], connected["revocation"] = live.Fits, live.Fits
	is("once an answer refused and the connection has ended", connected)

	if err := errors.Join(d.Kill(), d.Start(within(t))); err != nil {
		t.Fatal(err)
	}
	is("after a restart", connected)

	// The entry is mended: what differed before is not held against it any more once the fact is no longer unproven.
	rewrite(t, d, "/uuid", "/id", "unproven: [account.id_pointer, ", "unproven: [")
	if out, err := d.Run("reload"); err != nil {
		t.Fatal(out)
	}
	if got := seen(); got["account.id_pointer"] != "" || got["errors"] != live.Fits {
		t.Errorf("after the entry was mended: %v", got)
	}
}
