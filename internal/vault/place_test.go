package vault

import (
	"fmt"
	"net/http/httptest"
	"testing"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

func TestPlace(t *testing.T) {
	for name, test := range map[string]struct {
		in          catalog.Injection
		header, url string
	}{
		"as RFC 6750 says":        {catalog.Injection{}, "Bearer k3y", "/v1?a=1"},
		"a header of the vendor":  {catalog.Injection{Name: "X-Key", Format: "{token}"}, "k3y", "/v1?a=1"},
		"basic, the key as user":  {catalog.Injection{Kind: "basic"}, "Basic azN5Og==", "/v1?a=1"},
		"basic, by the vendor":    {catalog.Injection{Kind: "basic", Format: "{token}:X"}, "Basic azN5Olg=", "/v1?a=1"},
		"query, behind the rest":  {catalog.Injection{Kind: "query", Name: "api_key"}, "", "/v1?a=1&api_key=k3y"},
		"a pair that is half":     {catalog.Injection{Kind: "pair", Name: "X-A", Second: "X-B"}, "k3y", "/v1?a=1"},
		"a place nobody knows of": {catalog.Injection{Kind: "body"}, "", "/v1?a=1"},
	} {
		t.Run(name, func(t *testing.T) {
			place, marks := Place(test.in, secret.New("k3y"))
			r := httptest.NewRequest("GET", "/v1?a=1", nil)
			if err := place(r); err != nil {
				t.Fatal(err)
			}
			at := test.in.Name
			if at == "" || test.in.Kind == "query" {
				at = "Authorization"
			}
			if test.in.Kind == "pair" && r.Header.Get("X-B") != "" {
				t.Errorf("half a credential makes %q of the second", r.Header.Get("X-B"))
			}
			if got := r.Header.Get(at); got != test.header || r.URL.RequestURI() != test.url || len(marks) == 0 {
				t.Errorf("%s: %q, %s", at, got, r.URL.RequestURI())
			}
		})
	}
}

func TestPlaceOfAPair(t *testing.T) {
	place, marks := Place(catalog.Injection{Kind: "pair", Name: "X-A", Second: "X-B"}, secret.New("first:second:x"))
	r := httptest.NewRequest("GET", "/", nil)
	if err := place(r); err != nil || r.Header.Get("X-A") != "first" || r.Header.Get("X-B") != "second:x" || r.Header.Get("Authorization") != "" {
		t.Errorf("%v, %v", r.Header, err)
	}
	if got := fmt.Sprintf("%s", marks); got != "[first:second:x first second:x]" {
		t.Errorf("taken out of answers: %s", got)
	}
}
