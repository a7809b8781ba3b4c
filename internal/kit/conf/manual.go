package conf

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Manual writes the reference of a config type as Markdown: a table a mapping, from the same tags that Decode reads.
func Manual(v any) string {
	m := &manual{sections: map[reflect.Type]string{}}
	m.section("The top level", "", reflect.TypeOf(v))
	return m.b.String()
}

type manual struct {
	b        strings.Builder
	sections map[reflect.Type]string // titles of what is written, or waits
	waiting  []waiting
}

type waiting struct {
	title, path string
	t           reflect.Type
}

func (m *manual) section(title, path string, t reflect.Type) {
	fmt.Fprintf(&m.b, "\n## %s\n\n| key | form | what it is |\n|---|---|---|\n", title)
	for _, name := range Names(t) {
		f := Fields(t)[name]
		doc := strings.NewReplacer("|", "\\|", "<", "&lt;").Replace(f.Tag.Get("doc"))
		if f.Tag.Get("required") != "" {
			doc = "**Required.** " + doc
		}
		fmt.Fprintf(&m.b, "| `%s` | %s | %s |\n", name, m.form(join(path, name), f.Type), doc)
	}
	for len(m.waiting) > 0 {
		next := m.waiting[0]
		m.waiting = m.waiting[1:]
		m.section(next.title, next.path, next.t)
	}
}

// form says how a value is written, and puts the mappings that it consists of on the list of sections.
func (m *manual) form(path string, t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case reflect.TypeFor[URL]():
		return "URL"
	case reflect.TypeFor[Secret]():
		return "`env:NAME` or `file:PATH`"
	case reflect.TypeFor[Duration]():
		return "duration, as `5m`"
	case reflect.TypeFor[Prefix]():
		return "address range"
	case reflect.TypeFor[Share]():
		return "share, as `5%`"
	}
	if k, ok := reflect.New(t).Interface().(Kinds); ok {
		var l []string
		kinds := k.Kinds()
		for _, name := range slices.Sorted(maps.Keys(kinds)) {
			if kinds[name] == nil {
				l = append(l, "`"+name+"`")
			} else {
				l = append(l, "`"+name+"` with "+m.form(join(path, name), reflect.TypeOf(kinds[name])))
			}
		}
		return strings.Join(l, ", ")
	}
	if e, ok := reflect.New(t).Interface().(Either); ok {
		return "a name, or a name with " + m.form(path, reflect.TypeOf(e.Details()))
	}
	switch t.Kind() {
	case reflect.Struct:
		title, known := m.sections[t]
		if !known {
			title = path
			m.sections[t] = title
			m.waiting = append(m.waiting, waiting{title, path, t})
		}
		return "[a mapping](#" + anchor(title) + ")"
	case reflect.Map:
		return "names, each with " + m.form(join(path, "NAME"), t.Elem())
	case reflect.Slice:
		return "list of " + strings.TrimPrefix(m.form(path, t.Elem()), "a ") + plural(t.Elem())
	case reflect.Bool:
		return "`true` or `false`"
	case reflect.Int, reflect.Int64:
		return "number"
	}
	return "text"
}

func plural(t reflect.Type) string {
	if t.Kind() == reflect.String || t == reflect.TypeFor[Prefix]() || t == reflect.TypeFor[URL]() {
		return "s"
	}
	return ""
}

// anchor is the link target that Markdown makes of a title.
func anchor(title string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == ' ':
			return '-'
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '_', r == '-':
			return r
		}
		return -1
	}, title)
}
