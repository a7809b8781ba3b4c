package redact

import (
	"bytes"
	"encoding/binary"
	"io"
	"mime"
	"net/http"
	"strings"
)

// maxMessage bounds a compressed message of gRPC, and what it stands for: as many bytes as most clients take at most, four times over.
const maxMessage = 16 << 20

// codingOf is how an answer's messages are compressed, if it is one of gRPC: "" where they are not. Not known: a coding that is not
// undone here.
func codingOf(resp *http.Response) (coding string, grpc, known bool) {
	grpc = resp.StatusCode == http.StatusOK && framing(resp.Header)
	coding = strings.ToLower(strings.TrimSpace(strings.Join(resp.Header["Grpc-Encoding"], ",")))
	if coding == "identity" {
		coding = ""
	}
	return coding, grpc, coding == "" || grpc && decoders[coding] != nil
}

// framing says whether a body is messages of gRPC, or of gRPC-Web in its binary form. The text form is base64 throughout, and passes
// as any text does.
func framing(h http.Header) bool {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	sub, ok := strings.CutPrefix(kind, "application/grpc")
	if sub = strings.TrimPrefix(sub, "-web"); err != nil || !ok {
		return false
	}
	return sub == "" || sub[0] == '+'
}

// Messages returns a stream of gRPC's messages with what they hold cleaned. A mark is found across their borders. Those that are
// compressed, in this coding, are decoded, and passed on as they are then; coding "" is none.
func (r *Redactor) Messages(src io.Reader, coding string) io.Reader {
	return r.framed(src, func(f payloads) error { return f.grpc(coding) })
}

// grpc reads the head of a message: whether it is compressed, and its length.
func (f payloads) grpc(coding string) error {
	const compressed, trailer = 0x01, 0x80 // the latter in gRPC-Web alone
	h := frame{at: f.in, data: true, bytes: make([]byte, 5)}
	if n, err := io.ReadFull(f.src, h.bytes); err != nil {
		if n == 0 {
			return err // io.EOF: there are no more
		}
		return unexpected(err)
	}
	size := binary.BigEndian.Uint32(h.bytes[1:])
	f.payload = f.src
	switch {
	case h.bytes[0]&^(compressed|trailer) != 0:
		return ErrFrame
	case h.bytes[0]&compressed != 0:
		text, err := inMemory(f.src, coding, size)
		if err != nil {
			return err
		}
		size, f.payload = uint32(len(text)), bytes.NewReader(text)
		h.bytes[0] &^= compressed
		binary.BigEndian.PutUint32(h.bytes[1:], size)
	}
	f.next, f.left = h, int64(size)
	f.heads = append(f.heads, h)
	return nil
}

// inMemory decodes one message.
func inMemory(src io.Reader, coding string, size uint32) ([]byte, error) {
	if decoders[coding] == nil || size > maxMessage {
		return nil, ErrFrame
	}
	var coded bytes.Buffer // grows by what comes, whatever the head says
	if _, err := io.CopyN(&coded, src, int64(size)); err != nil {
		return nil, unexpected(err)
	}
	d := &decoding{ReadCloser: io.NopCloser(&coded), list: []string{coding}}
	text, err := io.ReadAll(io.LimitReader(d, maxMessage+1))
	if err == nil && len(text) > maxMessage {
		err = ErrBomb
	}
	return text, err
}
