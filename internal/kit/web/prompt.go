package web

import (
	"io"
	"net/http"
	"time"
)

// BodyTime is for a whole body that a stranger sends. More is somebody who only wants to hold the connection.
const BodyTime = 30 * time.Second

// Prompt gives a request's body so much time to arrive, whether next reads it or not: what is left unread, net/http reads itself
// before it answers, without an end. It wants an http.ResponseWriter that is the server's own. When the body is there, next may take
// as long as it likes.
func Prompt(within time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != nil && r.Body != http.NoBody {
			if c := http.NewResponseController(w); c.SetReadDeadline(time.Now().Add(within)) == nil { // a recorder in a test has none
				r = r.WithContext(r.Context()) // a copy: the server looks at its own for how to end the connection
				r.Body = &promptBody{r.Body, c}
			}
		}
		next.ServeHTTP(w, r)
	})
}

type promptBody struct {
	io.ReadCloser
	of *http.ResponseController
}

// Read lifts the deadline at the end, and only there: of a body that broke off the rest is read by nobody without one.
func (b *promptBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		_ = b.of.SetReadDeadline(time.Time{}) // it took the other one
	}
	return n, err
}
