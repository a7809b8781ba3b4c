package redact_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"html"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/internal/kit/redact"
)

const canary = "CNRY-acme/alice+up 0123456789abcdefGHIJKLMNOPQR\"<&>"

func escaped(format string) string {
	var b strings.Builder
	for _, c := range []byte(canary) {
		fmt.Fprintf(&b, format, c)
	}
	return b.String()
}

func jsonOf(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b[1 : len(b)-1])
}

// forms are what an API might make of a credential that it echoes.
func forms() map[string]string {
	list := map[string]string{
		"raw":               canary,
		"json":              jsonOf(canary),
		"json, php":         strings.ReplaceAll(jsonOf(canary), "/", `\/`),
		"json, all":         escaped(`\u%04x`),
		"json, all, upper":  escaped(`\u%04X`),
		"query":             url.QueryEscape(canary),
		"path":              url.PathEscape(canary),
		"percent, all":      escaped("%%%02x"),
		"percent, upper":    escaped("%%%02X"),
		"html":              html.EscapeString(canary),
		"html, decimal":     escaped("&#%d;"),
		"html, hex":         escaped("&#x%x;"),
		"html, HEX, zeros":  escaped("&#X00%X;"),
		"hex":               hex.EncodeToString([]byte(canary)),
		"HEX":               strings.ToUpper(hex.EncodeToString([]byte(canary))),
		"mixed":             "CN%52Y\\u002dac&#109;e\\/alice&plus;up " + canary[19:],
		"reversed":          string(func() []byte { b := []byte(canary); slices.Reverse(b); return b }()),
		"two lines":         canary[:20] + "\r\n" + canary[20:],
		"two events' lines": canary[:20] + "\ndata: " + canary[20:],
	}
	for i, before := range []string{"", "u:", "user:", "user:p"} {
		for name, e := range map[string]*base64.Encoding{"std": base64.StdEncoding, "url": base64.RawURLEncoding} {
			text := e.EncodeToString([]byte(before + canary + "\n"))
			list[fmt.Sprintf("base64 %s, %d before", name, i)] = text
			list[fmt.Sprintf("base64 %s, %d before, in json", name, i)] = strings.ReplaceAll(strings.ReplaceAll(text, "/", `\/`), "+", `\u002B`)
			list[fmt.Sprintf("base64 %s, %d before, in a query", name, i)] = url.QueryEscape(text)
			list[fmt.Sprintf("base64 %s, %d before, folded", name, i)] = text[:30] + `\n` + text[30:]
		}
	}
	return list
}

func TestEveryFormIsTakenOut(t *testing.T) {
	for name, form := range forms() {
		r := redact.New([][]byte{[]byte(canary)})
		body := `{"before":"` + form + `","after":1}`
		got := r.String(body)
		if r.Hits() != 1 {
			t.Errorf("%s: %d hits in %s", name, r.Hits(), got)
		}
		if len(got) != len(body) || !strings.HasPrefix(got, `{"before":"`) || !strings.HasSuffix(got, `","after":1}`) {
			t.Errorf("%s: more than the mark was changed: %s", name, got)
		}
		// All that may stay are the characters of base64 that a mark shares with its neighbours.
		if left := strings.Count(form, "") - 1 - strings.Count(got, "*"); left > 16 || !strings.Contains(name, "base64") && !strings.Contains(name, "lines") && left > 0 {
			t.Errorf("%s: %d characters stayed: %s", name, left, got)
		}
		if json.Valid([]byte(body)) && !json.Valid([]byte(got)) {
			t.Errorf("%s: no longer JSON: %s", name, got)
		}
	}
}

