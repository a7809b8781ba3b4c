package attacks_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"frontdesk.dev/frontdesk/test/pg"
	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// TestA160_slowConnections: who sends a byte now and then is cut off, and others are served meanwhile.
func TestA160_slowConnections(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	addr := strings.TrimPrefix(s.Desk().Public, "http://")
	const n = 300
	conns := make([]net.Conn, 0, n)
	t.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close()
		}
	})
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET /mcp/evil HTTP/1.1\r\nHost: "+addr+"\r\nX-A: ")
		conns = append(conns, c)
	}
	began := time.Now()
	if r, err := s.bob.Call(t.Context(), "whoami", nil); err != nil || !strings.Contains(world.Text(r), "octo-bob") || time.Since(began) > 5*time.Second {
		t.Errorf("O4: bob waits: %v %v", r, err)
	}
	cut := 0
	end := time.Now().Add(14 * time.Second)
	for _, c := range conns {
		_ = c.SetReadDeadline(end)
		if _, err := io.Copy(io.Discard, c); err == nil {
			cut++
		}
	}
	if cut != n {
		t.Errorf("A-160: %d of %d slow connections were cut off", cut, n)
	}
}

// TestA160_slowBodies: nor does a body hold a connection that never comes, at any door, whether anybody would read it or not.
func TestA160_slowBodies(t *testing.T) {
	s := foes(t)
	token := s.at(t, "alice")
	form := "Sec-Fetch-Site: same-origin\r\nContent-Type: application/x-www-form-urlencoded\r\n"
	var all sync.WaitGroup
	for at, lines := range map[string][]string{
		s.Desk().Public: {"POST /token HTTP/1.1\r\n" + form, "POST /register HTTP/1.1\r\nContent-Type: application/json\r\n", "POST /revoke HTTP/1.1\r\n" + form, "POST /authorize HTTP/1.1\r\n" + form, "POST /signout HTTP/1.1\r\n" + form,
			"POST /backchannel-logout/login HTTP/1.1\r\n" + form, "POST /mcp/evil HTTP/1.1\r\n", "POST /mcp/evil HTTP/1.1\r\nContent-Type: application/json\r\nAuthorization: Bearer " + token + "\r\n", "POST /nothing HTTP/1.1\r\n", "GET /jwks HTTP/1.1\r\n", "GET /portal/ HTTP/1.1\r\n"},
		s.Desk().Ops:    {"GET /metrics HTTP/1.1\r\n"},
		s.Desk().Egress: {"POST /egress/tracker/issues HTTP/1.1\r\n", "POST /egress/tracker/issues HTTP/1.1\r\n" + form, "POST /egress/tracker/issues HTTP/1.1\r\nAuthorization: Bearer " + strings.Repeat("a", 40) + "\r\n"},
	} {
		host := strings.TrimPrefix(at, "http://")
		for _, l := range lines {
			all.Go(func() {
				c, err := net.Dial("tcp", host)
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = c.Close() }()
				_, _ = fmt.Fprintf(c, "%sHost: %s\r\nContent-Length: 5000\r\n\r\na=", l, host)
				end := time.Now().Add(50 * time.Second)
				for err = error(nil); err == nil && time.Now().Before(end); { // a byte now and then
					_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
					if _, err = io.Copy(io.Discard, c); err == nil {
						return // it was cut off
					}
					_, err = io.WriteString(c, "a")
				}
				if err == nil {
					t.Errorf("A-160 %.60q: it is held for ever", l)
				}
			})
		}
	}
	all.Wait()
}

// TestA102_twoLengths: what a proxy in front may take for the rest of a request is never a second one here.
func TestA102_twoLengths(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	host := strings.TrimPrefix(s.Desk().Public, "http://")
	for _, path := range []string{"/token", "/register", "/mcp/evil", "/nothing", "/jwks"} {
		c, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /jwks HTTP/1.1\r\nHost: %s\r\n\r\n", path, host, host)
		b, err := io.ReadAll(c)
		_ = c.Close()
		if n := strings.Count(string(b), "HTTP/1.1 "); n != 1 || err != nil {
			t.Errorf("%s: %d answers, %v", path, n, err)
		}
	}
}

