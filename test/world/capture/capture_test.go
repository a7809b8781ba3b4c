package capture_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/test/world/capture"
)

func found(text, secret string) bool {
	var r capture.Recorder
	r.Note("log", []byte(text))
	return len(r.Search(secret)) > 0
}

func reversed(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}

// FuzzSearch: whatever surrounds a secret, it is found in every form; and never where it is not.
func FuzzSearch(f *testing.F) {
	f.Add("CNRY-acme-alice-up-0123456789", "before", "after")
	f.Add(`tok"en<&>é\/+ =%`, "", "")
	f.Add("aaaaaaaa", "a", "aa")
	f.Fuzz(func(t *testing.T, secret, before, after string) {
		if len(secret) < 8 || strings.ToValidUTF8(secret, "") != secret {
			return // no secret looks like this
		}
		whole := before + secret + after
		asJSON, err := json.Marshal(secret)
		if err != nil {
			t.Fatal(err)
		}
		for form, text := range map[string]string{
			"raw":        whole,
			"json":       before + string(asJSON) + after,
			"query":      before + url.QueryEscape(secret) + after,
			"path":       before + url.PathEscape(secret) + after,
			"hex":        hex.EncodeToString([]byte(whole)),
			"HEX":        strings.ToUpper(hex.EncodeToString([]byte(whole))),
			"base64":     base64.StdEncoding.EncodeToString([]byte(whole)),
			"base64url":  base64.RawURLEncoding.EncodeToString([]byte(whole)),
			"backwards":  reversed(whole),
			"basic auth": base64.StdEncoding.EncodeToString([]byte("alice@example.com:" + secret)),
		} {
			if !found(text, secret) {
				t.Errorf("%s: %q is not found in %q", form, secret, text)
			}
		}
		if other := secret + "-other"; !strings.Contains(whole, other) && found(whole, other) {
			t.Errorf("%q is found in %q", other, whole)
		}
	})
}

func TestSearchLooksAtHeaders(t *testing.T) {
	hits := capture.Search([]capture.Entry{
		{What: "GET /x?token=the-secret-value"},
		{What: "POST /", Header: map[string][]string{"X-Made-Up": {"Bearer the-secret-value"}}},
		{What: "200", Body: []byte("nothing")},
	}, "the-secret-value")
	if len(hits) != 2 || hits[0].Form != "raw" {
		t.Errorf("hits: %v", hits)
	}
}
