package web

import (
	"html/template"
	"net/url"
	gopath "path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxForeign is how much of a stranger's text a page shows.
const maxForeign = 64

// Foreign makes a stranger's text fit to be shown: control and direction characters are gone, and it is cut.
func Foreign(s string) string {
	runes := plain(s)
	if len(runes) > maxForeign {
		return string(runes[:maxForeign-1]) + "…"
	}
	return string(runes)
}

// Host is Foreign for a host's name, which is cut where it begins: whose it is stands at its end.
func Host(s string) string {
	runes := plain(s)
	if len(runes) > maxForeign {
		return "…" + string(runes[len(runes)-maxForeign+1:])
	}
	return string(runes)
}

// plain is a text without what is not seen, or turns others about.
func plain(s string) []rune {
	clean := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	return []rune(strings.Join(strings.Fields(clean), " "))
}

// Name sets a stranger's text apart within a title of ours. The marks are those of Unicode for just that (UAX #9, isolates);
// Foreign lets nobody else write them.
func Name(s string) string { return nameStart + Foreign(s) + nameEnd }

const nameStart, nameEnd = "\u2068", "\u2069"

// heading shows a title with its names set apart.
func heading(title string) template.HTML {
	escaped := template.HTMLEscapeString(title)
	return template.HTML(strings.NewReplacer(nameStart, `<span class="name">`, nameEnd, `</span>`).Replace(escaped))
}

// maxLocal is more than any way back through our pages is long; it is kept while somebody is away.
const maxLocal = 16 << 10

// Local returns the path if it leads to one of the pages under the prefix, else otherwise: nobody is sent elsewhere by a
// link to us. Pages are named by their first segment.
func Local(path, prefix string, pages []string, otherwise string) string {
	u, err := url.Parse(path)
	if err != nil || len(path) > maxLocal || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") ||
		strings.ContainsAny(path, "\\\r\n\t") || strings.HasPrefix(u.Path, "//") || strings.Contains(u.Path, "\\") ||
		u.EscapedPath() != u.Path || gopath.Clean(u.Path) != strings.TrimSuffix(u.Path, "/") {
		return otherwise
	}
	inside, ok := strings.CutPrefix(u.Path, prefix+"/")
	first, _, _ := strings.Cut(inside, "/")
	if !ok || !slices.Contains(pages, first) {
		return otherwise
	}
	return path
}

// Seconds is a duration for Retry-After, at least one.
func Seconds(d time.Duration) string { return strconv.Itoa(max(int((d+time.Second-1)/time.Second), 1)) }

// Ago says how long ago, or in how long, in words.
func Ago(t, now time.Time) string {
	d, suffix, prefix := now.Sub(t), " ago", ""
	if t.After(now) {
		d, suffix, prefix = t.Sub(now), "", "in "
		switch { // what was promised for 90 days a moment ago still lasts 90 days, not 89
		case d >= 47*time.Hour:
			d = d.Round(24 * time.Hour)
		case d >= 119*time.Minute:
			d = d.Round(time.Hour)
		case d >= time.Minute:
			d = d.Round(time.Minute)
		}
	}
	n, unit := int(d.Minutes()), "minute"
	switch {
	case d < time.Minute:
		if suffix == "" {
			return "in less than a minute"
		}
		return "just now"
	case d >= 48*time.Hour:
		n, unit = int(d.Hours()/24), "day"
	case d >= 2*time.Hour:
		n, unit = int(d.Hours()), "hour"
	}
	if n != 1 {
		unit += "s"
	}
	return prefix + strconv.Itoa(n) + " " + unit + suffix
}
