package egress_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/egress"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// gateway is an API that wants its token in the first message. It says what it read, as JSON in a string.
func gateway(s *stage, greeting string, saw *string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		conn, rw, _, err := ws.HTTPUpgrader{Protocol: func(p string) bool { return p == "v2.json" }}.Upgrade(r, w)
		if err != nil {
			return
		}
		defer func() { _ = conn.Close() }()
		if greeting != "" {
			_ = wsutil.WriteServerText(conn, []byte(greeting))
		}
		for {
			h, err := ws.ReadHeader(rw)
			if err != nil || !h.Masked {
				return
			}
			p := make([]byte, h.Length)
			if _, err := io.ReadFull(rw, p); err != nil {
				return
			}
			ws.Cipher(p, h.Mask, 0)
			if h.OpCode == ws.OpClose {
				return
			}
			*saw += string(p) + "\n"
			b, _ := json.Marshal(map[string]string{"you": string(p), "head": fmt.Sprint(r.Header)})
			if wsutil.WriteServerText(conn, b) != nil {
				return
			}
		}
	}
}

// openSocket is a server that opens a WebSocket, by the head alone.
func (s *stage) openSocket(t *testing.T, path, more string) (net.Conn, string) {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	_, err = io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: "+s.addr+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"+
		"Sec-WebSocket-Extensions: permessage-deflate\r\n"+more+"\r\n")
	if err != nil {
		t.Fatal(err)
	}
	var head []byte
	for b := make([]byte, 1); !bytes.HasSuffix(head, []byte("\r\n\r\n")); {
		if _, err := c.Read(b); err != nil {
			t.Fatalf("%q %v", head, err)
		}
		head = append(head, b...)
	}
	return c, string(head)
}

func hear(t *testing.T, c net.Conn) string {
	t.Helper()
	b, op, err := wsutil.ReadServerData(c)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(op, " ", string(b))
}

var identify = catalog.TokenPlaces{Messages: []catalog.MessagePlace{{Token: "/d/token"}}}

func (s *stage) speaks(in catalog.TokenPlaces) {
	s.ups["plain"].Provider = &catalog.Provider{Name: "Vendor", Egress: catalog.ProviderEgress{TokenIn: in}}
}

// TestKeycardInAMessage: the API gets the credential where the keycard stood, the rest as it was written, and only after the broker
// has said yes; what it says back of it is cleaned.
func TestKeycardInAMessage(t *testing.T) {
	const before, after = `{"op":2, "d":{"other":"\u0041","token":"`, `"},"properties":[1.0,{"os":"linux"}]}`
	frames := map[string]func(c net.Conn, text string){
		"one frame": func(c net.Conn, text string) { _ = wsutil.WriteClientText(c, []byte(text)) },
		"many frames, with a ping between": func(c net.Conn, text string) {
			for i := range len(text) {
				op := ws.OpContinuation
				if i == 0 {
					op = ws.OpText
				}
				_ = ws.WriteFrame(c, ws.MaskFrame(ws.NewFrame(op, i == len(text)-1, []byte(text[i:i+1]))))
				if i == 3 {
					_ = ws.WriteFrame(c, ws.MaskFrame(ws.NewPingFrame(nil)))
				}
			}
		},
		"a ping first": func(c net.Conn, text string) {
			_ = ws.WriteFrame(c, ws.MaskFrame(ws.NewPingFrame([]byte("there?"))))
			_ = wsutil.WriteClientText(c, []byte(text))
		},
	}
	for name, send := range frames {
		for _, value := range []string{keycard, "Bearer " + keycard} {
			s, saw := newStage(t, func(s *stage) { s.speaks(identify) }), ""
			s.plain.mux.HandleFunc("/gateway", gateway(s, "", &saw))
			c, head := s.openSocket(t, "/egress/plain/gateway?v=10", "Sec-WebSocket-Protocol: v2.json, v1\r\n")
			if !strings.HasPrefix(head, "HTTP/1.1 101 ") || !strings.Contains(head, "Protocol: v2.json\r\n") || strings.Contains(head, "deflate") {
				t.Errorf("%s: %q", name, head)
			}
			if n := len(s.plain.seen()) + len(s.door.opened()); n > 0 {
				t.Errorf("%s: something was done before the keycard was there", name)
			}
			send(c, before+value+after)
			got := hear(t, c)
			want := before + strings.Replace(value, keycard, credential, 1) + after + "\n"
			if saw != want {
				t.Errorf("%s: the API saw %s\nwant %s", name, saw, want)
			}
			if !strings.Contains(got, strings.Repeat("*", len(credential))) || strings.Contains(got, credential) {
				t.Errorf("%s: %s", name, got)
			}
			if acts := s.door.opened(); len(acts) != 1 || acts[0].Path != "/gateway" {
				t.Errorf("%s: %+v", name, acts)
			}
			if h := s.plain.seen()[0].Header; h.Get("Authorization") != "" || h.Get("Sec-Websocket-Extensions") != "" || h.Get("Sec-Websocket-Protocol") != "v2.json" {
				t.Errorf("%s: %v", name, h)
			}
			// It goes on as a WebSocket, and the keycard stays here.
			_ = wsutil.WriteClientText(c, []byte("hello"))
			if got := hear(t, c); !strings.Contains(got, `"you":"hello"`) {
				t.Errorf("%s: %s", name, got)
			}
			_ = wsutil.WriteClientText(c, []byte("again "+keycard))
			if got := closing(t, c); !strings.HasPrefix(got, "1008 invalid_token: ") || strings.Contains(got+saw, keycard) {
				t.Errorf("%s: %s %s", name, got, saw)
			}
		}
	}
}

