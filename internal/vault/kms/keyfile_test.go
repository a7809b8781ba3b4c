package kms_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"frontdesk.dev/frontdesk/internal/vault/kms"
)

// TestKeyFile: what is taken for a key file, and what is said of what is not. Breaks when a mode is let through.
func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "vault.key")
	if _, err := kms.OpenKeyFile(path, false); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a lost key file: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Fatal("a lost key file was replaced in silence")
	}
	k, err := kms.OpenKeyFile(path, true)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("a new key file has mode %v: %v", info.Mode(), err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := k.Wrap(t.Context(), []byte("key"), []byte("acme"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := kms.OpenKeyFile(path, true)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := again.Unwrap(t.Context(), sealed, []byte("acme")); err != nil || string(plain) != "key" {
		t.Errorf("the file, read again, does not open: %v", err)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, text) {
		t.Errorf("the key file was written over: %v", err)
	}
	for _, mode := range []os.FileMode{0o644, 0o640, 0o604, 0o660, 0o620, 0o602, 0o610, 0o601, 0o777} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := kms.OpenKeyFile(path, true); err == nil || !strings.Contains(err.Error(), "can be read by others") {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	for _, mode := range []os.FileMode{0o600, 0o400} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := kms.OpenKeyFile(path, false); err != nil {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	link := filepath.Join(dir, "link.key")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := kms.OpenKeyFile(link, true); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("a link: %v", err)
	}
	if _, err := kms.OpenKeyFile(dir, true); err == nil {
		t.Error("a directory was taken for a key file")
	}
	for name, bad := range map[string][]byte{"empty": {}, "half": text[:len(text)/2], "no key": []byte(`{"primaryKeyId":1,"key":[]}`), "something else": []byte("password\n")} {
		p := filepath.Join(dir, "bad.key")
		if err := os.WriteFile(p, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := kms.OpenKeyFile(p, true)
		if err == nil || len(bad) > 20 && strings.Contains(err.Error(), string(bad[:20])) {
			t.Errorf("%s: %v", name, err)
		}
		if now, err := os.ReadFile(p); err != nil || !bytes.Equal(now, bad) {
			t.Errorf("%s: the file was written over", name)
		}
	}
}

// TestWrapIsBound: a wrapped key opens with its own key file and for its own context alone, and every byte counts.
func TestWrapIsBound(t *testing.T) {
	dir := t.TempDir()
	open := func(name string) *kms.KeyFile {
		t.Helper()
		k, err := kms.OpenKeyFile(filepath.Join(dir, name), true)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	a, b := open("a.key"), open("b.key")
	sealed, err := a.Wrap(t.Context(), []byte("key"), []byte("acme 1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, context := range []string{"acme 2", "globex 1", ""} {
		if _, err := a.Unwrap(t.Context(), sealed, []byte(context)); err == nil {
			t.Errorf("it opens for %q", context)
		}
	}
	if _, err := b.Unwrap(t.Context(), sealed, []byte("acme 1")); err == nil {
		t.Error("it opens with another key file")
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := a.Unwrap(t.Context(), bad, []byte("acme 1")); err == nil {
			t.Errorf("byte %d was changed, and it opens", i)
		}
	}
}

// TestKeyFileRaced: processes that start at once agree on one key.
func TestKeyFileRaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vault.key")
	var wg sync.WaitGroup
	keys := make([]*kms.KeyFile, 8)
	for i := range keys {
		wg.Go(func() {
			k, err := kms.OpenKeyFile(path, true)
			if err != nil {
				t.Error(err)
				return
			}
			keys[i] = k
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	sealed, err := keys[0].Wrap(t.Context(), []byte("key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		if _, err := k.Unwrap(t.Context(), sealed, nil); err != nil {
			t.Error("two processes hold two keys")
		}
	}
}
