package outbound

import (
	"bytes"
	"io"
	"net/http"
)

// Peek reads the beginning of an answer's body, and puts it back. What breaks off breaks off again for whoever reads on.
func Peek(resp *http.Response, limit int64) []byte {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, limit)) // its error comes again behind what was read
	resp.Body = &peeked{io.MultiReader(bytes.NewReader(b), resp.Body), resp.Body}
	return b
}

type peeked struct {
	io.Reader
	io.Closer
}
