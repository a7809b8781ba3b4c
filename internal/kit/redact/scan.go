package redact

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"
)

// span is a place of a mark in a text.
type span struct{ from, to int }

// table finds marks. A place is looked at closely only if its two bytes can begin a form of a mark (some 60 of the
// 65,536 pairs), and then only for the forms that begin so.
type table struct {
	pairs [1 << 16 / 64]uint64
	all   []pattern
	heads [][]pattern // the forms that begin with one byte, escapes undone; heads[0] is empty
	head  [256]uint16 // which of heads
	wide  bool        // a form may begin with a byte beyond ASCII
	far   bool        // one may have a byte beyond ASCII at its second place
	plain [256]bool   // bytes that stand at a second place, as they are
	early int         // so many bytes of a mark may go out before it is known to be one
	grams [1 << gramBits / 64]uint64
}

func newTable(marks [][]byte) *table {
	// A message that ends, by chance, with a credential's first letter must not wait for the next one, since a peer may
	// wait for it. If a mark it was, its rest is still taken out: up to an eighth of it, at most four bytes, were seen.
	const most, part = 4, 8
	t := &table{early: most, heads: make([][]pattern, 1, 16)}
	for _, m := range marks {
		t.all = append(t.all, patterns(m)...)
		t.early = min(t.early, len(m)/part)
	}
	for _, p := range t.all {
		t.begin(p.a[0], p)
		if p.b[0] != p.a[0] {
			t.begin(p.b[0], p)
		}
		for from := range gram {
			t.enter(p, from, 0, 0)
		}
	}
	for name, meaning := range named {
		if t.head[meaning] != 0 {
			t.allow('&', name[0])
		}
	}
	return t
}

// begin enters how a pattern may begin whose first byte is c.
func (t *table) begin(c byte, p pattern) {
	if t.head[c] == 0 {
		t.head[c] = uint16(len(t.heads))
		t.heads = append(t.heads, nil)
		t.wide = t.wide || c >= utf8.RuneSelf
	}
	t.heads[t.head[c]] = append(t.heads[t.head[c]], p)
	for _, second := range []byte{p.a[1], p.b[1]} {
		t.far, t.plain[second] = t.far || second >= utf8.RuneSelf, true
	}
	for _, next := range []byte{p.a[1], p.b[1], '\\', '%', '&', '\n', '\r'} {
		t.allow(c, next)
	}
	const lower, upper = "0123456789abcdef", "0123456789ABCDEF"
	t.allow('%', lower[c>>4])
	t.allow('%', upper[c>>4])
	t.allow('\\', 'u')
	t.allow('&', '#')
	for i := range len(jsonMeans) {
		if jsonMeans[i] == c {
			t.allow('\\', jsonShort[i])
		}
	}
}

func (t *table) allow(first, second byte) {
	pair := uint(first) | uint(second)<<8
	t.pairs[pair/64] |= 1 << (pair % 64)
}

func (t *table) allowed(first, second byte) bool {
	pair := uint(first) | uint(second)<<8
	return t.pairs[pair/64]&(1<<(pair%64)) != 0
}

// hopeless reports that a form which begins at b[i], with an escape at its first or second place, begins no mark: what the escape
// means stands there in none. Text that is escaped throughout is full of these, and a longer look at each would take most of the time.
func (t *table) hopeless(b []byte, i int) bool {
	const enough = 6 // bytes, for every case
	if len(b)-i < enough {
		return false
	}
	b = b[i : i+enough]
	switch {
	case b[0] == '\\' || b[0] == '%':
		if t.head[b[0]] != 0 {
			return false
		}
		if b[0] == '%' {
			v, ok, _ := hexDigits(b, 1, 2)
			return !ok || t.head[byte(v)] == 0
		}
		return !t.wide && b[1] == 'u' && (b[2] != '0' || b[3] != '0')
	case isSpecial(b[0]) || t.plain[b[1]]:
		return false
	case b[1] == '%':
		v, ok, _ := hexDigits(b, 2, 2)
		return !ok || !t.allowed(b[0], byte(v))
	case b[1] == '\\':
		return !t.far && b[2] == 'u' && (b[3] != '0' || b[4] != '0')
	}
	return false
}

// Most text holds no mark and few escapes, and is passed over in blocks of eight bytes. A form that begins at any place has, among its
// first seven bytes, either a byte that may begin an escape or a line break, or one of every fourth group of four that are looked up.
const (
	gram, block = 4, 8
	reach       = 2*gram - 2 // so far behind its beginning a form is noticed at the latest
	gramBits    = 14
)

func gramHash(four uint32) uint32 { return four * 0x9e3779b1 >> (32 - gramBits) }

