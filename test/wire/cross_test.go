package wire_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestModernClientLegacyServer: a server that speaks earlier revisions alone is told apart by its answer, and the client is told
// what to do in the form that its SDK acts on.
func TestModernClientLegacyServer(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"no session, as text": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "Missing session ID", http.StatusBadRequest)
		},
		"no session, as JSON": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(w, `{"jsonrpc":"2.0","error":{"code":-32000,"message":"Bad Request: Server not initialized"},"id":null}`)
		},
		"no such method, on 200": func(w http.ResponseWriter, _ *http.Request) {
			say(w, `{"jsonrpc":"2.0","id":7,"error":{"code":-32601,"message":"Method not found"}}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := play(t, h)
			a := s.send(t, http.MethodPost, "asks", `{"jsonrpc":"2.0","id":7,"method":"server/discover","params":{`+meta+`}}`, modernHeaders("server/discover", "")...)
			if a.Status != http.StatusBadRequest || !strings.Contains(a.Body, `"code":-32022`) || !strings.Contains(a.Body, `"supported":["2025-11-25"`) || !strings.Contains(a.Body, "initialize") {
				t.Errorf("got %d %s", a.Status, a.Body)
			}
		})
	}
}

// TestLegacyClientModernServer: the client shows the sentence to whoever set it up.
func TestLegacyClientModernServer(t *testing.T) {
	for name, body := range map[string]string{
		"another version": `{"jsonrpc":"2.0","id":0,"error":{"code":-32022,"message":"Unsupported","data":{"supported":["2026-07-28"]}}}`,
		"no such method":  `{"jsonrpc":"2.0","id":0,"error":{"code":-32601,"message":"Method not found"}}`,
		"no _meta":        `{"jsonrpc":"2.0","id":0,"error":{"code":-32602,"message":"missing _meta"}}`,
	} {
		t.Run(name, func(t *testing.T) {
			s := play(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusBadRequest)
				_, _ = io.WriteString(w, body)
			})
			a := s.send(t, http.MethodPost, "wire", `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`)
			if a.Status != http.StatusOK || !strings.Contains(a.Body, `"code":-32602`) || !strings.Contains(a.Body, "2026-07-28") || a.Header.Get("Mcp-Session-Id") != "" {
				t.Errorf("got %d %s", a.Status, a.Body)
			}
		})
	}
}
