package mcp

import (
	"bytes"
	"errors"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// MaxDepth bounds the nesting of a message.
const MaxDepth = 64

// Keys of the modern era's _meta.
const (
	metaVersion      = "io.modelcontextprotocol/protocolVersion"
	metaCapabilities = "io.modelcontextprotocol/clientCapabilities"
	metaClientInfo   = "io.modelcontextprotocol/clientInfo"
	metaLogLevel     = "io.modelcontextprotocol/logLevel"
)

// Scan reads one message in one pass. Refused are invalid UTF-8, a byte order mark, trailing bytes, duplicate names at the
// top, in params and in _meta (compared after unescaping: parsers differ in which one wins), odd ids, and what is neither
// request, notification nor response. The error is a *Fault with the code that the specification wants.
func Scan(raw []byte) (Message, error) {
	m := Message{Raw: raw}
	if len(raw) == 0 || !utf8.Valid(raw) || bytes.HasPrefix(raw, []byte("\xef\xbb\xbf")) {
		return m, refuse(CodeParse, "the body is not JSON in UTF-8")
	}
	s := scanner{b: raw}
	s.space()
	if s.peek() == '[' {
		return m, refuse(CodeRequest, "a message is an object, not an array")
	}
	if s.peek() != '{' {
		return m, refuse(CodeParse, "the body is not a JSON object")
	}
	if err := s.object(&m, levelTop); err != nil {
		return m, err
	}
	s.space()
	if s.i != len(raw) {
		return m, refuse(CodeParse, "there is something after the message")
	}
	return m, m.classify(&s)
}

func (m *Message) classify(s *scanner) error {
	if m.modern { // what stands in params in place of _meta is the legacy era's, whichever came first
		m.Capabilities, m.ClientInfo = s.metaCapabilities, s.metaClientInfo
	}
	if !s.version {
		return refuse(CodeRequest, `"jsonrpc" must be "2.0"`)
	}
	if m.ID.Present() && !validID(m.Of(m.ID)) {
		return refuse(CodeRequest, "an id is a string or an integer")
	}
	switch {
	case s.method && (m.Result.Present() || m.Err.Present()):
		return refuse(CodeRequest, "a message is a request or a response, not both")
	case s.method && m.ID.Present():
		m.Kind = Request
	case s.method:
		m.Kind = Notification
	case m.Result.Present() != m.Err.Present() && (m.ID.Present() || m.Err.Present()):
		m.Kind = Response
	default:
		return refuse(CodeRequest, "the message is neither request, notification nor response")
	}
	return m.target(s)
}

// target is what the method goes by.
func (m *Message) target(s *scanner) error {
	span := Span{}
	if m.Removed() { // what it names means nothing any more
		return nil
	}
	switch m.Method {
	case "tools/call", "prompts/get":
		span = m.name
	case "resources/read", "resources/subscribe", "resources/unsubscribe":
		span = m.uri
	case "tasks/get", "tasks/update", "tasks/cancel", "tasks/result":
		span = m.task
	case "completion/complete":
		if m.Params.Present() {
			ref := Lookup(m.Of(m.Params), "ref")
			m.Target = unquoted(Lookup(ref, "name")) + unquoted(Lookup(ref, "uri"))
		}
		return nil
	default:
		return nil
	}
	if m.Kind != Request {
		return nil
	}
	if !span.Present() || m.Raw[span.Start] != '"' {
		return refuse(CodeParams, "the request names nothing")
	}
	text, err := s.text(span)
	if err != nil || text == "" {
		return refuse(CodeParams, "the request names nothing that can be read")
	}
	m.Target = text
	return nil
}

// validID takes a string or an integer without fraction or exponent: 1, 1.0 and 1e0 are different to somebody.
func validID(id []byte) bool {
	if id[0] == '"' {
		return true
	}
	return (id[0] == '-' || id[0] >= '0' && id[0] <= '9') && !bytes.ContainsAny(id, ".eE")
}

type level uint8

const (
	levelTop level = iota
	levelParams
	levelMeta
	levelOther
)

type scanner struct {
	b               []byte
	i, depth        int
	version, method bool
	tmp             []byte

	metaCapabilities, metaClientInfo Span
}

var errSyntax = refuse(CodeParse, "the body is not JSON")

func (s *scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\n' || s.b[s.i] == '\r' || s.b[s.i] == '\t') {
		s.i++
	}
}

