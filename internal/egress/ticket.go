package egress

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/exchange"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/redact"
)

const minTicket = 22 // no keycard is shorter

var errTicket = fault.New(fault.Unauthenticated, "send the keycard of this call once, where the API's credential would stand", nil)

// keycard is what opens a request.
type keycard struct {
	text string
	swap *exchange.Swap // where it stood, if the credential has to go there; nil: to the upstream's usual place
}

// takeTicket finds the one transaction token, in one of the places where servers put their credential, and takes it and
// everything else that could be a credential off the request. A token anywhere else, or twice, is refused, so that it
// never leaves toward an upstream. Without text the keycard comes in the first message of a WebSocket (await).
func takeTicket(r *http.Request, rt *route) (k keycard, err error) {
	places := placesOf(rt.upstreams)
	for name := range r.Header {
		if is := dashed(name); is != name && slices.ContainsFunc(places.Headers, func(p string) bool { return strings.EqualFold(p, is) }) {
			return k, badRequest("header " + name + " could be taken for " + is)
		}
	}
	foldPairs(r.Header, rt.upstreams)
	found := fromHeaders(r.Header, places.Headers)
	found = append(found, cutPairs(&rt.query, places.Query)...)
	if isUpgrade(r) {
		var offered []string
		offered, k.swap = fromProtocols(r.Header, places.Protocols)
		found = append(found, offered...)
	}
	if len(places.Form) > 0 {
		form, err := fromForm(r, places.Form)
		if err != nil {
			return k, err
		}
		found = append(found, form...)
	}
	if len(places.JSON) > 0 {
		inBody, err := fromJSON(r, places.JSON)
		if err != nil {
			return k, err
		}
		if len(inBody) == 1 && slices.Equal(found, inBody) {
			inBody = nil // some servers send it in both places; it is off both
		}
		found = append(found, inBody...)
	}
	if len(found) == 0 && isUpgrade(r) && len(places.Messages) > 0 {
		return k, checkNoCredential(rt.query)
	}
	if len(found) == 0 && len(places.Form) > 0 && r.Header.Get("Content-Encoding") != "" {
		return k, fault.New(fault.Unauthenticated, "a compressed form is not looked into for a keycard; send the form plain, or the keycard in a header", nil)
	}
	if len(found) != 1 || len(found[0]) < minTicket || leaksTicket(r, rt, found[0]) {
		return k, errTicket
	}
	k.text = found[0]
	return k, checkNoCredential(rt.query)
}

// placesOf joins the places of all upstreams that may be meant.
func placesOf(ups []*catalog.Upstream) catalog.TokenPlaces {
	p := catalog.TokenPlaces{Headers: []string{"Authorization"}}
	for _, up := range ups {
		in := up.Provider.Egress.TokenIn
		p.Headers, p.Query, p.Form = append(p.Headers, in.Headers...), append(p.Query, in.Query...), append(p.Form, in.Form...)
		p.JSON = append(p.JSON, in.JSON...)
		p.Protocols, p.Messages = append(p.Protocols, in.Protocols...), append(p.Messages, in.Messages...)
		injections := []catalog.Injection{up.Provider.Injection}
		if k := up.Provider.APIKey; k != nil && k.Injection != nil {
			injections = append(injections, *k.Injection)
		}
		for _, i := range injections {
			switch {
			case i.Name == "":
			case i.Kind == "query":
				p.Query = append(p.Query, i.Name)
			default:
				p.Headers = append(p.Headers, i.Name)
			}
			if i.Second != "" {
				p.Headers = append(p.Headers, i.Second)
			}
		}
	}
	return p
}

// foldPairs makes one of what servers write twice: the same keycard in both headers of a credential that is a pair.
func foldPairs(h http.Header, ups []*catalog.Upstream) {
	for _, up := range ups {
		in := up.Provider.Injection
		if k := up.Provider.APIKey; k != nil && k.Injection != nil {
			in = *k.Injection
		}
		if first, second := h.Values(in.Name), h.Values(in.Second); in.Second != "" && len(first) == 1 && slices.Equal(first, second) {
			h.Del(in.Second)
		}
	}
}

func fromHeaders(h http.Header, places []string) (found []string) {
	for _, name := range places {
		for _, v := range h.Values(name) {
			found = append(found, credentialOf(v)...)
		}
		h.Del(name)
	}
	for _, name := range []string{"Cookie", "Proxy-Authorization", "X-Api-Key"} {
		h.Del(name)
	}
	return found
}

// credentialOf reads the ways in which servers write a credential: a scheme and a value, Basic with the value as user or
// password, or the bare value.
func credentialOf(v string) []string {
	scheme, rest, ok := strings.Cut(v, " ")
	if !ok {
		return []string{v}
	}
	if !strings.EqualFold(scheme, "basic") {
		return []string{strings.TrimSpace(rest)}
	}
	pair, err := base64.StdEncoding.DecodeString(rest)
	if err != nil {
		return []string{""} // something stands there, and it is no keycard
	}
	user, password, _ := strings.Cut(string(pair), ":")
	if couldBeTicket(password) || !couldBeTicket(user) {
		return []string{password}
	}
	return []string{user}
}

// couldBeTicket tells a keycard from the names and fillers that stand beside it in Basic.
func couldBeTicket(s string) bool {
	return len(s) >= minTicket && !strings.ContainsFunc(s, func(c rune) bool { return c >= 0x80 || !catalog.Unreserved(byte(c)) })
}

