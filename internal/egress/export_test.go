package egress

import (
	"bufio"
	"net"

	"frontdesk.dev/frontdesk/internal/catalog"
)

// What tests look at from outside.
var (
	OriginOf = originOf
)

// Gate is what the HTTP server would read of a connection.
func Gate(c net.Conn) net.Conn { return &gate{Conn: c} }

// FromMessage finds the keycard in the first message of a WebSocket, and gives what is around it.
func FromMessage(text []byte, places []catalog.MessagePlace) (card, before, after string, err error) {
	k, err := fromMessage(text, places)
	if err != nil {
		return "", "", "", err
	}
	return k.text, k.swap.Before, k.swap.After, nil
}

// FirstMessage reads a WebSocket's first message.
func FirstMessage(c net.Conn) ([]byte, error) {
	return (&socket{Conn: c, reader: bufio.NewReader(c)}).first()
}
