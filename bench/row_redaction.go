package main

import (
	"bytes"
	"compress/zlib"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	kzlib "github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"

	"frontdesk.dev/frontdesk/internal/kit/redact"
)

const bodySize = 10 << 20

// mark is a credential as vendors make them.
var mark = []byte("ghp_16C7e42F292c6912E7710c838347Ae178B4a")

// redactionRow takes a credential out of answers of 10 MB, as they come and compressed, in this process. Its figures are by CPU time,
// of one core: on a machine that others use too, the clock says more of them.
func redactionRow(b *bench) error {
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "10 MB of\tMB/s by CPU\tbest by the clock\t")
	rounds := b.times(7, 31)
	var identity float64
	all := bodies()
	for _, body := range all {
		f := func() error { return cleaned(bytes.NewReader(body.text), "") }
		byCPU, clock, err := speed(rounds, f)
		if err != nil {
			return err
		}
		if body.name == "JSON" {
			identity = byCPU
		}
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t\n", body.name, byCPU, clock)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintln(t, "JSON as\tplain decoding, MB/s\tdecoded and cleaned\tshare\t")
	for _, c := range []string{"gzip", "deflate", "br", "zstd"} {
		text, err := compressed(c, all[0].text)
		if err != nil {
			return err
		}
		plain, _, err := speed(rounds, func() error { return decode(c, text) })
		if err != nil {
			return err
		}
		both, _, err := speed(rounds, func() error { return cleaned(bytes.NewReader(text), c) })
		if err != nil {
			return err
		}
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%.2f\t\n", c, plain, both, both/plain)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Printf("redaction_mb_s=%.0f\n", identity)
	return nil
}

// speed is the median of the rounds by CPU time, and the best one by the clock, in MB/s of plain text.
func speed(rounds int, f func() error) (byCPU, clock float64, err error) {
	var l []float64
	for range rounds {
		from, err := cpu(os.Getpid())
		if err != nil {
			return 0, 0, err
		}
		began := time.Now()
		if err := f(); err != nil {
			return 0, 0, err
		}
		clock = max(clock, bodySize/1e6/time.Since(began).Seconds())
		to, err := cpu(os.Getpid())
		if err != nil {
			return 0, 0, err
		}
		l = append(l, bodySize/1e6/(to-from).Seconds())
	}
	slices.Sort(l)
	return l[len(l)/2], clock, nil
}

// cleaned reads an answer as egress does.
func cleaned(body io.Reader, coding string) error {
	resp := &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Body: io.NopCloser(body), Header: http.Header{"Content-Encoding": {coding}}}
	if err := kept.Response(resp); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, resp.Body, make([]byte, 32<<10))
	if err == nil && n != bodySize {
		err = fmt.Errorf("%d bytes of %d came through", n, bodySize)
	}
	return err
}

var kept = redact.New([][]byte{mark})

func decode(coding string, text []byte) error {
	var r io.Reader
	var err error
	switch src := bytes.NewReader(text); coding {
	case "gzip":
		r, err = gzip.NewReader(src)
	case "deflate":
		r, err = kzlib.NewReader(src)
	case "br":
		r = brotli.NewReader(src)
	case "zstd":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(src, zstd.WithDecoderConcurrency(1)); err == nil {
			defer z.Close()
			r = z
		}
	}
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, 32<<10))
	return err
}

func compressed(coding string, text []byte) ([]byte, error) {
	var b bytes.Buffer
	var w io.WriteCloser
	switch coding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	case "br":
		w = brotli.NewWriter(&b)
	case "zstd":
		var err error
		if w, err = zstd.NewWriter(&b); err != nil {
			return nil, err
		}
	}
	_, err := w.Write(text)
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	return b.Bytes(), err
}

type named struct {
	name string
	text []byte
}

// bodies are what APIs send, in order of how often they do.
func bodies() []named {
	rnd := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("the quick brown fox github issue title repository user name of a ghost")
	word := func() string { return words[rnd.IntN(len(words))] }
	id := func() string { return fmt.Sprintf("%016x%016x", rnd.Uint64(), rnd.Uint64()) }
	object := func() string {
		return fmt.Sprintf(`{"id":%d,"node_id":"MDU6%s","url":"https://api.github.com/repos/o/%s/issues/%d","title":"%s %s %s","body":"%s\r\n%s \"%s\"","sha":"%s"},`,
			rnd.IntN(1e9), id(), word(), rnd.IntN(1e4), word(), word(), word(), word(), word(), word(), id())
	}
	text := func(row func() string) []byte {
		var b bytes.Buffer
		for b.Len() < bodySize {
			b.WriteString(row())
		}
		return b.Bytes()[:bodySize]
	}
	quoted := func() string {
		b, err := json.Marshal(object())
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	return []named{
		{"JSON", text(object)},
		{"JSON in JSON", text(quoted)},
		{"JSON, \\u-escaped", text(func() string { return `{"t":"` + strings.Repeat(`\u4e2d\u6587\u5b57`, 10) + `"},` })},
		{"percent-encoded", text(func() string { return "q=%E4%B8%AD%E6%96%87%20" + word() + "&amp;" })},
		{"base64", text(func() string { return "data:" + id() + "ZW" + id() + "\n" })},
	}
}
