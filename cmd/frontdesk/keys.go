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
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/vault"
	"frontdesk.dev/frontdesk/internal/vault/keyring"
	"frontdesk.dev/frontdesk/internal/vault/kms"
)

// unlocked is what opens the keys of the database, and what they are for.
type unlocked struct {
	wrap     keyring.Wrapper
	service  *kms.Cached   // nil where a file wraps
	lost     []keyring.Key // given up at this start
	signer   *keyring.Signer
	ca       *keyring.Authority
	rotation *vault.Rotation
}

// unlock opens the keys, and with them the vault and the log.
func (d *desk) unlock(ctx context.Context, cfg *config.Config) error {
	var tenants []identity.Tenant
	for t := range cfg.Organisations() {
		tenants = append(tenants, t)
	}
	fresh, err := keyring.Fresh(ctx, d.db, tenants)
	if err != nil {
		return err
	}
	wrap, all, err := premises.Wrappers(ctx, cfg, d.door, fresh, d.now)
	if err != nil {
		return err
	}
	if err := d.rewrap(ctx, cfg, wrap, all, tenants); err != nil {
		return cannotOpen(cfg, err)
	}
	if d.lost, err = keyring.Forget(ctx, d.db, all, tenants, cfg.Forget); err != nil {
		return cannotOpen(cfg, err)
	}
	switch err := keyring.Check(ctx, d.db, wrap, tenants); {
	case keyring.Partial(err): // a restart must not make an outage of a row
		d.log.Error("what some data keys sealed cannot be used: calls that need it are refused, nobody is asked to connect again for it, and the rest goes on", "error", err)
	case err != nil:
		return cannotOpen(cfg, err)
	}
	d.wrap = wrap
	if d.service, _ = wrap.(*kms.Cached); d.service != nil {
		d.service.Watch(d.log)
	}
	d.vault = &vault.Vault{Store: d.db, Keys: d.db, Wrap: wrap, Now: d.now}
	d.signer = &keyring.Signer{Keys: d.db, Wrap: wrap, Now: d.now}
	place, err := placeID(cfg.DataDir)
	if err != nil {
		return err
	}
	d.rotation = &vault.Rotation{Vault: d.vault, Rows: d.db, Turns: d.db, Owner: place, Tenants: d.tenants, Log: d.log,
		Calendar: vault.Calendar{Signer: d.signer, Log: d.logKeys(cfg), Every: cfg.RotateEvery}}
	d.ca = &keyring.Authority{Keys: d.db, Wrap: wrap, Now: d.now}
	return d.keepLog(ctx, cfg)
}

// cannotOpen says what a start without keys means.
func cannotOpen(cfg *config.Config, err error) error {
	if cfg.Keys.Service == nil || keyring.Refused(err) || fault.KindOf(err) != fault.Unavailable {
		return err
	}
	return fmt.Errorf("%w\nnothing was started, and nothing changed: without %s no key of the database opens. Start again once it answers, or let a supervisor do so. Replicas that run go on for some ten minutes; `frontdesk audit verify` needs no key", err, cfg.KeyPlace())
}

// rewrap moves every key under the current provider, where the config names the one before it.
func (d *desk) rewrap(ctx context.Context, cfg *config.Config, current, all keyring.Wrapper, tenants []identity.Tenant) error {
	if cfg.Keys.Previous == nil {
		return nil
	}
	n, err := keyring.Rewrap(ctx, d.db, all, current, tenants)
	if err != nil {
		return fmt.Errorf("keys.previous: %w", err)
	}
	d.log.Info("keys are wrapped by the current provider alone; keys.previous can leave the config once every replica runs with this one", "wrapped_anew", n)
	return nil
}

// tellLost puts on record which keys were given up at this start.
func (d *desk) tellLost(ctx context.Context) error {
	for _, k := range d.lost {
		d.log.Warn("a key that does not open was given up", "key", k.ID, "what", k.What())
		err := d.audit.Event(ctx, audit.Record{Time: d.now(), Tenant: cmp.Or(k.Tenant, identity.DefaultTenant), Action: "keys.forgotten", Result: audit.ResultOK, Detail: k.ID + ": " + k.What()})
		if err != nil && ctx.Err() == nil {
			d.log.Error("that a key was given up could not be recorded", "key", k.ID, "error", err)
		}
	}
	return nil
}

// keysStand says what is wrong with the keys, as doctor tells it; "" where nothing is.
func (d *desk) keysStand(ctx context.Context) string {
	if d.service != nil {
		if since, err := d.service.Standing(); err != nil && !since.IsZero() {
			return fault.Message(err) + ". It has not answered since " + since.UTC().Format(time.RFC3339) + "; what was opened before goes on for some ten minutes"
		}
	}
	if err := keyring.Check(ctx, d.db, d.wrap, d.tenants()); err != nil {
		return fault.Message(err)
	}
	return ""
}

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
