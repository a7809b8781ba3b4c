package stage

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"frontdesk.dev/frontdesk/test/world"
)

// Domains cut a Frontdesk in two: gateway and broker, each with a directory and a database account of its own. Options.Database is the
// broker's.
type Domains struct {
	Gateway string                                             // DSN of the gateway's account
	Account string                                             // its name
	Grant   func(ctx context.Context, statements string) error // runs SQL as the owner of the tables
	Config  string                                             // YAML under domains, indented by two
	Keys    string                                             // where the broker takes pasted keys, as http://127.0.0.1:8444; "": the gateway's pages do
}

// divide starts the broker's process, gives the gateway's account its rights, and leaves to the gateway what a gateway's host has:
// no key of the vault, no secret of the company's at anybody, and the broker's certificate without its key.
func (s *Stage) divide(ctx context.Context, d *Desk, o Options) error {
	home := filepath.Dir(d.ConfigPath)
	far := filepath.Join(s.Dir, "broker"+strings.TrimPrefix(filepath.Base(home), "desk"))
	b := &Desk{Binary: d.Binary, Public: d.Public, Egress: d.Egress, role: "broker", Dir: filepath.Join(far, "data"), ConfigPath: filepath.Join(far, "frontdesk.yaml"), listen: d.listen, env: d.env}
	d.role, d.Broker, d.env = "gateway", b, []string{"FRONTDESK_TEST_GATEWAY=" + o.Domains.Gateway}
	address, others, err := s.brokersFor(d)
	if err != nil {
		return err
	}
	if b.Ops, err = world.Port(); err != nil {
		return err
	}
	domains := fmt.Sprintf("domains:\n  address: %s\n  others: [%s]\n  gateway: {cert: file:gateway.crt, key: file:gateway.key}\n  broker: {cert: file:broker.crt, key: file:broker.key, ops: \"%s\"}\n  database: env:FRONTDESK_TEST_GATEWAY\n%s",
		address, others, b.Ops, o.Domains.Config)
	b.Ops = "http://" + b.Ops
	if o.Domains.Keys != "" {
		domains += fmt.Sprintf("  keys: {url: \"%s\", listen: \"%s\"}\n", o.Domains.Keys, strings.TrimPrefix(o.Domains.Keys, "http://"))
	}
	if err := s.alike(d, far); err != nil {
		return err
	}
	if out, err := exec.Command(d.Binary, "pair", far).CombinedOutput(); err != nil {
		return fmt.Errorf("pair: %w\n%s", err, out)
	}
	for _, name := range []string{idpSecretFile, trackerSecretFile} {
		if err := os.Rename(filepath.Join(home, name), filepath.Join(far, name)); err != nil {
			return err
		}
	}
	if err := os.Rename(filepath.Join(far, "gateway.key"), filepath.Join(home, "gateway.key")); err != nil {
		return err
	}
	for _, name := range []string{"gateway.crt", "broker.crt"} {
		text, err := os.ReadFile(filepath.Join(far, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(home, name), text, 0o600)
		}
		if err != nil {
			return err
		}
	}
	for _, p := range []*Desk{d, b} {
		text := strings.Replace(s.Config(p, o), filepath.Join(s.Dir, "vault.key"), filepath.Join(far, "vault.key"), 1)
		for name, file := range o.Files {
			if err := os.WriteFile(filepath.Join(filepath.Dir(p.ConfigPath), name), []byte(file), 0o600); err != nil {
				return err
			}
		}
		if err := os.WriteFile(p.ConfigPath, []byte(strings.Replace(text, "idp: {issuer", domains+"idp: {issuer", 1)), 0o600); err != nil {
			return err
		}
	}
	if err := b.Start(ctx); err != nil {
		return err
	}
	out, err := exec.Command(d.Binary, "database", "grants", o.Domains.Account).Output()
	if err != nil {
		return err
	}
	return o.Domains.Grant(ctx, string(out))
}

// brokersFor are the address of the broker that is beside this desk, and those of the others.
func (s *Stage) brokersFor(d *Desk) (own, others string, err error) {
	for len(s.brokers) < len(s.Desks) {
		address, err := world.Port()
		if err != nil {
			return "", "", err
		}
		s.brokers = append(s.brokers, address)
	}
	var rest []string
	for i, other := range s.Desks {
		if other == d {
			own = s.brokers[i]
		} else {
			rest = append(rest, s.brokers[i])
		}
	}
	return own, strings.Join(rest, ", "), nil
}

// alike gives a further broker the first one's key and certificates: any gateway may go to any broker.
func (s *Stage) alike(d *Desk, far string) error {
	first := s.Desk()
	if d == first {
		return nil
	}
	if err := os.MkdirAll(far, 0o700); err != nil {
		return err
	}
	home := filepath.Dir(first.Broker.ConfigPath)
	for name, dir := range map[string]string{"vault.key": home, "broker.crt": home, "broker.key": home, "gateway.crt": home, "gateway.key": filepath.Dir(first.ConfigPath)} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(far, name), text, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