// TestA161_http2: it is not spoken on the public listener: its floods have nothing to flood.
func TestA161_http2(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	for _, at := range []string{s.Desk().Public, s.Desk().Ops} {
		c, err := net.Dial("tcp", strings.TrimPrefix(at, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00")
		_ = c.SetReadDeadline(time.Now().Add(12 * time.Second))
		b, _ := io.ReadAll(c)
		_ = c.Close()
		if !strings.HasPrefix(string(b), "HTTP/1.1 4") && !strings.HasPrefix(string(b), "HTTP/1.1 5") && len(b) > 0 {
			t.Errorf("%s: prior knowledge was answered with %.80q", at, b)
		}
		got := send(t, http.MethodGet, at+"/jwks", "", "Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c", "HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
		if got.Status == http.StatusSwitchingProtocols {
			t.Errorf("%s: h2c was spoken", at)
		}
	}
}

// TestA162_A163_largeRequests: everything has a limit, and the answer comes at once.
func TestA162_A163_largeRequests(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	addr := strings.TrimPrefix(s.Desk().Public, "http://")
	for name, head := range map[string]string{"a header of 1 MiB": "X-A: " + strings.Repeat("a", 1<<20) + "\r\n", "a name of 1 MiB": strings.Repeat("A", 1<<20) + ": b\r\n", "10,000 headers": strings.Repeat("X-A: abcdefgh\r\n", 10_000),
		"10,000 cookies": "Cookie: " + strings.Repeat("a=b; ", 100_000) + "\r\n"} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		go func() {
			_, _ = io.WriteString(c, "GET /jwks HTTP/1.1\r\nHost: "+addr+"\r\n"+head+"\r\n")
		}()
		line, _ := bufio.NewReader(c).ReadString('\n')
		_ = c.Close()
		if line != "" && !strings.Contains(line, " 431 ") && !strings.Contains(line, " 400 ") {
			t.Errorf("A-162 %s: %q", name, line)
		}
	}
	id := s.client(t, "http://127.0.0.1:4711/cb")
	q := func(change url.Values) url.Values {
		v := url.Values{"client_id": {id}, "redirect_uri": {"http://127.0.0.1:4711/cb"}, "response_type": {"code"}, "state": {"st"}, "code_challenge": {strings.Repeat("c", 43)}, "code_challenge_method": {"S256"}, "resource": {s.Desk().MCP("evil")}}
		for k, l := range change {
			v[k] = l
		}
		return v
	}
	long := strings.Repeat("a", 50_000)
	many := make([]string, 1000)
	for i := range many {
		many[i] = s.Desk().MCP("evil")
	}
	for name, change := range map[string]url.Values{"scope": {"scope": {strings.Repeat("a ", 25_000)}}, "state": {"state": {long}}, "resource": {"resource": many}, "acr_values": {"acr_values": {long}}, "login_hint": {"login_hint": {long}}, "challenge": {"code_challenge": {long}}} {
		began := time.Now()
		got := send(t, http.MethodGet, s.Desk().Public+"/authorize?"+q(change).Encode(), "")
		if got.Status >= 500 || got.Status == http.StatusOK || time.Since(began) > 2*time.Second || len(got.Header.Get("Location")) > 60_000 {
			t.Errorf("A-163 authorize, %s: %d in %s", name, got.Status, time.Since(began))
		}
		f := q(change)
		f.Set("grant_type", "authorization_code")
		f.Set("code", "x")
		got = send(t, http.MethodPost, s.Desk().Public+"/token", f.Encode(), "Content-Type", "application/x-www-form-urlencoded")
		if got.Status < 400 || got.Status >= 500 {
			t.Errorf("A-163 token, %s: %d %.200s", name, got.Status, got.Body)
		}
	}
	for _, path := range []string{"/token", "/register", "/revoke"} {
		if got := send(t, http.MethodPost, s.Desk().Public+path, strings.Repeat("a=b&", 2<<20), "Content-Type", "application/x-www-form-urlencoded"); got.Status < 400 || got.Status >= 500 {
			t.Errorf("A-163 8 MiB to %s: %d", path, got.Status)
		}
	}
}

// TestA164_hostileLists: a list costs no more than its caps, and the other servers list as before.
func TestA164_hostileLists(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	token := s.at(t, "alice")
	list := func() answer {
		return send(t, http.MethodPost, s.Desk().MCP("evil"), message(`"method":"tools/list","params":{`+meta+`}`), "Content-Type", "application/json", "Accept", "application/json, text/event-stream",
			"MCP-Protocol-Version", "2026-07-28", "Mcp-Method", "tools/list", "Authorization", "Bearer "+token)
	}
	tools := func(one string, n int) string {
		return `{"jsonrpc":"2.0","id":$ID,"result":{"resultType":"complete","tools":[` + strings.TrimSuffix(strings.Repeat(one+",", n), ",") + `]}}`
	}
	for name, tt := range map[string]struct {
		body string
		err  bool // refused; else what is left of the list is empty or harmless
	}{
		"100,000 tools":           {tools(`{"name":"t","inputSchema":{}}`, 100_000), true},
		"schemas of 20 MiB":       {tools(`{"name":"t","inputSchema":{"x":"`+strings.Repeat("a", 1<<20)+`"}}`, 20), true},
		"$ref in circles":         {tools(`{"name":"t","inputSchema":{"$ref":"#","properties":{"a":{"$ref":"#"}}}}`, 1), false},
		"a pattern that eats":     {tools(`{"name":"t","inputSchema":{"properties":{"a":{"pattern":"(a+)+$"}}}}`, 1), false},
		"nested too deep":         {tools(`{"name":"t","inputSchema":`+strings.Repeat(`{"a":`, 200)+`1`+strings.Repeat("}", 200)+`}`, 1), true},
		"a name twice":            {tools(`{"name":"t","name":"u"}`, 1), false},
		"two lists":               {`{"jsonrpc":"2.0","id":$ID,"result":{"tools":[],"tools":[{"name":"x"}]}}`, true},
		"no list":                 {`{"jsonrpc":"2.0","id":$ID,"result":{"tools":{"name":"x"}}}`, true},
		"a tool twice":            {tools(`{"name":"t"}`, 2), false},
		"tools that look alike":   {`{"jsonrpc":"2.0","id":$ID,"result":{"tools":[{"name":"delete"},{"name":"Delete"}]}}`, false},
		"a name that nobody sees": {tools(`{"name":"t\u200b"}`, 1), false},
	} {
		s.evil.answer(result(tt.body))
		began := time.Now()
		got := list()
		if failed := strings.Contains(got.Body, `"error"`) || strings.Contains(got.Body, `"isError":true`); failed != tt.err || time.Since(began) > 5*time.Second {
			t.Errorf("%s: %d %.200s in %s", name, got.Status, got.Body, time.Since(began))
		}
		if strings.HasPrefix(name, "a name ") || strings.HasPrefix(name, "a tool ") || strings.HasPrefix(name, "tools that") {
			if strings.Contains(got.Body, `"name"`) {
				t.Errorf("A-167/A-168 %s: %s", name, got.Body)
			}
		}
	}
}

// TestA165_waitingCalls: people who do not answer hold no more than a share of the process.
func TestA165_waitingCalls(t *testing.T) {
	s := foes(t)
	s.oracles(t)
	token := s.unconnected(t, "bob", "waiting-agent")
	ask := func(extra string) string {
		return `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"any","arguments":{}` + extra + `,` + askedMeta + `}}`
	}
	first := s.post(t, "evil", token, "any", ask(""))
	_, after, _ := strings.Cut(first.Body, `"requestState":"`)
	state, _, _ := strings.Cut(after, `"`)
	if state == "" {
		t.Fatalf("%d %s", first.Status, first.Body)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[int]int{}
	var conns []net.Conn
	addr := strings.TrimPrefix(s.Desk().Public, "http://")
	body := ask(fmt.Sprintf(`,"requestState":%q`, state))
	for range 1100 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
		_, _ = fmt.Fprintf(c, "POST /mcp/evil HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: any\r\nContent-Length: %d\r\n\r\n%s", addr, token, len(body), body)
	}
	for _, c := range conns {
		wg.Go(func() {
			_ = c.SetReadDeadline(time.Now().Add(4 * time.Second))
			line, _ := bufio.NewReader(c).ReadString('\n')
			status := 0
			_, _ = fmt.Sscanf(line, "HTTP/1.1 %d", &status)
			mu.Lock()
			codes[status]++
			mu.Unlock()
			_ = c.Close()
		})
	}
	wg.Wait()
	if codes[http.StatusTooManyRequests] < 100 {
		t.Errorf("1,100 waiting calls of one caller: %v", codes)
	}
}

// TestA082_sessionFlood: a client that begins sessions and ends none, at two replicas at once, keeps a bounded number, and pushes out neither
// those of its person's other client nor anybody else's. What was unused for longest is gone as any session that has ended.
func TestA082_sessionFlood(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	binary, err := built()
	if err != nil {
		t.Fatal(err)
	}
	dsn := pg.Start(t)
	s, err := stage.New(ctx, t.TempDir(), stage.Options{Binary: binary, Replicas: 2, Database: dsn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	h := &hostile{scene: &scene{Stage: s}}
	at := func(user, client string) string {
		token, err := s.IdP.MintAccessToken(user, "api://frontdesk", map[string]any{"client_id": client, "groups": []string{"engineering"}})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	alice, good, evil := at("alice", "agent"), at("mallory", "agent"), at("mallory", "evil-agent")
	bystander, working := h.session(t, "issues", alice), h.session(t, "issues", good)
	s.Pin(0)
	first, used := h.session(t, "issues", evil), h.session(t, "issues", evil)
	const most, over = 1000, 60
	s.Pin(-1)
	var flood sync.WaitGroup
	for worker := range 8 {
		flood.Go(func() {
			for i := worker; i < most+over-2; i += 8 {
				if got := h.legacy(t, "issues", evil, "", initialize); got.Status != http.StatusOK { // the balancer sends it to both in turn
					t.Errorf("initialize: %d %s", got.Status, got.Body)
				}
			}
		})
	}
	flood.Wait()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	var n int
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM sessions WHERE client = 'evil-agent'").Scan(&n); err != nil || n != most {
		t.Errorf("%d sessions of the client are kept: %v", n, err)
	}
	list := `{"jsonrpc":"2.0","id":2,"method":"tools/list"}`
	s.Pin(1) // the other one has the first in memory, for half a minute
	for what, c := range map[string]struct {
		token, id string
		want      int
	}{"alice's": {alice, bystander, 200}, "of mallory's other client": {good, working, 200}, "the newest": {evil, h.session(t, "issues", evil), 200}, "the first": {evil, first, 404}, "the second": {evil, used, 404}} {
		if got := h.legacy(t, "issues", c.token, c.id, list); got.Status != c.want {
			t.Errorf("%s: %d %s", what, got.Status, got.Body)
		}
	}
}