func (s *scanner) peek() byte {
	if s.i < len(s.b) {
		return s.b[s.i]
	}
	return 0
}

// enter opens an object or array; it reports whether it is closed again at once.
func (s *scanner) enter(end byte) (empty bool, err error) {
	if s.depth++; s.depth > MaxDepth {
		return false, refuse(CodeRequest, "the message is nested too deeply")
	}
	s.i++
	s.space()
	if s.peek() == end {
		s.i++
		s.depth--
		return true, nil
	}
	return false, nil
}

// next steps over a comma, or the end.
func (s *scanner) next(end byte) (done bool, err error) {
	s.space()
	switch s.peek() {
	case ',':
		s.i++
		s.space()
		return false, nil
	case end:
		s.i++
		s.depth--
		return true, nil
	}
	return false, errSyntax
}

// object reads the members of an object. On the levels that matter a name may stand once.
func (s *scanner) object(m *Message, at level) error {
	if empty, err := s.enter('}'); empty || err != nil {
		return err
	}
	var few [12]Span
	seen := few[:0]
	for {
		key, err := s.str()
		if err != nil {
			return err
		}
		if at != levelOther {
			for _, k := range seen {
				if s.sameKey(k, key) {
					return refuse(CodeRequest, "a name stands twice in the message")
				}
			}
			if s.lookalike(at, key) {
				return refuse(CodeRequest, "a name differs in case alone from one that the protocol has: some readers would take it for that")
			}
			seen = append(seen, key)
			if len(seen) > maxMembers {
				return refuse(CodeRequest, "the message has too many members")
			}
		}
		s.space()
		if s.peek() != ':' {
			return errSyntax
		}
		s.i++
		s.space()
		if err := s.member(m, at, key); err != nil {
			return err
		}
		if done, err := s.next('}'); done || err != nil {
			return err
		}
	}
}

// maxMembers bounds the comparison of names, which is quadratic.
const maxMembers = 256

func (s *scanner) member(m *Message, at level, key Span) error {
	start := s.i
	below := levelOther
	name := s.key(key)
	switch {
	case at == levelTop && string(name) == "params":
		below = levelParams
	case at == levelParams && string(name) == "_meta":
		below = levelMeta
	}
	if err := s.value(m, below); err != nil {
		return err
	}
	v := Span{start, s.i}
	if at == levelOther {
		return nil
	}
	if isNull := string(s.b[start:s.i]) == "null"; isNull {
		if at == levelTop && string(s.key(key)) == "id" {
			return refuse(CodeRequest, "an id is a string or an integer")
		}
		return nil
	}
	switch at {
	case levelTop:
		return s.top(m, s.key(key), v)
	case levelParams:
		s.params(m, s.key(key), v)
	case levelMeta:
		s.meta(m, s.key(key), v)
	}
	return nil
}

func (s *scanner) top(m *Message, key []byte, v Span) error {
	switch string(key) {
	case "jsonrpc":
		s.version = string(m.Of(v)) == `"2.0"`
	case "id":
		m.ID = v
	case "method":
		text, err := s.text(v)
		if err != nil || text == "" || len(text) > 256 {
			return refuse(CodeRequest, "the method is not a name")
		}
		m.Method, s.method = text, true
	case "params":
		if c := m.Raw[v.Start]; c != '{' && c != '[' {
			return refuse(CodeRequest, "params must be an object")
		}
		m.Params = v
	case "result":
		m.Result = v
	case "error":
		m.Err = v
	}
	return nil
}

func (s *scanner) params(m *Message, key []byte, v Span) {
	switch string(key) {
	case "name":
		m.name = v
	case "uri":
		m.uri = v
	case "taskId":
		m.task = v
	case "arguments":
		m.Arguments = v
	case "requestState":
		m.RequestState = v
	case "inputResponses":
		m.InputResponses = v
	case "requestId":
		m.RequestID = v
	case "_meta":
		m.Meta = v
	case "protocolVersion":
		if !m.modern {
			m.Version = m.StringOf(v)
		}
	case "capabilities":
		if !m.modern {
			m.Capabilities = v
		}
	case "clientInfo":
		if !m.modern {
			m.ClientInfo = v
		}
	}
}

