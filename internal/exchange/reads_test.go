package exchange

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange/refresh"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

// shelf is a vault that notes what it is told.
type shelf struct {
	Vault
	told []vault.Connection
}

func (s *shelf) Update(_ context.Context, c vault.Connection) error {
	s.told = append(s.told, c)
	return nil
}

// second is what a vendor says when it is asked whose credential it is.
type second struct {
	refuses bool
	asked   int
}

func (w *second) Refuses(context.Context, *catalog.Upstream, vault.Connection, vault.Secrets) bool {
	w.asked++
	return w.refuses
}

// says answers every request alike.
type says struct{ resp *http.Response }

func (s says) RoundTrip(r *http.Request) (*http.Response, error) {
	s.resp.Request = r
	return s.resp, nil
}

// TestAnswersThatAsk: an answer that names a scope which its person has not allowed becomes the question for it, a dead token is one
// only when the vendor says so twice, and every other answer passes as it came.
func TestAnswersThatAsk(t *testing.T) {
	all, err := catalog.Providers()
	if err != nil {
		t.Fatal(err)
	}
	const missing, dead = `{"ok":false,"error":"missing_scope","needed":"channels:history"}`, `{"ok":false,"error":"token_revoked"}`
	long := `{"ok":true,"text":"` + strings.Repeat("x", 2*catalog.SignalBody) + `"}`
	for name, c := range map[string]struct {
		kind      catalog.MethodKind
		have      string // scopes of the connection
		body      string
		stream    bool
		refreshes bool
		refuses   bool
		asked     int
		why       catalog.Why
		scopes    string
	}{
		"a scope":                     {kind: catalog.AuthorizationCode, have: "users:read", body: missing, why: catalog.WhyScope, scopes: "channels:history users:read"},
		"a scope that was allowed":    {kind: catalog.AuthorizationCode, have: "users:read channels:history", body: missing},
		"a scope of a pasted key":     {kind: catalog.APIKey, body: missing},
		"dead, said twice":            {kind: catalog.AuthorizationCode, have: "users:read", body: dead, refuses: true, asked: 1, why: catalog.WhyReconnect, scopes: "users:read"},
		"dead, said once":             {kind: catalog.AuthorizationCode, have: "users:read", body: dead, asked: 1},
		"dead, but it can be renewed": {kind: catalog.AuthorizationCode, have: "users:read", body: dead, refreshes: true},
		"a key that is dead":          {kind: catalog.APIKey, body: dead, refuses: true, asked: 1, why: catalog.WhyReconnect},
		"a stream is not looked into": {kind: catalog.AuthorizationCode, body: dead, stream: true},
		"a long answer stays whole":   {kind: catalog.AuthorizationCode, body: long},
	} {
		t.Run(name, func(t *testing.T) {
			v, w := &shelf{}, &second{refuses: c.refuses}
			s := &Stored{Kind: c.kind, Vault: v, Witness: w, Refresh: &refresh.Machine{Catalog: &catalog.Catalog{}}, Log: slog.New(slog.DiscardHandler)}
			up := &catalog.Upstream{Tenant: identity.DefaultTenant, Name: "slack", Title: "Slack", Provider: all["slack"]}
			conn := vault.Connection{ID: "c", Upstream: "slack", Scopes: strings.Fields(c.have), Refreshes: c.refreshes, Status: vault.Active}
			cred := placing("token")
			cred.reads = s.reader(Request{Upstream: up, Scopes: []string{"users:read"}}, conn, vault.Secrets{Access: secret.New("token")})
			h := http.Header{"Content-Type": {"application/json"}}
			if c.stream {
				h.Set("Content-Type", "text/event-stream")
			}
			r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://slack.com/api/x", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, _, err := cred.Send(says{&http.Response{StatusCode: http.StatusOK, Header: h, Body: io.NopCloser(strings.NewReader(c.body))}}, r)
			needed, isNeeded := errors.AsType[*catalog.Needed](err)
			if w.asked != c.asked || isNeeded != (c.why != "") || len(v.told) != map[bool]int{true: 1}[c.why == catalog.WhyReconnect] {
				t.Fatalf("%v, asked again %d times, marked %v", err, w.asked, v.told)
			}
			if !isNeeded {
				got, err := io.ReadAll(resp.Body)
				if err != nil || string(got) != c.body {
					t.Errorf("the answer is %.40q (%v)", got, err)
				}
				return
			}
			m := needed.Missing[0]
			slices.Sort(m.Scopes)
			if m.Why != c.why || strings.Join(m.Scopes, " ") != c.scopes || m.Upstream != "slack" {
				t.Errorf("it asks %+v", m)
			}
		})
	}
}
