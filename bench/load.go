package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"time"
)

// exchange is one HTTP request as bytes, and the only answer body that is right.
type exchange struct {
	request []byte
	want    []byte
}

// load is a closed loop: each connection sends its next request when the answer to the last one was read and found right.
type load struct {
	addr      string
	dial      func() (net.Conn, error) // in place of addr
	exchanges []exchange               // taken in turn; connections begin at different ones
	conns     int
	warm      time.Duration // not measured
	length    time.Duration
	count     int // in place of a time: so many calls by one connection
}

// result is what a load saw.
type result struct {
	calls     int64         // in the measured time
	all       int64         // with those before and after it
	took      time.Duration // the measured time
	latencies []time.Duration
}

func (r result) rate() float64 { return float64(r.calls) / r.took.Seconds() }

// percentile of the latencies, which are sorted.
func (r result) percentile(p float64) time.Duration {
	if len(r.latencies) == 0 {
		return 0
	}
	return r.latencies[int(p*float64(len(r.latencies)-1))]
}

// drive runs the load. begin and end are called at the borders of the measured time.
func (l load) drive(ctx context.Context, begin, end func()) (result, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := time.Now().Add(l.warm + l.length)
	type outcome struct {
		latencies []time.Duration
		all       int64
		err       error
	}
	from := time.Now().Add(l.warm)
	out := make(chan outcome, l.conns)
	for i := range l.conns {
		go func() {
			var o outcome
			o.latencies, o.all, o.err = l.connection(ctx, i*len(l.exchanges)/l.conns, from, stop)
			if o.err != nil {
				cancel()
			}
			out <- o
		}()
	}
	sleep(ctx, l.warm)
	begin()
	began := time.Now()
	sleep(ctx, l.length)
	end()
	r := result{took: time.Since(began)}
	var errs []error
	for range l.conns {
		o := <-out
		r.latencies, r.all = append(r.latencies, o.latencies...), r.all+o.all
		if o.err != nil && !errors.Is(o.err, context.Canceled) {
			errs = append(errs, o.err)
		}
	}
	if len(errs) > 0 {
		return r, errs[0]
	}
	r.calls = int64(len(r.latencies))
	slices.Sort(r.latencies)
	return r, ctx.Err()
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// connection is one client: latencies of what was answered between from and stop, and how many answers came in all.
func (l load) connection(ctx context.Context, next int, from, stop time.Time) (latencies []time.Duration, all int64, err error) {
	dial := l.dial
	if dial == nil {
		dial = func() (net.Conn, error) { return net.Dial("tcp", l.addr) }
	}
	conn, err := dial()
	if err != nil {
		return nil, 0, err
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	latencies = make([]time.Duration, 0, 1<<14)
	answers := answerReader{in: bufio.NewReaderSize(conn, 8<<10)}
	for sent := time.Now(); sent.Before(stop) || all < int64(l.count); {
		x := &l.exchanges[next%len(l.exchanges)]
		next++
		if _, err := conn.Write(x.request); err != nil {
			return latencies, all, errors.Join(ctx.Err(), err)
		}
		status, body, err := answers.next()
		if err != nil {
			return latencies, all, errors.Join(ctx.Err(), err)
		}
		if status != 200 || !bytes.Equal(body, x.want) {
			return latencies, all, fmt.Errorf("a wrong answer, status %d: %.300q, want %.300q", status, body, x.want)
		}
		all++
		now := time.Now()
		if !sent.Before(from) {
			latencies = append(latencies, now.Sub(sent))
		}
		sent = now
	}
	return latencies, all, nil
}

// answerReader reads HTTP/1.1 answers, as much as it takes to find their bodies: net/http's client would cost more than what it
// measures.
type answerReader struct {
	in      *bufio.Reader
	body    []byte
	session string // Mcp-Session-Id of the last answer
}

func (a *answerReader) next() (status int, body []byte, err error) {
	line, err := a.in.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.1 ")) {
		return 0, nil, fmt.Errorf("not an HTTP answer: %.80q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, err
	}
	length := -1
	for {
		line, err := a.in.ReadSlice('\n')
		if err != nil {
			return 0, nil, err
		}
		if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimSpace(value)
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, nil, err
			}
		case bytes.EqualFold(name, []byte("Mcp-Session-Id")):
			a.session = string(value)
		}
	}
	a.body = a.body[:0]
	if length >= 0 {
		err = a.take(length)
	} else {
		err = a.chunks()
	}
	return status, a.body, err
}

func (a *answerReader) take(n int) error {
	at := len(a.body)
	a.body = slices.Grow(a.body, n)[:at+n]
	_, err := io.ReadFull(a.in, a.body[at:])
	return err
}

func (a *answerReader) chunks() error {
	for {
		line, err := a.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(string(bytes.TrimRight(line, "\r\n")), 16, 32)
		if err != nil {
			return fmt.Errorf("an answer with neither length nor chunks: %.80q", line)
		}
		if err := a.take(int(n)); err != nil {
			return err
		}
		if _, err := a.in.Discard(2); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
	}
}
