package redact

import (
	"bytes"
	"io"
	"net/http"
	"strings"
)

// maxBeside is how much of a coded body is held back while it is searched, in bytes: one that is not longer is searched whole before
// any of it is passed on. A decoder holds back less than that of its own accord.
const maxBeside = 1 << 20

// Searched returns a request's body, to be sent, that is searched for marks as it is read: in plain text, coded as its header says, or
// in messages of gRPC. A coded body passes byte for byte, and is decoded beside; what is found in there cannot be
// covered, so that tell has to end it. Of a longer one the last MiB is held back. Compressed messages of gRPC are passed on
// decoded: then h and length are changed to say so. An error is ErrUncleanable: it is in a coding that is not undone here.
// Reading it fails as decoding does, with ErrBomb for what grows beyond reason.
func (r *Redactor) Searched(src io.Reader, h http.Header, length *int64) (io.Reader, error) {
	if len(r.marks) == 0 {
		return src, nil
	}
	coding := strings.ToLower(strings.TrimSpace(strings.Join(h["Grpc-Encoding"], ",")))
	if messages := coding != "" && coding != "identity"; messages {
		if decoders[coding] == nil || !framing(h) || len(h["Content-Encoding"]) > 0 {
			return nil, ErrUncleanable
		}
		h.Del("Grpc-Encoding")
		h.Del("Content-Length")
		*length = -1
		return r.Messages(src, coding), nil
	}
	list, known := codings(inPieces(h))
	if !known {
		return nil, ErrUncleanable
	}
	raw := r.Reader(src) // a mark may stand beside what is coded, in a name or in what decoders skip
	if len(list) == 0 {
		return raw, nil
	}
	b := &beside{}
	b.text = r.Reader(&decoding{ReadCloser: io.NopCloser(io.TeeReader(raw, &b.held)), list: list})
	b.rest = raw
	return b, nil
}

// inPieces is h without the one coding that compresses nothing: Amazon's, which puts signatures between pieces of the plain text.
func inPieces(h http.Header) http.Header {
	const plain = "aws-chunked"
	if !strings.Contains(strings.ToLower(strings.Join(h["Content-Encoding"], ",")), plain) {
		return h
	}
	h = h.Clone()
	for i, v := range h["Content-Encoding"] {
		h["Content-Encoding"][i] = strings.ReplaceAll(strings.ToLower(v), plain, "identity")
	}
	return h
}

// beside reads what is coded, and hands it on when it has been searched.
type beside struct {
	text io.Reader // what it stands for, searched
	rest io.Reader // what follows its end
	held bytes.Buffer
	buf  [8 << 10]byte // of text, which nobody else reads
	err  error
}

func (b *beside) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for b.err == nil && b.held.Len() <= maxBeside {
		if _, b.err = b.text.Read(b.buf[:]); b.err == io.EOF {
			b.err = b.ended()
		}
	}
	if b.err != nil && b.err != io.EOF {
		return 0, b.err
	}
	ready := b.held.Len()
	if b.err == nil {
		ready -= maxBeside
	}
	if ready == 0 {
		return 0, b.err
	}
	return b.held.Read(p[:min(len(p), ready)])
}

// ended looks behind the end of what is coded, where nothing may be: somebody could read on.
func (b *beside) ended() error {
	n, err := io.CopyN(io.Discard, b.rest, 1)
	if n > 0 {
		return errBehind
	}
	return err
}
