//go:build !linux

package premises

// Harden does nothing where the system has no such thing: docs/security.md says what that means.
func Harden() error { return nil }