func (s *scanner) meta(m *Message, key []byte, v Span) {
	switch string(key) {
	case metaVersion:
		m.Version, m.modern = m.StringOf(v), true
	case metaCapabilities:
		s.metaCapabilities = v
	case metaClientInfo:
		s.metaClientInfo = v
	case metaLogLevel:
		m.LogLevel = v
	case "progressToken":
		m.ProgressToken = v
	}
}

func (s *scanner) value(m *Message, at level) error {
	switch c := s.peek(); {
	case c == '{':
		return s.object(m, at)
	case c == '[':
		return s.array(m)
	case c == '"':
		_, err := s.str()
		return err
	case c == '-' || c >= '0' && c <= '9':
		return s.number()
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	case c == 'n':
		return s.literal("null")
	}
	return errSyntax
}

func (s *scanner) array(m *Message) error {
	if empty, err := s.enter(']'); empty || err != nil {
		return err
	}
	for {
		if err := s.value(m, levelOther); err != nil {
			return err
		}
		if done, err := s.next(']'); done || err != nil {
			return err
		}
	}
}

func (s *scanner) literal(l string) error {
	if len(s.b)-s.i < len(l) || string(s.b[s.i:s.i+len(l)]) != l {
		return errSyntax
	}
	s.i += len(l)
	return nil
}

func (s *scanner) number() error {
	if s.peek() == '-' {
		s.i++
	}
	switch c := s.peek(); {
	case c == '0':
		s.i++
	case c >= '1' && c <= '9':
		s.digits()
	default:
		return errSyntax
	}
	if s.peek() == '.' {
		s.i++
		if !s.digits() {
			return errSyntax
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.i++
		if c := s.peek(); c == '+' || c == '-' {
			s.i++
		}
		if !s.digits() {
			return errSyntax
		}
	}
	return nil
}

func (s *scanner) digits() bool {
	from := s.i
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
	}
	return s.i > from
}

// str steps over a string and returns it with its quotes. Escapes are checked for form; that they make sense together is
// checked where the text is used.
func (s *scanner) str() (Span, error) {
	if s.peek() != '"' {
		return Span{}, errSyntax
	}
	start := s.i
	for s.i++; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return Span{start, s.i}, nil
		case c < 0x20:
			return Span{}, errSyntax
		case c == '\\':
			s.i++
			if err := s.escape(); err != nil {
				return Span{}, err
			}
		}
	}
	return Span{}, errSyntax
}

func (s *scanner) escape() error {
	switch s.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return nil
	case 'u':
		for k := 1; k <= 4; k++ {
			if s.i+k >= len(s.b) || !isHex(s.b[s.i+k]) {
				return errSyntax
			}
		}
		s.i += 4
		return nil
	}
	return errSyntax
}

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }

// key is a name after unescaping, good until the next call that has to unescape.
func (s *scanner) key(k Span) []byte {
	raw := s.b[k.Start+1 : k.End-1]
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	var err error
	if s.tmp, err = jsontext.AppendUnquote(s.tmp[:0], s.b[k.Start:k.End]); err != nil {
		return raw
	}
	return s.tmp
}

// sameKey folds case: some readers do, and would take the one that we did not look at.
func (s *scanner) sameKey(a, b Span) bool {
	ra, rb := s.b[a.Start+1:a.End-1], s.b[b.Start+1:b.End-1]
	if bytes.IndexByte(ra, '\\') < 0 && bytes.IndexByte(rb, '\\') < 0 {
		return len(ra) == len(rb) && bytes.EqualFold(ra, rb)
	}
	ua := slices.Clone(s.key(a))
	return bytes.EqualFold(ua, s.key(b))
}

