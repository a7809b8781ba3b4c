package egress

import "net"

// What tests look at from outside.
var (
	OriginOf = originOf
)

// Gate is what the HTTP server would read of a connection.
func Gate(c net.Conn) net.Conn { return &gate{Conn: c} }
