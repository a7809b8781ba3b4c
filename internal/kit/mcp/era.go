package mcp

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
)

// Revisions of the protocol.
const (
	// Version2024November had a transport of its own, which is not spoken here; some peers agree on it over streamable HTTP.
	Version2024November = "2024-11-05"
	Version2025March    = "2025-03-26"
	Version2025June     = "2025-06-18"
	Version2025November = "2025-11-25"
	Version2026July     = "2026-07-28"
)

// Legacy are the revisions with a handshake, newest first; Supported are all.
var (
	Legacy    = []string{Version2025November, Version2025June, Version2025March}
	Supported = append([]string{Version2026July}, Legacy...)
)

// Handshake reports whether a session may agree on this version.
func Handshake(version string) bool {
	return version == Version2024November || slices.Contains(Legacy, version)
}

// Headers of streamable HTTP.
const (
	HeaderVersion = "Mcp-Protocol-Version"
	HeaderSession = "Mcp-Session-Id"
	HeaderMethod  = "Mcp-Method"
	HeaderName    = "Mcp-Name"
)

// removed are the methods of clients that the modern era does not have any more. Whoever sends one is answered as for any
// method that does not exist, whatever the server behind us would still do with it.
var removed = []string{"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "tasks/list", "tasks/result"}

// Removed reports whether a modern message asks for a method that its era removed.
func (m *Message) Removed() bool { return m.modern && slices.Contains(removed, m.Method) }

// Status is the HTTP status that carries an error of this code: in the modern era the code decides; in the legacy era an
// error rides on 200, because 404 would say that the session is gone.
func Status(modern bool, code int) int {
	switch code {
	case CodeParse, CodeRequest:
		return http.StatusBadRequest
	}
	if !modern {
		return http.StatusOK
	}
	switch code {
	case CodeMethod:
		return http.StatusNotFound
	case CodeHeaderMismatch, CodeVersion:
		return http.StatusBadRequest
	}
	return http.StatusOK
}

// CheckHeaders compares a modern request's headers with its body: the body is what is authorised, so a header that says
// something else is refused, and both values are named.
func CheckHeaders(h http.Header, m *Message) error {
	version, err := one(h, HeaderVersion)
	if err != nil {
		return err
	}
	if version != m.Version {
		return mismatch(HeaderVersion, version, m.Version)
	}
	if !slices.Contains(Supported, m.Version) || slices.Contains(Legacy, m.Version) {
		return refuse(CodeVersion, "Unsupported protocol version")
	}
	if m.Kind != Request {
		return nil
	}
	method, err := one(h, HeaderMethod)
	if err != nil {
		return err
	}
	if method != m.Method {
		return mismatch(HeaderMethod, method, m.Method)
	}
	if m.Target == "" || m.Method == "completion/complete" {
		return nil
	}
	name, err := one(h, HeaderName)
	if err != nil {
		return err
	}
	decoded, err := DecodeHeader(name)
	if err != nil {
		return err
	}
	if decoded != m.Target {
		return mismatch(HeaderName, decoded, m.Target)
	}
	return nil
}

func mismatch(name, header, body string) error {
	return refuse(CodeHeaderMismatch, "header "+name+" says "+quoted(header)+", the body says "+quoted(body))
}

func quoted(s string) string {
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return string(quote(nil, strings.ToValidUTF8(s, "?")))
}

func one(h http.Header, name string) (string, error) {
	v := h.Values(name)
	switch len(v) {
	case 1:
		return strings.Trim(v[0], " \t"), nil
	case 0:
		return "", refuse(CodeHeaderMismatch, "header "+name+" is missing")
	}
	return "", refuse(CodeHeaderMismatch, "header "+name+" is sent twice")
}

const (
	codedPrefix = "=?base64?"
	codedSuffix = "?="
)

// DecodeHeader reads a value of Mcp-Name or Mcp-Param-*: literal, or base64 between markers whose case counts.
func DecodeHeader(v string) (string, error) {
	inner, ok := strings.CutPrefix(v, codedPrefix)
	inner, ok2 := strings.CutSuffix(inner, codedSuffix)
	if !ok || !ok2 {
		return v, nil
	}
	b, err := base64.StdEncoding.Strict().DecodeString(inner)
	if err != nil {
		return "", refuse(CodeHeaderMismatch, "a header's base64 is malformed")
	}
	return string(b), nil
}

// EncodeHeader is its inverse: literal where every byte is visible ASCII or a space inside.
func EncodeHeader(v string) string {
	plain := !strings.ContainsFunc(v, func(r rune) bool { return r < 0x20 || r > 0x7e }) && strings.TrimSpace(v) == v &&
		!(strings.HasPrefix(v, codedPrefix) && strings.HasSuffix(v, codedSuffix))
	if plain {
		return v
	}
	return codedPrefix + base64.StdEncoding.EncodeToString([]byte(v)) + codedSuffix
}

// Acts reports whether a method runs or reads something by name. What is not known is taken to act: it stands under policy.
func Acts(method string) bool {
	switch method {
	case "server/discover", "tools/list", "prompts/list", "resources/list", "resources/templates/list", "logging/setLevel", "subscriptions/listen", "tasks/list":
		return false
	}
	return !strings.HasPrefix(method, "notifications/") && method != ""
}
