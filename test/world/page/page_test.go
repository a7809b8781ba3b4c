package page_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/test/world/page"
)

func parse(t *testing.T, html string) *page.Page {
	t.Helper()
	p, err := page.Parse(&url.URL{Scheme: "https", Host: "desk.example", Path: "/dir/here"}, strings.NewReader(html))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const form = `<title> The
title </title><h1>Let <b>Agent</b>X in?</h1>
<script>var no = "text"</script><noscript>Without script.</noscript><p hidden>unseen</p>
<form method=post action="go?x=1">
 <input type=hidden name=id value=7>
 <label for=u>User name</label><input id=u name=username value=al>
 <label>Pass <input name=pw type=password></label>
 <input name=q aria-label="Search words">
 <label><input type=checkbox name=scope value=read checked> Read</label>
 <label><input type=checkbox name=scope value=write> Write</label>
 <label for=s>Until</label><select id=s name=until><option value=1>a day<option value=90 selected>90 days</select>
 <textarea name=note>n</textarea>
 <input name=off disabled value=no>
 <button name=answer value=yes>Allow</button>
 <button name=answer value=no formaction=/never>Don't allow</button>
 <button type=button>Nothing</button>
 <input type=submit value="Also">
</form>
<button form=f2 type=submit>Outside</button><form id=f2 action=/second><input name=a value=b></form>
<a href="/away#part">Later</a> <a href="mailto:x@y.z">Mail</a>`

func TestPage(t *testing.T) {
	p := parse(t, form)
	if p.Title != "The title" || p.Heading != "Let AgentX in?" {
		t.Errorf("title %q heading %q", p.Title, p.Heading)
	}
	if text := p.Text(); !strings.Contains(text, "Without script.") || strings.Contains(text, "no =") || strings.Contains(text, "unseen") {
		t.Errorf("text %q", text)
	}
	for key, value := range map[string]string{"User name": "alice", "Pass": "secret", "Search words": "tea", "Until": "1"} {
		if err := p.Fill(key, value); err != nil {
			t.Error(err)
		}
	}
	if err := p.Tick("Write", true); err != nil {
		t.Error(err)
	}
	want := map[string]page.Request{
		"Allow": {Method: "POST", To: at("https://desk.example/dir/go?x=1"), Form: url.Values{
			"id": {"7"}, "username": {"alice"}, "pw": {"secret"}, "q": {"tea"}, "scope": {"read", "write"}, "until": {"1"}, "note": {"n"}, "answer": {"yes"},
		}},
		"Don't": {Method: "POST", To: at("https://desk.example/never"), Form: url.Values{
			"id": {"7"}, "username": {"alice"}, "pw": {"secret"}, "q": {"tea"}, "scope": {"read", "write"}, "until": {"1"}, "note": {"n"}, "answer": {"no"},
		}},
		"Outside": {Method: "GET", To: at("https://desk.example/second?a=b")},
		"later":   {Method: "GET", To: at("https://desk.example/away")},
	}
	for words, w := range want {
		got, err := p.Click(words)
		if err != nil {
			t.Error(err)
			continue
		}
		if d := cmp.Diff(w, got); d != "" {
			t.Errorf("%s (-want +got):\n%s", words, d)
		}
	}
	for _, words := range []string{"Nothing", "allow me", "Unheard of", "l"} {
		if _, err := p.Click(words); err == nil {
			t.Errorf("clicked %q", words)
		}
	}
	for _, key := range []string{"off", "scope", "nowhere"} {
		if err := p.Fill(key, "x"); err == nil {
			t.Errorf("filled %q, which is disabled, ambiguous or not there", key)
		}
	}
	if p.Tick("User name", true) == nil {
		t.Error("ticked a text field")
	}
}

func at(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

func TestRefresh(t *testing.T) {
	for content, want := range map[string]string{
		"0; url=/there":                    "https://desk.example/there",
		"3;URL='https://vendor.example/x'": "https://vendor.example/x",
		"5":                                "https://desk.example/dir/here",
		"soon; url=/there":                 "",
	} {
		p := parse(t, `<meta http-equiv="Refresh" content="`+content+`">`)
		got := ""
		if r := p.Refresh(); r != nil {
			got = r.To.String()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", content, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(form)
	f.Add(`<form form=x><label for=a><input id=a form=nobody><select><option>`)
	f.Add(`<form action=%><input type=submit>`)
	f.Fuzz(func(t *testing.T, html string) {
		p := parse(t, html)
		for _, words := range p.Clickable() {
			_, _ = p.Click(words) // must not panic
		}
	})
}
