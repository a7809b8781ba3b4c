package redact_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/redact"
)

// bodies are 10 MB of what APIs send.
func bodies() map[string][]byte {
	const size = 10 << 20
	rnd := rand.New(rand.NewPCG(1, 2))
	word := func() string {
		return strings.Fields("the quick brown fox github issue title repository user name of a ghost")[rnd.IntN(13)]
	}
	text := func(row func() string) []byte {
		var b bytes.Buffer
		for b.Len() < size {
			b.WriteString(row())
		}
		return b.Bytes()[:size]
	}
	id := func() string { return fmt.Sprintf("%016x%016x", rnd.Uint64(), rnd.Uint64()) }
	object := func() string {
		return fmt.Sprintf(`{"id":%d,"node_id":"MDU6%s","url":"https://api.github.com/repos/o/%s/issues/%d","title":"%s %s %s","body":"%s\r\n%s \"%s\"","sha":"%s"},`,
			rnd.IntN(1e9), id(), word(), rnd.IntN(1e4), word(), word(), word(), word(), word(), word(), id())
	}
	random := make([]byte, size)
	for i := range random {
		random[i] = byte(rnd.Uint32())
	}
	return map[string][]byte{
		"json":    text(object),
		"nested":  text(func() string { b, _ := json.Marshal(object()); return string(b) }),
		"chinese": text(func() string { return `{"t":"` + strings.Repeat(`\u4e2d\u6587\u5b57`, 10) + `"},` }),
		"percent": text(func() string { return "q=%E4%B8%AD%E6%96%87%20" + word() + "&amp;" }),
		"base64":  text(func() string { return "data:" + id() + "ZW" + id() + "\n" }),
		"zeros":   make([]byte, size),
		"random":  random,
	}
}

func BenchmarkReader(b *testing.B) {
	const pat = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"
	for _, tc := range []struct {
		name  string
		marks [][]byte
	}{
		{"one mark of 40 bytes", [][]byte{[]byte(pat)}},
		{"one mark of 1000 bytes", [][]byte{[]byte("eyJhbGciOiJSUzI1NiIs" + strings.Repeat("ImtpZCI6IjEyMyJ9", 61))}},
		{"four marks", [][]byte{[]byte(pat), []byte("xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcHrzqqgy"), []byte("0f1e2d3c4b5a69788796a5b4c3d2e1f0"), []byte("s3cr3t/pass+word")}},
	} {
		bodies := bodies()
		for _, kind := range []string{"json", "nested", "chinese", "percent", "base64", "zeros", "random"} {
			b.Run(tc.name+"/"+kind, func(b *testing.B) { benchmarkReader(b, redact.New(tc.marks), bodies[kind]) })
		}
	}
}

func benchmarkReader(b *testing.B, r *redact.Redactor, body []byte) {
	b.SetBytes(int64(len(body)))
	buf := make([]byte, 32<<10) // as io.Copy has
	src := bytes.NewReader(nil)
	b.ResetTimer()
	before := cpu()
	for b.Loop() {
		src.Reset(body)
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r.Reader(src), buf); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*float64(len(body))/1e6/b.Elapsed().Seconds(), "redaction_mb_s")
	b.ReportMetric(float64(b.N)*float64(len(body))/1e6/(cpu()-before).Seconds(), "cpu_mb_s")
}

// cpu is what the process has used of processors, which says something even where others use them too.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAnswer is the cost of cleaning one small answer, with a Redactor that is kept and one that is not.
func BenchmarkAnswer(b *testing.B) {
	marks := [][]byte{[]byte("ghp_16C7e42F292c6912E7710c838347Ae178B4a")}
	text := []byte(`{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"` + strings.Repeat("some words of an answer ", 30) + `"}]}}`)
	kept := redact.New(marks)
	buf := make([]byte, 4096)
	for name, get := range map[string]func() *redact.Redactor{"kept": func() *redact.Redactor { return kept }, "new": func() *redact.Redactor { return redact.New(marks) }} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				resp := &http.Response{Status: "200 OK", StatusCode: 200, Body: io.NopCloser(bytes.NewReader(text)),
					Header: http.Header{"Content-Type": {"application/json"}, "Date": {"Tue, 03 Nov 2026 10:00:00 GMT"}, "Content-Length": {"800"}}}
				if err := get().Response(resp); err != nil {
					b.Fatal(err)
				}
				if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
