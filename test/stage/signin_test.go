package stage_test

import (
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/authserver"
)

// TestIdPWithoutOfflineAccess: an IdP that gives nothing for when people are away lets them in once the config does not ask for it;
// until then the page says what to write.
func TestIdPWithoutOfflineAccess(t *testing.T) {
	s := start(t, stage.Options{})
	s.IdP.SetFaults(authserver.Faults{NoOffline: true})
	signIn := func() error {
		_, err := agent(t, world.AgentConfig{URL: s.Desk().MCP("modern"), Name: "a", Era: world.Era2026July, Browser: s.Person("alice", later)}).Tools(within(t))
		return err
	}
	if err := signIn(); err == nil || !strings.Contains(err.Error(), "idp.offline_access: false") {
		t.Errorf("refused: %v", err)
	}
	rewrite(t, s.Desk(), `audiences: ["api://frontdesk"]}`, `audiences: ["api://frontdesk"], offline_access: false}`)
	if out, err := s.Desk().Run("reload"); err != nil {
		t.Fatal(out)
	}
	if err := signIn(); err != nil {
		t.Error(err)
	}
	if out, err := s.Desk().Run("connections", "list", "--user", "emp-alice", "--json"); err != nil || strings.Contains(out, "idp:login") {
		t.Errorf("something was kept: %v %s", err, out)
	}
}
