package refresh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/vault"
)

// Spool is a folder for what a database that is away cannot take: renewed credentials, sealed for their rows, so that a copy
// of the folder is worth what a copy of the database is. The zero Spool refuses to keep anything.
type Spool struct{ Dir string }

const spoolSuffix = ".renewed"

// name is the file of one version of one connection. Ids are hexadecimal (package vault), so it names nothing else.
func (s Spool) name(c vault.Connection) string {
	return filepath.Join(s.Dir, fmt.Sprintf("%s-%d-%d%s", c.ID, c.Generation, c.Version, spoolSuffix))
}

// Put keeps a renewed credential. When it returns nil, it outlives a loss of power.
func (s Spool) Put(c vault.Connection) error {
	if s.Dir == "" {
		return errors.New("there is no spool")
	}
	text, err := json.Marshal(c) // no secret in it is plain: vault.Connection holds sealed fields alone
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return err
	}
	half := s.name(c) + ".half"
	if err := writeSynced(half, text); err != nil {
		return err
	}
	if err := os.Rename(half, s.name(c)); err != nil {
		return err
	}
	return syncDir(s.Dir)
}

func writeSynced(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Drop forgets a credential that the database has, or does not want. One that stays is tried again, and refused by its version.
func (s Spool) Drop(c vault.Connection) { _ = os.Remove(s.name(c)) }

// List reads what is kept of one connection, or of all (""). What cannot be read comes as an error beside it.
func (s Spool) List(id vault.ConnectionID) (l []vault.Connection, err error) {
	if s.Dir == "" {
		return nil, nil
	}
	files, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), spoolSuffix) || !strings.HasPrefix(f.Name(), string(id)) {
			continue
		}
		c, rerr := readSpooled(filepath.Join(s.Dir, f.Name()))
		if errors.Is(rerr, fs.ErrNotExist) {
			continue
		}
		if rerr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", f.Name(), rerr))
			continue
		}
		l = append(l, c)
	}
	return l, err
}

func readSpooled(path string) (c vault.Connection, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return c, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, err
	}
	if c.ID == "" || c.Version < 2 || c.Generation < 1 || len(c.Access) == 0 {
		return c, errors.New("it holds no renewed credential")
	}
	return c, nil
}

// replay gives the database what the spool keeps of one connection, or of all (""), under rule 1.
func (m *Machine) replay(ctx context.Context, id vault.ConnectionID) {
	l, err := m.Spool.List(id)
	if err != nil {
		m.Slog.Error("the spool cannot be read", "folder", m.Spool.Dir, "error", err)
	}
	for _, c := range l {
		ok, err := m.storeAgain(ctx, c, c.Version-1, "a renewed credential comes out of the spool")
		if err != nil {
			m.Slog.Warn("a renewed credential still waits in the spool", "connection", c.ID, "upstream", c.Upstream, "error", err)
			continue
		}
		if up := m.Catalog.Upstream(c.Tenant, c.Upstream); !ok && up != nil {
			if secrets, err := m.Vault.Open(ctx, c); err == nil {
				m.discard(ctx, up, c, secrets)
			}
		}
		m.Spool.Drop(c)
		m.Slog.Info("a renewed credential came out of the spool", "connection", c.ID, "upstream", c.Upstream, "stored", ok)
	}
}

// storeAgain stores one renewed credential, with a record of its own: that of the renewal says that its outcome is not known, or is lost.
func (m *Machine) storeAgain(ctx context.Context, c vault.Connection, from int64, why string) (bool, error) {
	rec := m.record(c, audit.KindIntent)
	rec.Detail = why
	id, err := m.Log.Begin(ctx, rec)
	if err != nil {
		return false, err
	}
	ok, err := m.Steps.Settle(ctx, c, from)
	switch {
	case ok:
		m.stored(ctx, id, c, "")
	default:
		rec.Kind, rec.Call, rec.Result, rec.Detail = audit.KindOutcome, id, audit.ResultFailed, "the connection had changed meanwhile, or the database is away"
		m.Log.End(context.WithoutCancel(ctx), id, rec)
	}
	return ok, err
}