// TestGreetings: where servers wait for the API to speak first, it is said in its place, and said once.
func TestGreetings(t *testing.T) {
	const hello = `{"op":10,"d":{"heartbeat_interval":41250}}`
	place := catalog.TokenPlaces{Messages: []catalog.MessagePlace{{Token: "/d/token", Greeting: hello, GreetingAt: "/op"}}}
	for says, want := range map[string]string{`{"t":null,"s":null, "op":10 ,"d":{"heartbeat_interval":1}}`: `"you":`, `{"op":9,"d":false}`: `{"op":9,"d":false}`, `no JSON`: "no JSON"} {
		s, saw := newStage(t, func(s *stage) { s.speaks(place) }), ""
		s.plain.mux.HandleFunc("/gateway", gateway(s, says, &saw))
		c, _ := s.openSocket(t, "/egress/plain/gateway", "")
		if got := hear(t, c); got != "1 "+hello {
			t.Errorf("%s: %s", says, got)
		}
		if len(s.plain.seen()) > 0 {
			t.Error("the API was asked before the keycard was there")
		}
		_ = wsutil.WriteClientText(c, []byte(`{"op":2,"d":{"token":"`+keycard+`"}}`))
		if got := hear(t, c); !strings.Contains(got, want) {
			t.Errorf("%s: %s", says, got)
		}
	}
}

