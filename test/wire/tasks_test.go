package wire_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"frontdesk.dev/frontdesk/internal/kit/mcp"
	"frontdesk.dev/frontdesk/test/world"
)

// worker is a server whose tool `export` begins a task, in both eras. It knows nobody, and hands every task to whoever names it.
type worker struct {
	mu      sync.Mutex
	status  string // guarded by mu, as is what follows
	keycard string // that the call brought
	asked   []string
}

func (k *worker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	m, scanErr := mcp.Scan(body)
	if err != nil || scanErr != nil || m.Kind != mcp.Request || m.Method == "initialize" {
		r.Body = io.NopCloser(strings.NewReader(string(body)))
		polite(w, r)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.asked = append(k.asked, m.Method)
	legacy := !m.Modern()
	state := fmt.Sprintf(`"taskId":"t-1","status":%q,"createdAt":"2026-11-26T00:00:00Z","lastUpdatedAt":"2026-11-26T00:00:00Z"`, k.status)
	result := `{"resultType":"complete",` + state + `,"ttlMs":60000,"result":{"content":[{"type":"text","text":"exported"}]}}`
	switch {
	case m.Method == "tools/call":
		_, k.keycard, _ = strings.Cut(r.Header.Get("Authorization"), " ")
		if result = `{"resultType":"task",` + state + `,"ttlMs":60000}`; legacy {
			result = `{"task":{` + state + `,"ttl":60000}}`
		}
	case m.Method == "tasks/list":
		result = `{"tasks":[{` + state + `},{"taskId":"somebody-elses","status":"working"}]}`
	case m.Method == "tasks/result":
		result = `{"content":[{"type":"text","text":"exported"}],"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t-1"}}}`
	case m.Method == "subscriptions/listen":
		id := string(m.IDBytes())
		stream(w, event(`{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{"notifications":{},"_meta":{"io.modelcontextprotocol/subscriptionId":`+id+`}}}`),
			event(`{"jsonrpc":"2.0","method":"notifications/tasks","params":{"taskId":"somebody-elses","status":"completed"}}`),
			event(`{"jsonrpc":"2.0","method":"notifications/tasks","params":{`+state+`}}`), event(`{"jsonrpc":"2.0","id":`+id+`,"result":{"resultType":"complete"}}`))
		return
	}
	say(w, `{"jsonrpc":"2.0","id":`+string(m.IDBytes())+`,"result":`+result+`}`)
}

func (k *worker) set(status string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.status = status
}

func (k *worker) seen() (keycard string, asked []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keycard, append([]string(nil), k.asked...)
}

// api is what a keycard opens at the tracker now.
func (s *scene) api(t *testing.T, keycard string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(within(t), http.MethodGet, s.Desk().Egress+"/egress/tracker/user", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+keycard)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// as sends one request with another agent's token.
func (s *scene) as(t *testing.T, a *world.Agent, body string, headers ...string) answer {
	t.Helper()
	resp := s.open(t, within(t), http.MethodPost, "wire", body, append(headers, "Authorization", "Bearer "+a.AccessToken())...)
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, string(b)}
}

func (s *scene) stranger(t *testing.T, user, client string) *world.Agent {
	t.Helper()
	a, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP("wire"), Name: client, Era: world.Era2025November, Browser: s.Person(user, "Later: a tool that needs it will ask then")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close() })
	if _, err := a.Tools(within(t)); err != nil {
		t.Fatal(err)
	}
	return a
}

// A task is its caller's: another user, and another agent of the same user, hear that there is none, and the server nothing at all.
func TestTasks_areTheirCallers(t *testing.T) {
	k := &worker{status: "working"}
	s := play(t, polite)
	others := map[string]*world.Agent{"another user": s.stranger(t, "bob", "wire"), "another agent": s.stranger(t, "alice", "another")}
	s = play(t, k.ServeHTTP)
	if a := s.modern(t, "tools/call", "export", `"name":"export"`); !strings.Contains(a.Body, `"taskId":"t-1"`) {
		t.Fatal(a)
	}
	if a := s.modern(t, "tasks/get", "t-1", `"taskId":"t-1"`); !strings.Contains(a.Body, "working") {
		t.Error(a)
	}
	_, before := k.seen()
	none := func(what string, a answer) {
		t.Helper()
		if !strings.Contains(a.Body, `"code":-32602`) || !strings.Contains(a.Body, `"message":"Unknown task"`) {
			t.Errorf("%s: %d %s", what, a.Status, a.Body)
		}
	}
	for _, method := range []string{"tasks/get", "tasks/update", "tasks/cancel"} {
		for who, a := range others {
			none(who+" "+method, s.as(t, a, `{"jsonrpc":"2.0","id":7,"method":"`+method+`","params":{`+meta+`,"taskId":"t-1"}}`, modernHeaders(method, "t-1")...))
		}
		none("a made-up id", s.modern(t, method, "t-2", `"taskId":"t-2"`))
	}
	if _, after := k.seen(); len(after) != len(before) {
		t.Errorf("the server was asked: %v", after[len(before):])
	}
	session := s.initialize(t, "wire", `{}`)
	if a := s.legacy(t, session, "tasks/list", ``); !strings.Contains(a.Body, "t-1") || strings.Contains(a.Body, "somebody-elses") {
		t.Errorf("the list of tasks: %s", a.Body)
	}
	if a := s.legacy(t, session, "tasks/result", `"taskId":"somebody-elses"`); !strings.Contains(a.Body, "Unknown task") {
		t.Error(a)
	}
	a := s.modern(t, "subscriptions/listen", "", `"notifications":{"taskIds":["t-1","somebody-elses"]}`)
	if !strings.Contains(a.Body, `"taskId":"t-1"`) || strings.Contains(a.Body, "somebody-elses") {
		t.Errorf("the stream: %s", a.Body)
	}
	for _, r := range s.received() {
		if strings.Contains(r.Body, "subscriptions/listen") && strings.Contains(r.Body, "somebody-elses") {
			t.Errorf("the server was asked for word of another's task: %s", r.Body)
		}
	}
}

