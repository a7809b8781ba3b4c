package conf

import (
	"reflect"
	"strings"
)

// Over lays what the file gives at a path over what base holds: of a mapping with known keys each key by itself, of everything else the
// whole. Both point to structs of one type; given is what was read there.
func (d *Document) Over(path string, base, given any) {
	d.over(path, reflect.ValueOf(base).Elem(), reflect.ValueOf(given).Elem())
}

func (d *Document) over(path string, base, given reflect.Value) {
	for name, f := range Fields(base.Type()) {
		at := join(path, name)
		if _, is := d.places[at]; !is {
			continue
		}
		b, g := base.FieldByIndex(f.Index), given.FieldByIndex(f.Index)
		switch {
		case g.Kind() == reflect.Pointer && g.Type().Elem().Kind() == reflect.Struct && !b.IsNil() && !g.IsNil() && d.below(at):
			own := reflect.New(b.Type().Elem()) // base's own is others' too
			own.Elem().Set(b.Elem())
			b.Set(own)
			d.over(at, own.Elem(), g.Elem())
		case g.Kind() == reflect.Struct && d.below(at):
			d.over(at, b, g)
		default:
			b.Set(g)
		}
	}
}

// below reports whether a mapping stands there with keys that are known.
func (d *Document) below(path string) bool {
	for p := range d.places {
		if strings.HasPrefix(p, path+".") {
			return true
		}
	}
	return false
}
