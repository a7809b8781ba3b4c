package catalog_test

import (
	"net/http"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/internal/catalog"
)

// TestHints: which failure an answer is shows in its status, its headers and its body, as far as that is short.
func TestHints(t *testing.T) {
	p := &catalog.Provider{Hints: []catalog.Hint{
		{Name: "header", Status: []int{403}, Header: "X-Why", Like: "^because", Say: "x"},
		{Name: "quiet", Status: []int{403}, Pointer: "/code", Is: []string{"7"}, Say: catalog.NoHint},
		{Name: "value", Status: []int{403, 404}, Pointer: "/code", Is: []string{"gone", "8"}, Say: "x"},
		{Name: "text", Status: []int{404}, Like: `"nobody"`, Say: "x"},
		{Name: "any", Status: []int{500}, Say: "x"},
	}}
	for name, c := range map[string]struct {
		status       int
		header, body string
		want         string
	}{
		"by header":                  {403, "because of you", "", "header"},
		"another text there":         {403, "no idea", "", ""},
		"by a value":                 {404, "", `{"code":"gone"}`, "value"},
		"by a number":                {403, "", `{"code":8}`, "value"},
		"known, and nothing said":    {403, "", `{"code":7}`, ""},
		"by the body's text":         {404, "", `{"who":"nobody"}`, "text"},
		"a value elsewhere":          {404, "", `{"message":{"code":"gone"}}`, ""},
		"text that looks like it":    {404, "", `{"message":"\"code\":\"gone\""}`, ""},
		"a member that stands twice": {404, "", `{"code":"gone","code":"x"}`, ""},
		"no JSON":                    {404, "", `code: gone`, ""},
		"another status":             {401, "because", `{"code":"gone"}`, ""},
		"by status alone":            {500, "", "", "any"},
	} {
		read := 0
		h := p.Hint(&catalog.Answer{Status: c.status, Header: http.Header{"X-Why": {c.header}}, Body: func() []byte { read++; return []byte(c.body) }})
		if got := named(h); got != c.want {
			t.Errorf("%s: the hint is %q, want %q", name, got, c.want)
		}
		if c.status >= 500 && read > 0 {
			t.Errorf("%s: the body was read, and no rule wants it", name)
		}
	}
}

func named(h *catalog.Hint) string {
	if h == nil {
		return ""
	}
	return h.Name
}

// TestHintsAreChecked: what an agent reads is one short line, and a success is no failure because of its status.
func TestHintsAreChecked(t *testing.T) {
	good := catalog.Hint{Name: "x", Status: []int{404}, Say: "Stop.", Docs: "https://docs.example.com/x"}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*catalog.Hint){
		"no name":                   func(h *catalog.Hint) { h.Name = "" },
		"a name that is a text":     func(h *catalog.Hint) { h.Name = "not found" },
		"no status":                 func(h *catalog.Hint) { h.Status = nil },
		"a redirect":                func(h *catalog.Hint) { h.Status = []int{404, 302} },
		"a success by status":       func(h *catalog.Hint) { h.Status = []int{404, 200} },
		"a success by any text":     func(h *catalog.Hint) { h.Status, h.Pointer, h.Like = []int{200}, "/text", "error" },
		"no sentence":               func(h *catalog.Hint) { h.Say = "" },
		"a long one":                func(h *catalog.Hint) { h.Say = strings.Repeat("x", 301) },
		"two lines":                 func(h *catalog.Hint) { h.Say = "a\nb" },
		"no pointer":                func(h *catalog.Hint) { h.Pointer = "code" },
		"no regular expression":     func(h *catalog.Hint) { h.Like = "(" },
		"a page without TLS":        func(h *catalog.Hint) { h.Docs = "http://docs.example.com" },
		"a page that is no address": func(h *catalog.Hint) { h.Docs = "see the manual" },
	} {
		h := good
		if change(&h); h.Check() == nil {
			t.Errorf("%s: nothing is wrong with %+v", name, h)
		}
	}
}
