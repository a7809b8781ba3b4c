package stage

import (
	"context"
	"testing"
	"time"
)

// Start is New for a test: the stage ends with it, and where it failed, what Frontdesk logged is shown.
func Start(t *testing.T, o Options) *Stage {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s, err := New(ctx, t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(s.Desk().Log())
		}
	})
	return s
}
