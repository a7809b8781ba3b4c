package doctor

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
	"frontdesk.dev/frontdesk/cmd/frontdesk/premises"
	"frontdesk.dev/frontdesk/internal/kit/conf"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
	"frontdesk.dev/frontdesk/internal/store"
)

// configOf is the config of a running process; a gateway's host lacks the secrets that are the broker's.
func configOf(status map[string]string) (*config.Config, error) {
	if status["role"] == string(config.RoleGateway) {
		return config.Read(status["config"], "")
	}
	return config.Checked(status["config"])
}

// radius says what an intruder gets of each part of the deployment that runs.
func radius(c *cobra.Command) []finding {
	var s map[string]string
	if err := console.Ask(c, http.MethodGet, "/status", nil, &s); err != nil {
		return []finding{{"bad", err.Error(), ""}}
	}
	cfg, err := configOf(s)
	if err != nil {
		return []finding{{"bad", err.Error(), ""}}
	}
	key := "the key file " + cfg.Keys.Vault + ", also later and elsewhere"
	if cfg.Keys.Service != nil {
		key = cfg.KeyPlace() + ", on record there, until its right is taken away"
	}
	l := []finding{{"note", "a copy of the database: no credential without " + key, ""}}
	switch config.Role(s["role"]) {
	case config.RoleGateway:
		l = append(l, finding{"note", "this process, the gateway: no stored credential and no key; what people and agents who come by may do, while they come by, on record, at most " +
			fmt.Sprintf("%d credentials a minute for each and %d for all", cfg.Domains.Releases.User, cfg.Domains.Releases.All), "docs/domains.md"}, pasted(cfg), tried(c.Context(), cfg))
	case config.RoleBroker:
		l = append(l, finding{"note", "this process, the broker: every credential, by " + key, ""}, finding{"note", "a gateway: nothing that is stored; run this on its host too, where its database account is tried", ""})
	default:
		l = append(l, finding{"note", "this process, which is gateway and broker: every credential, by " + key, "two processes keep it from who faces strangers: docs/domains.md"})
	}
	return append(l, finding{"note", "faces.key: signed-in browsers cannot be forged with it alone; half-done pages can be read", ""})
}

// pasted says where the keys pass that people paste.
func pasted(cfg *config.Config) finding {
	if cfg.Domains.Keys == nil {
		return finding{"note", "a key that somebody pastes passes this process's memory once: who is here by then has it", "domains: {keys: {url: ...}} has the broker take it (docs/domains.md)"}
	}
	return finding{"ok", "a key that somebody pastes goes to the broker alone, at " + cfg.Domains.Keys.URL.String(), ""}
}

// tried opens the database as the gateway's account, and looks what it may do.
func tried(ctx context.Context, cfg *config.Config) finding {
	s, err := premises.GuestDatabase(cfg)
	var db *store.DB
	if err == nil {
		db, err = store.Open(ctx, s)
	}
	if err != nil {
		return finding{"bad", "the gateway's database account could not be tried: " + err.Error(), "run this with the environment of the server"}
	}
	defer func() { _ = db.Close() }() // nothing was written
	lacks, over, err := db.GuestRights(ctx)
	if err != nil || len(lacks)+len(over) > 0 {
		return finding{"bad", "the gateway's database account: lacks " + strings.Join(lacks, ", ") + "; may do too much: " + strings.Join(over, ", "), "frontdesk database grants ACCOUNT"}
	}
	return finding{"ok", "the gateway's database account, tried: sessions, sign-ins of agents and consents; no table that holds a credential, a key, people, grants or the log", ""}
}

const (
	BrokerPrefix = "broker "
	Answering    = "answers"
)

// brokers are doctor's words on those that a gateway knows.
func brokers(status map[string]string) (l []finding) {
	for _, key := range slices.Sorted(maps.Keys(status)) {
		address, ok := strings.CutPrefix(key, BrokerPrefix)
		switch {
		case !ok:
		case status[key] == Answering:
			l = append(l, finding{"ok", "the broker at " + address + " answers", ""})
		case strings.HasPrefix(status[key], Answering):
			l = append(l, finding{"note", "the broker at " + address + " " + status[key], "upgrade brokers first, then gateways (docs/domains.md)"})
		default:
			l = append(l, finding{"bad", "the broker at " + address + " " + status[key], "is it running, can it be reached, and has each side the other's certificate? Its log and this one's say more"})
		}
	}
	return l
}

// pairing is doctor's word on the certificates by which the two sides know each other.
func pairing(cfg *config.Config, status map[string]string, now time.Time) (l []finding) {
	if cfg.Domains == nil {
		return nil
	}
	if trouble := status["pairing"]; trouble != "" {
		l = append(l, finding{"bad", "new certificates between gateway and broker are not used: " + trouble, "those of before go on until the files can be used, and no longer than the process runs"})
	}
	for _, s := range []conf.Secret{cfg.Domains.Gateway.Cert, cfg.Domains.Broker.Cert} {
		path := cfg.Path(s)
		ends, err := outbound.Ends(path)
		help := "docs/domains.md says in which order certificates are changed"
		switch day := ends.Format(time.DateOnly); {
		case err != nil || ends.IsZero():
			l = append(l, finding{"bad", "the certificate " + path + " cannot be read", help})
		case now.After(ends):
			l = append(l, finding{"bad", path + " holds a certificate that ended on " + day, help})
		case now.Add(outbound.PairingSoon).After(ends):
			l = append(l, finding{"note", path + " holds a certificate that ends on " + day, help})
		default:
			l = append(l, finding{"ok", path + " lasts until " + day, ""})
		}
	}
	return l
}
