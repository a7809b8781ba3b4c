package kms

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// KeyFile wraps with a key in a file that only its owner may read. Whoever reads it and the database reads every credential:
// keep them apart in backups.
type KeyFile struct{ aead tink.AEAD }

// OpenKeyFile reads the key file, and makes it if there is none and create is set: a lost key file must not be replaced in
// silence where there is already something that it opens.
func OpenKeyFile(path string, create bool) (*KeyFile, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		if err := makeKeyFile(path); err != nil {
			return nil, err
		}
		info, err = os.Lstat(path)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("the key file %s is missing, and the database holds what only it can open: put it back, or begin with an empty database", path)
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("the key file %s is not a regular file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("the key file %s can be read by others (mode %04o): chmod 600 it, and think about who has read it", path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	h, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(text)))
	if err != nil {
		return nil, fmt.Errorf("the key file %s is damaged: restore it from a backup", path)
	}
	a, err := aead.New(h)
	if err != nil {
		return nil, fmt.Errorf("the key file %s holds no usable key", path)
	}
	return &KeyFile{a}, nil
}

// makeKeyFile writes a new key durably, and never over another one.
func makeKeyFile(path string) error {
	h, err := keyset.NewHandle(aead.XChaCha20Poly1305KeyTemplate())
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := insecurecleartextkeyset.Write(h, keyset.NewJSONWriter(&text)); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	if _, err := f.Write(text.Bytes()); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Wrap implements keyring.Wrapper.
func (k *KeyFile) Wrap(_ context.Context, plain, context []byte) ([]byte, error) {
	return k.aead.Encrypt(plain, context)
}

// Unwrap implements keyring.Wrapper.
func (k *KeyFile) Unwrap(_ context.Context, wrapped, context []byte) ([]byte, error) {
	return k.aead.Decrypt(wrapped, context)
}
