package redact

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

// ErrFrame is a WebSocket that does not keep to RFC 6455, or uses an extension, under which payloads are not themselves; or gRPC whose
// messages are not what their heads say.
var ErrFrame = errors.New("the frames of the WebSocket, or the messages of gRPC, are not well formed")

// maxHeld bounds the frames whose heads wait behind a payload that may be the beginning of a mark.
const maxHeld = 64

// Frames returns a WebSocket's stream of frames (RFC 6455 section 5) with their payloads cleaned. A mark is found across the
// borders of frames and messages. Masked payloads, a client's, are unmasked for it and masked again.
func (r *Redactor) Frames(src io.Reader) io.Reader { return r.framed(src, payloads.webSocket) }

func (r *Redactor) framed(src io.Reader, head func(payloads) error) io.Reader {
	f := &frames{redactor: r, src: bufio.NewReader(src), buf: make([]byte, firstBuffer), head: head}
	f.payload = f.src
	f.clean = r.Reader(payloads{f})
	return f
}

// frames passes heads and payloads on in the order in which they came. Payloads come back from the cleaner later than they
// went in, never shorter or longer; so a head waits until all payload before it has gone.
type frames struct {
	redactor *Redactor
	src      *bufio.Reader
	head     func(payloads) error // reads what stands between two payloads
	payload  io.Reader            // where next comes from: src, or what it was decoded to
	clean    io.Reader
	heads    []frame // waiting, in order
	ready    []byte  // of a head, to go out next
	stash    []byte  // cleaned payload, part of buf
	buf      []byte
	now      frame // the data frame whose payload goes out
	next     frame // the data frame whose payload comes in
	left     int64 // payload of next that has not come
	in, out  int64 // payload bytes given to the cleaner, and passed on
	err      error
}

// frame is the head of a frame, with its payload where it is a control frame's.
type frame struct {
	bytes  []byte
	at     int64 // place in the stream of payloads
	data   bool
	masked bool
	mask   [4]byte
}

// apply masks or unmasks what stands at a place in the stream of payloads.
func (f *frame) apply(p []byte, at int64) {
	if f.masked {
		for i := range p {
			p[i] ^= f.mask[(at-f.at+int64(i))&3]
		}
	}
}

func (f *frames) Read(p []byte) (int, error) {
	for {
		switch {
		case len(f.ready) > 0:
			n := copy(p, f.ready)
			f.ready = f.ready[n:]
			return n, nil
		case len(f.heads) > 0 && f.heads[0].at == f.out:
			head := f.heads[0]
			f.heads, f.ready = f.heads[1:], head.bytes
			if head.data {
				f.now = head
			}
		case len(f.stash) > 0:
			n := min(len(p), len(f.stash))
			if len(f.heads) > 0 {
				n = min(n, int(f.heads[0].at-f.out))
			}
			copy(p, f.stash[:n])
			f.now.apply(p[:n], f.out)
			f.stash, f.out = f.stash[n:], f.out+int64(n)
			return n, nil
		case f.err != nil:
			return 0, f.err
		default:
			n, err := f.clean.Read(f.buf)
			f.stash, f.err = f.buf[:n], err
		}
	}
}

// payloads is what the cleaner reads: payloads without heads. After a head it reports no bytes, so that the head goes out
// before anybody waits for what follows it.
type payloads struct{ *frames }

func (f payloads) Read(p []byte) (int, error) {
	if f.left == 0 {
		if len(f.heads) == maxHeld {
			return 0, ErrFrame
		}
		return 0, f.head(f)
	}
	n, err := f.payload.Read(p[:min(int64(len(p)), f.left)])
	f.next.apply(p[:n], f.in)
	f.in, f.left = f.in+int64(n), f.left-int64(n)
	if err == io.EOF && f.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// webSocket reads the head of a frame, and the whole of a control frame.
func (f payloads) webSocket() error {
	const final, reserved, control, opcode, maskBit, maxControl = 0x80, 0x70, 0x08, 0x0f, 0x80, 125
	first, err := f.src.Peek(2)
	if err != nil {
		if len(first) == 1 && err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	h := frame{at: f.in, data: first[0]&control == 0, masked: first[1]&maskBit != 0}
	size, op := int64(first[1]&^maskBit), first[0]&opcode
	if first[0]&reserved != 0 || op > 2 && op < control || op > 10 || !h.data && (size > maxControl || first[0]&final == 0) {
		return ErrFrame
	}
	wide := map[int64]int{126: 2, 127: 8}[size]
	h.bytes = make([]byte, 2+wide, 14)
	if _, err := io.ReadFull(f.src, h.bytes); err != nil {
		return unexpected(err)
	}
	if wide > 0 {
		var b [8]byte
		copy(b[8-wide:], h.bytes[2:])
		if size = int64(binary.BigEndian.Uint64(b[:])); size < 0 {
			return ErrFrame
		}
	}
	if h.masked {
		if _, err := io.ReadFull(f.src, h.mask[:]); err != nil {
			return unexpected(err)
		}
		h.bytes = append(h.bytes, h.mask[:]...)
	}
	if h.data {
		f.next, f.left = h, size
	} else if err := f.control(&h, size); err != nil {
		return err
	}
	f.heads = append(f.heads, h)
	return nil
}

// control reads and cleans the payload of a control frame, which stands apart from the messages around it.
func (f payloads) control(h *frame, size int64) error {
	p := make([]byte, size)
	if _, err := io.ReadFull(f.src, p); err != nil {
		return unexpected(err)
	}
	h.apply(p, h.at)
	if clean, hits := f.redactor.scrub(p); hits > 0 {
		if err := f.redactor.told(hits); err != nil {
			return err
		}
		p = clean
	}
	h.apply(p, h.at)
	h.bytes = append(h.bytes, p...)
	return nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
