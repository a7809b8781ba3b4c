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
		"basic, both halves":      {catalog.Injection{Kind: "basic", Format: "{first}/token:{token}"}, "Basic L3Rva2VuOmszeQ==", "/v1?a=1"},
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

// TestPlaceOfTwoHalves: the key goes behind what stands before it, and both it and what carries it come out of answers; the name does not.
func TestPlaceOfTwoHalves(t *testing.T) {
	place, marks := Place(catalog.Injection{Kind: "basic", Format: "{first}/token:{token}"}, secret.New("a@b.example:k3y:x"))
	r := httptest.NewRequest("GET", "/", nil)
	if err := place(r); err != nil {
		t.Fatal(err)
	}
	if user, password, ok := r.BasicAuth(); !ok || user != "a@b.example/token" || password != "k3y:x" {
		t.Errorf("%q, %q", user, password)
	}
	if got := fmt.Sprintf("%s", marks); got != "[a@b.example:k3y:x k3y:x YUBiLmV4YW1wbGUvdG9rZW46azN5Ong=]" {
		t.Errorf("taken out of answers: %s", got)
	}
}

// TestPlaceWithProof has the vector of Facebook's own SDK (facebook/php-graph-sdk, AccessTokenTest).
func TestPlaceWithProof(t *testing.T) {
	const vector = "796ba0d8a6b339e476a7b166a9e8ac0a395f7de736dc37de5f2f4397f5854eb8"
	up := &catalog.Upstream{Tenant: "default", Name: "fb", Provider: &catalog.Provider{}}
	in := catalog.Injection{Proof: "appsecret_proof"}
	var clients Clients
	sent := func(k catalog.MethodKind, query string) string {
		t.Helper()
		place, _ := clients.Place(up, k, in, secret.New("foo_token"))
		r := httptest.NewRequest("GET", "/me"+query, nil)
		if err := place(r); err != nil || r.Header.Get("Authorization") != "Bearer foo_token" {
			t.Errorf("%v, %v", r.Header, err)
		}
		return r.URL.RequestURI()
	}
	if got := sent(catalog.AuthorizationCode, "?a=1"); got != "/me?a=1" {
		t.Errorf("without a client's secret: %s", got)
	}
	clients.Use(map[ClientKey]secret.Text{{Tenant: "default", Upstream: "fb"}: secret.New("shhhhh!is.my.secret")})
	for query, want := range map[string]string{"": "/me?appsecret_proof=" + vector, "?fields=id%2Cname&x": "/me?fields=id%2Cname&x&appsecret_proof=" + vector, "?appsecret_proof=1&b=2&%61ppsecret%5Fproof=3": "/me?b=2&appsecret_proof=" + vector} {
		if got := sent(catalog.AuthorizationCode, query); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if got := sent(catalog.APIKey, ""); got != "/me" {
		t.Errorf("a key that somebody pasted was given to no client of ours: %s", got)
	}
	if _, marks := clients.Place(up, catalog.AuthorizationCode, in, secret.New("foo_token")); fmt.Sprintf("%s", marks) != "[foo_token "+vector+"]" {
		t.Errorf("taken out of answers: %s", marks)
	}
}
