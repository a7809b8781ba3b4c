package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"text/tabwriter"
	"time"
)

// idleRow is what it costs that an agent sits there and listens: the standing stream of a legacy session, on which nothing comes.
func idleRow(b *bench) error {
	opened := len(b.closers)
	w, err := b.ways("echo", callers, callers)
	if err != nil {
		return err
	}
	n := b.times(1000, 4000)
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%d streams\tresident MB before\tafter\tKB a stream\tCPU ms/s\t\n", n)
	for _, way := range []way{w.bare, w.through} {
		if err := b.idle(t, way, n); err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if err := w.desk.settle(b.ctx); err != nil {
		return err
	}
	return b.closeDownTo(opened)
}

func (b *bench) idle(t *tabwriter.Writer, w way, n int) error {
	sessions := make([]string, n)
	var err error
	for i := range sessions {
		if sessions[i], err = begin(w.addr, w.exchanges[i%len(w.exchanges)]); err != nil {
			return err
		}
	}
	before, err := sumOf(w.gateway, resident)
	if err != nil {
		return err
	}
	for i, s := range sessions {
		conn, err := listen(w.addr, w.exchanges[i%len(w.exchanges)], s)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
	}
	sleep(b.ctx, 11*time.Second) // what the opening left to do is done every ten seconds
	busy, err := sumOf(w.gateway, cpu)
	if err != nil {
		return err
	}
	const rest = 15 * time.Second // each stream says once that it is still there
	sleep(b.ctx, rest)
	after, err := sumOf(w.gateway, resident)
	if err != nil {
		return err
	}
	still, err := sumOf(w.gateway, cpu)
	fmt.Fprintf(t, "%s\t%s\t%s\t%.1f\t%.1f\t\n", w.name, mb(before), mb(after), float64(after-before)/1024/float64(n), float64(still-busy)/1e6/rest.Seconds())
	return err
}

// listen opens the stream of a session.
func listen(addr string, x exchange, session string) (net.Conn, error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	path, token := pathAndToken(x.request)
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nAccept: text/event-stream\r\nMcp-Protocol-Version: 2025-11-25\r\nMcp-Session-Id: %s\r\n\r\n",
		path, addr, token, session); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.Contains(line, " 200 ") {
		err = fmt.Errorf("the stream was refused: %s", line)
	}
	return conn, err
}