// A server that gives one caller the id of another's task is not believed.
func TestTasks_oneIDForTwo(t *testing.T) {
	s := play(t, polite)
	bob := s.stranger(t, "bob", "wire")
	k := &worker{status: "working"}
	s = play(t, k.ServeHTTP)
	if a := s.modern(t, "tools/call", "export", `"name":"export"`); !strings.Contains(a.Body, `"taskId":"t-1"`) {
		t.Fatal(a)
	}
	a := s.as(t, bob, `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{`+meta+`,"name":"export"}}`, modernHeaders("tools/call", "export")...)
	if strings.Contains(a.Body, "t-1") || !strings.Contains(a.Body, "another caller") {
		t.Errorf("got %s", a.Body)
	}
}

// The keycard of a call works for as long as the task that the call began, and not a request longer.
func TestTasks_keepTheirCallOpen(t *testing.T) {
	for era, end := range map[string]func(*scene, *testing.T, []string) answer{
		"modern": func(s *scene, t *testing.T, _ []string) answer {
			return s.modern(t, "tasks/get", "t-1", `"taskId":"t-1"`)
		},
		"legacy": func(s *scene, t *testing.T, session []string) answer {
			return s.legacy(t, session, "tasks/result", `"taskId":"t-1"`)
		},
		"a notice": func(s *scene, t *testing.T, _ []string) answer {
			return s.modern(t, "subscriptions/listen", "", `"notifications":{"taskIds":["t-1"]}`)
		},
	} {
		t.Run(era, func(t *testing.T) {
			k := &worker{status: "working"}
			s := play(t, k.ServeHTTP)
			session := s.initialize(t, "wire", `{}`)
			if era == "legacy" {
				_ = s.legacy(t, session, "tools/call", `"name":"export","task":{"ttl":60000}`)
			} else {
				_ = s.modern(t, "tools/call", "export", `"name":"export"`)
			}
			card, _ := k.seen()
			if got := s.api(t, card); got == http.StatusUnauthorized {
				t.Error("the keycard died with the answer, and the task had not ended")
			}
			_ = s.modern(t, "tasks/get", "t-1", `"taskId":"t-1"`)
			if got := s.api(t, card); got == http.StatusUnauthorized {
				t.Error("the keycard died with a look at the task, and that had not ended")
			}
			k.set("completed")
			if a := end(s, t, session); strings.Contains(a.Body, "Unknown task") {
				t.Fatal(a)
			}
			eventually(t, "the keycard ends with the task", func() bool { return s.api(t, card) == http.StatusUnauthorized })
		})
	}
}

// A task whose API requests were all refused for want of a connection ends in the question, as the call itself would have.
func TestTasks_askForAConnection(t *testing.T) {
	k := &worker{status: "working"}
	s := play(t, k.ServeHTTP)
	post := func(method, name, params string) answer {
		return s.send(t, http.MethodPost, "late", `{"jsonrpc":"2.0","id":7,"method":"`+method+`","params":{`+meta+`,`+params+`}}`, modernHeaders(method, name)...)
	}
	if a := post("tools/call", "export", `"name":"export"`); !strings.Contains(a.Body, `"taskId":"t-1"`) {
		t.Fatal(a)
	}
	card, _ := k.seen()
	if got := s.api(t, card); got != http.StatusForbidden && got != http.StatusUnauthorized {
		t.Fatalf("alice has connected nothing, and the API answered %d", got)
	}
	if a := post("tasks/get", "t-1", `"taskId":"t-1"`); !strings.Contains(a.Body, "working") {
		t.Errorf("the task goes on: %s", a.Body)
	}
	k.set("failed")
	if a := post("tasks/get", "t-1", `"taskId":"t-1"`); !strings.Contains(a.Body, "/connect/") || !strings.Contains(a.Body, "Ask the user to open the link below") {
		t.Errorf("got %s", a.Body)
	}
}
