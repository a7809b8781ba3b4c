package oauth_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
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

// The door to the network keeps what this package needs of a Doer: its refusals stay refusals, no redirects, and word of
// whether anything was sent.
func TestThroughTheDoor(t *testing.T) {
	thief := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("a redirect was followed") })
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, thief.URL, http.StatusTemporaryRedirect)
	})
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	door := must(outbound.New(outbound.Config{Named: []string{s.URL, gone.URL}}))
	defer door.Close()
	for name, c := range map[string]struct {
		doer oauth.Doer
		url  string
		kind fault.Kind
		fail oauth.Failure
		sent bool
	}{
		"named":            {door.Named(), s.URL, fault.Unavailable, oauth.Malformed, true},
		"nobody listens":   {door.Named(), gone.URL, fault.Unavailable, oauth.Temporary, false},
		"not in the file":  {door.Named(), thief.URL, fault.Denied, oauth.Temporary, false},
		"found, but inner": {door.Found(), strings.Replace(thief.URL, "http:", "https:", 1), fault.Denied, oauth.Temporary, false},
	} {
		_, err := refresh(t, oauth.Client{HTTP: c.doer, Now: clock}, endpoint(c.url))
		te, ok := errors.AsType[*oauth.TokenError](err)
		if !ok || fault.KindOf(err) != c.kind || te.Failure != c.fail || te.Sent != c.sent {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := oauth.FetchMetadata(t.Context(), door.Named(), thief.URL); fault.KindOf(err) != fault.Denied {
		t.Errorf("metadata: got %v", err)
	}
}
