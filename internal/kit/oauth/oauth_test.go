package oauth_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/oauth"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return now }

// direct is a Doer as its contract wants it: it follows no redirects.
func direct(server *httptest.Server) *http.Client {
	c := server.Client()
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// serve starts a server that lives as long as the test.
func serve(t testing.TB, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

// doerFunc answers without a socket, for fuzzing.
type doerFunc func(*http.Request) (*http.Response, error)

func (f doerFunc) Do(r *http.Request) (*http.Response, error) { return f(r) }

func TestErrorCode(t *testing.T) {
	for code, want := range map[string]string{
		"invalid_grant": "invalid_grant", "AADSTS65001": "AADSTS65001", "a.b-c": "a.b-c",
		"": "", "two words": "", "x<script>": "", "line\nbreak": "", "é": "", strings.Repeat("a", 65): "",
	} {
		if got := oauth.ErrorCode(code); got != want {
			t.Errorf("ErrorCode(%q) = %q, want %q", code, got, want)
		}
	}
}
