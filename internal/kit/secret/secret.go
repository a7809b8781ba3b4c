// Package secret holds values that must never be printed.
//
// A Text has no printing form in any verb, encoder or logger; the only way out is Expose, so that a search for
// "Expose()" is the review of where secrets go. Go gives no promise to wipe strings from memory: a Text limits
// where a value can be written, not how long it stays in the heap.
package secret

import (
	"crypto/subtle"
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// Text is a secret. The zero Text is empty. The value is behind a pointer, because there are ways to print a struct that ask
// none of its methods (%p does).
type Text struct{ v *string }

// New wraps a value.
func New(v string) Text {
	if v == "" {
		return Text{}
	}
	return Text{&v}
}

// Expose is the only way out. Every line that calls it is reviewed.
func (t Text) Expose() string {
	if t.v == nil {
		return ""
	}
	return *t.v
}

// IsZero reports whether there is no secret.
func (t Text) IsZero() bool { return t.v == nil }

// Equal compares in constant time.
func (t Text) Equal(o Text) bool {
	return subtle.ConstantTimeCompare([]byte(t.Expose()), []byte(o.Expose())) == 1
}

func (Text) String() string               { return redacted }
func (Text) GoString() string             { return redacted }
func (Text) Format(f fmt.State, _ rune)   { _, _ = f.Write([]byte(redacted)) }
func (Text) LogValue() slog.Value         { return slog.StringValue(redacted) }
func (Text) MarshalText() ([]byte, error) { return []byte(redacted), nil }
func (Text) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
func (Text) MarshalYAML() (any, error)    { return redacted, nil }
