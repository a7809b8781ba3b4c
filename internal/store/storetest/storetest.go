// Package storetest says what every database behind package store must do, as tests that run on each of them.
//
// It trusts nothing that the store says of itself: what was written is read back by another handle, and what may happen
// once is tried by 64 at a time.
package storetest

import (
	"maps"
	"slices"
	"testing"

	"frontdesk.dev/frontdesk/internal/store"
	"frontdesk.dev/frontdesk/internal/store/storetest/check"
	"frontdesk.dev/frontdesk/internal/store/storetest/credentials"
	"frontdesk.dev/frontdesk/internal/store/storetest/records"
)

// Open opens a fresh database twice, as two replicas do; where only one may have it open, a and b are the same.
type Open func(t *testing.T) (a, b *store.DB)

// Run tries the whole contract.
func Run(t *testing.T, open Open) {
	for _, cases := range []check.Cases{records.Cases, credentials.Cases, whole} {
		for _, name := range slices.Sorted(maps.Keys(cases)) {
			t.Run(name, func(t *testing.T) {
				a, b := open(t)
				cases[name](t, a, b)
			})
		}
	}
}

// whole are the promises about all rows, whatever they are of.
var whole = check.Cases{"tenants": tenants, "odd texts": oddTexts, "callers who left": callersWhoLeft}
