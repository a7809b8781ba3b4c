//go:build linux && buildah

package hosted

import (
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	theirs "github.com/google/go-containerregistry/pkg/registry"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/hosted/image"
)

// TestBuiltByOthers: an image that buildah has made runs, in each form that it writes and from a registry that it was pushed to.
func TestBuiltByOthers(t *testing.T) {
	dir := t.TempDir()
	buildah := func(args ...string) string {
		t.Helper()
		c := exec.Command("buildah", append([]string{"--storage-driver=vfs", "--root=" + dir + "/root", "--runroot=" + dir + "/run"}, args...)...)
		c.Stderr = os.Stderr
		c.Env = append(os.Environ(), "BUILDAH_ISOLATION=chroot")
		out, err := c.Output()
		if err != nil {
			t.Fatalf("buildah %v: %v", args, err)
		}
		return strings.TrimSpace(string(out))
	}
	box := buildah("from", "scratch")
	buildah("copy", box, program, "/srv/stdio")
	buildah("config", "--entrypoint", `["./stdio"]`, "--workingdir", "/srv", "--user", "65532", "--env", "MADE_BY=buildah", box)
	s := httptest.NewServer(theirs.New(theirs.Logger(log.New(io.Discard, "", 0))))
	defer s.Close()
	at, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	refs := map[string]string{}
	for form, to := range map[string]string{"oci-archive": dir + "/oci.tar", "docker-archive": dir + "/docker.tar", "oci": dir + "/layout"} {
		buildah("commit", "-q", box, form+":"+to)
		refs[form] = "file:" + to
	}
	for form, args := range map[string][]string{"docker": {"--format=docker"}, "gzip": nil} {
		buildah(append(append([]string{"commit", "-q", "--tls-verify=false"}, args...), box, "docker://"+at.Host+"/mcp/own:"+form)...)
		refs[form] = at.Host + "/mcp/own:" + form
	}
	for form, ref := range refs {
		t.Run(form, func(t *testing.T) {
			d := newDesk(t, func(p *catalog.Program) { p.Image, p.Argv, p.Read = ref, nil, nil })
			images := &image.Store{Dir: filepath.Join(dir, "images of "+form), HTTP: http.DefaultTransport, Log: slog.New(slog.DiscardHandler), Now: d.Now}
			images.Use(image.Settings{Registries: map[string]image.Registry{at.Host: {URL: at}}, Limits: image.Bounds{Bytes: 1 << 30, Files: 1_000, Layers: 10}, Total: 2 << 30})
			d.Images = images
			got, _ := d.say("alice", d.begin("alice", nothing), tools("1", "env", ""))
			d.wantSaid(got, "MADE_BY=buildah", "TRACKER_TOKEN=***")
		})
	}
}
