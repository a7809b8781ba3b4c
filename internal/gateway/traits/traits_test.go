package traits_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/internal/gateway/traits"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
)

// TestTooNew: an answer to initialize shows a server without a handshake by its code alone, and by bad parameters only with 400.
func TestTooNew(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		want   bool
	}{
		{200, fmt.Sprintf(`{"error":{"code":%d}}`, mcp.CodeMethod), true},
		{400, fmt.Sprintf(`{"error":{"code":%d}}`, mcp.CodeVersion), true},
		{400, fmt.Sprintf(`{"error":{"code":%d}}`, mcp.CodeParams), true},
		{200, fmt.Sprintf(`{"error":{"code":%d}}`, mcp.CodeParams), false},
		{400, fmt.Sprintf(`{"error":{"code":"%d"}}`, mcp.CodeMethod), false},
		{400, `{"result":{}}`, false},
		{400, `<html>`, false},
		{400, ``, false},
	} {
		if got := traits.TooNew(c.status, []byte(c.body)); got != c.want {
			t.Errorf("%d %s: %v", c.status, c.body, got)
		}
	}
}

// TestListed: tools are known by tenant and server, a list that says something else later counts, and no server fills the memory.
func TestListed(t *testing.T) {
	var all traits.Traits
	s := all.Of("default", "issues")
	s.Listed([]string{"read", "write"}, []byte(`{"result":{"tools":[{"name":"read","annotations":{"readOnlyHint":true}},{"name":"write"}]}}`))
	if want := (map[string]bool{"read": true, "write": false}); !maps.Equal(s.Tools(), want) {
		t.Errorf("known are %v, want %v", s.Tools(), want)
	}
	s.Tools()["made-up"] = true // of a copy
	s.Listed([]string{"one"}, []byte(`{"result":{"tools":[]}}`))
	s.Listed([]string{"one"}, []byte(`no list`))
	s.Listed([]string{"read"}, []byte(`{"result":{"tools":[{"name":"read"}]}}`))
	if want := (map[string]bool{"read": false, "write": false}); !maps.Equal(s.Tools(), want) {
		t.Errorf("known are %v, want %v", s.Tools(), want)
	}
	if n := len(all.Of("globex", "issues").Tools()) + len(all.Of("default", "wiki").Tools()); n != 0 {
		t.Errorf("%d are known of others", n)
	}
	names := make([]string, 20_000)
	for i := range names {
		names[i] = fmt.Sprint("t", i)
	}
	s.Listed(names, []byte(`{"result":{"tools":[{"name":"`+strings.Join(names, `"},{"name":"`)+`"}]}}`))
	if n := len(s.Tools()); n != 10_000 {
		t.Errorf("%d tools are kept", n)
	}
}
