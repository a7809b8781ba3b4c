package redact_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"frontdesk.dev/frontdesk/internal/kit/redact"
)

// frame writes one frame of a WebSocket; a mask of zero is none.
func frame(first byte, payload string, mask uint32) []byte {
	b := []byte{first, 0}
	switch n := len(payload); {
	case n < 126:
		b[1] = byte(n)
	case n < 1<<16:
		b[1] = 126
		b = binary.BigEndian.AppendUint16(b, uint16(n))
	default:
		b[1] = 127
		b = binary.BigEndian.AppendUint64(b, uint64(n))
	}
	p := []byte(payload)
	if mask != 0 {
		b[1] |= 0x80
		b = binary.BigEndian.AppendUint32(b, mask)
		key := b[len(b)-4:]
		for i := range p {
			p[i] ^= key[i%4]
		}
	}
	return append(b, p...)
}

// unframe reads frames the slow way and returns their heads and payloads.
func unframe(t *testing.T, b []byte) (heads []byte, data, control string) {
	t.Helper()
	for len(b) > 0 {
		n, at := int(b[1]&0x7f), 2
		switch n {
		case 126:
			n, at = int(binary.BigEndian.Uint16(b[2:])), 4
		case 127:
			n, at = int(binary.BigEndian.Uint64(b[2:])), 10
		}
		var mask []byte
		if b[1]&0x80 != 0 {
			mask, at = b[at:at+4], at+4
		}
		p := bytes.Clone(b[at : at+n])
		for i := range p {
			if mask != nil {
				p[i] ^= mask[i%4]
			}
		}
		heads = append(heads, b[:at]...)
		if b[0]&8 != 0 {
			control += string(p)
		} else {
			data += string(p)
		}
		b = b[at+n:]
	}
	return heads, data, control
}

func TestFrames(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 4))
		text := strings.Repeat("x", rnd.IntN(200)) + canary + strings.Repeat("y", 4+rnd.IntN(70_000*rnd.IntN(2)+1)) + canary + "z"
		var stream []byte
		for first := byte(1); ; first = 0 {
			if rnd.IntN(3) == 0 {
				stream = append(stream, frame(0x89, canary[:rnd.IntN(len(canary))], rnd.Uint32()*uint32(seed%2))...)
			}
			if n := rnd.IntN(40); n < len(text) {
				stream, text = append(stream, frame(first, text[:n], rnd.Uint32()*uint32(seed%2))...), text[n:]
				if rnd.IntN(8) > 0 {
					continue
				}
			}
			stream = append(stream, frame(0x80|first, text, rnd.Uint32()*uint32(seed%2))...)
			break
		}
		stream = append(stream, frame(0x88, "\x03\xe8"+canary, rnd.Uint32()*uint32(seed%2))...)
		r := redact.New([][]byte{[]byte(canary)})
		var src io.Reader = bytes.NewReader(stream)
		if seed%3 == 0 {
			src = iotest.OneByteReader(src)
		}
		got, err := io.ReadAll(r.Frames(src))
		if err != nil || len(got) != len(stream) {
			t.Fatalf("seed %d: %d bytes of %d, %v", seed, len(got), len(stream), err)
		}
		before, was, _ := unframe(t, stream)
		heads, data, control := unframe(t, got)
		want := redact.New([][]byte{[]byte(canary)}).String(was)
		if !bytes.Equal(heads, before) || !butEarly(want, data) || strings.Contains(data+control, canary) || !strings.HasSuffix(control, "*") {
			t.Fatalf("seed %d: heads are the same: %v; payloads:\nwant %.300q\n got %.300q\nof control frames: %q", seed, bytes.Equal(heads, before), want, data, control)
		}
	}
}

// TestFramesDoNotWait: a frame arrives before the next one exists.
func TestFramesDoNotWait(t *testing.T) {
	in, out := io.Pipe()
	defer func() { _ = in.Close() }()
	r := redact.New([][]byte{[]byte(canary)}).Frames(in)
	for _, f := range [][]byte{frame(0x81, "hello", 0), frame(0x89, "", 0), frame(0x81, "CNRY", 7), frame(0x81, "", 0), frame(0x02, "part", 0), frame(0x8a, "ping", 0)} {
		go func() { _, _ = out.Write(f) }()
		got := make([]byte, len(f))
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, f) {
			t.Fatalf("%q %v", got, err)
		}
	}
}

func TestFramesThatAreNone(t *testing.T) {
	for name, b := range map[string][]byte{
		"reserved bit":        frame(0xc1, "compressed", 0),
		"unknown opcode":      frame(0x83, "x", 0),
		"unknown control":     frame(0x8b, "x", 0),
		"long control":        frame(0x89, strings.Repeat("x", 126), 0),
		"control in pieces":   frame(0x09, "x", 0),
		"a length below zero": {0x82, 127, 0xff, 0, 0, 0, 0, 0, 0, 1},
		"cut in the head":     {0x82},
		"cut in the length":   {0x82, 126, 1},
		"cut in the mask":     {0x82, 0x81, 1, 2},
		"cut in the payload":  {0x82, 5, 1, 2},
	} {
		_, err := io.ReadAll(redact.New([][]byte{[]byte(canary)}).Frames(bytes.NewReader(b)))
		if !errors.Is(err, redact.ErrFrame) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(frame(0x81, "a "+canary, 5), uint8(3))
	f.Add(frame(0x01, canary, 0), uint8(1))
	f.Fuzz(func(t *testing.T, stream []byte, n uint8) {
		src := &splitting{src: bytes.NewReader(stream), rnd: rand.New(rand.NewPCG(uint64(n), 1))}
		got, err := io.ReadAll(redact.New([][]byte{[]byte(canary)}).Frames(src))
		if len(got) > len(stream) || err == nil && len(got) != len(stream) {
			t.Fatalf("%d bytes became %d", len(stream), len(got))
		}
	})
}
