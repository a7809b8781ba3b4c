package issuer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// publisher serves client metadata documents.
type publisher struct {
	fetched int
	down    bool
	during  func() // while a document is read
}

func (p *publisher) Do(r *http.Request) (*http.Response, error) {
	p.fetched++
	if p.during != nil {
		p.during()
	}
	if p.down || !strings.HasSuffix(r.URL.Path, "/good.json") {
		return nil, errors.New("there is nothing")
	}
	body := fmt.Sprintf(`{"client_id":%q,"redirect_uris":["https://app.test/cb"]}`, r.URL)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body))}, nil
}

// TestA024_aKnownDocument: whoever asks for a host's other documents, from wherever, keeps no agent out whose document was good before.
func TestA024_aKnownDocument(t *testing.T) {
	now := time.Now()
	p := &publisher{}
	g := &Registry{Fetch: p, Now: func() time.Time { return now }}
	ask := func(path, address string) error {
		_, err := g.Client(t.Context(), "acme", identity.ClientID("https://app.test"+path), address)
		return err
	}
	if err := ask("/good.json", "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	now = now.Add(documentFreshMin + time.Second)
	for i := range 2 * documentsPerMin {
		if err := ask(fmt.Sprintf("/%d.json", i), fmt.Sprintf("198.51.100.%d", i)); err == nil || i >= documentsPerMin && fault.KindOf(err) != fault.RateLimited {
			t.Fatalf("flood %d: %v", i, err)
		}
	}
	p.during = func() {
		p.during = nil
		if err := ask("/good.json", "192.0.2.2"); err != nil {
			t.Errorf("who comes while it is read: %v", err)
		}
	}
	before := p.fetched
	if err := ask("/good.json", "192.0.2.1"); err != nil || p.fetched != before+1 {
		t.Errorf("the known document: %v, fetched %d times", err, p.fetched-before)
	}
	// What cannot be read any more is not believed for longer, nor asked for at once again.
	now, p.down, before = now.Add(documentFreshMin+time.Second), true, p.fetched
	for range 3 {
		err := ask("/good.json", "192.0.2.1")
		if _, refused := errors.AsType[*oauthError](err); refused || fault.KindOf(err) != fault.Unavailable || p.fetched != before+1 {
			t.Errorf("one that is gone: %v, fetched %d times", err, p.fetched-before)
		}
	}
	now, p.down = now.Add(documentCooldown), false
	if err := ask("/good.json", "192.0.2.1"); err != nil {
		t.Errorf("one that is back: %v", err)
	}
}

// shelf counts what is stored.
type shelf struct {
	Clients
	stored int
}

func (s *shelf) PutClient(context.Context, Client) error {
	s.stored++
	return nil
}

// TestA031_manyAddresses: however many networks somebody has, a tenant takes so many registrations in an hour and no more.
func TestA031_manyAddresses(t *testing.T) {
	now, kept := time.Now(), &shelf{}
	s := &Server{Now: func() time.Time { return now }, Clients: &Registry{Store: kept, Now: func() time.Time { return now }, Dynamic: true}}
	s.Clients.UseConfig(nil, nil)
	for i := range 25_000 { // more than any table of addresses keeps
		r := httptest.NewRequest(http.MethodPost, "/register", strings.NewReader(`{"redirect_uris":["http://127.0.0.1/cb"]}`))
		r.RemoteAddr = fmt.Sprintf("[2001:db8:%x:%x::1]:1", i/1000, i%1000)
		_ = s.register(httptest.NewRecorder(), r, "acme") // most are refused
	}
	if kept.stored != registersOfTenant {
		t.Errorf("%d registrations were stored, want %d", kept.stored, registersOfTenant)
	}
}
