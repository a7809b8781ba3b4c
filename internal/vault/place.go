package vault

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/dpop"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// Placer puts a credential onto a request.
type Placer func(*http.Request) error

// Fill returns what puts a credential between two texts, as the part of a JSON string (quoted) or as it is.
func Fill(s secret.Text) func(before, after string, quoted bool) (string, error) {
	return func(before, after string, quoted bool) (string, error) {
		value := s.Expose()
		if quoted {
			b, err := jsontext.AppendQuote(nil, value)
			if err != nil {
				return "", errors.New("the credential is not text, so that it cannot stand in JSON") // the cause quotes it
			}
			value = string(b[1 : len(b)-1])
		}
		return before + value + after, nil
	}
}

// Bound is the access token with the key that it is bound to; nil where it is bound to none.
func (s Secrets) Bound(c oauth.Client) (*dpop.Token, error) {
	if s.Proof.IsZero() {
		return nil, nil
	}
	key, err := dpop.ParseKey(s.Proof)
	if err != nil {
		return nil, err
	}
	return c.Bound(key, s.Access), nil
}

// Place returns what puts a credential in the vendor's place, and the byte strings that must never come back. An unknown
// kind of place puts it nowhere: the config has refused it long before.
func Place(in catalog.Injection, s secret.Text) (Placer, [][]byte) {
	format, name := in.Format, in.Name
	if format == "" && in.Kind == "basic" {
		format = "{token}:" // the credential as user, the form that most vendors of keys take
	}
	if format == "" {
		format = "Bearer {token}"
	}
	if name == "" {
		name = "Authorization"
	}
	value := s.Expose()
	line, marks := strings.ReplaceAll(format, "{token}", value), [][]byte{[]byte(value)}
	if strings.Contains(format, "{first}") { // whose key it is stands in many answers, and is no secret
		first, second, whole := strings.Cut(value, ":")
		if !whole { // the vendor refuses it
			first, second = "", value
		}
		line = strings.NewReplacer("{first}", first, "{token}", second).Replace(format)
		if second != "" && whole {
			marks = append(marks, []byte(second))
		}
	}
	header := func(name, line string) Placer {
		return func(r *http.Request) error { r.Header.Set(name, line); return nil }
	}
	switch in.Kind {
	case "", "header":
		return header(name, line), marks
	case "basic":
		pair := base64.StdEncoding.EncodeToString([]byte(line))
		return header("Authorization", "Basic "+pair), append(marks, []byte(pair))
	case catalog.InjectPair:
		first, second, whole := strings.Cut(value, ":")
		if !whole { // half of it, which the vendor refuses; an empty mark would be in every answer
			return header(name, first), marks
		}
		return func(r *http.Request) error {
			r.Header.Set(name, first)
			r.Header.Set(in.Second, second)
			return nil
		}, append(marks, []byte(first), []byte(second))
	case "query":
		return func(r *http.Request) error {
			// Behind what is there: the rest of the query stays as policy saw it.
			pair := url.QueryEscape(name) + "=" + url.QueryEscape(value)
			if r.URL.RawQuery != "" {
				pair = r.URL.RawQuery + "&" + pair
			}
			r.URL.RawQuery = pair
			return nil
		}, marks
	}
	return func(*http.Request) error { return nil }, marks
}
