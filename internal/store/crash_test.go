package store_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store"
)

const childEnv = "FRONTDESK_STORE_CRASH"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		fmt.Fprintln(os.Stderr, appendForEver(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// appendForEver is the server that is killed: four writers append, and each row is named on standard output once it is said
// to be durable.
func appendForEver(path string) error {
	ctx := context.Background()
	db, err := store.Open(ctx, store.Config{Path: path})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	failed := make(chan error)
	for i := range 4 {
		go func() {
			writer := fmt.Sprintf("%08x%08x", os.Getpid(), i)
			for seq := int64(1); ; seq += 2 {
				rows := pair(writer, seq)
				if err := db.Append(ctx, rows); err != nil {
					failed <- err
					return
				}
				mu.Lock()
				fmt.Println(rows[0].Call)
				mu.Unlock()
			}
		}()
	}
	return <-failed
}

// pair is an intent and its outcome.
func pair(writer string, seq int64) []audit.Row {
	call := audit.CallID(fmt.Sprintf("%s.%x", writer, seq))
	row := audit.Row{Writer: writer, Seq: seq, Tenant: "default", User: "alice", Kind: audit.KindIntent, Call: call, Time: time.UnixMicro(seq),
		Record: []byte(`{"call":"` + call + `"}`), Hash: []byte(call)}
	end := row
	end.Seq, end.Kind, end.Hash = seq+1, audit.KindOutcome, append(end.Hash, '!')
	return []audit.Row{row, end}
}

// TestWhatWasAcknowledgedSurvivesKill kills a server at full work, again and again: every row that it acknowledged is there,
// no chain has a gap, and the next server gets the file. While one lives, no other does.
func TestWhatWasAcknowledgedSurvivesKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "frontdesk.db")
	for round := range 5 {
		acked := killAfter(t, path, 50+round*300)
		db, err := store.Open(t.Context(), store.Config{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range acked {
			if _, err := db.Intent(t.Context(), id); err != nil {
				t.Fatalf("round %d: %s was acknowledged, and is lost: %v", round, id, err)
			}
			if ended, err := db.Ended(t.Context(), id); err != nil || !ended {
				t.Fatalf("round %d: half of a batch is lost: %v", round, err)
			}
		}
		last := map[string]int64{}
		if err := db.Chain(t.Context(), nil, func(r audit.Row) error {
			if last[r.Writer]++; r.Seq != last[r.Writer] {
				return fmt.Errorf("the chain of %s goes from %d to %d", r.Writer, last[r.Writer]-1, r.Seq)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killAfter returns what the child acknowledged before it was killed, and that was at least n rows.
func killAfter(t *testing.T, path string, n int) []audit.CallID {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"="+path)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var acked []audit.CallID
	for lines := bufio.NewScanner(out); lines.Scan(); {
		acked = append(acked, audit.CallID(lines.Text()))
		if len(acked) == 1 {
			refused(t, path)
		}
		if len(acked) == n {
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, ok := errors.AsType[*exec.ExitError](child.Wait()); !ok || len(acked) < n {
		t.Fatalf("the child ended by itself after %d rows", len(acked))
	}
	return acked
}

func refused(t *testing.T, path string) {
	t.Helper()
	if db, err := store.Open(t.Context(), store.Config{Path: path}); fault.KindOf(err) != fault.Conflict {
		t.Errorf("a second server on a file got %v, want a conflict", err)
		if err == nil {
			_ = db.Close()
		}
	}
	reader, err := store.OpenReader(t.Context(), store.Config{Path: path})
	if err != nil {
		t.Fatalf("a reader beside the server: %v", err)
	}
	if _, err := reader.Rows(t.Context(), audit.Query{Tenant: "default"}); err != nil {
		t.Errorf("a reader beside the server: %v", err)
	}
	if err := reader.Close(); err != nil {
		t.Error(err)
	}
}
