package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"time"
)

// sessionRow is the call as clients of the legacy era make it: in a session that was begun before.
func sessionRow(b *bench) error {
	opened := len(b.closers)
	w, err := b.ways("echo", callers, 256)
	if err != nil {
		return err
	}
	ways := []way{w.direct, w.bare, w.through}
	for i := range ways {
		if err := intoSessions(&ways[i]); err != nil {
			return fmt.Errorf("%s: %w", ways[i].name, err)
		}
	}
	all, err := b.race(ways, 32, b.times(3, 7), 2*time.Second)
	if err != nil {
		return err
	}
	table(32, ways, all, 1)
	if err := w.desk.settle(b.ctx); err != nil {
		return err
	}
	return b.closeDownTo(opened)
}

// intoSessions begins a session for every exchange of the way, and makes a legacy call in it of each.
func intoSessions(w *way) error {
	for i := range w.exchanges {
		x := &w.exchanges[i]
		s, err := begin(w.addr, *x)
		if err != nil {
			return err
		}
		head, body, _ := bytes.Cut(x.request, []byte("\r\n\r\n"))
		path, token := pathAndToken(head)
		call, _, _ := strings.Cut(string(body), `,"_meta":`)
		x.request = post(w.addr, path, token, "Mcp-Protocol-Version: 2025-11-25\r\nMcp-Session-Id: "+s+"\r\n", call+"}}")
	}
	return nil
}

func pathAndToken(head []byte) (path, token string) {
	path = strings.Fields(string(head))[1]
	_, rest, _ := strings.Cut(string(head), "Authorization: Bearer ")
	token, _, _ = strings.Cut(rest, "\r\n")
	return path, token
}

// begin initializes a session with the address and token of an exchange, and returns its id.
func begin(addr string, x exchange) (string, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second)) // a connection that takes no deadline fails at once
	head, _, _ := bytes.Cut(x.request, []byte("\r\n\r\n"))
	path, token := pathAndToken(head)
	if _, err := conn.Write(post(addr, path, token, "", `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}`)); err != nil {
		return "", err
	}
	a := answerReader{in: bufio.NewReader(conn)}
	status, body, err := a.next()
	if err == nil && (status != 200 || a.session == "") {
		err = fmt.Errorf("no session was begun: status %d, %.200q", status, body)
	}
	return a.session, err
}
