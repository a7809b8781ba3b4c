package signals

import (
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// operation is one of a PATCH (RFC 7644 section 3.5.2).
type operation struct {
	Op    string         `json:"op"`
	Path  string         `json:"path"`
	Value jsontext.Value `json:"value"`
}

// attribute is what the directory decides here.
const attribute = "active"

// active is what the operation sets `active` to; nil: it is about something else. What could be about it and is not understood is
// refused: a directory that is told that it was done takes somebody for locked out who is not.
func (op operation) active() (jsontext.Value, error) {
	verb := strings.ToLower(op.Op)
	if verb != "replace" && verb != "add" && verb != "remove" {
		return nil, &scimError{http.StatusBadRequest, "invalidSyntax", "an operation is add, replace or remove"}
	}
	path := strings.TrimSpace(op.Path)
	if path == "" || strings.EqualFold(path, userSchema) {
		if op.Value.Kind() != '{' {
			return nil, &scimError{http.StatusBadRequest, "noTarget", "an operation without a path has an object as value"}
		}
		return activeAmong(op.Value)
	}
	switch name := unprefixed(path); {
	case strings.EqualFold(name, attribute) && verb == "remove":
		return nil, &scimError{http.StatusBadRequest, "mutability", "active cannot be removed"}
	case strings.EqualFold(name, attribute) && op.Value == nil:
		return nil, &scimError{http.StatusBadRequest, "invalidValue", "active is true or false"}
	case strings.EqualFold(name, attribute):
		return op.Value, nil
	case len(name) > len(attribute) && strings.EqualFold(name[:len(attribute)], attribute) && strings.ContainsAny(name[len(attribute):len(attribute)+1], ".[ \t"):
		return nil, &scimError{http.StatusBadRequest, "invalidPath", "active has no parts"}
	}
	return nil, nil
}

// activeAmong finds it among the attributes of an object, under its name with or without the schema, or within the schema's own object.
func activeAmong(object jsontext.Value) (found jsontext.Value, err error) {
	var members map[string]jsontext.Value
	if json.Unmarshal(object, &members) != nil {
		return nil, &scimError{http.StatusBadRequest, "invalidSyntax", "the value is malformed"}
	}
	for name, value := range members {
		if strings.EqualFold(name, userSchema) && value.Kind() == '{' {
			value, err = activeAmong(value)
		} else if !strings.EqualFold(unprefixed(name), attribute) {
			continue
		}
		if err != nil || found != nil && value != nil {
			return nil, &scimError{http.StatusBadRequest, "invalidValue", "active is said twice, or cannot be read"}
		}
		if value != nil {
			found = value
		}
	}
	return found, nil
}

// unprefixed is an attribute's name without the schema that may stand before it (RFC 7644 section 3.10).
func unprefixed(name string) string {
	const prefix = userSchema + ":"
	if len(name) > len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
		return name[len(prefix):]
	}
	return name
}