// cutPairs takes the named parameters out of a query or form and returns their values; what is left stays as it was written.
func cutPairs(query *string, names []string) (found []string) {
	if *query == "" || len(names) == 0 {
		return nil
	}
	var left []string
	for pair := range strings.SplitSeq(*query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		value, verr := url.QueryUnescape(value)
		if err != nil || verr != nil || !slices.Contains(names, name) {
			left = append(left, pair)
			continue
		}
		found = append(found, value)
	}
	*query = strings.Join(left, "&")
	return found
}

// fromProtocols finds keycards among the subprotocols that a WebSocket offers. Where there is one, the credential takes its place.
func fromProtocols(h http.Header, shapes []string) (found []string, at *exchange.Swap) {
	const name = "Sec-Websocket-Protocol"
	offered := strings.Join(h[name], ",")
	from := 0
	for o := range strings.SplitSeq(offered, ",") {
		for _, shape := range shapes {
			before, after, _ := strings.Cut(shape, "{token}")
			text, ok := strings.CutPrefix(strings.TrimSpace(o), before)
			if text, ok = cutEnd(text, after, ok); !ok || !couldBeTicket(text) {
				continue
			}
			found = append(found, text)
			begin := from + strings.Index(o, before+text) + len(before)
			at = &exchange.Swap{Before: offered[:begin], After: offered[begin+len(text):]}
			break
		}
		from += len(o) + 1
	}
	if at != nil {
		h.Del(name)
		if leaks := found[0]; strings.Contains(at.Before+at.After, leaks) {
			found = append(found, leaks)
		}
	}
	return found, at
}

func cutEnd(s, end string, ok bool) (string, bool) {
	if !ok {
		return s, false
	}
	return strings.CutSuffix(s, end)
}

// leaksTicket reports whether the token stands in a second place, whole or as a part, in any form that somebody could undo.
func leaksTicket(r *http.Request, rt *route, ticket string) bool {
	holds := holder(ticket)
	const undone = 3 // times that an address is unescaped on its way, by all who handle it
	for _, s := range []string{rt.path, rt.query} {
		for range undone {
			if holds(s) {
				return true
			}
			plain, err := url.QueryUnescape(s)
			if err != nil || plain == s {
				break
			}
			s = plain
		}
	}
	return inFields(r.Header, holds)
}

// holder finds a token in a text. What is shorter than it costs nothing.
func holder(ticket string) func(string) bool {
	var g *redact.Redactor
	return func(s string) bool {
		if len(s) < len(ticket) {
			return false
		}
		if g == nil {
			g = guard(ticket)
		}
		return strings.Contains(strings.ToLower(s), strings.ToLower(ticket)) || g.String(s) != s
	}
}

// inFields looks for it in names, too, whose letters HTTP folds.
func inFields(h http.Header, holds func(string) bool) bool {
	for name, values := range h {
		if holds(name) || slices.ContainsFunc(values, holds) {
			return true
		}
	}
	return false
}

// guard is for what a server sends behind the head, as it passes: where its keycard stands in there, in whatever form, the
// request ends.
func guard(ticket string) *redact.Redactor {
	return redact.New([][]byte{[]byte(ticket)}).Telling(func(int) error { return errTicket })
}

// guarded lets the request's body pass as long as it is without the keycard, compressed or not.
func guarded(r *http.Request, ticket string) error {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	searched, err := guard(ticket).Searched(r.Body, r.Header, &r.ContentLength)
	if err != nil {
		return errCoding
	}
	r.Body = &guardedBody{searched, r.Body, r, ticket}
	return nil
}

var errCoding = &statusError{http.StatusUnsupportedMediaType, "coded_request", "the request's body is compressed in a way that Frontdesk cannot look into; send it plain, or as gzip, deflate, br or zstd"}

type guardedBody struct {
	io.Reader
	io.Closer
	of     *http.Request
	ticket string
}

func (b *guardedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	switch {
	case errors.Is(err, redact.ErrBomb):
		err = fault.New(fault.Invalid, "the request's body grows more than a thousandfold when it is decoded", err)
	case err != nil && err != io.EOF && fault.KindOf(err) == fault.Internal:
		err = fault.New(fault.Invalid, "the request's body broke off, or is not well formed", err)
	}
	if err == io.EOF { // now the trailer is there
		for name := range b.of.Trailer {
			if slices.Contains(notInTrailers, dashed(name)) {
				return n, errTicket
			}
		}
		if inFields(b.of.Trailer, holder(b.ticket)) {
			return n, errTicket
		}
	}
	return n, err
}

// notInTrailers would be credentials, or speak of the connection.
var notInTrailers = append([]string{"Authorization", "Cookie", "Proxy-Authorization", "X-Api-Key", "Host", "Content-Length"}, hopByHop...)

// queryCredentials are parameters under which APIs take credentials: exactly one credential reaches an upstream, ours.
var queryCredentials = []string{"access_token", "oauth_token", "api_key", "apikey", "key_id", "auth_token", "private_token", "_method"}

func checkNoCredential(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return badRequest("the query can be read in more than one way")
	}
	for name := range values {
		if slices.Contains(queryCredentials, strings.ToLower(name)) {
			return badRequest("query parameter " + strconv.Quote(name) + " cannot pass egress: it could be a second credential, or another method")
		}
	}
	return nil
}
