package outbound

import (
	"context"
	"net"
	"net/http"
	"net/netip"
)

// DialFound dials as the found guard does, on any port, so that a test can listen without being root.
func (d *Door) DialFound(ctx context.Context, address string) (net.Conn, error) {
	return d.found.DialContext(ctx, "tcp", address)
}

// NotPublic and NeverReached are the judges of addresses.
func NotPublic(a netip.Addr) string    { return notPublic(a) }
func NeverReached(a netip.Addr) string { return neverReached(a) }

// ReadAuthority is the parser that judges hosts.
func ReadAuthority(scheme, hostport string) (host, port string, addr netip.Addr, err error) {
	a, err := parseAuthority(scheme, hostport)
	return a.host, a.port, a.addr, err
}

// Admit judges a request and sends nothing.
func (c *Client) Admit(r *http.Request) error {
	_, err := c.admit(r)
	return err
}
