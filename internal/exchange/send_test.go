package exchange

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

// api takes one token, and says of every other one what it was told to say.
type api struct {
	good string
	says http.Response
	body string
	got  []string // method, body and token of each request
}

func (a *api) RoundTrip(r *http.Request) (*http.Response, error) {
	body := ""
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		body = string(b)
	}
	token := r.Header.Get("Authorization")
	a.got = append(a.got, r.Method+" "+body+" "+token)
	if token == a.good {
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("fine"))}, nil
	}
	resp := a.says
	resp.Body = io.NopCloser(strings.NewReader(a.body))
	return &resp, nil
}

func placing(token string) *Credential {
	return &Credential{Place: func(r *http.Request) error { r.Header.Set("Authorization", token); return nil }, Marks: [][]byte{[]byte(token)}}
}

// TestExpiredBeforeItsTime: what the vendor's rules call an expired token is renewed, once; the request is repeated where that
// does no harm; and every other no is passed on as it is.
func TestExpiredBeforeItsTime(t *testing.T) {
	invalid := http.Response{StatusCode: http.StatusUnauthorized, Header: http.Header{"Www-Authenticate": {`Bearer realm="x", error="invalid_token"`}}}
	plain := http.Response{StatusCode: http.StatusUnauthorized, Header: http.Header{}}
	ok := http.Response{StatusCode: http.StatusOK, Header: http.Header{}}
	slack := []catalog.Expired{{Status: 200, Body: `"error":"token_expired"`}}
	for name, c := range map[string]struct {
		method  string
		body    string // of the request
		stream  bool   // its body cannot be had again
		rules   []catalog.Expired
		says    http.Response
		answer  string
		fails   bool // the renewal
		renewed int
		sent    int
		want    string
	}{
		"by RFC 6750":                {method: "GET", says: invalid, renewed: 1, sent: 2, want: "fine"},
		"a right that is missing":    {method: "GET", says: plain, answer: "no right", sent: 1, want: "no right"},
		"by the vendor's rule":       {method: "GET", rules: slack, says: ok, answer: `{"ok":false,"error":"token_expired"}`, renewed: 1, sent: 2, want: "fine"},
		"not by the vendor's rule":   {method: "GET", rules: slack, says: ok, answer: `{"ok":false,"error":"missing_scope"}`, sent: 1, want: `{"ok":false,"error":"missing_scope"}`},
		"RFC 6750, under a rule":     {method: "GET", rules: slack, says: invalid, answer: "x", sent: 1, want: "x"},
		"a long answer stays whole":  {method: "GET", rules: slack, says: ok, answer: strings.Repeat("y", 3*catalog.ExpiredBody), sent: 1, want: strings.Repeat("y", 3*catalog.ExpiredBody)},
		"post is not repeated":       {method: "POST", body: "do it", says: invalid, answer: "x", renewed: 1, sent: 1, want: "x"},
		"put is":                     {method: "PUT", body: "do it", says: invalid, renewed: 1, sent: 2, want: "fine"},
		"put of a stream is not":     {method: "PUT", body: "do it", stream: true, says: invalid, answer: "x", renewed: 1, sent: 1, want: "x"},
		"the renewal fails":          {method: "GET", says: invalid, answer: "x", fails: true, renewed: 1, sent: 1, want: "x"},
		"a challenge without a word": {method: "GET", says: http.Response{StatusCode: 401, Header: http.Header{"Www-Authenticate": {"Bearer"}}}, answer: "x", sent: 1, want: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			a := &api{good: "new", says: c.says, body: c.answer}
			renewed := 0
			cred := placing("old")
			cred.again = &again{expired: c.rules, renew: func(context.Context) (*Credential, error) {
				if renewed++; c.fails {
					return nil, errors.New("away")
				}
				return placing("new"), nil
			}}
			r, err := http.NewRequestWithContext(t.Context(), c.method, "https://api.test/x", strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if c.stream {
				r.GetBody = nil
			}
			resp, marks, err := cred.Send(a, r)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if err != nil || string(got) != c.want || renewed != c.renewed || len(a.got) != c.sent {
				t.Errorf("got %.40q (%v) after %d renewals and the requests %q", got, err, renewed, a.got)
			}
			if c.sent == 2 && (len(marks) != 2 || a.got[0] != c.method+" "+c.body+" old" || a.got[1] != c.method+" "+c.body+" new") {
				t.Errorf("marks %q, requests %q", marks, a.got)
			}
			if c.renewed == 1 && !c.fails { // whoever holds the old one gets the new one from now on
				again, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://api.test/x", nil)
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := cred.Send(a, again); err != nil || a.got[len(a.got)-1] != "POST  new" {
					t.Errorf("the next request was %q (%v)", a.got[len(a.got)-1], err)
				}
			}
		})
	}
}

// TestAnotherPlace: a credential that cannot stand where the keycard stood stands nowhere, and nothing is sent.
func TestAnotherPlace(t *testing.T) {
	for name, c := range map[string]struct {
		fill func(before, after string, quoted bool) (string, error)
		swap Swap
		want string // the header; "" = refused
	}{
		"a subprotocol":               {vault.Fill(secret.New("new")), Swap{Before: "v1, key.", After: ", v2"}, "v1, key.new, v2"},
		"one that would be two lines": {vault.Fill(secret.New("new\r\nX: y")), Swap{Before: "key."}, ""},
		"one that is no text":         {vault.Fill(secret.New("\xff")), Swap{Message: true, Before: `{"a":"`, After: `"}`}, ""},
		"a key that signs":            {nil, Swap{Before: "key."}, ""},
	} {
		cred := placing("old")
		cred.Fill = c.fill
		a := &api{good: "new"}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://api.test/x", nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = cred.At(&c.swap).Send(a, r)
		if got := r.Header.Get("Sec-Websocket-Protocol"); got != c.want || (err == nil) != (c.want != "") || c.want == "" && len(a.got) > 0 {
			t.Errorf("%s: %q %v, %d requests", name, got, err, len(a.got))
		}
		if err != nil && (strings.Contains(err.Error(), "\xff") || strings.Contains(err.Error(), "\r")) {
			t.Errorf("%s: the error holds the credential: %q", name, err)
		}
		if r.Header.Get("Authorization") != "" {
			t.Errorf("%s: it stands in its usual place too", name)
		}
	}
}