// decided are the names by which a message is judged, by level.
var decided = [levelOther][][]byte{
	levelTop: bytesOf("jsonrpc", "id", "method", "params", "result", "error"),
	levelParams: bytesOf("name", "uri", "taskId", "arguments", "requestState", "inputResponses", "requestId", "_meta",
		"protocolVersion", "capabilities", "clientInfo"),
	levelMeta: bytesOf(metaVersion, metaCapabilities, metaClientInfo, metaLogLevel, "progressToken"),
}

func bytesOf(names ...string) [][]byte {
	l := make([][]byte, len(names))
	for i, n := range names {
		l[i] = []byte(n)
	}
	return l
}

// lookalike reports whether a reader that folds case would take the name for one that we judge by.
func (s *scanner) lookalike(at level, k Span) bool {
	name := s.key(k)
	for _, d := range decided[at] {
		if bytes.EqualFold(name, d) {
			return !bytes.Equal(name, d)
		}
	}
	return false
}

// text is the string in a span; one with lone surrogates has no text.
func (s *scanner) text(v Span) (string, error) {
	raw := s.b[v.Start:v.End]
	if len(raw) < 2 || raw[0] != '"' {
		return "", errSyntax
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), nil
	}
	out, err := jsontext.AppendUnquote(nil, raw)
	if err != nil {
		return "", errSyntax
	}
	return string(out), nil
}

// Strings lists the strings of a message that was scanned, member names among them, unescaped, with their JSON pointers
// (RFC 6901). It ends early where the text is not JSON.
func Strings(raw []byte) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		d := jsontext.NewDecoder(bytes.NewBuffer(raw))
		for {
			t, err := d.ReadToken()
			if err != nil {
				return
			}
			if t.Kind() == '"' && !yield(string(d.StackPointer()), t.String()) {
				return
			}
		}
	}
}

// Lookup follows names through objects and returns the value's bytes, nil if there is none or a name stands twice.
func Lookup(raw []byte, path ...string) []byte {
	for _, name := range path {
		v, err := members(raw, []string{name})
		if err != nil || v[0] == nil {
			return nil
		}
		raw = v[0]
	}
	return raw
}

// ArgumentValues returns the raw values of the named members of params.arguments; absent ones are left out. Names that
// stand twice anywhere among the arguments, or differ from a wanted one in case alone, are refused: the server could read the
// other one.
func (m *Message) ArgumentValues(names []string) (map[string][]byte, error) {
	out := map[string][]byte{}
	if !m.Arguments.Present() {
		return out, nil
	}
	if m.Raw[m.Arguments.Start] != '{' {
		return nil, refuse(CodeParams, "arguments must be an object")
	}
	raw := m.Of(m.Arguments)
	values, err := members(raw, names)
	if err != nil {
		return nil, err
	}
	spelled, _, err := all(raw)
	if err != nil {
		return nil, err
	}
	for _, s := range spelled {
		for _, n := range names {
			if s != n && strings.EqualFold(s, n) {
				return nil, refuse(CodeParams, "an argument differs in case alone from one that a policy reads")
			}
		}
	}
	for i, v := range values {
		if v != nil {
			out[names[i]] = v
		}
	}
	return out, nil
}

var errTwice = refuse(CodeParams, "a name stands twice among the arguments")

// members reads one object.
func members(raw []byte, names []string) ([][]byte, error) {
	out := make([][]byte, len(names))
	s := scanner{b: raw}
	if s.peek() != '{' {
		return out, nil
	}
	if empty, err := s.enter('}'); empty || err != nil {
		return out, err
	}
	seen := map[string]bool{}
	for {
		k, err := s.str()
		if err != nil {
			return nil, err
		}
		key := string(s.key(k))
		if seen[key] {
			return nil, errTwice
		}
		seen[key] = true
		s.space()
		if s.peek() != ':' {
			return nil, errSyntax
		}
		s.i++
		s.space()
		start := s.i
		if err := s.value(nil, levelOther); err != nil {
			return nil, err
		}
		if i := slices.Index(names, key); i >= 0 {
			out[i] = raw[start:s.i]
		}
		if done, err := s.next('}'); done || err != nil {
			return out, err
		}
	}
}

// ErrNotList says that a list answer has no such array.
var ErrNotList = errors.New("mcp: the result has no such list")
