package world

import (
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"frontdesk.dev/frontdesk/test/world/authserver"
)

func random() string { return rand.Text() }

// apiHandler is a handler that knows whose credential came with the request.
type apiHandler func(w http.ResponseWriter, r *http.Request, who authserver.Credential)

func (t *Tracker) api() http.Handler {
	mux := http.NewServeMux()
	route := func(pattern, scope string, h apiHandler) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { t.guard(w, r, scope, h) })
	}
	route("GET /api/user", "", t.user)
	route("GET /api/issues", ScopeRead, t.list)
	route("POST /api/issues", ScopeWrite, t.create)
	route("GET /api/issues/{n}", ScopeRead, t.get)
	route("DELETE /api/issues/{n}", ScopeWrite, t.remove)
	route("GET /api/events", ScopeRead, events)
	route("GET /api/download", ScopeRead, download)
	route("POST /api/upload", ScopeWrite, upload)
	route("/api/echo", "", echo)
	route("/api/redirect", "", redirect)
	route("GET /api/gzip", "", zipped)
	route("GET /api/slow", "", slow)
	route("/api/", "", func(w http.ResponseWriter, _ *http.Request, _ authserver.Credential) {
		answer(w, http.StatusNotFound, map[string]any{"message": "there is nothing here"})
	})
	return mux
}

