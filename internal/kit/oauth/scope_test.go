package oauth_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/internal/kit/oauth"
)

func TestParseScopes(t *testing.T) {
	for _, c := range []struct {
		in, sep string
		want    []string
		ok      bool
	}{
		{"", "", nil, true},
		{"repo read:user", "", []string{"repo", "read:user"}, true},
		{"  b  a b ", " ", []string{"b", "a"}, true},
		{"repo,gist, read:user", ",", []string{"repo", "gist", "read:user"}, true},
		{"a,b", " ", []string{"a,b"}, true}, // a comma is a scope character
		{`a "b"`, "", nil, false},
		{`a\b`, "", nil, false},
		{"a b\n", "", nil, false},
		{"a é", "", nil, false},
		{strings.Repeat("x", 513), "", nil, false},
		{"a b", ",", nil, false},
	} {
		got, ok := oauth.ParseScopes(c.in, c.sep)
		if diff := cmp.Diff(c.want, got); diff != "" || ok != c.ok {
			t.Errorf("ParseScopes(%q, %q): ok %v, want %v\n%s", c.in, c.sep, ok, c.ok, diff)
		}
	}
}

func TestScopeSets(t *testing.T) {
	have := []string{"b", "a"}
	if !oauth.HasScopes(have, "a") || !oauth.HasScopes(have) || oauth.HasScopes(have, "a", "c") || oauth.HasScopes(nil, "a") {
		t.Error("HasScopes is wrong")
	}
	if diff := cmp.Diff([]string{"d", "c"}, oauth.MissingScopes(have, []string{"d", "a", "c", "d"})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"b", "a", "c"}, oauth.UnionScopes([]string{"b", "a", "b"}, []string{"c", "a", "c"})); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"b", "a"}, have); diff != "" {
		t.Error("the argument was changed", diff)
	}
}

func FuzzParseScopes(f *testing.F) {
	f.Add("repo read:user", " ")
	f.Add("a,,b", ",")
	f.Fuzz(func(t *testing.T, s, sep string) {
		scopes, ok := oauth.ParseScopes(s, sep)
		if !ok || sep != " " {
			return
		}
		again, ok := oauth.ParseScopes(oauth.JoinScopes(scopes, sep), sep)
		if diff := cmp.Diff(scopes, again); diff != "" || !ok {
			t.Errorf("not stable: %s", diff)
		}
	})
}
