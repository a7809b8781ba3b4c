package egress_test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

func packed(t *testing.T, coding string, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	case "raw deflate":
		w, _ = flate.NewWriter(&b, 6)
	case "br":
		w = brotli.NewWriter(&b)
	case "zstd":
		w, _ = zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(1<<20))
	default:
		return text
	}
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestCodedRequests: what a server sends compressed passes as it is, and its keycard in there does not.
func TestCodedRequests(t *testing.T) {
	s := newStage(t)
	var mu sync.Mutex
	store, open := map[string][]byte{}, 0 // by the request's number; how many are being read
	s.both("/store", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		open++
		mu.Unlock()
		w.Header().Set("X-Coding", r.Header.Get("Content-Encoding"))
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		store[r.URL.RawQuery], open = body, open-1
	})
	sent := 0
	post := func(w way, body []byte, more ...string) (a answer, got []byte) {
		t.Helper()
		sent++
		n := strconv.Itoa(sent)
		a = do(t, w.Client, request(t, http.MethodPost, w.base+"/store?"+n, bytes.NewReader(body), append(more, "Authorization", "Bearer "+keycard)...))
		for began := time.Now(); ; time.Sleep(time.Millisecond) { // what the API reads of a request that was refused, it soon has
			mu.Lock()
			still := open
			got = store[n]
			mu.Unlock()
			if still == 0 {
				return a, got
			}
			if time.Since(began) > 30*time.Second {
				t.Fatal("a request that was refused is still open at the API")
			}
		}
	}
	noise := make([]byte, 5<<18) // does not get smaller, and is more than is held back
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := 0; i < len(noise); i += 8 {
		binary.LittleEndian.PutUint64(noise[i:], rnd.Uint64())
	}
	short := []byte(`{"text":"` + strings.Repeat("some words, ", 100) + `"}`)
	with := func(text []byte) []byte {
		return append(append(bytes.Clone(text), `{"token":"`+keycard+`"}`...), text...)
	}
	ways := s.ways()
	for _, w := range ways {
		for _, coding := range []string{"gzip", "deflate", "raw deflate", "br", "zstd", "aws-chunked"} {
			head := []string{"Content-Encoding", strings.TrimPrefix(coding, "raw ")}
			texts := map[string][]byte{"short": short, "empty": nil}
			if w.name == ways[0].name && coding != "raw deflate" && coding != "br" {
				texts["long"] = noise
			}
			for name, text := range texts {
				body := packed(t, coding, text)
				if a, got := post(w, body, head...); a.StatusCode != http.StatusOK || !bytes.Equal(got, body) || a.Header.Get("X-Coding") != head[1] {
					t.Errorf("%s, %s, %s: %s %s, %d of %d bytes", w.name, coding, name, a.Status, a.body, len(got), len(body))
				}
				body = packed(t, coding, with(text))
				if a, got := post(w, body, head...); a.StatusCode != http.StatusUnauthorized && a.StatusCode != http.StatusProxyAuthRequired || len(got) >= len(body)-len(keycard) && len(text) > 0 {
					t.Errorf("%s, %s, %s, a keycard: %s %s, the API got %d of %d bytes", w.name, coding, name, a.Status, a.body, len(got), len(body))
				}
			}
		}
	}
	w := ways[0]
	twice := packed(t, "gzip", packed(t, "gzip", with(short)))
	for name, tc := range map[string]struct {
		coding string
		body   []byte
		status int
	}{
		"two codings":               {"gzip, gzip", twice, http.StatusUnauthorized},
		"in two lines of its own":   {"identity, GZIP", packed(t, "gzip", with(short)), http.StatusUnauthorized},
		"a second member":           {"gzip", append(packed(t, "gzip", short), packed(t, "gzip", with(nil))...), http.StatusUnauthorized},
		"in the name of a file":     {"gzip", named(t, keycard, short), http.StatusUnauthorized},
		"behind the end":            {"br", append(packed(t, "br", noise[:64<<10]), strings.Repeat("x", 100<<10)...), http.StatusBadRequest},
		"three codings":             {"gzip, gzip, gzip", packed(t, "gzip", twice), http.StatusUnsupportedMediaType},
		"a coding that nobody has":  {"snappy", short, http.StatusUnsupportedMediaType},
		"said to be gzip":           {"gzip", short, http.StatusBadRequest},
		"cut short":                 {"gzip", packed(t, "gzip", short)[:30], http.StatusBadRequest},
		"a bomb":                    {"gzip, gzip", packed(t, "gzip", packed(t, "gzip", make([]byte, 20<<20))), http.StatusBadRequest},
		"a coding of Connect":       {"", short, http.StatusUnsupportedMediaType},
		"gRPC, and a coding of all": {"gzip", packed(t, "gzip", short), http.StatusUnsupportedMediaType},
	} {
		head := []string{"Content-Encoding", tc.coding}
		switch name {
		case "a coding of Connect":
			head = []string{"Connect-Content-Encoding", "gzip", "Content-Type", "application/connect+proto"}
		case "gRPC, and a coding of all":
			head = append(head, "Grpc-Encoding", "gzip", "Content-Type", "application/grpc")
		}
		if a, got := post(w, tc.body, head...); a.StatusCode != tc.status || len(got) == len(tc.body) {
			t.Errorf("%s: %s %s, the API got %d of %d bytes", name, a.Status, a.body, len(got), len(tc.body))
		}
	}
	// A compressed message of gRPC goes on decoded.
	message := func(flag byte, text []byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{flag}, uint32(len(text))), text...)
	}
	grpc := []string{"Content-Type", "application/grpc-web+proto", "Grpc-Encoding", "gzip"}
	if a, got := post(w, message(1, packed(t, "gzip", short)), grpc...); a.StatusCode != http.StatusOK || !bytes.Equal(got, message(0, short)) {
		t.Errorf("gRPC: %s %s %q", a.Status, a.body, got)
	}
	if a, got := post(w, message(1, packed(t, "gzip", with(short))), grpc...); a.StatusCode != http.StatusUnauthorized || bytes.Contains(got, []byte(keycard)) {
		t.Errorf("gRPC with a keycard: %s %s %q", a.Status, a.body, got)
	}
}

