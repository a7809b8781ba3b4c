package forms_test

import (
	"bytes"
	"io"
	"mime/multipart"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"frontdesk.dev/frontdesk/internal/egress/forms"
)

const boundary = "b0"

func part(head, body string) string {
	return "--" + boundary + "\r\nContent-Disposition: form-data; " + head + "\r\n\r\n" + body + "\r\n"
}

// listed are a form's parts as another reader takes them.
func listed(text []byte) (l []string, err error) {
	m := multipart.NewReader(bytes.NewReader(text), boundary)
	for {
		p, err := m.NextRawPart()
		if err == io.EOF {
			return l, nil
		}
		if err != nil {
			return l, err
		}
		b, err := io.ReadAll(p)
		if err != nil {
			return l, err
		}
		l = append(l, p.FormName()+"="+string(b))
	}
}

// FuzzCut: of a form that passes, another reader finds the parts that were there, but for the field that was cut out; and so does
// one that takes LF for the end of a line.
func FuzzCut(f *testing.F) {
	end := "--" + boundary + "--\r\n"
	for _, s := range []string{part(`name="token"`, "card") + end, part(`name="a"`, "x") + part(`name="token"`, "card") + part(`name="f"; filename="g"`, "\r\n--b\r\n") + end,
		part(`name="f"; filename="g"`, "x") + part(`name="token"`, "y") + end, part(`name="a"`, "\n--b0\r\nContent-Disposition: form-data; name=token\r\n\r\n") + end,
		strings.ReplaceAll(part(`name="a"`, "x")+end, "\r\n", "\n"), end, part(`name="token"`, "") + strings.TrimSpace(end)} {
		f.Add([]byte(s), false)
	}
	f.Fuzz(func(t *testing.T, text []byte, slow bool) {
		var src io.Reader = bytes.NewReader(text)
		if slow {
			src = iotest.OneByteReader(src)
		}
		found, rest, cut, err := forms.Cut(src, boundary, []string{"token"})
		if err != nil {
			return
		}
		b, err := io.ReadAll(rest)
		if err != nil {
			return
		}
		if len(b)+int(cut) != len(text) {
			t.Fatalf("%q: %d bytes and %d that were cut out are not %d", text, len(b), cut, len(text))
		}
		for _, end := range []string{"\r\n", "\n"} {
			fold := func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\r\n"), []byte(end)) }
			was, err := listed(fold(text))
			if err != nil {
				continue
			}
			is, err := listed(fold(b))
			if err != nil && len(is) > 0 {
				t.Fatalf("%q became %q: %v", text, b, err)
			}
			for _, v := range found {
				i := slices.Index(was, "token="+string(fold([]byte(v))))
				if i < 0 {
					t.Fatalf("%q: %q was found, and is not there: %q", text, v, was)
				}
				was = slices.Delete(was, i, i+1)
			}
			if !slices.Equal(was, is) || slices.ContainsFunc(is, func(s string) bool { return strings.HasPrefix(s, "token=") }) {
				t.Fatalf("%q became %q: parts %q, want %q", text, b, is, was)
			}
		}
	})
}
