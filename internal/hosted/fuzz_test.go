//go:build linux

package hosted

import (
	"bytes"
	"io"
	"log/slog"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/hosted/sandbox"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
	"frontdesk.dev/frontdesk/internal/kit/redact"
)

type sink struct{ io.Writer }

func (sink) Close() error { return nil }

// FuzzHeard feeds a process's output, line by line: whatever it says, a call gets messages, its own id in its last one, and
// the keycard in none.
func FuzzHeard(f *testing.F) {
	for _, line := range []string{`{"jsonrpc":"2.0","id":1,"result":{"a":[1,{"b":"keycard-of-alice"}]}}`, `{"jsonrpc":"2.0","id":1,"error":{"code":-32002,"message":"x"}}`, `{"result":{},"id":1,"jsonrpc":"2.0"}`,
		`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}`, `{"jsonrpc":"2.0","id":"x","method":"ping"}`, `{"jsonrpc":"2.0","id":7,"method":"roots/list"}`,
		`{"jsonrpc":"2.0","method":"notifications/message","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":1}}}`, "hello", `{"jsonrpc":"2.0","id":1,"result":{}}` + "\n" + `{"jsonrpc":"2.0","id":1,"result":{}}`} {
		f.Add([]byte(line), false)
		f.Add([]byte(line), true)
	}
	f.Fuzz(func(t *testing.T, output []byte, modern bool) {
		p := &process{hosts: &Hosts{Log: slog.New(slog.DiscardHandler), Now: time.Now}, cell: &sandbox.Cell{Stdin: sink{io.Discard}}, hide: redact.New([][]byte{[]byte("keycard-of-alice")}), legacy: true, hello: []byte(`{}`),
			log: &ring{}, key: key{session: "s"}, asked: map[string]bool{}, sessions: map[string]*outbox{"s": {queue: newQueue(1 << 20)}}}
		c := &call{n: 1, id: []byte(`"the client's"`), token: []byte(`"tok"`), session: "s", method: "tools/list", modern: modern, queue: newQueue(1 << 20)}
		p.calls = map[int64]*call{1: c}
		_ = lines(bytes.NewReader(output), maxMessage, p.heard) // ends with the output
		answered := len(p.calls) == 0
		c.queue.end()
		for {
			msg, err := c.queue.next(t.Context())
			if err != nil {
				break
			}
			m, err := mcp.Scan(msg)
			if err != nil {
				t.Fatalf("%q made %q, which is no message: %v", output, msg, err)
			}
			if bytes.Contains(msg, []byte("keycard-of-alice")) {
				t.Fatalf("the keycard came through: %q", msg)
			}
			if answered && c.queue.done() && (m.Kind != mcp.Response || !bytes.Equal(m.IDBytes(), c.id)) {
				t.Fatalf("%q ended the call with %q", output, msg)
			}
		}
	})
}
