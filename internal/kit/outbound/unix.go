package outbound

import (
	"context"
	"net"
	"net/http"
	"time"
)

// Unix returns a transport to a socket of this machine, for commands that speak with the running server. Whatever a
// request's host says, it goes there.
func Unix(path string) http.RoundTripper {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
}

// Answers reports whether somebody listens on a socket of this machine.
func Answers(path string) bool {
	c, err := (&net.Dialer{Timeout: time.Second}).Dial("unix", path)
	if err != nil {
		return false
	}
	_ = c.Close() // nothing was sent
	return true
}
