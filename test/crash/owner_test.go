//go:build crash

package crash_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/test/stage"
)

// ownerOf finds the process that has a connection from this address, as Linux tells (proc_net(5)); -1 if none has it any more.
func ownerOf(desks []*stage.Desk, peer string) int {
	if len(desks) == 1 {
		return 0
	}
	addr, err := netip.ParseAddrPort(peer)
	if err != nil {
		return -1
	}
	local := fmt.Sprintf(":%04X", addr.Port())
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return -1
	}
	var inode string
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line)
		if len(f) > 9 && strings.HasSuffix(f[1], local) && f[9] != "0" {
			inode = "socket:[" + f[9] + "]"
		}
	}
	for i, d := range desks {
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", d.Pid()))
		if slices.ContainsFunc(links, func(l string) bool { to, err := os.Readlink(l); return err == nil && to == inode }) {
			return i
		}
	}
	return -1
}

func spread(l []time.Duration) (median, most time.Duration) {
	if len(l) == 0 {
		return 0, 0
	}
	slices.Sort(l)
	return l[len(l)/2], l[len(l)-1]
}