func TestSplitOverAnyBorder(t *testing.T) {
	r := redact.New([][]byte{[]byte(canary)})
	for name, form := range forms() {
		body := "event: x\ndata: {\"a\":\"" + form + "\"}\n\n"
		want := r.String(body)
		for i := range body {
			got, err := io.ReadAll(r.Reader(io.MultiReader(strings.NewReader(body[:i]), strings.NewReader(body[i:]))))
			if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
				// Up to four bytes may have gone out before it was known what they begin.
				if err != nil || !earlyOnly(want, string(got), form) {
					t.Fatalf("%s, split at %d: %v\n%s", name, i, err, diff)
				}
			}
		}
		got, err := io.ReadAll(r.Reader(iotest.OneByteReader(strings.NewReader(body))))
		if err != nil || !earlyOnly(want, string(got), form) {
			t.Fatalf("%s, byte for byte: %v\n%s", name, err, cmp.Diff(want, string(got)))
		}
	}
}

// earlyOnly reports whether got differs from want only in the first four bytes of what was covered.
func earlyOnly(want, got, form string) bool {
	at := strings.IndexByte(want, '*')
	return len(got) == len(want) && got[:at] == want[:at] && got[at+4:] == want[at+4:] && len(form) > 40
}

// TestNothingIsHeldBackWithoutReason: an event goes out when it comes, and so does a message that happens to end as a
// credential begins; a long beginning stays until it is known what it is.
func TestNothingIsHeldBackWithoutReason(t *testing.T) {
	r := redact.New([][]byte{[]byte(canary)})
	pr, pw := io.Pipe()
	out := r.Reader(pr)
	buf := make([]byte, 1000)
	for _, step := range []struct{ in, want string }{
		{"data: {\"x\":1}\n\n", "data: {\"x\":1}\n\n"},
		{"grpc message that ends in C", "grpc message that ends in C"},
		{"or in CNRY", "or in CNRY"},
		{"a real beginning: " + canary[:12], "a real beginning: "},
		{"XY\n", canary[:12] + "XY\n"},
		{"again " + canary[:20], "again "},
		{canary[20:] + ".", strings.Repeat("*", len(canary)) + "."},
		{"%4", "%4"},
		{"3NRY" + canary[4:] + "\n\n", strings.Repeat("*", len(canary)) + "\n\n"},
		{"CN", "CN"},
		{canary[2:] + "\n\n", strings.Repeat("*", len(canary)-2) + "\n\n"},
		{"line\n", "line\n"},
	} {
		go func() { _, _ = io.WriteString(pw, step.in) }()
		n, err := out.Read(buf)
		if err != nil || string(buf[:n]) != step.want {
			t.Fatalf("after %q came %q, %v; want %q", step.in, buf[:n], err, step.want)
		}
	}
	_ = pw.Close()
	if n, err := out.Read(buf); n != 0 || err != io.EOF {
		t.Errorf("at the end: %q, %v", buf[:n], err)
	}
}

