package inbound_test

import (
	"net/http"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/internal/gateway/inbound"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// TestBearer: a token stands in one header, once (RFC 6750 section 2.1).
func TestBearer(t *testing.T) {
	for _, c := range []struct {
		headers []string
		want    string
		refused bool
	}{
		{nil, "", false},
		{[]string{"Bearer abc"}, "abc", false},
		{[]string{"bEARER abc"}, "abc", false},
		{[]string{"Bearer"}, "", false},
		{[]string{"Bearer "}, "", false},
		{[]string{"Bearer  abc"}, "", false},
		{[]string{"Basic abc"}, "", false},
		{[]string{"Bearerabc"}, "", false},
		{[]string{"Bearer abc", "Bearer abc"}, "", true},
		{[]string{"Bearer abc", "Basic abc"}, "", true},
		{[]string{"Bearer abc, Bearer def"}, "", true},
	} {
		got, err := inbound.Bearer(&http.Request{Header: http.Header{"Authorization": c.headers}})
		if got != c.want || (fault.KindOf(err) == fault.Invalid && err != nil) != c.refused {
			t.Errorf("%q: got %q, %v", c.headers, got, err)
		}
	}
}

// TestPlainJSON: one type, in UTF-8, and no coding that inflates.
func TestPlainJSON(t *testing.T) {
	for _, c := range []struct {
		types []string
		code  string
		want  bool
	}{
		{[]string{"application/json"}, "", true},
		{[]string{"Application/JSON; charset=UTF-8"}, "identity", true},
		{nil, "", false},
		{[]string{""}, "", false},
		{[]string{"application/json", "application/json"}, "", false},
		{[]string{"application/json, text/plain"}, "", false},
		{[]string{"application/json; charset=utf-16"}, "", false},
		{[]string{"application/json; charset="}, "", false},
		{[]string{"text/json"}, "", false},
		{[]string{"application/json"}, "gzip", false},
		{[]string{"application/json"}, "identity, gzip", false},
	} {
		h := http.Header{"Content-Type": c.types}
		if c.code != "" {
			h.Set("Content-Encoding", c.code)
		}
		if got := inbound.PlainJSON(h); got != c.want {
			t.Errorf("%q in %q: %v", c.types, c.code, got)
		}
	}
}

// TestReadAll: what a body says of its length is no reason to believe it, nor to lose any of it.
func TestReadAll(t *testing.T) {
	const text = "a message"
	for _, length := range []int64{-1, 0, 1, int64(len(text)), 1 << 62} {
		if got, err := inbound.ReadAll(strings.NewReader(text), length); err != nil || string(got) != text || cap(got) > 128<<10 {
			t.Errorf("of length %d: %q in %d bytes, %v", length, got, cap(got), err)
		}
	}
}