// guard lets nobody in without a credential that is good now and has the scope (RFC 6750 section 3.1), and writes the
// call down.
func (t *Tracker) guard(w http.ResponseWriter, r *http.Request, scope string, h apiHandler) {
	who, ok := t.credential(r)
	sw := &statusWriter{ResponseWriter: w}
	call := APICall{Method: r.Method, Path: r.URL.Path, User: who.User}
	defer func() {
		call.Status = sw.status
		t.mu.Lock()
		defer t.mu.Unlock()
		t.calls = append(t.calls, call)
	}()
	switch {
	case !ok:
		challenge := `Bearer realm="tracker"`
		if r.Header.Get("Authorization") != "" {
			challenge += `, error="invalid_token"`
		}
		sw.Header().Set("WWW-Authenticate", challenge)
		answer(sw, http.StatusUnauthorized, map[string]any{"message": "bad credentials"})
	case scope != "" && !slices.Contains(who.Scopes, scope):
		sw.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="tracker", error="insufficient_scope", scope=%q`, scope))
		answer(sw, http.StatusForbidden, map[string]any{"message": "this credential lacks the scope " + scope})
	default:
		h(sw, r, who)
	}
}

// credential takes an access token as Bearer, an API key as Bearer, as X-Api-Key or as the password of Basic.
func (t *Tracker) credential(r *http.Request) (authserver.Credential, bool) {
	value := r.Header.Get("X-Api-Key")
	if token, ok := bearer(r.Header); ok {
		value = token
	} else if _, password, ok := r.BasicAuth(); ok {
		value = password
	}
	t.mu.Lock()
	who, ok := t.keys[value]
	t.mu.Unlock()
	if ok {
		return who, true
	}
	return t.Authenticate(value)
}

// bearer is the token of an Authorization header.
func bearer(h http.Header) (string, bool) {
	scheme, token, ok := strings.Cut(h.Get("Authorization"), " ")
	return token, ok && strings.EqualFold(scheme, "Bearer")
}

func (t *Tracker) user(w http.ResponseWriter, _ *http.Request, who authserver.Credential) {
	answer(w, http.StatusOK, map[string]any{"id": who.User, "login": who.User, "scopes": who.Scopes})
}

func (t *Tracker) list(w http.ResponseWriter, _ *http.Request, who authserver.Credential) {
	answer(w, http.StatusOK, t.Issues(who.User))
}

func (t *Tracker) create(w http.ResponseWriter, r *http.Request, who authserver.Credential) {
	var in struct{ Title, Body string }
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&in); err != nil || in.Title == "" {
		answer(w, http.StatusUnprocessableEntity, map[string]any{"message": "an issue needs a title"})
		return
	}
	issue := t.add(who.User, in.Title, in.Body)
	w.Header().Set("Location", t.API()+"/issues/"+strconv.Itoa(issue.Number))
	answer(w, http.StatusCreated, issue)
}

func (t *Tracker) get(w http.ResponseWriter, r *http.Request, who authserver.Credential) {
	for _, issue := range t.Issues(who.User) {
		if strconv.Itoa(issue.Number) == r.PathValue("n") {
			answer(w, http.StatusOK, issue)
			return
		}
	}
	answer(w, http.StatusNotFound, map[string]any{"message": "no such issue"})
}

func (t *Tracker) remove(w http.ResponseWriter, r *http.Request, who authserver.Credential) {
	t.mu.Lock()
	before := len(t.issues[who.User])
	t.issues[who.User] = slices.DeleteFunc(t.issues[who.User], func(i Issue) bool { return strconv.Itoa(i.Number) == r.PathValue("n") })
	gone := len(t.issues[who.User]) < before
	t.mu.Unlock()
	if !gone {
		answer(w, http.StatusNotFound, map[string]any{"message": "no such issue"})
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// events streams server-sent events: ?count=N of them (without end where absent), one ?every=DURATION (1s).
func events(w http.ResponseWriter, r *http.Request, who authserver.Credential) {
	count, _ := strconv.Atoi(r.FormValue("count"))
	every, err := time.ParseDuration(r.FormValue("every"))
	if err != nil || every <= 0 {
		every = time.Second
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	out := http.NewResponseController(w)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for n := 1; ; n++ {
		if _, err := fmt.Fprintf(w, "id: %d\nevent: activity\ndata: {\"n\":%d,\"login\":%q}\n\n", n, n, who.User); err != nil {
			return
		}
		_ = out.Flush()
		if n == count {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// maxDownload is the longest answer that a download gives.
const maxDownload = 1 << 30

// download sends ?bytes=N bytes (1 MiB) of a known pattern.
func download(w http.ResponseWriter, r *http.Request, _ authserver.Credential) {
	size, err := strconv.ParseInt(r.FormValue("bytes"), 10, 64)
	if err != nil || size < 0 || size > maxDownload {
		size = 1 << 20
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	_, _ = io.CopyN(w, &pattern{}, size) // the reader may leave
}

// pattern is an endless row of the letters a to z.
type pattern struct{ at int }

func (s *pattern) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a' + byte((s.at+i)%26)
	}
	s.at += len(p)
	return len(p), nil
}

// upload says what it got.
func upload(w http.ResponseWriter, r *http.Request, who authserver.Credential) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		answer(w, http.StatusBadRequest, map[string]any{"message": "the upload broke off"})
		return
	}
	answer(w, http.StatusOK, map[string]any{"bytes": n, "sha256": hex.EncodeToString(sum.Sum(nil)), "login": who.User})
}

// echo answers with the request, the credential included: what a careless API does in its error pages.
func echo(w http.ResponseWriter, r *http.Request, who authserver.Credential) {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	for k, vs := range r.Header {
		for _, v := range vs {
			w.Header().Add("X-Echo-"+k, v)
		}
	}
	answer(w, http.StatusOK, map[string]any{
		"method": r.Method, "target": r.RequestURI, "host": r.Host, "header": r.Header, "body": string(body), "login": who.User,
	})
}

// redirect sends the caller ?to=URL.
func redirect(w http.ResponseWriter, r *http.Request, _ authserver.Credential) {
	w.Header().Set("Location", r.FormValue("to"))
	w.WriteHeader(http.StatusFound)
}

// zipped answers in gzip whatever was asked for, with the credential in it.
func zipped(w http.ResponseWriter, r *http.Request, _ authserver.Credential) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	_ = json.NewEncoder(z).Encode(map[string]any{"header": r.Header})
	_ = z.Close()
}

// slow waits ?for=DURATION, or until the caller leaves.
func slow(w http.ResponseWriter, r *http.Request, who authserver.Credential) {
	d, err := time.ParseDuration(r.FormValue("for"))
	if err != nil {
		d = time.Second
	}
	select {
	case <-time.After(d):
		answer(w, http.StatusOK, map[string]any{"login": who.User})
	case <-r.Context().Done():
	}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
