package redact

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"
	"github.com/klauspost/compress/zstd"
)

const (
	maxCodings = 2        // one over another; more is no honest answer
	maxWindow  = 8 << 20  // of zstd over HTTP (RFC 9659); brotli's ends at 16 MiB by its format
	maxGrowth  = 1100     // gzip cannot do more than 1032
	freeGrowth = 16 << 20 // bytes to which an answer may grow in any case
)

// ErrBomb is an answer, or a request's body, that grows beyond reason when it is decoded.
var ErrBomb = errors.New("it grows more than a thousandfold when it is decoded")

var errBehind = errors.New("something follows the end of what is coded")

// codings lists how a body was compressed, the last first (RFC 9110 section 8.4). Not known: a coding that is not undone
// here, too many, or one by frame (RFC 7692) or by message (the Connect protocol's streams).
func codings(h http.Header) (list []string, known bool) {
	messages := strings.ToLower(strings.TrimSpace(strings.Join(h["Connect-Content-Encoding"], "")))
	if strings.TrimSpace(strings.Join(h["Sec-Websocket-Extensions"], "")) != "" || messages != "" && messages != "identity" {
		return nil, false
	}
	for _, v := range h["Content-Encoding"] {
		for c := range strings.SplitSeq(v, ",") {
			c = strings.ToLower(strings.TrimSpace(c))
			if c == "" || c == "identity" {
				continue
			}
			if decoders[c] == nil || len(list) == maxCodings {
				return nil, false
			}
			list = append([]string{c}, list...)
		}
	}
	return list, true
}

var decoders = map[string]func(io.Reader) (io.Reader, error){
	"gzip": unzip, "x-gzip": unzip, "deflate": inflate,
	"br":   func(src io.Reader) (io.Reader, error) { return brotli.NewReader(src), nil },
	"zstd": unzstd,
}

// idle are decoders of zstd that have read an answer to its end: to make their buffers costs a fifth of decoding 10 MB.
var idle sync.Pool

func unzstd(src io.Reader) (io.Reader, error) {
	if z, ok := idle.Get().(*zstd.Decoder); ok {
		return z, z.Reset(src)
	}
	return zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
}

func unzip(src io.Reader) (io.Reader, error) { return gzip.NewReader(src) }

// inflate reads the coding that is called deflate and means zlib's format (RFC 9110 section 8.4.1.2); some send the bare one.
func inflate(src io.Reader) (io.Reader, error) {
	b := bufio.NewReader(src)
	head, err := b.Peek(2)
	if err != nil {
		return nil, err
	}
	if head[0]&0x0f == 8 && (uint(head[0])<<8|uint(head[1]))%31 == 0 {
		return zlib.NewReader(b)
	}
	return flate.NewReader(b), nil
}

// decoded replaces the body by what it stands for. What described the coded bytes goes with them.
func decoded(resp *http.Response, list []string) {
	for _, name := range []string{"Content-Encoding", "Content-Length", "Content-Digest", "Repr-Digest", "Digest", "Content-Md5", "Accept-Ranges"} {
		resp.Header.Del(name)
	}
	if resp.Body == nil || resp.Body == http.NoBody {
		return
	}
	resp.ContentLength, resp.Uncompressed = -1, true
	resp.Body = &decoding{ReadCloser: resp.Body, list: list}
}

// decoding decodes as it is read. It begins with the first Read, because a decoder wants to see a header.
type decoding struct {
	io.ReadCloser
	list    []string
	decoder io.Reader
	err     error
	in, out int64
}

// counted is the coded side.
type counted struct{ *decoding }

func (c counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.in += int64(n)
	return n, err
}

func (d *decoding) Read(p []byte) (int, error) {
	if d.decoder == nil && d.err == nil {
		d.decoder = counted{d}
		for _, c := range d.list {
			if d.decoder, d.err = decoders[c](d.decoder); d.err != nil {
				break
			}
		}
		if d.err == io.EOF && d.in > 0 {
			d.err = io.ErrUnexpectedEOF
		} // an answer of no bytes is an empty answer, whatever its coding
	}
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.decoder.Read(p)
	if d.out += int64(n); d.out > freeGrowth && d.out/maxGrowth > d.in {
		n, err = 0, ErrBomb
	}
	d.err = err
	// Here alone, where nobody reads from it any more: Close may come while somebody does.
	if z, ok := d.decoder.(*zstd.Decoder); ok && err == io.EOF && z.Reset(nil) == nil {
		idle.Put(z)
	}
	return n, err
}
