package egress

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/broker"
	"frontdesk.dev/frontdesk/internal/catalog"
)

// relay streams the answer back. The lease has cleaned it already; what it could not read is not passed on.
func (p *Proxy) relay(w http.ResponseWriter, resp *http.Response, up *catalog.Upstream, rt route) (broker.Outcome, error) {
	var early []byte
	if resp.Uncompressed { // whether it was what it said it was shows when its first bytes are decoded
		buf := make([]byte, 4<<10)
		for len(early) == 0 {
			n, err := resp.Body.Read(buf)
			if early = buf[:n]; err == io.EOF {
				break
			}
			if err != nil {
				return broker.Outcome{Result: audit.ResultFailed, Detail: "the answer's coding is broken"},
					&statusError{http.StatusBadGateway, "coded_answer", up.Title + " answered in a coding that Frontdesk cannot look into; the answer was dropped"}
			}
		}
	}
	h := w.Header()
	for name, values := range resp.Header {
		h[name] = values
	}
	dropHopByHop(h)
	// A cookie of the API is a credential of the person: it stays on this side.
	h.Del("Set-Cookie")
	h.Del("Alt-Svc")
	h.Del("Accept-Ranges") // ranges are answered whole
	if up.Sites != nil && resp.Request != nil {
		rt.site = resp.Request.URL
	}
	for _, name := range []string{"Location", "Content-Location"} {
		if v := h.Get(name); v != "" {
			h.Set(name, rt.rewrite(v, up))
		}
	}
	for i, v := range h["Link"] {
		h["Link"][i] = linkTarget.ReplaceAllStringFunc(v, func(m string) string { return "<" + rt.rewrite(m[1:len(m)-1], up) + ">" })
	}
	if rt.last {
		h.Set("Connection", "close")
	}
	announced := make(map[string]bool, len(resp.Trailer))
	for name := range resp.Trailer {
		h.Add("Trailer", name)
		announced[name] = true
	}
	w.WriteHeader(resp.StatusCode)
	if resp.ContentLength < 0 && resp.Body != http.NoBody && len(early) == 0 {
		_ = http.NewResponseController(w).Flush() // who streams may wait for the head; if it fails, so does the first write
	}
	if err := stream(w, io.MultiReader(bytes.NewReader(early), resp.Body)); err != nil {
		// The head is out: the only honest end is a broken one.
		return broker.Outcome{Result: audit.ResultUnknown, Detail: "the answer was broken off: " + cut(err)}, errBroken
	}
	for name, values := range resp.Trailer {
		if !announced[name] {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
	o := broker.Outcome{Result: audit.ResultOK}
	if resp.StatusCode >= http.StatusBadRequest {
		o = broker.Outcome{Result: audit.ResultFailed, Detail: "status " + strconv.Itoa(resp.StatusCode)}
	}
	return o, nil
}

// errBroken makes the server drop the connection, so that nobody takes a part for the whole.
var errBroken = http.ErrAbortHandler

// cut names the side that broke off, without quoting what it said.
func cut(err error) string {
	if w, ok := errors.AsType[*writeError](err); ok && w != nil {
		return "the server went away"
	}
	return "the upstream went away"
}

type writeError struct{ error }

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// stream copies and flushes after each read: an event must not wait for the next one.
func stream(w http.ResponseWriter, body io.Reader) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	c := http.NewResponseController(w)
	for {
		n, err := body.Read(*buf)
		if n > 0 {
			if _, werr := w.Write((*buf)[:n]); werr != nil {
				return &writeError{werr}
			}
			if ferr := c.Flush(); ferr != nil {
				return &writeError{ferr}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// linkTarget is the URL part of a Link header (RFC 8288).
var linkTarget = regexp.MustCompile(`<[^<>]*>`)

// rewrite turns an address on one of the upstream's origins into the way there through egress; others stay as they are.
func (rt route) rewrite(ref string, up *catalog.Upstream) string {
	u, err := url.Parse(ref)
	if rt.prefix == "" || err != nil || u.Host == "" && !strings.HasPrefix(ref, "/") {
		return ref
	}
	if rt.site != nil && u.Host == rt.site.Host && u.Scheme == rt.site.Scheme { // the connection's own site stands behind the first origin
		u.Host, u.Scheme = up.Origins[0].Host, up.Origins[0].Scheme
		u.RawPath = up.Sites.Below(u.EscapedPath())
		if u.Path, err = url.PathUnescape(u.RawPath); err != nil {
			return ref
		}
	}
	for i, o := range up.Origins {
		same := u.Host == o.Host && u.Scheme == o.Scheme || u.Host == "" && (rt.host == o.Host || rt.host == "" && i == 0)
		path, under := strings.CutPrefix(u.EscapedPath(), strings.TrimSuffix(o.EscapedPath(), "/"))
		if !same || !under {
			continue
		}
		base := rt.prefix
		if i > 0 {
			base += "/@" + o.Host
		}
		if !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
		if u.RawQuery != "" {
			path += "?" + u.RawQuery
		}
		return base + path
	}
	return ref
}
