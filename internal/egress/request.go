package egress

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// statusError is a refusal whose HTTP status says more than its kind.
type statusError struct {
	status    int
	code, msg string
}

func (e *statusError) Error() string { return e.msg }

// refusal is what the server is told, as an answer of HTTP or as the end of a WebSocket.
type refusal struct {
	status    int
	code, msg string
	after     time.Duration // when to come again; 0 = unknown
	last      bool          // the connection ends with it
}

func badRequest(msg string) error { return fault.New(fault.Invalid, msg, nil) }

func seconds(d time.Duration) string { return strconv.Itoa(int(d.Seconds()) + 1) }

func writeJSON(w http.ResponseWriter, status int, code, msg string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// The client went away if this fails: nobody is left to tell.
	_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "message": msg, "from": "frontdesk"})
}

// methods that may pass. What is not here, or not in capitals, is refused: another reader could fold it.
var methods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT", "SEARCH"}

// overrides say another method than the request line: policy decides on the line, so they must not exist behind us.
var overrides = []string{"X-Http-Method-Override", "X-Http-Method", "X-Method-Override"}

func (p *Proxy) checkRequest(r *http.Request) error {
	if r.Method == refusedMethod {
		return &statusError{http.StatusBadRequest, "invalid_request", r.Header.Get("X-Why")}
	}
	if !slices.Contains(methods, r.Method) {
		return &statusError{http.StatusMethodNotAllowed, "method_not_allowed", "this method cannot pass egress"}
	}
	if err := checkUpgrade(r); err != nil {
		return err
	}
	if l := r.Header["Content-Length"]; len(l) > 1 || len(l) == 1 && l[0] != strconv.FormatInt(r.ContentLength, 10) {
		return badRequest("the request's length can be read in more than one way") // of HTTP/2: the gate stands before the other
	}
	for _, v := range r.Header.Values("Via") {
		if strings.Contains(v, p.Hop) {
			return &statusError{http.StatusLoopDetected, "loop", "this request has passed here already: an upstream leads back to Frontdesk"}
		}
	}
	for name, values := range r.Header {
		if is := dashed(name); is != name && (slices.Contains(removed, is) || slices.Contains(overrides, is) || slices.Contains(notInTrailers, is)) {
			return badRequest("header " + name + " could be taken for " + is)
		}
		for _, v := range values {
			if strings.ContainsFunc(v, func(c rune) bool { return c < 0x20 && c != '\t' || c == 0x7f }) {
				return badRequest("header " + name + " holds a control character")
			}
		}
	}
	return nil
}

// dashed is the header that some servers take one with underscores for: to them, as to CGI, both are one variable.
func dashed(name string) string {
	if !strings.Contains(name, "_") {
		return name
	}
	return http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
}

const (
	maxDrain  = 256 << 10       // bytes of a refused request's body that are read, so that its connection can go on
	drainTime = 2 * time.Second // and for how long
)

// drain reads what is left of a refused request's body, or lets its connection end. Left to net/http, a full-duplex connection
// would break at its next request.
func drain(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 1 || r.Body == nil || r.Body == http.NoBody {
		return
	}
	if r.Header.Get("Expect") == "" {
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(drainTime)) // without it, the listener's holds
		if _, err := io.CopyN(io.Discard, r.Body, maxDrain); err == io.EOF {
			return
		}
	}
	w.Header().Set("Connection", "close")
}

// hopByHop headers belong to one connection (RFC 9110 section 7.6.1).
var hopByHop = []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings"}

// removed beside these: what says where the request came from, what names another target to some servers, and what would make the answer unreadable for cleaning.
var removed = []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Range", "If-Range", "Accept-Encoding", "Connect-Accept-Encoding", "Max-Forwards",
	"Proxy", "Baggage", "X-Original-Url", "X-Rewrite-Url", "X-Host", "X-Forwarded-Prefix", "X-Forwarded-Port", "X-Client-Ip", "True-Client-Ip"}

func (p *Proxy) outgoing(r *http.Request, up *catalog.Upstream, target *url.URL) *http.Request {
	trailers := strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") && slices.ContainsFunc(r.Header.Values("Te"), func(v string) bool { return strings.Contains(strings.ToLower(v), "trailers") })
	upgrade := isUpgrade(r)
	out := (&http.Request{Method: r.Method, URL: target, Host: target.Host, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: r.Header.Clone(), Body: r.Body, ContentLength: r.ContentLength, Trailer: r.Trailer}).WithContext(r.Context())
	if r.ContentLength == 0 {
		out.Body = http.NoBody
	}
	dropHopByHop(out.Header)
	for _, l := range [][]string{removed, overrides} {
		for _, name := range l {
			out.Header.Del(name)
		}
	}
	for name, v := range up.Provider.Headers {
		if out.Header.Get(name) == "" {
			out.Header.Set(name, v)
		}
	}
	if out.Header.Get("User-Agent") == "" {
		out.Header.Set("User-Agent", "frontdesk")
	}
	if trailers {
		out.Header.Set("Te", "trailers") // gRPC looks for it
	}
	if out.Header.Get("Grpc-Accept-Encoding") != "" {
		out.Header.Set("Grpc-Accept-Encoding", "identity")
	}
	if upgrade {
		out.Header.Set("Connection", "Upgrade")
		out.Header.Set("Upgrade", "websocket")
		out.Header.Del("Sec-Websocket-Extensions") // compressed frames could not be cleaned
	}
	// The answer has to be read to be cleaned.
	out.Header.Set("Accept-Encoding", "identity")
	out.Header.Add("Via", "1.1 "+p.Hop)
	return out
}

func dropHopByHop(h http.Header) {
	for _, v := range h.Values("Connection") {
		for name := range strings.SplitSeq(v, ",") {
			h.Del(strings.TrimSpace(name))
		}
	}
	for _, name := range hopByHop {
		h.Del(name)
	}
}