// TestCodedForms: a keycard in a form that is compressed is not found there, and who sends it is told so.
func TestCodedForms(t *testing.T) {
	s := newStage(t, func(s *stage) {
		s.ups["plain"].Provider.Egress.TokenIn.Form = []string{"token"}
	})
	form := packed(t, "gzip", []byte("channel=C1&token="+keycard))
	head := []string{"Content-Type", "application/x-www-form-urlencoded", "Content-Encoding", "gzip"}
	got := do(t, http.DefaultClient, request(t, http.MethodPost, "http://"+s.addr+"/egress/plain/echo", bytes.NewReader(form), head...))
	if got.StatusCode != http.StatusUnauthorized || !strings.Contains(got.body, "compressed form") || len(s.plain.seen()) > 0 {
		t.Errorf("%s %s", got.Status, got.body)
	}
	got = do(t, http.DefaultClient, request(t, http.MethodPost, "http://"+s.addr+"/egress/plain/echo", bytes.NewReader(packed(t, "gzip", []byte("channel=C1"))), append(head, "Authorization", "Bearer "+keycard)...))
	if got.StatusCode != http.StatusOK {
		t.Errorf("a keycard in the head: %s %s", got.Status, got.body)
	}
}

// TestLongJSON: a body that is too long to be held passes as it is, unless the keycard stands in it.
func TestLongJSON(t *testing.T) {
	s := newStage(t, func(s *stage) {
		s.ups["plain"].Provider.Egress.TokenIn.JSON = []string{"/api_key"}
	})
	long := `{"text":"` + strings.Repeat("long ", 300_000) + `"`
	head := []string{"Content-Type", "application/json", "Authorization", "Bearer " + keycard}
	got := do(t, http.DefaultClient, request(t, http.MethodPost, "http://"+s.addr+"/egress/plain/echo", strings.NewReader(long+"}"), head...))
	if got.StatusCode != http.StatusOK || !strings.HasSuffix(got.body, long+"}") {
		t.Errorf("%s, %d bytes of %d came back", got.Status, len(got.body), len(long)+1)
	}
	got = do(t, http.DefaultClient, request(t, http.MethodPost, "http://"+s.addr+"/egress/plain/echo", strings.NewReader(long+`,"api_key":"`+keycard+`"}`), head...))
	if got.StatusCode != http.StatusUnauthorized || strings.Contains(got.body, keycard) {
		t.Errorf("with a keycard: %s %.200s", got.Status, got.body)
	}
}

// named is gzip whose file has a name.
func named(t *testing.T, name string, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Name = name
	_, err := w.Write(text)
	if cerr := w.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	return b.Bytes()
}
