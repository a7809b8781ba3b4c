// Package forms takes a keycard's field out of a form with files, while the form streams.
//
// It trusts nothing of the form, and lets pass what can be read in one way only: whatever some reader could take for a border
// between two parts is one, or an error.
package forms

import (
	"bufio"
	"bytes"
	"io"
	"mime"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

const (
	maxLook     = 256 << 10 // bytes that are read to find the field
	maxPartHead = 16 << 10
	maxToken    = 16 << 10 // of the field
)

// Cut takes the fields with these names out of a form of parts (RFC 7578), as far as the first file. What is left stays as it was,
// byte for byte, and is read from rest as it comes; such a field behind a file, or behind one that was found, is an error there. cut
// is how many bytes shorter it is. Errors are fault.Invalid, and what body gives.
func Cut(body io.Reader, boundary string, names []string) (found []string, rest io.Reader, cut int64, err error) {
	if !boundaryShape.MatchString(boundary) {
		return nil, nil, 0, badRequest("the boundary of the form is not well formed")
	}
	p := &parts{src: bufio.NewReaderSize(body, 32<<10), delimiter: "--" + boundary, names: names, next: (*parts).first}
	var head bytes.Buffer
	for len(p.found) == 0 && !p.file && p.next != nil && head.Len() < maxLook {
		chunk, err := p.next(p)
		if err != nil {
			return nil, nil, 0, err
		}
		head.Write(chunk)
	}
	p.late = true
	return p.found, io.MultiReader(&head, p), p.cut, nil
}

func badRequest(msg string) error { return fault.New(fault.Invalid, msg, nil) }

// boundaryShape is RFC 2046 section 5.1.1, without spaces.
var boundaryShape = regexp.MustCompile(`^[0-9A-Za-z'()+_,./:=?-]{1,70}$`)

var errParts = badRequest("the form's parts are not well formed, or can be told apart in more than one way")

// parts reads a form and lets pass what was understood.
type parts struct {
	src       *bufio.Reader
	delimiter string
	names     []string
	next      func(*parts) ([]byte, error) // gives what may pass, until the next call; nil: it has ended
	late      bool                         // a keycard's field is an error from here on
	file      bool                         // a file has begun
	cutting   bool                         // the part is a keycard's
	value     []byte                       // of it, so far
	found     []string
	cut       int64  // bytes that were taken out
	ready     []byte // to be read
	err       error
}

func (p *parts) Read(b []byte) (int, error) {
	for len(p.ready) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		if p.next == nil {
			return 0, io.EOF
		}
		p.ready, p.err = p.next(p)
	}
	n := copy(b, p.ready)
	p.ready = p.ready[n:]
	return n, nil
}

func broken(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// first is the delimiter with which a form begins: there is no preamble.
func (p *parts) first() ([]byte, error) {
	b := make([]byte, len(p.delimiter))
	if _, err := io.ReadFull(p.src, b); err != nil || string(b) != p.delimiter {
		return nil, errParts
	}
	p.next = (*parts).head
	return b, nil
}

// head is what follows a delimiter: a part's head, or the end of the form.
func (p *parts) head() ([]byte, error) {
	b := make([]byte, 2, 256)
	if _, err := io.ReadFull(p.src, b); err != nil {
		return nil, broken(err)
	}
	if string(b) == "--" {
		p.next = (*parts).end
		return b, nil
	}
	if string(b) != "\r\n" {
		return nil, errParts
	}
	var disposition []string
	for {
		from := len(b)
		for len(b) < maxPartHead && (len(b) == from || b[len(b)-1] != '\n') {
			c, err := p.src.ReadByte()
			if err != nil {
				return nil, broken(err)
			}
			b = append(b, c)
		}
		line, ok := strings.CutSuffix(string(b[from:]), "\r\n")
		if !ok || strings.ContainsAny(line, "\r\n\x00") {
			return nil, errParts
		}
		if line == "" {
			break
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || !httpguts.ValidHeaderFieldName(name) {
			return nil, errParts
		}
		if strings.EqualFold(name, "Content-Disposition") {
			disposition = append(disposition, value)
		}
	}
	if err := p.begin(disposition); err != nil {
		return nil, err
	}
	if ahead, _ := p.src.Peek(len(p.delimiter)); string(ahead) == p.delimiter { // to some a delimiter, to others text
		return nil, errParts
	}
	p.next = (*parts).body
	if p.cutting {
		p.cut += int64(len(b))
		b = nil
	}
	return b, nil
}

// nameExtended is a field's name in RFC 5987's form, which forms do not have (RFC 7578 section 4.2), and some readers take.
var nameExtended = regexp.MustCompile(`(?i)(^|[;\s])name\s*\*`)

// begin reads what a part is.
func (p *parts) begin(disposition []string) error {
	if len(disposition) != 1 || nameExtended.MatchString(disposition[0]) || strings.Contains(disposition[0], `\"`) {
		return errParts
	}
	kind, params, err := mime.ParseMediaType(disposition[0])
	name, ok := params["name"]
	if err != nil || kind != "form-data" || !ok {
		return errParts
	}
	_, file := params["filename"]
	named := slices.ContainsFunc(p.names, func(n string) bool { return strings.EqualFold(n, name) })
	switch {
	case named && p.late:
		return badRequest("the form's field " + strconv.Quote(name) + " has to stand there once, and before any file")
	case named && (file || !slices.Contains(p.names, name)):
		return errParts
	}
	p.cutting, p.file = named, p.file || file
	return nil
}

// body is a part's text as far as it is here, or the delimiter behind it.
func (p *parts) body() ([]byte, error) {
	border := "\r\n" + p.delimiter
	if _, err := p.src.Peek(len(border)); err != nil {
		return nil, broken(err)
	}
	b, _ := p.src.Peek(p.src.Buffered())
	n := len(b) - len(border) + 1
	at := bytes.Index(b, []byte(border[1:]))
	if at >= 0 {
		if at == 0 || b[at-1] != '\r' { // behind a bare LF it is a delimiter to some
			return nil, errParts
		}
		n = at - 1
	}
	delimiter := n <= 0
	if b = b[:max(n, 0)]; delimiter {
		b, p.next = []byte(border), (*parts).head
	}
	if _, err := p.src.Discard(len(b)); err != nil || !p.cutting {
		return b, err
	}
	p.cut += int64(len(b))
	switch {
	case delimiter:
		p.found, p.value, p.cutting = append(p.found, string(p.value)), nil, false
	case len(p.value)+len(b) > maxToken:
		return nil, errParts
	default:
		p.value = append(p.value, b...)
	}
	return nil, nil
}

// end is what follows the last delimiter: nothing, or the end of its line.
func (p *parts) end() ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(p.src, 3))
	if err == nil && len(b) > 0 && string(b) != "\r\n" {
		err = errParts
	}
	p.next = nil
	return b, err
}
