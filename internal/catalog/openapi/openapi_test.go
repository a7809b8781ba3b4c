package openapi_test

import (
	"fmt"
	"strings"
	"testing"

	"frontdesk.dev/frontdesk/internal/catalog/openapi"
)

const issues = `openapi: 3.1.0
info: {title: t, version: "1"}
servers: [{url: "https://api.github.com"}]
paths:
  /repos/{owner}/{repo}/issues:
    get: {operationId: issues/list, responses: {"200": {description: ok}}}
    post: {operationId: issues/create, responses: {"200": {description: ok}}}
  /repos/{owner}/{repo}/issues/{n}:
    get: {operationId: issues/get, responses: {"200": {description: ok}}}
    head: {operationId: issues/peek, responses: {"200": {description: ok}}}
  /repos/{owner}/{repo}/issues/comments:
    get: {operationId: issues/comments, responses: {"200": {description: ok}}}
  /a/{x}/c: {get: {operationId: left, responses: {"200": {description: ok}}}}
  /a/b/{y}: {get: {operationId: right, responses: {"200": {description: ok}}}}
  /files/{name}.json: {get: {operationId: file, responses: {"200": {description: ok}}}}
  /files/{name}: {get: {operationId: anyfile, responses: {"200": {description: ok}}}}
  /jobs/{id}:cancel: {post: {responses: {"200": {description: ok}}}}
  /search: {post: {operationId: search, x-frontdesk-reads: true, responses: {"200": {description: ok}}}}
  /releases/{id}/assets:
    post: {operationId: upload, servers: [{url: "https://uploads.github.com/v2"}], responses: {"200": {description: ok}}}
`

func TestFind(t *testing.T) {
	d, err := openapi.Read([]byte(issues))
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		method, host, base, path, want string
		reads                          bool
	}{
		{"GET", "api.github.com", "", "/repos/a/b/issues", "issues/list", false},
		{"POST", "api.github.com", "", "/repos/a/b/issues", "issues/create", false},
		{"POST", "ghe.example.com", "/api/v3", "/api/v3/repos/a/b/issues", "issues/create", false},
		{"POST", "ghe.example.com", "/api/v3", "/repos/a/b/issues", "", false},
		{"PUT", "api.github.com", "", "/repos/a/b/issues", "", false},
		{"HEAD", "api.github.com", "", "/repos/a/b/issues", "issues/list", false},
		{"HEAD", "api.github.com", "", "/repos/a/b/issues/1", "issues/peek", false},
		{"GET", "api.github.com", "", "/repos/a/b/issues/1", "issues/get", false},
		{"GET", "api.github.com", "", "/repos/a/b/issues/comments", "issues/comments", false},
		{"GET", "api.github.com", "", "/repos/a/b/issues/", "", false},
		{"GET", "api.github.com", "", "/repos/a/b/Issues", "", false},
		{"GET", "api.github.com", "", "/repos/a//issues", "", false},
		{"GET", "api.github.com", "", "/a/b/c", "", false}, // two operations, and no rule says which
		{"GET", "api.github.com", "", "/a/x/c", "left", false},
		{"GET", "api.github.com", "", "/files/x.json", "file", false},
		{"GET", "api.github.com", "", "/files/.json", "anyfile", false},
		{"GET", "api.github.com", "", "/files/x", "anyfile", false},
		{"POST", "api.github.com", "", "/jobs/7:cancel", "POST /jobs/{id}:cancel", false},
		{"POST", "api.github.com", "", "/search", "search", true},
		{"POST", "uploads.github.com", "", "/v2/releases/1/assets", "upload", false},
		{"POST", "api.github.com", "", "/releases/1/assets", "", false},
		{"GET", "uploads.github.com", "", "/repos/a/b/issues", "", false},
	}
	for _, tt := range tests {
		id, reads := d.Find(tt.method, tt.host, tt.host != "uploads.github.com", tt.base, tt.path)
		if id != tt.want || reads != tt.reads {
			t.Errorf("%s %s%s: %q %v, want %q", tt.method, tt.host, tt.path, id, reads, tt.want)
		}
	}
	if n := len(d.IDs()); n != 12 {
		t.Errorf("%d operations", n)
	}
}

func TestRefused(t *testing.T) {
	head := "openapi: 3.0.3\ninfo: {title: t, version: \"1\"}\npaths:\n"
	for want, text := range map[string]string{
		"cannot be read":           "openapi: [",
		"is not OpenAPI 3":         "swagger: \"2.0\"\ninfo: {title: t, version: \"1\"}\npaths: {/x: {get: {}}}\n",
		"no operations":            head + "  {}\n",
		"cannot be told apart":     head + "  /a/{x}: {get: {operationId: a}}\n  /a/{y}: {get: {operationId: b}}\n",
		"and GET /a cannot":        head + "  /a: {get: {operationId: a}}\n  /b: {get: {operationId: a}}\n",
		"does not begin":           head + "  a: {get: {operationId: a}}\n",
		"without its end":          head + "  \"/a/{x\": {get: {operationId: a}}\n",
		"the description cannot b": head + "  /a: {get: {parameters: [{$ref: \"https://evil.test/x.yaml\"}]}}\n",
		"larger than 32 MiB":       strings.Repeat(" ", openapi.MaxBytes+1),
	} {
		if _, err := openapi.Read([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want %q", text, err, want)
		}
	}
	var none *openapi.Description
	if id, _ := none.Find("GET", "x", true, "", "/"); id != "" {
		t.Error("no description names an operation")
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(issues), "/repos/a/b/issues")
	f.Fuzz(func(t *testing.T, text []byte, path string) {
		d, err := openapi.Read(text)
		if err != nil {
			return
		}
		if id, _ := d.Find("GET", "api.github.com", true, "", path); id != "" && !strings.HasPrefix(path, "/") {
			t.Errorf("%q is %q", path, id)
		}
	})
}

// large is a description of the size of GitHub's.
func large(n int) []byte {
	var b strings.Builder
	b.WriteString("openapi: 3.0.3\ninfo: {title: t, version: \"1\"}\npaths:\n")
	for i := range n {
		fmt.Fprintf(&b, "  /r%d/{a}/x%d/{b}:\n    get: {operationId: op%d, summary: %q, responses: {\"200\": {description: ok, content: {application/json: {schema: {$ref: \"#/components/schemas/s%d\"}}}}}}\n", i%50, i, i, strings.Repeat("long words ", 200), i%100)
	}
	b.WriteString("components:\n  schemas:\n")
	for i := range 100 {
		fmt.Fprintf(&b, "    s%d: {type: object, properties: {id: {type: integer}, name: {type: string, description: %q}}}\n", i, strings.Repeat("words ", 100))
	}
	return []byte(b.String())
}

func BenchmarkRead(b *testing.B) {
	text := large(1000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := openapi.Read(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFind(b *testing.B) {
	d, err := openapi.Read(large(1000))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if id, _ := d.Find("GET", "api.github.com", true, "", "/r7/acme/x907/12"); id != "op907" {
			b.Fatal(id)
		}
	}
}
