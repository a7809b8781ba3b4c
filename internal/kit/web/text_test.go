package web_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/web"
)

func TestAgo(t *testing.T) {
	now := time.Date(2026, 11, 25, 10, 42, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for _, tt := range []struct {
		d    time.Duration
		want string
	}{
		{0, "just now"}, {-59 * time.Second, "just now"}, {-time.Minute, "1 minute ago"}, {-119 * time.Minute, "119 minutes ago"}, {-2 * time.Hour, "2 hours ago"},
		{-47 * time.Hour, "47 hours ago"}, {-2 * day, "2 days ago"}, {-3*day + time.Second, "2 days ago"},
		{time.Second, "in less than a minute"}, {5*time.Minute - time.Second, "in 5 minutes"}, {118 * time.Minute, "in 118 minutes"}, {2*time.Hour - time.Second, "in 2 hours"},
		{2*day - time.Second, "in 2 days"}, {90*day - time.Second, "in 90 days"},
	} {
		if got := web.Ago(now.Add(tt.d), now); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.d, got, tt.want)
		}
	}
}

func TestForeign(t *testing.T) {
	for in, want := range map[string]string{
		"Claude Code": "Claude Code", "a\u202eb\u200b\x00c": "abc", " a \n b ": "a b", "\xffa": "a", strings.Repeat("é", 65): strings.Repeat("é", 63) + "…", strings.Repeat("é", 64): strings.Repeat("é", 64),
		"\u2068Frontdesk\u2069": "Frontdesk",
	} {
		if got := web.Foreign(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestHost: whose a host is can be seen, however long its owner makes it.
func TestHost(t *testing.T) {
	for in, want := range map[string]string{
		"app.test": "app.test", "claude.ai." + strings.Repeat("a.", 40) + "evil.test": "…" + strings.Repeat("a.", 27) + "evil.test", "cursor://anysphere.cursor-mcp": "cursor://anysphere.cursor-mcp",
		"a\u202eb.test": "ab.test",
	} {
		if got := web.Host(in); got != want || len([]rune(got)) > 64 {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// FuzzLocal: where a link to us may send somebody on stays on our pages, as a browser reads it.
func FuzzLocal(f *testing.F) {
	for _, s := range []string{"/portal/", "/connect/x?then=on", "//evil.example/portal/", "/portal/../../x", "/\\evil.example", "/portal%2f..%2f", "https://evil.example/portal/", "/portal/\t//x", "/portalx", "/t/a/portal/", "", "javascript:x"} {
		f.Add(s, "")
		f.Add("/t/a"+s, "/t/a")
	}
	f.Fuzz(func(t *testing.T, path, prefix string) {
		if prefix != "" {
			prefix = "/t/a"
		}
		got := web.Local(path, prefix, []string{"portal", "connect"}, "/otherwise")
		if got == "/otherwise" {
			return
		}
		at, err := url.Parse("https://desk.example.com/signin")
		if err != nil {
			t.Fatal(err)
		}
		to, err := at.Parse(got)
		if err != nil || to.Scheme != "https" || to.Host != "desk.example.com" || !strings.HasPrefix(to.Path, prefix+"/portal") && !strings.HasPrefix(to.Path, prefix+"/connect") {
			t.Errorf("%q leads to %v, %v", path, to, err)
		}
	})
}