// TestMessagesWithoutAKeycard end with a reason, and reach nobody.
func TestMessagesWithoutAKeycard(t *testing.T) {
	open := func(text string) func(net.Conn) {
		return func(c net.Conn) { _ = wsutil.WriteClientText(c, []byte(text)) }
	}
	for name, tc := range map[string]struct {
		send   func(c net.Conn)
		path   string
		head   string
		change func(*stage)
		want   string
	}{
		"no token":         {send: open(`{"op":2,"d":{}}`), want: "1008 invalid_token"},
		"a number":         {send: open(`{"d":{"token":12345678901234567890123}}`), want: "1008 invalid_token"},
		"somebody's own":   {send: open(`{"d":{"token":"ghp_0123456789abcdefGHIJKLMNOPQRSTUVWXYZ"}}`), want: "1008 invalid_token"},
		"in another place": {send: open(`{"token":"` + keycard + `"}`), want: "1008 invalid_token"},
		"twice":            {send: open(`{"d":{"token":"` + keycard + `"},"x":"` + keycard + `"}`), want: "1008 invalid_token"},
		"in two members":   {send: open(`{"d":{"token":"x"},"d":{"token":"` + keycard + `"}}`), want: "1008 invalid_token"},
		"escaped":          {send: open(`{"d":{"token":"\u0065` + keycard[1:] + `"}}`), want: "1008 invalid_token"},
		"again in base64":  {send: open(`{"d":{"token":"` + keycard + `"},"x":"` + "ZXlKaGJHY2lPaUpJVXpJMU5pSjkuZXlKMGVHNGlPaUl4TGpFaWZRLmMybG5ibUYwZFhKbExXOW1MV0ZzYVdObA" + `"}`), want: "1008 invalid_token"},
		"no JSON":          {send: open(keycard), want: "1008 invalid_token"},
		"binary":           {send: func(c net.Conn) { _ = wsutil.WriteClientBinary(c, []byte(`{"d":{"token":"`+keycard+`"}}`)) }, want: "1008 invalid_token"},
		"too long":         {send: open(`{"d":{"token":"` + keycard + `"},"x":"` + strings.Repeat("x", 64<<10) + `"}`), want: "1008 invalid_token"},
		"not masked":       {send: func(c net.Conn) { _ = wsutil.WriteServerText(c, []byte(`{"d":{"token":"`+keycard+`"}}`)) }, want: "1008 invalid_token"},
		"compressed": {send: func(c net.Conn) {
			f := ws.NewTextFrame([]byte("x"))
			f.Header.Rsv = 4
			_ = ws.WriteFrame(c, ws.MaskFrame(f))
		}, want: "1008 invalid_token"},
		"in the query too":         {path: "/gateway?x=" + keycard, send: open(`{"d":{"token":"` + keycard + `"}}`), want: "1008 invalid_token"},
		"policy says no":           {send: open(`{"d":{"token":"` + keycard + `"}}`), change: func(s *stage) { s.door.refuse = fault.New(fault.Denied, "policy says no", nil) }, want: "1008 denied"},
		"a host without it":        {path: "/gateway", change: func(s *stage) { s.ups["plain"].Provider.Egress.TokenIn.Messages[0].Host = "elsewhere.test" }, want: "HTTP/1.1 401"},
		"no WebSockets":            {path: "/gateway", change: func(s *stage) { s.ups["plain"].WebSocket = false }, want: "HTTP/1.1 401"},
		"a credential of it's":     {path: "/gateway", head: "Authorization: Bearer mine-0123456789abcdef\r\n", want: "HTTP/1.1 401"},
		"an upstream that refuses": {send: open(`{"d":{"token":"` + keycard + `"}}`), path: "/echo", want: "1011 unavailable: Plain refused the WebSocket with status 200"},
		"another subprotocol":      {send: open(`{"d":{"token":"` + keycard + `"}}`), head: "Sec-WebSocket-Protocol: v1, v2.json\r\n", want: "1011 unavailable"},
	} {
		s, saw := newStage(t, func(s *stage) { s.speaks(catalog.TokenPlaces{Messages: []catalog.MessagePlace{{Token: "/d/token"}}}) }), ""
		if tc.change != nil {
			tc.change(s)
		}
		if tc.path == "" {
			tc.path = "/gateway"
		}
		s.plain.mux.HandleFunc("/gateway", gateway(s, "", &saw))
		c, head := s.openSocket(t, "/egress/plain"+tc.path, tc.head)
		got := head
		if tc.send != nil {
			tc.send(c)
			got = closing(t, c)
		}
		if !strings.HasPrefix(got, tc.want) {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
		if saw != "" || len(s.plain.seen()) > 0 && !strings.HasPrefix(tc.want, "1011") {
			t.Errorf("%s: the API saw %q of %d requests", name, saw, len(s.plain.seen()))
		}
		s.door.mu.Lock()
		for _, o := range s.door.ended {
			if o.Result != audit.ResultFailed {
				t.Errorf("%s: %+v", name, o)
			}
		}
		s.door.mu.Unlock()
	}
}

// closing is how a WebSocket ends.
func closing(t *testing.T, c net.Conn) string {
	t.Helper()
	for {
		h, err := ws.ReadHeader(c)
		if err != nil {
			return err.Error()
		}
		p := make([]byte, h.Length)
		if _, err := io.ReadFull(c, p); err != nil {
			return err.Error()
		}
		if h.OpCode == ws.OpClose {
			code, reason := ws.ParseCloseFrameData(p)
			return fmt.Sprint(code, " ", reason)
		}
	}
}

// TestKeycardAsASubprotocol: browsers' libraries can set no header, so that some APIs take their token as the name of a subprotocol.
func TestKeycardAsASubprotocol(t *testing.T) {
	shapes := catalog.TokenPlaces{Protocols: []string{"insecure-api-key.{token}", "{token}"}}
	for offered, want := range map[string]string{
		"v2.json, insecure-api-key." + keycard + ",beta": "v2.json, insecure-api-key." + credential + ",beta",
		"token, " + keycard: "token, " + credential,
		keycard:             credential,
		keycard + ", insecure-api-key." + keycard: "",
		keycard + ", x-" + keycard:                "",
		"v2.json":                                 "",
	} {
		s, saw := newStage(t, func(s *stage) { s.speaks(shapes) }), ""
		s.plain.mux.HandleFunc("/gateway", gateway(s, `{"hi":1}`, &saw))
		c, head := s.openSocket(t, "/egress/plain/gateway", "Sec-WebSocket-Protocol: "+offered+"\r\n")
		if want == "" {
			if !strings.HasPrefix(head, "HTTP/1.1 401 ") || len(s.plain.seen()) > 0 {
				t.Errorf("%s: %q", offered, head)
			}
			continue
		}
		if got := hear(t, c); !strings.HasPrefix(head, "HTTP/1.1 101 ") || got != `1 {"hi":1}` || strings.Contains(head, credential) {
			t.Errorf("%s: %q %s", offered, head, got)
			continue
		}
		if h := s.plain.seen()[0].Header; h.Get("Sec-Websocket-Protocol") != want || h.Get("Authorization") != "" {
			t.Errorf("%s: %v", offered, h)
		}
	}
}

// FuzzFirstMessage: of whatever frames come, a keycard is found only where encoding/json finds it too, once, and what is around it is
// the message without it.
func FuzzFirstMessage(f *testing.F) {
	for _, text := range []string{`{"d":{"token":"` + keycard + `"}}`, `{"d":{"token":"Bearer ` + keycard + `"},"a":[1,"\u0041"]}`, `{"d":[{"token":1}]}`, keycard} {
		f.Add(ws.MustCompileFrame(ws.MaskFrame(ws.NewTextFrame([]byte(text)))))
		f.Add(append(ws.MustCompileFrame(ws.MaskFrame(ws.NewFrame(ws.OpText, false, []byte(text[:9])))), ws.MustCompileFrame(ws.MaskFrame(ws.NewFrame(ws.OpContinuation, true, []byte(text[9:]))))...))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		text, err := egress.FirstMessage(&answering{reading{src: bytes.NewReader(stream)}})
		if err != nil {
			return
		}
		card, before, after, err := egress.FromMessage(text, identify.Messages)
		if err != nil {
			return
		}
		var m struct{ D struct{ Token string } }
		if json.Unmarshal(text, &m) != nil || !strings.HasSuffix(m.D.Token, card) || before+card+after != string(text) || strings.Contains(before+after, card) {
			t.Fatalf("%q: found %q between %q and %q", text, card, before, after)
		}
	})
}

// answering is a connection that takes what is written.
type answering struct{ reading }

func (*answering) Write(p []byte) (int, error) { return len(p), nil }
