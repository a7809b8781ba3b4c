//go:build linux

package hosted

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/internal/identity"
)

// BenchmarkStart is from a user's first message to the answer: sandbox, program, handshake. It reports what each of the idle
// processes that it leaves costs in memory, shared pages divided among those that share them.
func BenchmarkStart(b *testing.B) { starts(b, newDesk(b, nil)) }

// BenchmarkStartOfAnImage is the same of a program in an image that is here.
func BenchmarkStartOfAnImage(b *testing.B) {
	d := newImageDesk(b, serverImage(b), nil)
	i, err := d.Images.Open(b.Context(), d.server.Program.Image)
	if err != nil {
		b.Fatal(err)
	}
	defer i.Close()
	starts(b, d)
}

func starts(b *testing.B, d *desk) {
	d.Max, d.Per = b.N+1, 1
	b.ResetTimer()
	for i := range b.N {
		d.begin(fmt.Sprint("user", i), nothing)
	}
	b.StopTimer()
	kb := 0
	for _, s := range d.States(identity.DefaultTenant, "") {
		kb += pss(b, s.Pid)
	}
	b.ReportMetric(float64(kb)/float64(b.N), "KiB/process")
}

// BenchmarkCall is a warm call: down the pipe and back.
func BenchmarkCall(b *testing.B) {
	d := newDesk(b, nil)
	s := d.begin("alice", nothing)
	for b.Loop() {
		d.say("alice", s, tools("1", "echo", "x"))
	}
}

// pss is a process's proportional share of memory in KiB.
func pss(b *testing.B, pid int) (kb int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "Pss: %d kB", &kb); err == nil {
			return kb
		}
	}
	b.Fatalf("no Pss in %s", text)
	return 0
}
