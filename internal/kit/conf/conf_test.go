package conf_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/internal/kit/conf"
)

type file struct {
	Name  string            `yaml:"name" required:"yes" doc:"shown to people"`
	On    bool              `yaml:"on"`
	Count int               `yaml:"count"`
	Words map[string]string `yaml:"words"`
	Parts []part            `yaml:"parts"`
	At    *conf.URL         `yaml:"at"`
	Key   conf.Secret       `yaml:"key"`
	Long  *conf.Duration    `yaml:"long"`
	Some  *conf.Share       `yaml:"some"`
	Nets  []conf.Prefix     `yaml:"nets"`
}

type part struct {
	name string
	partDetails
}

type partDetails struct {
	Deep bool `yaml:"deep"`
}

func (p *part) SetName(n string) { p.name = n }
func (p *part) Details() any     { return &p.partDetails }

// TestStrict: whatever YAML lets through that its writer did not mean is told, with its place.
func TestStrict(t *testing.T) {
	for src, want := range map[string][]string{
		"name: a\n": nil,
		"name: group:a\nparts: [x, y: {deep: true}]\n":   nil,
		"name: a\nsome: 5%\nlong: 90s\nnets: [10.0.0.1]": nil,
		"on: true\n":                          {`1:3: key "name" is missing`},
		"name: a\nnam: b\n":                   {`2:1: unknown key "nam"`},
		"name: a\nname: b\n":                  {`2:1: key "name" stands twice`},
		"name: 5\n":                           {"1:7: name must be a string, this is a number"},
		"name: true\n":                        {"1:7: name must be a string, this is a yes or no"},
		"name: a\non: yes\n":                  {"2:5: on must be true or false, this is a string"},
		"name: a\ncount: 1.5\n":               {"2:8: count must be a whole number, this is a fraction"},
		"name: a\ncount: \"3\"\n":             {"2:8: count must be a whole number, this is a string"},
		"name: a\nwords: {a: 1}\n":            {"2:12: words.a must be a string, this is a number"},
		"name: a\nparts: x\n":                 {"2:8: parts must be a list, this is a string"},
		"name: a\nparts: [{a: {}, b: {}}]\n":  {"2:9: parts[0] must be a name, or one name with details below it, this is a mapping"},
		"name: a\nparts: [a: {depp: true}]\n": {`2:13: unknown key "depp" in parts[0]`},
		"name: a\nat: example.com\n":          {"2:5: at: this is no URL"},
		"name: a\nat: http://u:p@x/\n":        {"2:5: at: a URL must not hold a user name or password"},
		"name: a\nkey: hunter2\n":             {"2:6: key: a secret does not stand in the config"},
		"name: a\nlong: 3\n":                  {"2:7: long: this is no duration"},
		"name: a\nlong: -3s\n":                {"2:7: long: this is no duration"},
		"name: a\nsome: 0.5\n":                {"2:7: some: this is no share"},
		"name: a\nsome: 101%\n":               {"2:7: some: this is no share"},
		"name: a\nnets: [10.0.0.0/99]\n":      {"2:8: nets[0]: this is no address range"},
		"name: &x a\n":                        {"1:7: anchors are not supported"},
		"name: *x\n":                          {"1:7: aliases are not supported"},
		"name: a\nwords: {<<: {a: b}}\n":      {"merge keys are not supported"},
		"name:\n":                             {"1:1: the value of name is missing"},
		"- a\n":                               {"the file must be a mapping"},
		"":                                    {"1:1: the file is empty"},
		"name: a\n---\nname: b\n":             {"2:1: the file holds a second document"},
		"name: 5\non: 3\nnam: 1\n":            {"1:7: name", "2:5: on", `3:1: unknown key "nam"`},
		strings.Repeat("# filler\n", 1<<17):   {"1:1: the file is larger than 1 MiB"},
	} {
		var f file
		_, problems := conf.Decode("f", []byte(src), &f)
		bad := len(problems) != len(want)
		for i := range min(len(problems), len(want)) {
			bad = bad || !strings.Contains(problems[i].Error(), want[i])
		}
		if bad {
			t.Errorf("%.60q: got\n%v\nwant %q", src, problems, want)
		}
	}
}

// TestForm is the form in which operators and their editors read a problem.
func TestForm(t *testing.T) {
	var f file
	_, problems := conf.Decode("frontdesk.yaml", []byte("name: a\nwords:\n  x: y\n  \"ключ\": 5\n"), &f)
	want := "frontdesk.yaml:4:11: words.ключ must be a string, this is a number\n    \"ключ\": 5\n            ^\n  help: put it in quotes: \"5\""
	if diff := cmp.Diff(want, problems.Error()); diff != "" {
		t.Error(diff)
	}
}

