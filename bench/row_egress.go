package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/test/world"
)

// apiAlone is in place of a tool's name where the API is called and nothing before it.
const apiAlone = ""

// holders is how many users have a call open, with whose keycards the API is called.
const holders = 50

// egressRow is one API request as a server sends it, beside bare proxies that hold no credential, decide nothing and write nothing
// down: at a base URL, and through a tunnel in which TLS is ended and begun anew.
func egressRow(b *bench) error {
	opened := len(b.closers)
	pair, err := b.pair()
	if err != nil {
		return err
	}
	plain, err := b.start("api")
	if err != nil {
		return err
	}
	secure, err := b.start("api", "-pair", pair)
	if err != nil {
		return err
	}
	secureHost := "localhost" + secure.addr[strings.LastIndexByte(secure.addr, ':'):]
	l := newLender()
	b.onClose(l.Close)
	egress, err := world.Port()
	if err != nil {
		return err
	}
	d, err := b.open(setting{stored: holders, server: l.server.URL, egress: egress, api: "http://" + plain.addr, secure: "https://" + secureHost, ca: pair})
	if err != nil {
		return err
	}
	cards, err := b.lend(d, l)
	if err != nil {
		return err
	}
	bare, err := b.start("proxy", "-to", "http://"+plain.addr)
	if err != nil {
		return err
	}
	opener, err := b.start("opener", "-to", "https://"+secureHost, "-pair", pair)
	if err != nil {
		return err
	}
	own := make([]string, holders)
	for i := range own {
		own[i] = credential(i)
	}
	for _, ways := range [][]way{
		{{name: "bare reverse proxy", addr: bare.addr, exchanges: gets("/me", bare.addr, own), gateway: []int{bare.pid}, server: []int{plain.pid}},
			{name: "egress, base URL", addr: egress, exchanges: gets("/egress/api/me", egress, cards), gateway: []int{d.Pid()}, server: []int{plain.pid}, desk: d}},
		{{name: "bare, opens TLS", dial: tunnelTo(opener.addr, secureHost), exchanges: gets("/me", secureHost, own), gateway: []int{opener.pid}, server: []int{secure.pid}},
			{name: "egress, CONNECT", dial: tunnelTo(egress, secureHost), exchanges: gets("/me", secureHost, cards), gateway: []int{d.Pid()}, server: []int{secure.pid}, desk: d}},
	} {
		for i := range ways {
			ways[i].tool = apiAlone
		}
		for _, conns := range []int{1, 32} {
			all, err := b.race(ways, conns, b.times(3, 7), 2*time.Second)
			if err != nil {
				return err
			}
			table(conns, ways, all, 0)
		}
	}
	if err := errors.Join(l.release(), d.settle(b.ctx)); err != nil {
		return err
	}
	return b.closeDownTo(opened)
}

// lender is an MCP server that keeps a call open, and gives its keycard to the bench.
type lender struct {
	server *httptest.Server
	cards  chan string
	end    chan struct{}
	calls  sync.WaitGroup
	failed chan error
}

func newLender() *lender {
	l := &lender{cards: make(chan string, holders), end: make(chan struct{}), failed: make(chan error, holders)}
	l.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		l.cards <- strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		<-l.end
		w.Header()["Content-Type"] = jsonType
		_, _ = w.Write(answer([]byte("1"), []byte(filling)))
	}))
	return l
}

// lend has every user make a call that stays open, and returns their keycards, in the users' order.
func (b *bench) lend(d *desk, l *lender) ([]string, error) {
	addr := strings.TrimPrefix(d.Public, "http://")
	x, err := exchanges(addr, "/mcp/tools", "hold", holders, b.idp.token)
	if err != nil {
		return nil, err
	}
	var cards []string
	for i := range x {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return nil, err
		}
		if _, err := conn.Write(x[i].request); err != nil {
			return nil, err
		}
		ended := make(chan error, 1)
		l.calls.Go(func() {
			a := answerReader{in: bufio.NewReader(conn)}
			status, body, err := a.next()
			if err == nil && status != http.StatusOK {
				err = fmt.Errorf("a call was answered with %d: %.200q", status, body)
			}
			ended <- err
			l.failed <- errors.Join(err, conn.Close())
		})
		d.calls++
		select {
		case card := <-l.cards:
			cards = append(cards, card)
		case err := <-ended:
			return nil, fmt.Errorf("a call ended before its time: %w", err)
		case <-b.ctx.Done():
			return nil, b.ctx.Err()
		}
	}
	return cards, nil
}

// release lets the calls end.
func (l *lender) release() error {
	close(l.end)
	l.calls.Wait()
	close(l.failed)
	var errs []error
	for err := range l.failed {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Close ends the server.
func (l *lender) Close() error {
	l.server.CloseClientConnections()
	return nil
}

// gets are the same request of each user to the API, with what he holds.
func gets(path, host string, held []string) (l []exchange) {
	for i, h := range held {
		l = append(l, exchange{request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAccept: */*\r\nAuthorization: Bearer %s\r\n\r\n", path, host, h), want: []byte("hello " + login(i))})
	}
	return l
}

// tunnelTo is a client that has HTTPS_PROXY set. Whose certificate it is shown is not what is measured.
func tunnelTo(proxy, host string) func() (net.Conn, error) {
	return func() (net.Conn, error) {
		c, err := net.Dial("tcp", proxy)
		if err != nil {
			return nil, err
		}
		if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %[1]s\r\n\r\n", host); err != nil {
			return nil, err
		}
		in := bufio.NewReaderSize(c, 16)
		for line := ""; line != "\r\n"; {
			last := line
			if line, err = in.ReadString('\n'); err != nil || last == "" && !strings.Contains(line, " 200 ") {
				return nil, fmt.Errorf("CONNECT: %q %w", line, err)
			}
		}
		t := tls.Client(c, &tls.Config{ServerName: "localhost", InsecureSkipVerify: true})
		return t, t.Handshake()
	}
}

// newOpener is a forward proxy that ends TLS with a certificate of its own, and does nothing else but pass on what it reads.
func newOpener(pair string) func(to string) (http.Handler, error) {
	return func(to string) (http.Handler, error) {
		back, err := newProxy(to)
		if err != nil {
			return nil, err
		}
		cert, err := tls.LoadX509KeyPair(pair, pair)
		if err != nil {
			return nil, err
		}
		t := back.(*httputil.ReverseProxy).Transport.(*http.Transport)
		t.TLSClientConfig, t.ForceAttemptHTTP2 = &tls.Config{InsecureSkipVerify: true}, true // as Frontdesk's does
		conns := &passed{make(chan net.Conn)}
		go func() { _ = (&http.Server{Handler: back, ReadHeaderTimeout: time.Minute}).Serve(conns) }() // for as long as the process lives
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			if _, err := c.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err == nil {
				conns.c <- tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
			}
		}), nil
	}
}

// passed is a listener of connections that others accepted.
type passed struct{ c chan net.Conn }

func (p *passed) Accept() (net.Conn, error) { return <-p.c, nil }
func (p *passed) Close() error              { return nil }
func (p *passed) Addr() net.Addr            { return &net.TCPAddr{} }

// pair writes a certificate for localhost and its key into a file.
func (b *bench) pair() (string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		return "", err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	path := filepath.Join(b.dir, "pair.pem")
	return path, os.WriteFile(path, text, 0o600)
}
