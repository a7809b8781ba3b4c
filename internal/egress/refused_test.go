package egress_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// TestRefusedWithABody: the connection of a refused request whose body nobody read goes on, or says that it ends.
func TestRefusedWithABody(t *testing.T) {
	s := newStage(t)
	s.door.mu.Lock()
	s.door.refuse = fault.New(fault.Denied, "policy says no", nil)
	s.door.mu.Unlock()
	c := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer c.CloseIdleConnections()
	for i, n := range []int{2, 5000, 300 << 10, 2, 0, 2} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.addr+"/egress/plain/x", strings.NewReader(strings.Repeat("x", n)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+keycard)
		resp, err := c.Do(r)
		if err != nil {
			if n > 256<<10 {
				continue // who still sends when the connection ends may miss why
			}
			t.Fatalf("request %d: %v", i, err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusForbidden || !strings.Contains(string(body), "policy says no") {
			t.Errorf("request %d: %d %s %v", i, resp.StatusCode, body, err)
		}
	}
}
