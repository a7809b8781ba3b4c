//go:build !linux

package main

// harden does nothing where the system has no such thing: docs/security.md says what that means.
func harden() error { return nil }
