package main

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// The small parties are this same program in processes of their own: bench -role server|api|proxy|opener.

// play is such a process.
func play(role string, args []string) error {
	f := flag.NewFlagSet(role, flag.ContinueOnError)
	to := f.String("to", "", "where the proxy leads; the server's API")
	pair := f.String("pair", "", "file with certificate and key: speak TLS, or open it with that")
	if err := f.Parse(args); err != nil {
		return err
	}
	h, err := map[string]func(string) (http.Handler, error){"server": newToolServer, "api": newAPI, "proxy": newProxy, "opener": newOpener(*pair)}[role](*to)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); os.Exit(0) }() // whoever started us is gone
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	if *pair != "" && role != "opener" {
		return s.ServeTLS(l, *pair, *pair)
	}
	return s.Serve(l)
}

// party is a running process.
type party struct {
	addr string
	pid  int
}

// start runs a role.
func (b *bench) start(role string, args ...string) (party, error) {
	self, err := os.Executable()
	if err != nil {
		return party{}, err
	}
	c := exec.Command(self, append([]string{"-role", role}, args...)...)
	c.Stderr, c.SysProcAttr = os.Stderr, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := c.StdinPipe()
	if err != nil {
		return party{}, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return party{}, err
	}
	if err := c.Start(); err != nil {
		return party{}, err
	}
	b.onClose(func() error { return errors.Join(in.Close(), c.Process.Kill(), ignoreKilled(c.Wait())) })
	line, err := bufio.NewReader(out).ReadString('\n')
	return party{strings.TrimSpace(line), c.Process.Pid}, err
}

func ignoreKilled(err error) error {
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil
	}
	return err
}

// toolServer is an MCP server of two tools that weighs next to nothing, so that what stands before it is what is measured: it
// looks for what it needs in the bytes of the message. `fetch` asks the API who it is, with the token of the request.
type toolServer struct {
	api    string
	client http.Transport
}

func newToolServer(api string) (http.Handler, error) {
	return &toolServer{api: api, client: http.Transport{MaxIdleConnsPerHost: 512, DisableCompression: true}}, nil
}

var (
	answerHead = []byte(`{"jsonrpc":"2.0","id":`)
	answerText = []byte(`,"result":{"resultType":"complete","content":[{"type":"text","text":"`)
	answerTail = []byte(`"}]}}`)
	filling    = strings.Repeat("All work and no play makes a dull benchmark. ", 12)
)

// answer is what a tool of the server says.
func answer(id, text []byte) []byte {
	return bytes.Join([][]byte{answerHead, id, answerText, text, answerTail}, nil)
}

func (s *toolServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet: // the standing stream of a session, on which nothing ever comes
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		return
	case http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
		return
	}
	body := make([]byte, max(r.ContentLength, 0))
	if _, err := io.ReadFull(r.Body, body); err != nil {
		http.Error(w, "no body", http.StatusBadRequest)
		return
	}
	id := after(body, `"id":`)
	if i := bytes.IndexAny(id, ",}"); i >= 0 {
		id = id[:i]
	}
	out := answer(id, []byte(filling))
	switch {
	case bytes.Contains(body, []byte(`"method":"initialize"`)):
		w.Header().Set("Mcp-Session-Id", "s"+string(id))
		out = []byte(`{"jsonrpc":"2.0","id":` + string(id) + `,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"bench","version":"1"}}}`)
	case bytes.Contains(body, []byte(`"name":"fetch"`)):
		who, err := s.ask(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		out = answer(id, who)
	}
	w.Header()["Content-Type"] = jsonType
	_, _ = w.Write(out)
}

var jsonType = []string{"application/json"}

func after(b []byte, what string) []byte {
	_, rest, _ := bytes.Cut(b, []byte(what))
	return rest
}

// ask calls the API as an unmodified server does: with its base URL, and the token that it was given.
func (s *toolServer) ask(r *http.Request) ([]byte, error) {
	q, err := http.NewRequestWithContext(r.Context(), http.MethodGet, s.api+"/me", nil)
	if err != nil {
		return nil, err
	}
	q.Header["Authorization"] = r.Header["Authorization"]
	resp, err := s.client.RoundTrip(q)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the API answered %d: %s", resp.StatusCode, body)
	}
	return body, err
}

// credential of a user at the API, and the name that the API knows behind it.
func credential(user int) string { return "benchkey_" + login(user) + "_0123456789abcdef" }
func login(user int) string      { return "user-" + strconv.Itoa(user) }

// newAPI is an API that knows people by their credential and says who is asking.
func newAPI(string) (http.Handler, error) {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer benchkey_")
		name, ok2 := strings.CutSuffix(name, "_0123456789abcdef")
		if !ok || !ok2 {
			http.Error(w, "not a credential of this API", http.StatusUnauthorized)
			return
		}
		w.Header()["Content-Type"] = []string{"text/plain"}
		_, _ = io.WriteString(w, "hello "+name)
	}), nil
}

// newProxy is what Frontdesk is measured by: nothing but httputil.ReverseProxy on a transport that keeps its connections.
func newProxy(to string) (http.Handler, error) {
	u, err := url.Parse(to)
	if err != nil {
		return nil, err
	}
	return &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(u) },
		Transport: &http.Transport{MaxIdleConns: 1024, MaxIdleConnsPerHost: 1024, DisableCompression: true},
	}, nil
}

func describeMachine() {
	fmt.Printf("%d cores, %s, %s/%s\n", runtime.NumCPU(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
