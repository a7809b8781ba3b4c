package world

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
)

// The ports that Port gives: below those that a kernel hands out to whoever asks for any (Linux from 32768, others from 49152).
const lowPort, highPort = 10240, 32768

var claims sync.Map // address to its UDP port, kept from the garbage collector, which would close it

// Port is an address of this machine where nobody listens until its owner does, also while that is not yet or not now: nobody who
// asks the kernel for any port gets it, and no other test, since the UDP port of its number stays taken while this process lives.
func Port() (string, error) {
	for range 100 {
		at := fmt.Sprintf("127.0.0.1:%d", lowPort+rand.IntN(highPort-lowPort))
		claim, err := net.ListenPacket("udp", at)
		if err != nil {
			continue
		}
		claims.Store(at, claim)
		if l, err := net.Listen("tcp", at); err == nil {
			return at, l.Close()
		}
	}
	return "", errors.New("a hundred ports were tried, and none is free")
}
