package exchange

import (
	"encoding/base64"
	"net/http"
	"strings"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// place returns what puts a credential onto a request in the vendor's place, and what must not come back.
func place(in catalog.Injection, s secret.Text) (func(*http.Request) error, [][]byte) {
	format, name := in.Format, in.Name
	if format == "" {
		format = "Bearer {token}"
	}
	if name == "" {
		name = "Authorization"
	}
	value := s.Expose()
	marks := [][]byte{[]byte(value)}
	switch in.Kind {
	case "", "header":
		line := strings.ReplaceAll(format, "{token}", value)
		return func(r *http.Request) error {
			r.Header.Set(name, line)
			return nil
		}, marks
	case "basic":
		pair := base64.StdEncoding.EncodeToString([]byte(strings.ReplaceAll(format, "{token}", value)))
		return func(r *http.Request) error {
			r.Header.Set("Authorization", "Basic "+pair)
			return nil
		}, append(marks, []byte(pair))
	case "query":
		return func(r *http.Request) error {
			q := r.URL.Query()
			q.Set(name, value)
			r.URL.RawQuery = q.Encode()
			return nil
		}, marks
	}
	return func(*http.Request) error {
		return fault.New(fault.Internal, "", errUnknownPlace)
	}, marks
}

var errUnknownPlace = fault.New(fault.Invalid, "the provider's injection.kind is none of header, basic and query", nil)

// usable reports whether a pasted or issued credential can stand in a header at all.
func usable(s secret.Text) bool {
	v := s.Expose()
	return v != "" && len(v) <= 16<<10 && !strings.ContainsFunc(v, func(r rune) bool { return r < 0x21 || r > 0x7e })
}
