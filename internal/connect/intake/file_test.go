package intake

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBothFormsAreReadWithTheirLines(t *testing.T) {
	table := "\xef\xbb\xbfsubject, upstream ,access_token,scopes\nalice,github,\"a,\nb\",repo read:user\n\nbob,github,c,\n"
	array := "[\n  {\"subject\":\"alice\",\"upstream\":\"github\",\"access_token\":\"a,\\nb\",\"scopes\":\"repo read:user\"},\n\n  {\"subject\":\"bob\",\"upstream\":\"github\",\n   \"access_token\":\"c\"}\n]\n"
	want := []fields{{Subject: "alice", Upstream: "github", Access: "a,\nb", Scopes: "repo read:user"}, {Subject: "bob", Upstream: "github", Access: "c"}}
	for form, c := range map[string]struct {
		text  string
		lines []int
	}{"CSV": {table, []int{2, 5}}, "JSON": {array, []int{2, 4}}} {
		l, problems := parse([]byte(c.text))
		var got []fields
		var lines []int
		for _, e := range l {
			got, lines = append(got, e.fields), append(lines, e.line)
		}
		if len(problems) > 0 || !cmp.Equal(got, want) || !slices.Equal(lines, c.lines) {
			t.Errorf("%s: %v at %v, want at %v; %v", form, got, lines, c.lines, problems)
		}
	}
}

func TestWhatIsNoFile(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		line int
		says string
	}{
		"a column that there is not": {"subject,token\na,b", 1, "the name of column 2 in the first line is none"},
		"no header":                  {"emp-1,github,hush-token,,,\n", 1, "the name of column 1"},
		"a broken line":              {"subject,api_key\na,\"hush\"-token\n", 2, "no CSV"},
		"a broken member":            {"[{\"api_key\":\"hush\" \"x\"}]", 1, "no JSON from here on"},
		"too few fields":             {"subject,upstream\na,b\nc", 3, "another number of fields"},
		"a broken quote":             {"subject,upstream\na,\"b", 2, "no CSV"},
		"no array":                   {`{"subject":"a"}`, 1, "no JSON array"},
		"a member that there is not": {"[{},\n{\"token\":\"x\"}]", 2, "no object of these members"},
		"a member twice":             {"[\n{\"subject\":\"a\",\"subject\":\"b\"}]", 2, "twice"},
		"not ended":                  {"[\n{}", 2, "no JSON from here on"},
		"a number":                   {"[{\"subject\":1}]", 1, "with texts"},
	} {
		_, problems := parse([]byte(c.text))
		for _, p := range problems {
			if strings.Contains(p.Message, "hush") {
				t.Errorf("%s: a word of the file is said: %s", name, p.Message)
			}
		}
		if len(problems) == 0 || problems[0].Line != c.line || !strings.Contains(problems[0].Message, c.says) {
			t.Errorf("%s: got %v, want line %d: %s", name, problems, c.line, c.says)
		}
	}
}

// FuzzParse: whatever the file is, it is read to an end, and no problem says more of it than a column's name.
func FuzzParse(f *testing.F) {
	f.Add([]byte("subject,upstream,api_key\na,b,c\n"))
	f.Add([]byte(`[{"subject":"a","access_token":"t"}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		l, problems := parse(body)
		for _, e := range l {
			if e.line < 1 {
				t.Errorf("a connection at line %d", e.line)
			}
		}
		for _, p := range problems {
			if len(p.Message) > 400 {
				t.Errorf("a problem of %d bytes", len(p.Message))
			}
		}
	})
}
