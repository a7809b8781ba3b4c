package egress

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"frontdesk.dev/frontdesk/internal/egress/forms"
)

const maxHeld = 1 << 20 // bytes of a body that is read whole to find a keycard in it

// fromForm takes the keycard out of a form: of a plain one, or of one that may have files.
func fromForm(r *http.Request, names []string) ([]string, error) {
	if r.Body == nil || r.Body == http.NoBody || r.Header.Get("Content-Encoding") != "" {
		return nil, nil
	}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if types := strings.Join(r.Header["Content-Type"], ","); (err != nil || len(r.Header["Content-Type"]) > 1) && strings.Contains(strings.ToLower(types), "form") {
		return nil, badRequest("Content-Type is not well formed")
	}
	switch kind {
	case "application/x-www-form-urlencoded":
		return fromPairs(r, names)
	case "multipart/form-data":
		return fromParts(r, params["boundary"], names)
	}
	return nil, nil
}

// fromParts reads a form that may have files, and holds no file.
func fromParts(r *http.Request, boundary string, names []string) ([]string, error) {
	found, rest, cut, err := forms.Cut(r.Body, boundary, names)
	if err != nil {
		return nil, err
	}
	r.Body = &struct {
		io.Reader
		io.Closer
	}{rest, r.Body}
	if r.ContentLength >= 0 {
		r.ContentLength -= cut
		r.Header.Set("Content-Length", strconv.FormatInt(r.ContentLength, 10))
	}
	return found, nil
}

// fromPairs reads a form whole, since its keycard may be its last field.
func fromPairs(r *http.Request, names []string) ([]string, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxHeld+1))
	if err != nil {
		return nil, badRequest("the form could not be read")
	}
	if len(b) > maxHeld {
		return nil, &statusError{http.StatusRequestEntityTooLarge, "too_large", "a form with a token in it may have 1 MiB at most; send the token in a header"}
	}
	form := string(b)
	found := cutPairs(&form, names)
	setBody(r, []byte(form))
	return found, nil
}

// fromJSON takes the keycard out of a JSON body. A longer one goes on as it is, and ends where the keycard stands in it.
func fromJSON(r *http.Request, pointers []string) (found []string, err error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if r.Body == nil || r.Body == http.NoBody || r.Header.Get("Content-Encoding") != "" || err != nil || kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return nil, nil
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, maxHeld+1))
	if err != nil {
		return nil, badRequest("the body could not be read")
	}
	if len(b) > maxHeld {
		r.Body = &struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(b), r.Body), r.Body}
		return nil, nil
	}
	for _, p := range pointers {
		var value string
		if value, b = cutMember(b, jsontext.Pointer(p)); value != "" {
			found = append(found, value)
		}
	}
	setBody(r, b)
	return found, nil
}

// cutMember takes an object's member that is a text out of a JSON text, and leaves all else as it was written. Nothing is taken where
// there is none, or where the text can be read in more than one way.
func cutMember(text []byte, at jsontext.Pointer) (value string, rest []byte) {
	object, end := lookUp(text, string(at.Parent()))
	if len(object) == 0 || object.Kind() != '{' {
		return "", text
	}
	d := jsontext.NewDecoder(bytes.NewReader(object))
	if _, err := d.ReadToken(); err != nil {
		return "", text
	}
	for d.PeekKind() == '"' {
		before := d.InputOffset() // of what parts it from the member before it
		name, err := d.ReadToken()
		if err != nil {
			return "", text
		}
		is := name.String() == at.LastToken()
		v, err := d.ReadValue()
		if err != nil {
			return "", text
		}
		if !is {
			continue
		}
		if v.Kind() != '"' || unquote(v, &value) != nil {
			return "", text
		}
		after := d.InputOffset()
		if before == 1 && d.PeekKind() == '"' { // the first of several takes the comma behind it along
			after += int64(bytes.IndexByte(object[after:], ',')) + 1
		}
		begin := end - len(object)
		return value, append(bytes.Clone(text[:begin+int(before)]), text[begin+int(after):]...)
	}
	return "", text
}

func setBody(r *http.Request, b []byte) {
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	r.Header.Set("Content-Length", strconv.Itoa(len(b)))
}
