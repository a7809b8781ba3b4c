package web

import (
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
)

// Front is what stands before every public route. All fields are required but Trusted.
type Front struct {
	Public  *url.URL       // public_url: the one host that we answer for
	Trusted []netip.Prefix // proxies whose X-Forwarded-For is believed
	Origins []string       // other origins that may speak MCP from a browser
	Log     *slog.Logger
}

// Wrap adds host check, client address, security headers, a limit to the time of bodies and the catch of panics.
func (f *Front) Wrap(next http.Handler) http.Handler {
	return Prompt(BodyTime, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) > 0 {
			// A length may stand beside it, which net/http does not show: to a proxy in front that goes by the length, what follows is still
			// this request (RFC 9112 section 6.3).
			w.Header().Set("Connection", "close")
		}
		if !f.ours(r.Host) { // DNS rebinding: another name that leads here is not us
			http.Error(w, "this server answers for "+f.Public.Host+" alone", http.StatusMisdirectedRequest)
			return
		}
		if o := r.Header.Get("Origin"); o != "" && !f.allowed(o) && strings.Contains(r.URL.Path, "/mcp/") {
			http.Error(w, `{"jsonrpc":"2.0","error":{"code":-32600,"message":"this origin may not speak with this server"}}`, http.StatusForbidden)
			return
		}
		r.RemoteAddr = f.client(r)
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		if f.Public.Scheme == "https" {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		if !canonical(r.URL) { // one thing has one path: no second spelling gets past a rule, or into a cache
			http.NotFound(w, r)
			return
		}
		defer func() {
			v := recover()
			if v == nil || v == http.ErrAbortHandler {
				if v != nil {
					panic(v)
				}
				return
			}
			ref := Reference()
			f.Log.Error("a request ended in a panic", "path", r.URL.Path, "reference", ref, "panic", v)
			http.Error(w, "something went wrong inside Frontdesk; tell your operator the reference "+ref, http.StatusInternalServerError)
		}()
		next.ServeHTTP(w, r)
	}))
}

// canonical reports whether a path is spelled as its one route is: nothing encoded that need not be, no dots, no doubled
// slashes. The colon of a callback's name is the one byte that others spell in two ways.
func canonical(u *url.URL) bool {
	if u.RawPath != "" && strings.NewReplacer("%3A", ":", "%3a", ":").Replace(u.RawPath) != u.Path {
		return false
	}
	return u.Path == "/" || strings.HasPrefix(u.Path, "/") && path.Clean(u.Path) == strings.TrimSuffix(u.Path, "/")
}

func (f *Front) ours(host string) bool {
	if strings.EqualFold(host, f.Public.Host) {
		return true
	}
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		name, port = host, ""
	}
	wantPort := f.Public.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[f.Public.Scheme]
	}
	if wantPort == "" {
		wantPort = map[string]string{"https": "443", "http": "80"}[f.Public.Scheme]
	}
	if !strings.EqualFold(name, f.Public.Hostname()) && !(loopbackName(name) && loopbackName(f.Public.Hostname())) {
		return false
	}
	return port == wantPort
}

func loopbackName(h string) bool {
	return h == "localhost" || h == "127.0.0.1" || h == "::1" || h == "[::1]"
}

func (f *Front) allowed(origin string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Scheme == f.Public.Scheme && f.ours(u.Host) || slices.Contains(f.Origins, origin)
}

// client is the address that the nearest proxy we do not run saw.
func (f *Front) client(r *http.Request) string {
	host, port, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	at := host
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		addr, err := netip.ParseAddr(at)
		if err != nil || !slices.ContainsFunc(f.Trusted, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) }) {
			break
		}
		next := strings.TrimSpace(hops[i])
		if _, err := netip.ParseAddr(next); err != nil {
			break
		}
		at = next
	}
	return net.JoinHostPort(at, port)
}

// Reference is what an operator can look up in the log.
func Reference() string {
	b := make([]byte, 4)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return hex.EncodeToString(b)
}
