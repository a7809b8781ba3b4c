package main

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
	"frontdesk.dev/frontdesk/cmd/frontdesk/premises"
	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
)

// keepLog makes the log, what signs where it stands, and what holds the vault against it.
func (d *desk) keepLog(ctx context.Context, cfg *config.Config) (err error) {
	if d.audit, err = audit.New(d.db, d.db, d.now, d.log); err != nil {
		return err
	}
	d.vault.Log = d.audit
	d.checkpoints = &audit.Checkpoints{Log: d.audit, Store: d.db, Keys: d.logKeys(cfg), Slog: d.log, Now: d.now, Lost: func(ctx context.Context) error {
		n, err := d.db.Restored(ctx, refresh.ReasonRestored)
		d.log.Info("each connection is tried before it is trusted", "connections", n)
		return err
	}}
	for _, p := range cfg.Audit.Checkpoints {
		var place audit.Outside = audit.File{Path: p.File}
		if p.URL != nil {
			place = audit.Web{URL: p.URL.String(), Method: cmp.Or(p.Method, "PUT"), HTTP: d.door.Named(), Token: func() (string, error) {
				if p.Token.IsZero() {
					return "", nil
				}
				return cfg.Secret(p.Token)
			}}
		}
		d.checkpoints.Outside = append(d.checkpoints.Outside, place)
	}
	if !cfg.Audit.Paranoid {
		return nil
	}
	guard, began := &vault.Guard{Log: d.db, Now: d.now}, d.now()
	keys, err := keyring.CheckpointPublic(ctx, d.db)
	if err == nil {
		err = guard.Load(ctx, audit.Against{Now: d.now(), Checkpoints: d.db, Keys: keys})
	}
	if err != nil {
		return fmt.Errorf("audit.paranoid: %w", err)
	}
	d.log.Info("the audit log was read; each credential is held against it before it is used", "took", d.now().Sub(began).Round(time.Millisecond).String())
	d.vault.Guard = guard
	return nil
}

// keepers write the log and sign where it stands, as operators ask for it.
type keepers struct {
	*audit.Log
	*audit.Checkpoints
}

// logKeys sign the log's checkpoints.
func (d *desk) logKeys(cfg *config.Config) keyring.CheckpointKeys {
	return keyring.CheckpointKeys{Signer: d.signer, Log: premises.LogName(cfg)}
}
