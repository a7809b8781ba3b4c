package egress

import (
	"frontdesk.dev/frontdesk/internal/catalog"

	"bytes"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
)

// gate stands before the HTTP server on a connection that speaks HTTP/1.1, and reads each message's framing more strictly than
// that does: what the two could understand differently never gets to it. In the place of a head that contradicts itself
// it hands on a request of its own (refusedMethod), which is answered in its turn, and then the end of the connection.
type gate struct {
	net.Conn
	head  []byte // read, and not yet handed on
	ready int    // head[:ready] may be handed on
	body  framing
	raw   bool // from here on it is not HTTP/1.1, or the connection is a tunnel's or a WebSocket's
	ended bool // nothing is handed on behind what is ready
}

// refusedMethod is no method of HTTP; a client that uses it is refused as well.
const refusedMethod = "FRONTDESK-REFUSED"

// framing is what is left of the body at hand.
type framing struct {
	left    int64 // bytes
	chunked bool
	phase   chunkPhase
	line    []byte // of a chunk's size, or of the trailer
	trailer int    // bytes of it so far
}

type chunkPhase int

const (
	chunkSize chunkPhase = iota
	chunkData
	chunkEnd
	chunkTrailer
)

const maxChunkLine = 256 // a size, with extensions nobody uses

func (g *gate) Read(p []byte) (int, error) {
	for {
		switch {
		case g.ready > 0:
			n := copy(p, g.head[:g.ready])
			g.head, g.ready = g.head[n:], g.ready-n
			return n, nil
		case g.ended:
			return 0, io.EOF
		case g.raw:
			return g.Conn.Read(p)
		}
		if len(g.head) > 0 && g.take() {
			continue
		}
		if len(g.head) == 0 && g.body.left > 0 && !g.body.chunked { // a long body is not copied
			n, err := g.Conn.Read(p[:min(int64(len(p)), g.body.left)])
			g.body.left -= int64(n)
			return n, err
		}
		buf := make([]byte, 4096)
		n, err := g.Conn.Read(buf)
		g.head = append(g.head, buf[:n]...)
		if n == 0 && err != nil {
			return 0, err
		}
	}
}

// CloseWrite lets an answer arrive although not all was read that the client sent.
func (g *gate) CloseWrite() error { return closeWrite(g.Conn) }

// take decides how much of what was read may be handed on. False: more has to be read first.
func (g *gate) take() bool {
	if g.body.left > 0 || g.body.chunked {
		n, err := g.body.pass(g.head)
		if g.ready = n; err != nil {
			g.head, g.ended = g.head[:n], true // in the middle of a message there is nothing to say: it breaks off
			return true
		}
		return n > 0
	}
	end := bytes.Index(g.head, []byte("\r\n\r\n"))
	early := end < 0 && bytes.IndexByte(g.head, '\n') >= 0
	switch {
	case bytes.HasPrefix(g.head, []byte("PRI * HTTP/2.0\r\n")):
		g.raw, g.ready = true, len(g.head)
		return true
	case end < 0 && len(g.head) > maxHeader:
		g.refuse("the request's head is too large")
		return true
	case end < 0 && early && bareLF(g.head):
		g.refuse("a line of the request's head does not end with CR LF")
		return true
	case end < 0:
		return false
	}
	if why := g.check(string(g.head[:end])); why != "" {
		g.refuse(why)
		return true
	}
	g.ready = end + 4
	if g.raw {
		g.ready = len(g.head)
	}
	return true
}

func bareLF(b []byte) bool {
	for i, c := range b {
		if c == '\n' && (i == 0 || b[i-1] != '\r') {
			return true
		}
	}
	return false
}

func (g *gate) refuse(why string) {
	g.ended = true
	g.head = []byte(refusedMethod + " / HTTP/1.1\r\nHost: refused\r\nConnection: close\r\nX-Why: " + why + "\r\n\r\n")
	g.ready = len(g.head)
}

