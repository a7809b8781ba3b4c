package stage_test

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
)

// spans is an OTLP/HTTP collector that keeps what it gets.
type spans struct {
	mu  sync.Mutex
	all []*otlp.Span
	raw strings.Builder
}

func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var q collector.ExportTraceServiceRequest
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &q) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw.Write(body)
	for _, rs := range q.ResourceSpans {
		for _, ss := range rs.ScopeSpans {
			s.all = append(s.all, ss.Spans...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

// path is the names from a span up to its root.
func (s *spans) path(of *otlp.Span) string {
	names := of.Name
	for up := of; up != nil; {
		var next *otlp.Span
		for _, p := range s.all {
			if string(p.SpanId) == string(up.ParentSpanId) {
				next = p
			}
		}
		if up = next; up != nil {
			names = up.Name + " > " + names
		}
	}
	return names
}

// TestTraces: one trace holds the whole path of a call, through a server that knows nothing of traces, and through both processes where
// there are two; and names nobody.
func TestTraces(t *testing.T) {
	t.Run("one process", func(t *testing.T) { traces(t, stage.Options{}) })
	t.Run("two", func(t *testing.T) {
		a := twoAccounts(t)
		traces(t, stage.Options{Database: a.broker, Domains: a.domains(t)})
	})
}

func traces(t *testing.T, o stage.Options) {
	got := &spans{}
	srv := httptest.NewServer(got)
	t.Cleanup(srv.Close)
	o.Config = "telemetry: {traces: " + srv.URL + "}\n"
	s := start(t, o)
	ctx := within(t)
	a := agent(t, world.AgentConfig{URL: s.Desk().MCP("issues"), Name: "agent-with-a-name", Era: world.Era2025November, Browser: s.Person("alice", "Connect Tracker", "Done")})
	if r, err := a.Call(ctx, "whoami", nil); err != nil || r.IsError {
		t.Fatal(r, err)
	}
	// What a client began goes on: even a request that is refused belongs to its caller's trace.
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.Desk().MCP("issues"), strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	const theirs = "0af7651916cd43dd8448eb211c80319c"
	r.Header.Set("Traceparent", "00-"+theirs+"-b7ad6b7169203331-01")
	resp, err := http.DefaultClient.Do(r)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Fatal(resp, err)
	}
	_ = resp.Body.Close()
	for _, d := range []*stage.Desk{s.Desk(), s.Desk().Broker} {
		if d == nil {
			continue
		}
		if err := d.Stop(); err != nil { // a stop exports what is left
			t.Fatal(err)
		}
	}
	got.mu.Lock()
	defer got.mu.Unlock()
	var call string
	paths := map[string]map[string]bool{} // by trace
	for _, p := range got.all {
		id := hex.EncodeToString(p.TraceId)
		if paths[id] == nil {
			paths[id] = map[string]bool{}
		}
		path := got.path(p)
		paths[id][path] = true
		if strings.Contains(path, "act api") {
			call = id
		}
	}
	for _, want := range []string{"mcp", "mcp > act call", "mcp > act call > decide, record, obtain > audit: intent durable", "mcp > act call > send",
		"mcp > act call > act api > decide, record, obtain > exchange: obtain", "mcp > act call > act api > send"} {
		if !paths[call][want] {
			t.Errorf("no span %q in the trace of the call:\n%v", want, paths[call])
		}
	}
	if len(s.Legacy.Recorder.Search(call)) == 0 {
		t.Error("the server did not get the traceparent of the call")
	}
	if !paths[theirs]["mcp"] {
		t.Errorf("a caller's own trace was not gone on with: %v", paths)
	}
	for _, secret := range []string{"alice", "whoami", "agent-with-a-name", "/api/", "/connect/"} {
		if strings.Contains(got.raw.String(), secret) {
			t.Errorf("a span says %q", secret)
		}
	}
}
