package egress_test

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/internal/catalog"
)

// TestKeycardInAFormWithFiles: its field is taken out, files stream, and lengths stay right.
func TestKeycardInAFormWithFiles(t *testing.T) {
	const b = "----x7MA4YWxk"
	part := func(head, body string) string {
		return "--" + b + "\r\nContent-Disposition: form-data; " + head + "\r\n\r\n" + body + "\r\n"
	}
	token, channel, end := part(`name="token"`, keycard), part(`name="channel"`, "C1"), "--"+b+"--\r\n"
	big := part(`name="file"; filename="a.bin"`+"\r\nContent-Type: application/octet-stream", strings.Repeat("\r\n--"+b[:5]+"\x00\n", 300_000))
	for name, tc := range map[string]struct {
		form string
		want string // "" = refused
		more []string
	}{
		"first":                           {form: token + channel + big + end, want: channel + big + end},
		"second":                          {form: channel + token + big + end, want: channel + big + end},
		"alone":                           {form: token + end, want: end},
		"without a last CRLF":             {form: token + channel + "--" + b + "--", want: channel + "--" + b + "--"},
		"an empty field":                  {form: part(`name="x"`, "") + token + end, want: part(`name="x"`, "") + end},
		"none":                            {form: channel + big + end},
		"behind a file":                   {form: big + token + end},
		"a second one":                    {form: token + big + part(`name="token"`, "xoxb-own-0123456789") + end},
		"in capitals":                     {form: token + part(`name="Token"`, "xoxb-own-0123456789") + end},
		"as a file":                       {form: part(`name="token"; filename="t"`, keycard) + end},
		"in the file too":                 {form: token + part(`name="file"; filename="a"`, "it is "+keycard) + end},
		"in a header too":                 {form: token + channel + end, more: []string{"Authorization", "Bearer " + keycard}},
		"a field beside":                  {form: part(`name="token"`, "xoxb-own-0123456789") + channel + end, more: []string{"Authorization", "Bearer " + keycard}},
		"extended name":                   {form: token + part(`name*=utf-8''token`, "x") + end},
		"two names":                       {form: token + part(`name="a"; name="token"`, "x") + end},
		"a quote in a name":               {form: token + part(`name="a\"; name=\"token"`, "x") + end},
		"two dispositions":                {form: token + part("name=\"a\"\r\nContent-Disposition: form-data; name=\"token\"", "x") + end},
		"a folded line":                   {form: token + part("\r\n name=\"token\"", "x") + end},
		"a line that ends in LF":          {form: token + strings.Replace(part(`name="token"`, "x"), "\r\n\r\n", "\n\r\n", 1) + end},
		"a border behind LF":              {form: token + part(`name="a"`, "x\n--"+b+"\nContent-Disposition: form-data; name=\"token\"\n\nevil\n") + end},
		"a border behind LF, before CRLF": {form: token + part(`name="a"`, "x\n--"+b+"\r\nContent-Disposition: form-data; name=\"b\"\r\n\r\nevil") + end},
		"a longer border":                 {form: token + part(`name="a"`, "x\r\n--"+b+"y") + end},
		"a border with spaces":            {form: token + strings.Replace(channel, "--"+b, "--"+b+" ", 1) + end},
		"a border at once":                {form: token + part(`name="a"`, "--"+b) + end},
		"a preamble":                      {form: "hello\r\n" + token + end},
		"an epilogue":                     {form: token + end + token},
		"no end":                          {form: token + channel},
		"no boundary":                     {form: token + end, more: []string{"Content-Type", "multipart/form-data"}},
		"two boundaries":                  {form: token + end, more: []string{"Content-Type", "multipart/form-data; boundary=x; boundary=" + b}},
	} {
		for _, chunked := range []bool{false, true} {
			s, saw, length := newStage(t, func(s *stage) { s.speaks(catalog.TokenPlaces{Form: []string{"token"}}) }), "", int64(0)
			s.plain.mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
				text, err := io.ReadAll(r.Body)
				if err != nil {
					panic(http.ErrAbortHandler)
				}
				saw, length = string(text), r.ContentLength
				fmt.Fprint(w, r.Header.Get("Authorization"))
			})
			var body io.Reader = strings.NewReader(tc.form)
			if chunked {
				body = io.MultiReader(body)
			}
			h := append([]string{"Content-Type", "multipart/form-data; boundary=" + b}, tc.more...)
			if len(tc.more) > 0 && tc.more[0] == "Content-Type" {
				h = tc.more
			}
			resp, err := http.DefaultClient.Do(request(t, http.MethodPost, "http://"+s.addr+"/egress/plain/upload", body, h...))
			status := 0
			if err == nil { // egress may hang up on what is not well formed while it comes
				status = resp.StatusCode
				_ = resp.Body.Close()
			}
			switch {
			case tc.want == "" && (status == http.StatusOK || saw != ""):
				t.Errorf("%s: %d, the API saw %.300q", name, status, saw)
			case tc.want != "" && (status != http.StatusOK || saw != tc.want || !chunked && length != int64(len(tc.want))):
				t.Errorf("%s: %d %v, length %d of %d, the API saw %.300q", name, status, err, length, len(tc.want), saw)
			}
		}
	}
}

// TestFormsStream: what was sent of a file arrives before the rest exists.
func TestFormsStream(t *testing.T) {
	s := newStage(t, func(s *stage) { s.speaks(catalog.TokenPlaces{Form: []string{"token"}}) })
	arrived := make(chan string, 1)
	s.plain.mux.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		m, err := r.MultipartReader()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		p, err := m.NextPart()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		b := make([]byte, 5)
		_, _ = io.ReadFull(p, b)
		arrived <- p.FileName() + " " + string(b)
		rest, err := io.ReadAll(p)
		fmt.Fprint(w, len(rest), err)
	})
	in, out := io.Pipe()
	m := multipart.NewWriter(out)
	go func() {
		_ = m.WriteField("token", keycard)
		f, _ := m.CreateFormFile("file", "a.txt")
		_, _ = io.WriteString(f, "hello"+strings.Repeat(".", 100))
		if got := <-arrived; got != "a.txt hello" {
			t.Error(got)
		}
		_, _ = f.Write(bytes.Repeat([]byte("x"), 1<<20))
		_ = m.Close()
		_ = out.Close()
	}()
	got := do(t, http.DefaultClient, request(t, http.MethodPost, "http://"+s.addr+"/egress/plain/upload", in, "Content-Type", m.FormDataContentType()))
	if got.StatusCode != http.StatusOK || got.body != fmt.Sprint(100+1<<20, " <nil>") {
		t.Errorf("%s %s", got.Status, got.body)
	}
}