// check reads a head without its last empty line, and how its body is framed (RFC 9112 sections 3, 5 and 6). It returns what is
// wrong with it.
func (g *gate) check(head string) string {
	lines := strings.Split(head, "\r\n")
	method, rest, _ := strings.Cut(lines[0], " ")
	target, version, _ := strings.Cut(rest, " ")
	if method == "" || target == "" || version != "HTTP/1.1" && version != "HTTP/1.0" || strings.ContainsFunc(lines[0], func(c rune) bool { return c <= ' ' && c != ' ' || c >= 0x7f }) {
		return "the request line is not well formed"
	}
	var hosts, lengths, codings []string
	upgrade := false
	for _, l := range lines[1:] {
		name, value, ok := strings.Cut(l, ":")
		if !ok || !isToken(name) || strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
			return "a header line is not well formed"
		}
		value = strings.Trim(value, " \t")
		switch strings.ToLower(name) {
		case "host":
			hosts = append(hosts, value)
		case "content-length":
			lengths = append(lengths, value)
		case "transfer-encoding":
			codings = append(codings, value)
		case "upgrade":
			upgrade = true
		}
	}
	if len(hosts) > 1 || len(hosts) == 0 && version == "HTTP/1.1" {
		return "the request needs one Host"
	}
	if why := checkHost(method, target, hosts); why != "" {
		return why
	}
	g.raw = method == "CONNECT" || upgrade
	return g.body.begin(version, lengths, codings)
}

// checkHost compares Host with a target that names its own (RFC 9112 section 3.2).
func checkHost(method, target string, hosts []string) string {
	if len(hosts) == 0 {
		return ""
	}
	host, err := originOf("https", hosts[0])
	if err != nil {
		return "Host is not written as a plain name or address, with or without a port"
	}
	named := target
	if method != "CONNECT" {
		scheme, rest, absolute := cutScheme(target)
		if !absolute {
			return ""
		}
		if named, _, _ = strings.Cut(rest, "/"); scheme == "http" {
			host, _ = originOf("http", hosts[0])
		}
		named, _, _ = strings.Cut(named, "?")
		if at, err := originOf(scheme, named); err != nil || at != host {
			return "Host and the target of the request are not the same"
		}
		return ""
	}
	at, err := originOf("https", named)
	if err != nil || at != host && strings.TrimSuffix(at, at[strings.LastIndexByte(at, ':'):]) != strings.TrimSuffix(host, ":443") {
		return "Host and the target of CONNECT are not the same"
	}
	return ""
}

func (f *framing) begin(version string, lengths, codings []string) string {
	*f = framing{}
	switch {
	case len(codings) > 0 && (len(lengths) > 0 || len(codings) > 1 || !strings.EqualFold(codings[0], "chunked") || version == "HTTP/1.0"):
		return "the request's length can be read in more than one way"
	case len(codings) > 0:
		f.chunked = true
	case len(lengths) > 1:
		return "the request's length can be read in more than one way"
	case len(lengths) == 1:
		n, err := strconv.ParseUint(lengths[0], 10, 63)
		if err != nil || lengths[0][0] == '+' {
			return "Content-Length is no number"
		}
		f.left = int64(n)
	}
	return ""
}

var errChunk = errors.New("a chunk is not well formed")

// pass says how much of b belongs to the body and is well formed.
func (f *framing) pass(b []byte) (n int, err error) {
	if !f.chunked {
		n = int(min(int64(len(b)), f.left))
		f.left -= int64(n)
		return n, nil
	}
	for n < len(b) && f.chunked {
		if f.phase == chunkData {
			k := int(min(int64(len(b)-n), f.left))
			if n, f.left = n+k, f.left-int64(k); f.left == 0 {
				f.phase = chunkEnd
			}
			continue
		}
		f.line = append(f.line, b[n])
		n++
		if f.trailer++; len(f.line) > maxChunkLine && f.phase != chunkTrailer || f.trailer > maxHeader {
			return n, errChunk
		}
		if b[n-1] != '\n' {
			continue
		}
		line, ok := strings.CutSuffix(string(f.line), "\r\n")
		if !ok || !f.next(line) {
			return n, errChunk
		}
		f.line = f.line[:0]
	}
	return n, nil
}

// next reads one line between chunks.
func (f *framing) next(line string) bool {
	switch f.phase {
	case chunkSize:
		size, _, _ := strings.Cut(line, ";")
		v, err := strconv.ParseUint(size, 16, 62)
		if err != nil || size[0] == '+' || strings.ContainsAny(line, "\r\x00") {
			return false
		}
		f.left, f.phase, f.trailer = int64(v), chunkData, 0
		if v == 0 {
			f.phase = chunkTrailer
		}
	case chunkEnd:
		f.phase, f.trailer = chunkSize, 0
		return line == ""
	case chunkTrailer:
		if line == "" {
			*f = framing{}
			return true
		}
		name, _, ok := strings.Cut(line, ":")
		return ok && isToken(name)
	}
	return true
}

// isToken is RFC 9110 section 5.6.2.
func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; !catalog.Unreserved(c) && strings.IndexByte("!#$%&'*+^`|", c) < 0 {
			return false
		}
	}
	return s != ""
}