// enter notes the groups that begin at one place of a form: n bytes of it are known.
func (t *table) enter(p pattern, from, n int, four uint32) {
	if n == gram {
		h := gramHash(four)
		t.grams[h/64] |= 1 << (h % 64)
		return
	}
	a, b := p.a[from+n], p.b[from+n]
	t.enter(p, from, n+1, four|uint32(a)<<(8*n))
	if b != a {
		t.enter(p, from, n+1, four|uint32(b)<<(8*n))
	}
}

// quiet passes over blocks that hold no reason to look closer, from one place on, and returns where it stopped: at a block that may
// hold one, or where no whole block is left.
func (t *table) quiet(b []byte, at int) int {
	const each, high = 0x0101010101010101, 0x8080808080808080
	for ; at+block <= len(b); at += block {
		b := binary.LittleEndian.Uint64(b[at:])
		backslash, percent, ampersand, lf, cr := b^'\\'*each, b^'%'*each, b^'&'*each, b^'\n'*each, b^'\r'*each // a byte of zero where one of them is
		special := (backslash-each)&^backslash | (percent-each)&^percent | (ampersand-each)&^ampersand | (lf-each)&^lf | (cr-each)&^cr
		low, top := gramHash(uint32(b)), gramHash(uint32(b>>32))
		if special&high != 0 || (t.grams[low/64]>>(low%64)|t.grams[top/64]>>(top%64))&1 != 0 {
			break
		}
	}
	return at
}

// next returns the first place from i on where a form may begin; len(b) if there is none.
func (t *table) next(b []byte, i int) int {
	const most = 32 * block
	for at, far := i, block; ; {
		quiet := t.quiet(b, at)
		if quiet > at {
			at, far = quiet, block
		}
		if at+block > len(b) {
			i = t.look(b, max(i, at-reach), len(b)-1)
			break
		}
		far = min(2*far, most) // where one block has something, its neighbours often have too
		end := min(at+far, len(b)-1)
		if i = t.look(b, max(i, at-reach), end); i < end {
			return i
		}
		at = end
	}
	if i+1 == len(b) && t.head[b[i]] == 0 && !isSpecial(b[i]) {
		return len(b)
	}
	return i
}

// look returns the first place from i on, and before end, where a form may begin.
func (t *table) look(b []byte, i, end int) int {
	for near := b[:max(end+1, 0)]; i+1 < len(near); i++ {
		if t.allowed(near[i], near[i+1]) && !t.hopeless(b, i) {
			return i
		}
	}
	return i
}

const wholeText = true // nothing follows a text that is scanned

// Marks and text that repeat themselves could make every place worth a long look. Beyond `patience` steps a byte (and
// some that are free) whatever begins like a mark is covered as far as it does, so that time stays linear.
const patience, free = 16, 1 << 16

// scan finds all marks in b, overlapping ones included, in order of their starts. Before `decided` nothing is left to
// find; from there on, b must be seen again together with what follows it.
func (t *table) scan(b []byte, whole bool) (found []span, decided int) {
	work := 0
	for i := t.next(b, 0); i < len(b); i = t.next(b, i+1) {
		v := t.match(b, i)
		if v.open && !whole {
			return found, i
		}
		work += v.work
		tired := work > free+patience*i
		if tired {
			v.end = v.read
		}
		if v.end > 0 {
			found = append(found, span{i, v.end})
		}
		if tired {
			i = max(i, v.end-1)
		}
	}
	return found, len(b)
}

// verdict is what is known of a place in a text.
type verdict struct {
	end  int  // where the longest form that begins there ends; 0 if none does
	open bool // the text ends before all is decided
	read int  // how far the text is that of a form
	work int  // steps taken
}

func (v *verdict) add(o verdict) {
	*v = verdict{max(v.end, o.end), v.open || o.open, max(v.read, o.read), v.work + o.work}
}

// match looks for all forms at b[at].
func (t *table) match(b []byte, at int) verdict {
	candidates, size := t.heads[t.head[b[at]]], 1
	if isSpecial(b[at]) {
		if len(candidates) > 0 { // a mark that itself begins with such a byte: rare, and not worth being quick about
			return longest(t.all, b, at, nil)
		}
		var first text
		if first, size = unescape(b[at:]); size <= 0 {
			return verdict{open: size == needMore}
		}
		candidates = t.heads[t.head[first.bytes[0]]]
		if first.n > 1 {
			return longest(candidates, b, at, nil)
		}
	}
	return longest(candidates, b, at, b[at+size:])
}

// longest tries each candidate whose second byte can be at the start of rest; all, if rest is empty.
func longest(candidates []pattern, b []byte, at int, rest []byte) (v verdict) {
	if len(candidates) == 0 {
		return v
	}
	var second text
	if len(rest) > 0 && isSpecial(rest[0]) {
		size := 0
		if second, size = unescape(rest); size == needMore || rest[0] == '\n' || rest[0] == '\r' || second.bytes[0] == '\n' || second.bytes[0] == '\r' {
			rest = nil
		}
	}
	for _, p := range candidates {
		if len(rest) == 0 || p.takes(1, rest[:1]) || second.n > 0 && p.takes(1, second.slice()) {
			v.add(p.match(b, at))
		}
	}
	return v
}

