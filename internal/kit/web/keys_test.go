package web

import (
	"path/filepath"
	"testing"
	"time"
)

// TestADoorPassEnds: it opens in its own browser, until it ends.
func TestADoorPassEnds(t *testing.T) {
	keys, err := OpenKeys(filepath.Join(t.TempDir(), "faces.key"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	b := &Browser{Keys: keys, Now: func() time.Time { return now }}
	sealed, err := DoorPass{User: "alice", Server: "issues", Client: "agent", Ends: now.Add(30 * time.Minute)}.Seal(b, []byte("her browser"))
	if err != nil {
		t.Fatal(err)
	}
	if p, ok := b.Pass([]byte("her browser"), sealed); !ok || p.User != "alice" || p.Server != "issues" || p.Client != "agent" {
		t.Errorf("in time: %v, %+v", ok, p)
	}
	if _, ok := b.Pass([]byte("another browser"), sealed); ok {
		t.Error("it opens in another browser")
	}
	now = now.Add(31 * time.Minute)
	if _, ok := b.Pass([]byte("her browser"), sealed); ok {
		t.Error("a tab that is opened again days later lets the agent in again")
	}
}
