package redact

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestPassingOver: what is passed over by blocks holds nothing that a look at each place would find, wherever a form lies and whatever
// of it is escaped.
func TestPassingOver(t *testing.T) {
	marks := [][]byte{[]byte("ghp_16C7e42F292c"), []byte("a b+c/d\"<é>"), []byte("\\%&\n12345")}
	const around = "abcdefgh_0123 \"\\%&\n\ru;:"
	table := newTable(marks)
	rnd := rand.New(rand.NewPCG(7, 7))
	for n := range 40_000 {
		form := table.all[rnd.IntN(len(table.all))]
		var text strings.Builder
		for range rnd.IntN(40) {
			text.WriteByte(around[rnd.IntN(len(around))])
		}
		for i := range form.a {
			switch c := [2]byte{form.a[i], form.b[i]}[rnd.IntN(2)]; rnd.IntN(14) {
			case 0:
				fmt.Fprintf(&text, "%%%02x", c)
			case 1:
				fmt.Fprintf(&text, "&#%d;", c)
			case 2:
				text.WriteString(string(c) + "\r\n")
			default:
				text.WriteByte(c)
			}
		}
		text.WriteString(strings.Repeat("z", rnd.IntN(20)))
		b := []byte(text.String())
		found, _ := table.scan(b, wholeText)
		var want []span
		for i := range b {
			if v := table.match(b, i); v.end > 0 {
				want = append(want, span{i, v.end})
			}
		}
		if !slices.Equal(found, want) {
			t.Fatalf("%d: %q: found %v, want %v", n, b, found, want)
		}
	}
}
