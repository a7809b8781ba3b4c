package conf

import (
	"encoding/json"
	"reflect"
	"slices"
)

// Schema writes the JSON Schema (draft 2020-12) of a config type, for editors.
func Schema(v any, title string) ([]byte, error) {
	s := schemaOf(reflect.TypeOf(v))
	s["$schema"], s["title"] = "https://json-schema.org/draft/2020-12/schema", title
	return json.MarshalIndent(s, "", "  ")
}

func schemaOf(t reflect.Type) map[string]any {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if k, ok := reflect.New(t).Interface().(Kinds); ok {
		props, names := map[string]any{}, []string{}
		for name, details := range k.Kinds() {
			names = append(names, name)
			if details != nil {
				props[name] = schemaOf(reflect.TypeOf(details))
			}
		}
		slices.Sort(names)
		return map[string]any{"oneOf": []any{map[string]any{"enum": names},
			map[string]any{"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false, "properties": props}}}
	}
	if e, ok := reflect.New(t).Interface().(Either); ok {
		return map[string]any{"oneOf": []any{map[string]any{"type": "string"},
			map[string]any{"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": schemaOf(reflect.TypeOf(e.Details()))}}}
	}
	if _, ok := reflect.New(t).Interface().(Scalar); ok {
		return map[string]any{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Struct:
		props, required := map[string]any{}, []string{}
		for name, f := range Fields(t) {
			p := schemaOf(f.Type)
			if doc := f.Tag.Get("doc"); doc != "" {
				p["description"] = doc
			}
			props[name] = p
		}
		for _, name := range Names(t) {
			if Fields(t)[name].Tag.Get("required") != "" {
				required = append(required, name)
			}
		}
		s := map[string]any{"type": "object", "additionalProperties": false, "properties": props}
		if len(required) > 0 {
			s["required"] = required
		}
		return s
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": schemaOf(t.Elem())}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem())}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	}
	return map[string]any{"type": "string"}
}