func TestABrokenStreamEndsWithoutItsTail(t *testing.T) {
	broken := errors.New("reset")
	r := redact.New([][]byte{[]byte(canary)})
	src := io.MultiReader(strings.NewReader("x "+canary[:30]), iotest.ErrReader(broken))
	if got, err := io.ReadAll(r.Reader(src)); string(got) != "x " || !errors.Is(err, broken) {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := io.ReadAll(r.Reader(strings.NewReader("x " + canary[:30]))); string(got) != "x "+canary[:30] || err != nil {
		t.Errorf("a whole stream that ends in a beginning: got %q, %v", got, err)
	}
}

func TestMarksThatAreIgnored(t *testing.T) {
	body := []byte("short sevenba none")
	for _, marks := range [][][]byte{nil, {nil}, {[]byte("")}, {[]byte("short"), []byte("sevenba")}} {
		r := redact.New(marks)
		src := bytes.NewReader(body)
		if got := r.Bytes(body); !bytes.Equal(got, body) || r.Reader(src) != io.Reader(src) {
			t.Errorf("marks %q: something was changed", marks)
		}
	}
	if got := redact.New([][]byte{[]byte("eightbyt")}).String("eightbyt"); got != "********" {
		t.Errorf("got %q", got)
	}
}

func TestMarksThatOverlap(t *testing.T) {
	r := redact.New([][]byte{[]byte("abcdefghij"), []byte("efghijklmn"), []byte("abcdefghijk")})
	if got := r.String("-abcdefghijklmn-"); got != "-**************-" {
		t.Errorf("got %q", got)
	}
	if r.Hits() != 2 {
		t.Errorf("%d hits, want one for each place where a mark begins", r.Hits())
	}
}

func TestAMarkThatBeginsLikeAnother(t *testing.T) {
	r := redact.New([][]byte{[]byte("abcdefghij"), []byte("abcdefghijklmnopqrst")})
	got, err := io.ReadAll(r.Reader(io.MultiReader(strings.NewReader("-abcdefghijklm"), strings.NewReader("nopqrst-abcdefghijklm-"))))
	if want := "-" + strings.Repeat("*", 20) + "-" + strings.Repeat("*", 10) + "klm-"; string(got) != want || err != nil {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

func TestNamedReferences(t *testing.T) {
	for _, name := range names {
		char := html.UnescapeString("&" + name + ";")
		for _, mark := range []string{char + "secret12", "secret12" + char} {
			body := strings.Replace(mark, char, "&"+name+";", 1)
			if got := redact.New([][]byte{[]byte(mark)}).String(body); strings.Trim(got, "*") != "" {
				t.Errorf("&%s; was not read as %q: %s", name, char, got)
			}
		}
	}
}

func TestInputIsNotChanged(t *testing.T) {
	in := []byte("x " + canary)
	if out := redact.New([][]byte{[]byte(canary)}).Bytes(in); bytes.Equal(in, out) || string(in) != "x "+canary {
		t.Errorf("in: %s, out: %s", in, out)
	}
}

func TestResponse(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Last")
		w.Header().Set("Location", "https://x/?t="+url.QueryEscape(canary))
		w.Header().Set("Set-Cookie", "t="+base64.URLEncoding.EncodeToString([]byte(canary)))
		w.Header().Set("Content-Encoding", r.URL.Query().Get("coding"))
		w.Header().Set("Grpc-Encoding", r.URL.Query().Get("grpc"))
		if r.URL.Query().Has("part") {
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = io.WriteString(w, canary)
		w.Header().Set("X-Last", hex.EncodeToString([]byte(canary)))
	}))
	defer srv.Close()
	for query, clean := range map[string]bool{"": true, "coding=identity": true, "coding=x": false, "coding=gzip,br,zstd": false, "grpc=gzip": false, "grpc=identity": true, "part=1": false} {
		resp, err := (&http.Transport{DisableCompression: true}).RoundTrip(httptest.NewRequest(http.MethodGet, srv.URL+"?"+query, nil))
		if err != nil {
			t.Fatal(err)
		}
		resp.Status = "200 " + canary
		r := redact.New([][]byte{[]byte(canary)})
		if err := r.Response(resp); (err == nil) != clean {
			t.Errorf("%s: got %v", query, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || clean != (len(body) == len(canary)) || strings.Trim(string(body), "*") != "" {
			t.Errorf("%s: got %q, %v", query, body, err)
		}
		var seen bytes.Buffer
		_ = resp.Header.Write(&seen)
		_ = resp.Trailer.Write(&seen)
		seen.WriteString(resp.Status)
		if redact.New([][]byte{[]byte(canary)}).Header(http.Header{"All": {seen.String()}}) != 0 {
			t.Errorf("%s: the credential is still there: %s", query, seen.String())
		}
		if clean && r.Hits() != 5 {
			t.Errorf("%s: %d hits, want 5", query, r.Hits())
		}
	}
}

func TestResponseAfterUpgrade(t *testing.T) {
	frame := "\x81\x33" + canary[:51]
	conn := &duplex{in: strings.NewReader(frame)}
	resp := &http.Response{StatusCode: http.StatusSwitchingProtocols, Header: http.Header{}, Body: conn}
	if err := redact.New([][]byte{[]byte(canary)}).Response(resp); err != nil {
		t.Fatal(err)
	}
	rw, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		t.Fatalf("the body is a %T", resp.Body)
	}
	if _, err := io.WriteString(rw, "mine"); err != nil || conn.out.String() != "mine" {
		t.Errorf("wrote %q, %v", conn.out.String(), err)
	}
	if got, err := io.ReadAll(rw); err != nil || string(got) != "\x81\x33"+strings.Repeat("*", 51) {
		t.Errorf("read %q, %v", got, err)
	}
	if err := rw.Close(); err != nil || !conn.closed {
		t.Errorf("not closed: %v", err)
	}
	resp = &http.Response{StatusCode: http.StatusSwitchingProtocols, Header: http.Header{"Sec-Websocket-Extensions": {"permessage-deflate"}}, Body: conn}
	if err := redact.New([][]byte{[]byte(canary)}).Response(resp); !errors.Is(err, redact.ErrUncleanable) {
		t.Errorf("compressed frames: got %v", err)
	}
}

// TestMarksThatRepeatThemselves: what a hostile upstream calls a token must not make matching slow, nor be let through.
func TestMarksThatRepeatThemselves(t *testing.T) {
	for _, unit := range []string{"a", "ab", "%25", "%2525", `\\`, "&amp;", "\n", "\r\n", "\ndata: "} {
		mark := strings.Repeat(unit, 1000)
		for _, mark := range []string{mark, mark + "b"} {
			body := strings.Repeat(unit, 1<<16/len(unit)) + "!"
			got := redact.New([][]byte{[]byte(mark)}).String(body + mark + "!")
			if len(got) != len(body)+len(mark)+1 {
				t.Errorf("%q: length changed", unit)
			}
			if left := strings.NewReplacer("\ndata: ", "", "\r", "", "\n", "", "*", "").Replace(got[len(body):]); len(left) > 4 {
				t.Errorf("%q: of the mark stayed %.40q", unit, left)
			}
		}
	}
}

// FuzzAgainstReference compares with the slow and obvious way, over random splits and buffers.
func FuzzAgainstReference(f *testing.F) {
	f.Add("ghp_0123456789", "", []byte("Authorization: ghp_0123456789."), uint64(1))
	f.Add("pass+w/r d%25", "pass+w/r", []byte("pass%2Bw\\/r d%25 pass+w/r+d%2525"), uint64(2))
	f.Add("&amp;&amp;&amp;", "%25%25%25", []byte("&amp;amp;&amp;amp;&amp;amp;%2525%2525%2525"), uint64(3))
	f.Add("pässwörd€😀x", "data: data: ", []byte(`p\u00e4ssw&#246;rd\u20ac\ud83d\ude00x data:`+"\ndata:  data: "), uint64(4))
	f.Add("\r\n\r\n\ndata", `\\\\\n\n\n`, []byte("\r\n\r\n\ndata"), uint64(5))
	f.Add("aaaaaaaaaaaa", "\xff\xfe\xc3\x28\x00\x01\x02\x03", []byte("aaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), uint64(6))
	f.Fuzz(func(t *testing.T, one, two string, noise []byte, seed uint64) {
		if len(one) <= 24 && len(two) <= 24 && len(noise) <= 300 {
			compare(t, [][]byte{[]byte(one), []byte(two)}, noise, seed)
		}
	})
}

// TestAgainstReference does what the fuzz target does, with marks that are made to be difficult: of few letters, most of
// which begin escapes, stand in them, or break lines.
func TestAgainstReference(t *testing.T) {
	for seed := range uint64(*rounds) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		alphabet := []byte(`\%&;#25abu0nd:ta` + "\n\r \xc3\xa4+/")
		rnd.Shuffle(len(alphabet), func(i, j int) { alphabet[i], alphabet[j] = alphabet[j], alphabet[i] })
		alphabet = alphabet[:1+rnd.IntN(len(alphabet))]
		word := func(n int) (b []byte) {
			for range n {
				b = append(b, alphabet[rnd.IntN(len(alphabet))])
			}
			return b
		}
		compare(t, [][]byte{word(8 + rnd.IntN(8)), word(8 + rnd.IntN(8))}, word(rnd.IntN(40)), seed)
	}
}

var rounds = flag.Int("rounds", 100, "comparisons with the slow reference")

// compare cleans a text made of marks and noise in one piece and over random splits and buffers.
func compare(t *testing.T, marks [][]byte, noise []byte, seed uint64) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(seed, 1))
	body := bodyFrom(rnd, marks, noise)
	want, hits := newReference(marks).clean(body)
	r := redact.New(marks)
	if got := r.Bytes(body); !bytes.Equal(got, want) || r.Hits() != int64(hits) {
		t.Fatalf("seed %d, marks %q, body %q:\n got %q, %d hits\nwant %q, %d hits", seed, marks, body, got, r.Hits(), want, hits)
	}
	r = redact.New(marks)
	got, err := io.ReadAll(&randomReads{r.Reader(&randomReads{bytes.NewReader(body), rnd}), rnd})
	if err != nil || len(got) != len(want) || r.Hits() != int64(hits) {
		t.Fatalf("seed %d, marks %q, body %q:\n got %q, %d hits, %v\nwant %q, %d hits", seed, marks, body, got, r.Hits(), err, want, hits)
	}
	for i := range got { // what went out early is the only difference
		if got[i] != want[i] && (got[i] != body[i] || i >= 4 && got[i-4] != want[i-4]) {
			t.Fatalf("seed %d, marks %q, body %q:\n got %q\nwant %q", seed, marks, body, got, want)
		}
	}
}

// bodyFrom strews marks and parts of marks, in random forms, over the noise.
func bodyFrom(rnd *rand.Rand, marks [][]byte, noise []byte) []byte {
	var b []byte
	for range 1 + rnd.IntN(5) {
		if len(noise) > 0 {
			i := rnd.IntN(len(noise))
			b = append(b, noise[i:i+rnd.IntN(len(noise)-i+1)]...)
		}
		m := marks[rnd.IntN(len(marks))]
		switch rnd.IntN(6) {
		case 0:
			m = []byte(hex.EncodeToString(m))
		case 1:
			m = []byte(base64.StdEncoding.EncodeToString(append([]byte("xyz")[:rnd.IntN(4):3], m...)))
		case 2:
			m = []byte(base64.RawURLEncoding.EncodeToString(append([]byte("xyz")[:rnd.IntN(4):3], m...)))
		case 3:
			m = m[:rnd.IntN(len(m)+1)]
		}
		b = append(b, disguise(rnd, m)...)
	}
	return b
}

func disguise(rnd *rand.Rand, m []byte) []byte {
	often := rnd.IntN(10)
	var b []byte
	for _, c := range m {
		if rnd.IntN(40) == 0 {
			b = append(b, []string{"\n", "\r\n", "\ndata:", "\ndata: ", `\n`, `\r\n`, "%0d%0A", "&NewLine;", "\r", "\n\n"}[rnd.IntN(10)]...)
		}
		if rnd.IntN(10) >= often {
			b = append(b, c)
			continue
		}
		format := []string{`\u%04x`, `\u%04X`, "%%%02x", "%%%02X", "&#%d;", "&#x%x;", "&#X%06X;", "\\%c", "&#%08d;", "&#%09d;"}[rnd.IntN(10)]
		b = append(b, fmt.Sprintf(format, c)...)
	}
	return b
}

// randomReads reads as little as it likes.
type randomReads struct {
	io.Reader
	rnd *rand.Rand
}

func (r *randomReads) Read(p []byte) (int, error) {
	return r.Reader.Read(p[:1+r.rnd.IntN(min(len(p), 40))])
}

type duplex struct {
	in     io.Reader
	out    bytes.Buffer
	closed bool
}

func (d *duplex) Read(p []byte) (int, error)  { return d.in.Read(p) }
func (d *duplex) Write(p []byte) (int, error) { return d.out.Write(p) }
func (d *duplex) Close() error                { d.closed = true; return nil }