// state is how far a match has come: the next place in the pattern, the next byte of the text.
type state struct {
	place, pos int
	broken     bool // the last thing read was a line break; two in a row end a match
}

func (s state) before(o state) bool {
	return s.place < o.place || s.place == o.place && s.pos < o.pos
}

// match follows every way to read the text. There is more than one only where a mark itself holds a byte that begins
// an escape or a line break; where they get too many, what was read counts as found.
func (p pattern) match(b []byte, at int) (v verdict) {
	const tooMany = 32
	var room [4]state
	waiting := room[:0] // at a byte that may begin an escape or a line break; none twice
	next := options{n: 1}
	next.list[0].pos = at
	for {
		for _, s := range next.list[:next.n] {
			from := s.place
			s = p.plain(b, s)
			v.work += 1 + s.place - from
			v.read = max(v.read, s.pos)
			switch {
			case s.place == len(p.a):
				v.end = max(v.end, s.pos)
			case s.pos == len(b):
				v.open = true
			case isSpecial(b[s.pos]) && !slices.Contains(waiting, s):
				waiting = append(waiting, s)
			}
		}
		if len(waiting) == 0 {
			return v
		}
		if len(waiting) > tooMany {
			v.end = v.read
			return v
		}
		// The one that is furthest behind goes first, so that others which come to the same state find it waiting.
		first := 0
		for i, s := range waiting {
			if s.before(waiting[first]) {
				first = i
			}
		}
		next = p.special(b, waiting[first])
		v.open = v.open || next.open
		waiting = slices.Delete(waiting, first, first+1)
	}
}

// options are the states that may follow one; open: b ends before they are all known.
type options struct {
	list [5]state
	n    int
	open bool
}

func (o *options) add(s state) {
	o.list[o.n] = s
	o.n++
}

// plain follows bytes that can be read in one way only.
func (p pattern) plain(b []byte, s state) state {
	for s.place < len(p.a) && s.pos < len(b) {
		c := b[s.pos]
		if c != p.a[s.place] && c != p.b[s.place] || isSpecial(c) {
			break
		}
		s = state{place: s.place + 1, pos: s.pos + 1}
	}
	return s
}

// special returns what may follow s at a byte that may begin an escape or a line break.
func (p pattern) special(b []byte, s state) (o options) {
	if b[s.pos] == p.a[s.place] || b[s.pos] == p.b[s.place] {
		o.add(state{place: s.place + 1, pos: s.pos + 1})
	}
	t, size := unescape(b[s.pos:])
	if size > 0 && p.takes(s.place, t.slice()) {
		o.add(state{place: s.place + t.n, pos: s.pos + size})
	}
	o.open = size == needMore
	if s.place == 0 || s.broken {
		return o
	}
	size, plain := lineBreak(b[s.pos:])
	o.open = o.open || size == needMore
	if size <= 0 {
		return o
	}
	o.add(state{s.place, s.pos + size, true})
	if after := b[s.pos+size:]; plain {
		if n := dataField(after); n > 0 {
			o.add(state{s.place, s.pos + size + n, true})
			if n > len(data) { // the space may belong to the mark
				o.add(state{s.place, s.pos + size + len(data), true})
			}
		}
		o.open = o.open || len(after) < len(data) && string(after) == data[:len(after)]
	}
	return o
}

// lineBreak returns the size of the LF or CRLF at the start of b, each as it is or escaped: base64 comes folded, and a
// stream of events has its text in lines. plain: it ends with a real LF.
func lineBreak(b []byte) (size int, plain bool) {
	c, size := symbol(b)
	if c == '\n' {
		return size, b[0] == '\n'
	}
	if c != '\r' {
		return min(size, 0), false
	}
	if size == len(b) {
		return needMore, false
	}
	c, more := symbol(b[size:])
	if c == '\n' {
		return size + more, b[size] == '\n'
	}
	return min(more, 0), false
}

// symbol reads one byte, or the escape of one.
func symbol(b []byte) (c byte, size int) {
	if b[0] == '\n' || b[0] == '\r' {
		return b[0], 1
	}
	t, size := unescape(b)
	if t.n != 1 {
		return 0, min(size, 0)
	}
	return t.bytes[0], size
}

const data = "data:" // the field name of server-sent events

// dataField returns the length of SSE's field name at the start of a line, with the space that may follow it; 0 if it
// is not there.
func dataField(line []byte) int {
	if len(line) < len(data) || string(line[:len(data)]) != data {
		return 0
	}
	if len(line) > len(data) && line[len(data)] == ' ' {
		return len(data) + 1
	}
	return len(data)
}
