// Package world is everything around Frontdesk: a company's identity provider, a vendor with its own users and API,
// MCP servers, an agent, and the browsers of several people. Each party sits on a socket of its own and can run in the
// process of a test or, through cmd/party, in one of its own; what it received can be searched for secrets afterwards.
// Tests and the demo use the same parties. Nothing here imports the product: the world knows it only by its wire.
package world

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"frontdesk.dev/frontdesk/test/world/authserver"
)

// Password opens every account of the world.
const Password = "let-me-in"

// FrontdeskClient is the client id under which Frontdesk is registered at the company's IdP and at the tracker, and
// FrontdeskSecret its secret there, unless a config says otherwise.
const (
	FrontdeskClient = "frontdesk"
	FrontdeskSecret = "frontdesk-client-secret"
)

// Employees are the company's users.
func Employees() []authserver.User {
	user := func(name, full string, groups ...string) authserver.User {
		return authserver.User{ID: "emp-" + name, Name: name, Password: Password, FullName: full, Email: name + "@acme.example", Groups: groups}
	}
	return []authserver.User{
		user("alice", "Alice Arden", "engineering", "everyone"),
		user("bob", "Bob Brandt", "engineering", "everyone"),
		user("dora", "Dora Dahl", "engineering", "everyone"),
		user("emil", "Emil Ernst", "engineering", "everyone"),
		user("fay", "Fay Fonseca", "engineering", "everyone"),
		user("gus", "Gus Grim", "engineering", "everyone"),
		user("hana", "Hana Horak", "engineering", "everyone"),
		user("ivo", "Ivo Ilic", "engineering", "everyone"),
		user("carol", "Carol Costa", "sales", "everyone"),
		user("mallory", "Mallory Moss", "everyone"),
		user("dave", "Dave Dorn", "engineering", "everyone"),
		user("erin", "Erin Eller", "engineering", "everyone"),
		user("frank", "Frank Frey", "engineering", "everyone"),
		user("grace", "Grace Gold", "engineering", "everyone"),
		user("heidi", "Heidi Hahn", "engineering", "everyone"),
		user("ivan", "Ivan Ilic", "engineering", "everyone"),
	}
}

// Customers are the tracker's users: the same people under names of the vendor's.
func Customers() []authserver.User {
	var out []authserver.User
	for _, u := range Employees() {
		name := "octo-" + u.Name
		out = append(out, authserver.User{ID: name, Name: name, Password: Password, FullName: u.FullName, Email: name + "@mail.example"})
	}
	return out
}

// Request is one line of a party's access log.
type Request struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	Status int    `json:"status"`
}

// party is a listening server with an access log.
type party struct {
	url    string
	ln     net.Listener
	server *http.Server
	served chan struct{}

	mu       sync.Mutex // owns requests
	requests []Request
}

// listen takes an address, or any free port on loopback where it is empty.
func listen(address string) (*party, error) {
	if address == "" {
		address = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for a party of the world: %w", err)
	}
	host := ln.Addr().String()
	if ip := ln.Addr().(*net.TCPAddr).IP; ip.IsUnspecified() {
		host = fmt.Sprintf("127.0.0.1:%d", ln.Addr().(*net.TCPAddr).Port)
	}
	return &party{url: "http://" + host, ln: ln, served: make(chan struct{})}, nil
}

// serve starts to answer. It is called once.
func (p *party) serve(h http.Handler) {
	p.server = &http.Server{Handler: p.log(h), ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(p.served)
		_ = p.server.Serve(p.ln) // always an error; Close is the only way out
	}()
}

// URL is the party's base URL, without a slash at the end.
func (p *party) URL() string { return p.url }

// Close ends the party; open streams are cut after a second.
func (p *party) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := p.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = p.server.Close()
	}
	<-p.served
	return err
}

// Requests is every request answered so far, in order of the answers.
func (p *party) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.requests)
}

// Count says how many requests to this path were answered.
func (p *party) Count(path string) int {
	n := 0
	for _, r := range p.Requests() {
		if r.Path == path {
			n++
		}
	}
	return n
}

func (p *party) log(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sw := &statusWriter{ResponseWriter: w}
		path := r.URL.Path
		defer func() { // also where a handler aborts: status 0 is a connection closed unanswered
			p.mu.Lock()
			defer p.mu.Unlock()
			p.requests = append(p.requests, Request{r.Method, path, sw.status})
		}()
		next.ServeHTTP(sw, r)
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush keeps streams streaming for those who ask for http.Flusher.
func (w *statusWriter) Flush() {
	_ = http.NewResponseController(w.ResponseWriter).Flush()
}

// Clock runs like the machine's, and ahead of it by what it was told. The zero value is the machine's time.
type Clock struct {
	mu    sync.Mutex
	ahead time.Duration
}

// Now is the time by this clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

// Advance lets time pass.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
}
