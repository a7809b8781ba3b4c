package audit

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"frontdesk.dev/frontdesk/internal/identity"
)

// maxDetail bounds the one free sentence of a record.
const maxDetail = 512

// appendJSON writes the record in its one form: fields in the order of the struct, empty ones left out. It is what is hashed.
func (r *Record) appendJSON(b []byte) []byte {
	b = append(b, '{')
	b = field(b, "kind", string(r.Kind))
	b = field(b, "time", r.Time.UTC().Format(time.RFC3339Nano))
	b = field(b, "tenant", string(r.Tenant))
	for _, f := range [...]struct{ name, value string }{
		{"call", string(r.Call)}, {"parent", string(r.Parent)}, {"user", string(r.User)}, {"service", r.Service}, {"client", string(r.Client)},
	} {
		b = optional(b, f.name, f.value)
	}
	b = list(b, "actors", r.Actors)
	b = optional(b, "sign_in", r.SignIn)
	b = optional(b, "session", r.Session)
	b = field(b, "action", r.Action)
	for _, f := range [...]struct{ name, value string }{
		{"server", r.Server}, {"method", r.Method}, {"tool", r.Tool}, {"upstream", r.Upstream}, {"http", r.HTTP}, {"decision", r.Decision},
	} {
		b = optional(b, f.name, f.value)
	}
	b = list(b, "policies", r.Policies)
	detail := r.Detail
	if len(detail) > maxDetail {
		detail = strings.ToValidUTF8(detail[:maxDetail], "")
	}
	for _, f := range [...]struct{ name, value string }{
		{"connection", r.Connection}, {"site", r.Site}, {"obtained", r.Obtained}, {"sealed", r.Sealed}, {"result", string(r.Result)}, {"detail", detail},
	} {
		b = optional(b, f.name, f.value)
	}
	return append(b, '}')
}

func field(b []byte, name, value string) []byte {
	if len(b) > 1 {
		b = append(b, ',')
	}
	b = append(b, '"')
	b = append(b, name...)
	b = append(b, `":`...)
	return quote(b, value)
}

func quote(b []byte, s string) []byte {
	out, err := jsontext.AppendQuote(b, s)
	if err != nil { // invalid UTF-8 from outside: what can be shown of it is
		out, _ = jsontext.AppendQuote(b, strings.ToValidUTF8(s, "?")) // valid now
	}
	return out
}

func optional(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return field(b, name, value)
}

func list(b []byte, name string, values []string) []byte {
	if len(values) == 0 {
		return b
	}
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":[`...)
	for i, v := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = quote(b, v)
	}
	return append(b, ']')
}

// Leak is the event that an answer to this act held the credential.
func (r Record) Leak(call CallID, at time.Time) Record {
	r.Kind, r.Call, r.Time, r.Action, r.Detail = KindEvent, call, at, "leak", "the answer held the credential, which was taken out"
	return r
}

// link is the hash of a row: SHA-256(0x00 ‖ writer ‖ seq ‖ previous hash ‖ SHA-256(record)).
func link(writer string, seq int64, prev [32]byte, record []byte) [32]byte {
	digest := sha256.Sum256(record)
	b := make([]byte, 0, 1+16+8+32+32)
	b = append(b, 0)
	b = append(b, writer...)
	b = binary.BigEndian.AppendUint64(b, uint64(seq))
	b = append(b, prev[:]...)
	b = append(b, digest[:]...)
	return sha256.Sum256(b)
}

// By names whose act it is; nobody's where there is no caller.
func (r *Record) By(c *identity.Caller) {
	if c != nil {
		r.User, r.Service, r.Client, r.Actors, r.SignIn = c.User, c.Service, c.Client, c.Actors, c.Family
	}
}