// TestSound: what stands beside a slip can be looked at further; what holds it cannot.
func TestSound(t *testing.T) {
	var f file
	d, problems := conf.Decode("f", []byte("name: a\nwords: {a: 1, ab: x}\n"), &f)
	if len(problems) != 1 || d.Sound("words.a") || d.Sound("words") || !d.Sound("words.ab") || !d.Sound("name") {
		t.Errorf("%v", problems)
	}
	if p := d.Problem("words.ab", "m", ""); p.Line != 2 || p.Column != 19 {
		t.Errorf("a value's place: %v", p)
	}
	if p := d.Problem("words.nope.deeper", "m", ""); p.Line != 2 || p.Column != 1 {
		t.Errorf("the nearest place above: %v", p)
	}
}

func TestSecretsAreRead(t *testing.T) {
	t.Setenv("SOME_SECRET", "s3")
	for ref, want := range map[string]string{"env:SOME_SECRET": "s3", "env:NO_SUCH_SECRET": "the environment variable NO_SUCH_SECRET is not set", "file:no.such": "the file no.such cannot be read"} {
		var s conf.Secret
		if err := s.UnmarshalConf(ref); err != nil {
			t.Fatal(err)
		}
		got, err := s.Resolve(t.TempDir())
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", ref, got, want)
		}
	}
}

// TestSchema: an editor gets the same keys, and the same words.
func TestSchema(t *testing.T) {
	b, err := conf.Schema(file{}, "F")
	var s struct {
		Properties map[string]struct{ Description string }
		Required   []string
		Extra      *bool `json:"additionalProperties"`
	}
	if err != nil || json.Unmarshal(b, &s) != nil || len(s.Properties) != 10 || s.Required[0] != "name" || s.Extra == nil || *s.Extra || s.Properties["name"].Description != "shown to people" {
		t.Errorf("%v\n%s", err, b)
	}
	if m := conf.Manual(file{}); !strings.Contains(m, "| `name` | text | **Required.** shown to people |") || !strings.Contains(m, "| `parts` | list of name, or a name with") {
		t.Errorf("%s", m)
	}
}

// FuzzDecode: an operator's file may be anything; a config is made only of what is understood, and nothing panics.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{"name: a", "name: a\nparts: [x, y: {deep: true}]", "words: {<<: *a}", "? [a]\n: b", "name: !!binary aGk=", "name: |\n  a\n", "a:b:c:d", "{", "- - -", "name: group:a:b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		var v file
		d, problems := conf.Decode("f", src, &v)
		if len(problems) == 0 && v.Name == "" && !strings.Contains(string(src), `""`) && !strings.Contains(string(src), "''") && !strings.Contains(string(src), "|") && !strings.Contains(string(src), ">") {
			t.Errorf("no problem, and no name: %q", src)
		}
		for _, p := range problems {
			if p.Line < 1 || p.Message == "" || p.Error() == "" {
				t.Errorf("a problem without place or word: %+v", p)
			}
		}
		_ = d.Problem("words.x[3]", "m", "").Error()
	})
}

// TestOver: what a file gives counts, key by key where the keys are known, and nothing else of it; what it is laid over stays whole.
func TestOver(t *testing.T) {
	type inner struct {
		A string `yaml:"a"`
		B int    `yaml:"b"`
	}
	type facts struct {
		Name  string            `yaml:"name"`
		On    bool              `yaml:"on"`
		In    inner             `yaml:"in"`
		At    *inner            `yaml:"at"`
		New   *inner            `yaml:"new"`
		List  []string          `yaml:"list"`
		Words map[string]string `yaml:"words"`
	}
	type file struct {
		Facts map[string]facts `yaml:"facts"`
	}
	base := facts{Name: "base", On: true, In: inner{"x", 1}, At: &inner{"y", 2}, List: []string{"p", "q"}, Words: map[string]string{"k": "v", "l": "w"}}
	var f file
	doc, problems := conf.Decode("a.yaml", []byte("facts:\n  one: {on: false, in: {b: 7}, at: {a: z}, new: {a: n}, list: [r], words: {m: u}}\n  none: {name: other}\n"), &f)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	one, given := base, f.Facts["one"]
	doc.Over("facts.one", &one, &given)
	want := facts{Name: "base", In: inner{"x", 7}, At: &inner{"z", 2}, New: &inner{A: "n"}, List: []string{"r"}, Words: map[string]string{"m": "u"}}
	if diff := cmp.Diff(want, one); diff != "" {
		t.Error(diff)
	}
	if *base.At != (inner{"y", 2}) {
		t.Error("what it was laid over was changed")
	}
	none, given := base, f.Facts["none"]
	doc.Over("facts.none", &none, &given)
	if want := base; none.Name != "other" || none.At != want.At || !none.On {
		t.Errorf("%+v", none)
	}
}
