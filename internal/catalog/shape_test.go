package catalog_test

import (
	"math/rand/v2"
	"regexp"
	"testing"

	"frontdesk.dev/frontdesk/internal/catalog"
)

func TestShapes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for shape, want := range map[string]string{"ghp_{36}": `^ghp_[0-9A-Za-z]{36}$`, "xoxb-{d12}-{d12}-{24}": `^xoxb-\d{12}-\d{12}-[0-9A-Za-z]{24}$`, "{x64}": `^[0-9a-f]{64}$`, "sk-{30}-x": `^sk-[0-9A-Za-z]{30}-x$`} {
		s, err := catalog.ParseShape(shape)
		if err != nil || s.IsZero() {
			t.Fatal(shape, err)
		}
		one, two := s.Fill(func() byte { return byte(rnd.Uint32()) }), s.Fill(func() byte { return byte(rnd.Uint32()) })
		if one == two || !regexp.MustCompile(want).MatchString(one) {
			t.Errorf("%s: %s, %s", shape, one, two)
		}
	}
	for _, shape := range []string{"", "ghp_", "ghp_{20}", "{d38}", "{}", "{22", "{-5}", "a b{36}", "a:{36}", "{256}", "{200}{200}", "{x36", "é{36}"} {
		if _, err := catalog.ParseShape(shape); err == nil {
			t.Errorf("%q passed for a shape", shape)
		}
	}
}
