package setup

import (
	"os"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/internal/catalog"
)

// TestInitStartsEveryProvider: what init writes for any vendor is a config that check accepts once it is filled in, and none
// before where something is to be filled in.
func TestInitStartsEveryProvider(t *testing.T) {
	all, err := catalog.Providers()
	if err != nil {
		t.Fatal(err)
	}
	// Inputs are hosts mostly; where a vendor's pattern wants more than a name, that.
	fill := map[string]string{"databricks": "acme.cloud.databricks.com", "workday": "acme.workday.com", "mailchimp": "us19", "quickbooks": `"1234567890"`,
		"trello": "0123456789abcdef0123456789abcdef", "twilio": "AC0123456789abcdef0123456789abcdef"}
	for id, p := range all {
		dir := t.TempDir()
		t.Chdir(dir)
		t.Setenv(secretVariable(p), "s")
		text := starter(p)
		filling, ok := fill[id]
		if !ok {
			filling = "acme"
		}
		for name, body := range map[string]string{"idp.secret": "s", "empty.yaml": text,
			"filled.yaml": strings.ReplaceAll(strings.NewReplacer("client_id: "+config.FillIn, "client_id: x", "tenant: "+config.FillIn, "tenant: acme", "cloud_id: "+config.FillIn, "cloud_id: 11223344-a1b2-4c3d-9e8f-001122334455", "region: "+config.FillIn, "region: eu-central-1",
				"role_arn: "+config.FillIn, "role_arn: arn:aws:iam::123456789012:role/agents", "installation_id: \""+config.FillIn, "installation_id: \"42").Replace(text), config.FillIn, filling)} {
			if err := os.WriteFile(name, []byte(body), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := config.Checked("filled.yaml"); err != nil {
			t.Errorf("%s, filled in:\n%v", id, err)
		}
		if _, err := config.Checked("empty.yaml"); strings.Contains(text, config.FillIn) == (err == nil) {
			t.Errorf("%s, not filled in: %v", id, err)
		}
		if said := next(p); !strings.Contains(said, p.Name) || p.OAuth != nil && !strings.Contains(said, "/callback/"+id) {
			t.Errorf("%s: init says\n%s", id, said)
		}
	}
}
