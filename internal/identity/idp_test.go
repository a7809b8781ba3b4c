package identity_test

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"frontdesk.dev/frontdesk/internal/identity"
)

// answering is how an IdP answers.
type answering func(*http.Request) (*http.Response, error)

func (a answering) Do(r *http.Request) (*http.Response, error) { return a(r) }

func metadata(*http.Request) (*http.Response, error) {
	doc := `{"issuer":"` + company + `","authorization_endpoint":"` + company + `/a","token_endpoint":"` + company + `/t","jwks_uri":"` + company + `/k"}`
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(doc))}, nil
}

// TestIdPThatIsSlow: when the metadata is due to be read again and the IdP does not answer, one asks and nobody else waits; the next
// try comes by itself, not with each call.
func TestIdPThatIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked int
		slow := false
		p := identity.NewIdP(identity.IdPConfig{Name: "login", Issuer: company}, answering(func(r *http.Request) (*http.Response, error) {
			asked++
			if slow {
				time.Sleep(10 * time.Second)
				return nil, errors.New("no answer")
			}
			return metadata(r)
		}), time.Now, slog.New(slog.DiscardHandler))
		if _, err := p.Metadata(t.Context()); err != nil || asked != 1 {
			t.Fatalf("asked %d times, %v", asked, err)
		}
		time.Sleep(2 * time.Hour)
		slow = true
		first := make(chan error, 1)
		go func() { _, err := p.Metadata(t.Context()); first <- err }()
		synctest.Wait() // it waits for the IdP
		begun := time.Now()
		for range 100 {
			if m, err := p.Metadata(t.Context()); err != nil || m.Issuer != company {
				t.Fatalf("%v, %v", m.Issuer, err)
			}
		}
		if err := <-first; err != nil {
			t.Errorf("who asked has no answer: %v", err)
		}
		if waited := time.Since(begun); waited != 10*time.Second || asked != 2 {
			t.Errorf("asked %d times in %v", asked, waited)
		}
		if _, err := p.Metadata(t.Context()); err != nil || asked != 2 {
			t.Errorf("right after a try that failed it is asked again: %d times, %v", asked, err)
		}
		time.Sleep(time.Minute)
		slow = false
		if _, err := p.Metadata(t.Context()); err != nil || asked != 3 {
			t.Errorf("a minute later: asked %d times, %v", asked, err)
		}
	})
}

// TestGreet: the operator hears at the start which IdP is away, by name and reason.
func TestGreet(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	away := func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") }
	var all identity.IdPs
	all.Use([]*identity.IdP{
		identity.NewIdP(identity.IdPConfig{Name: "login", Issuer: company}, answering(metadata), time.Now, log),
		identity.NewIdP(identity.IdPConfig{Name: "other", Issuer: "https://login.other.example"}, answering(away), time.Now, log),
	})
	if err := all.Greet(t.Context()); err != nil {
		t.Fatal(err)
	}
	if said := out.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "idp=other") || !strings.Contains(said, "https://login.other.example") {
		t.Errorf("said %q", said)
	}
}
