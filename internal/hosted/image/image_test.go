package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/test/world/oci"
)

func TestParse(t *testing.T) {
	sum := "sha256:" + strings.Repeat("ab", 32)
	for text, want := range map[string]string{
		"ghcr.io/github/github-mcp-server:v1": "", "localhost/x:1": "", "localhost:5000/a/b.c/d__e:1": "", "r.example:5000/x@" + sum: "", "[::1]:5000/x:1": "",
		"docker.io/mcp:1": "docker.io/library/mcp:1", "r.example/x:tag@" + sum: "r.example/x@" + sum, "file:/a/../b.tar": "file:/b.tar",
	} {
		r, err := Parse(text)
		if want == "" {
			want = text
		}
		if err != nil || r.String() != want {
			t.Errorf("%s: %v %v, want %s", text, r, err, want)
		}
	}
	for text, why := range map[string]string{
		"mcp/github:1": "which registry", "github": "which registry", "r.example/x": "which version", "r.example/X:1": "no name", "r.example/../x:1": "no name", "r.example/x:": "no tag",
		"r.example/x:a/b": "no tag", "r.example/x@sha256:12": "no digest", "r.example/x@md5:d41d8cd98f00b204e9800998ecf8427e": "no digest", "r.example@evil/x:1": "which registry",
		"r.example\n/x:1": "which registry", "file:x.tar": "absolute", "https://r.example/x:1": "which registry", "-r.example/x:1": "which registry",
	} {
		if r, err := Parse(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v %v, want %q", text, r, err, why)
		}
	}
}

// limits of tests are small.
var limits = Bounds{Bytes: 8 << 20, Files: 500, Layers: 10}

func newStore(t *testing.T) *Store {
	t.Helper()
	s := &Store{Dir: filepath.Join(t.TempDir(), "images"), Log: slog.New(slog.DiscardHandler), Now: time.Now}
	s.Use(Settings{Limits: limits, Total: 64 << 20})
	return s
}

// inFile writes an archive, and is its reference.
func inFile(t *testing.T, archive []byte) string {
	t.Helper()
	at := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(at, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	return "file:" + at
}

func open(t *testing.T, s *Store, ref string) *Image {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	i, err := s.Open(ctx, ref)
	if err != nil {
		t.Fatalf("%s: %v", ref, err)
	}
	t.Cleanup(i.Close)
	return i
}

// refused tries to open what must not be, and returns the reason.
func refused(t *testing.T, s *Store, ref string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	i, err := s.Open(ctx, ref)
	if err == nil {
		i.Close()
		t.Fatalf("%s was taken", ref)
	}
	if fault.KindOf(err) != fault.Unavailable {
		t.Fatalf("no fault for callers: %v", err)
	}
	left, lerr := filepath.Glob(filepath.Join(s.Dir, "*-*"))
	if lerr != nil || len(left) > 0 {
		t.Errorf("%s: it leaves %v %v", ref, left, lerr)
	}
	cause := errors.Unwrap(err)
	if cause == nil {
		t.Fatalf("no reason for the operator: %v", err)
	}
	return cause.Error()
}

// listing is a tree as text: each path with what it is.
func listing(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	top, err := os.Stat(root)
	if err != nil {
		t.Fatal(err)
	}
	owned := os.Geteuid() == 0 && top.Sys().(*syscall.Stat_t).Uid == Owner // then copies of it have to be others' to change
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, mode := strings.TrimPrefix(path, root), info.Mode()
		if uid := info.Sys().(*syscall.Stat_t).Uid; owned {
			if uid != Owner || mode.Type() != fs.ModeSymlink && mode.Perm()&0o022 != 0o022 {
				t.Errorf("%s is %d's, %s", path, uid, mode)
			}
			mode &^= 0o022
		}
		switch {
		case name == "":
			return nil
		case d.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			fmt.Fprintf(&b, "%s -> %s\n", name, to)
			return err
		case d.IsDir():
			fmt.Fprintf(&b, "%s/ %o\n", name, mode.Perm())
			return nil
		}
		text, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s %o %q\n", name, mode, text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func layers() []oci.Layer {
	secret := oci.File("home/me/.secret", "s")
	secret.Mode = 0o600
	setuid := oci.Program("usr/bin/su", []byte("su"))
	setuid.Mode, setuid.Uid = 0o6755, 0
	return []oci.Layer{
		oci.Tar(oci.Dir("./"), oci.Dir("etc"), oci.File("etc/passwd", "root:x:0:0::/root:/bin/sh\nme:x:4711:4711::/home/me:/bin/sh"), oci.Dir("usr/"), oci.Dir("usr/bin"), setuid, oci.Symlink("bin", "usr/bin"),
			secret, oci.File("a/old", "1"), oci.File("a/kept", "1"), oci.File("b/x/1", "1"), oci.File("b/x/2", "1"), oci.Dir("tmp"), oci.File("tmp/junk", "j"), oci.Of(tar.TypeChar, "dev/null", ""), oci.Dir("var"),
			oci.Symlink("var/run", "/run"), oci.Dir("was"), oci.File("was/in", "1"), oci.File("file", "was a file"), oci.File("one", "content")),
		oci.Tar(oci.File("a/.wh.old", ""), oci.File("b/x/3", "2"), oci.File("b/x/.wh..wh..opq", ""), oci.File("bin/tool", "2"), oci.File("var/run/pid", "2"), oci.File("was", "now a file"), oci.Dir("file"), oci.File("file/in", "2"),
			oci.Link("two", "one"), oci.File("a/.wh..wh.plnk", ""), oci.File(".wh.nothing", "")).Gzip(),
		oci.Tar(oci.File("one", "other"), oci.File("a/new", "3"), oci.File("a/.wh.new", "")).Zstd(),
	}
}

const laidOut = `/a/ 755
/a/kept 644 "1"
/a/new 644 "3"
/b/ 755
/b/x/ 755
/b/x/3 644 "2"
/bin -> usr/bin
/dev/ 755
/etc/ 755
/etc/hosts 644 "127.0.0.1 localhost server\n"
/etc/passwd 644 "root:x:0:0::/root:/bin/sh\nme:x:4711:4711::/home/me:/bin/sh"
/file/ 755
/file/in 644 "2"
/home/ 755
/home/me/ 755
/home/me/.secret 644 "s"
/one 644 "other"
/proc/ 755
/run/ 755
/run/pid 644 "2"
/tmp -> /run/server
/two 644 "content"
/usr/ 755
/usr/bin/ 755
/usr/bin/su 755 "su"
/usr/bin/tool 644 "2"
/var/ 755
/var/run -> /run
/var/tmp -> /run/server
/was 644 "now a file"
/work/ 755
/work/dir/ 755
`

// TestLayers: every form that an image comes in becomes the same tree.
func TestLayers(t *testing.T) {
	i := oci.New(v1.ImageConfig{User: "me:staff", WorkingDir: "/work/dir", Entrypoint: []string{"/bin/su"}, Cmd: []string{"-"}, Env: []string{"A=1"}}, nil, layers()...)
	dir := t.TempDir()
	untar(t, i.Layout(), dir)
	for form, ref := range map[string]string{"layout": inFile(t, i.Layout()), "docker save": inFile(t, i.Saved()), "directory": "file:" + dir} {
		t.Run(form, func(t *testing.T) {
			got := open(t, newStore(t), ref)
			if os.Geteuid() == 0 && got.Owner != Owner {
				t.Errorf("it is %d's", got.Owner)
			}
			if text := listing(t, got.Root); text != laidOut {
				t.Errorf("got\n%s\nwant\n%s", text, laidOut)
			}
			want := Config{Entrypoint: []string{"/bin/su"}, Cmd: []string{"-"}, Env: []string{"A=1"}, Dir: "/work/dir", UID: 4711}
			if fmt.Sprint(got.Config) != fmt.Sprint(want) {
				t.Errorf("got %v, want %v", got.Config, want)
			}
			if form != "docker save" && got.Digest != i.Digest() || form == "docker save" && got.Digest != i.Config {
				t.Errorf("it is called %s", got.Digest)
			}
			argv, err := got.Argv(nil, nil)
			other, oerr := got.Argv([]string{"/x"}, nil)
			more, merr := got.Argv(nil, []string{"-l", "root"})
			both, berr := got.Argv([]string{"/x"}, []string{"y"})
			if errors.Join(err, oerr, merr, berr) != nil || fmt.Sprint(argv, other, more, both) != "[/bin/su -] [/x] [/bin/su -l root] [/x y]" {
				t.Errorf("it runs %v %v %v", argv, err, other)
			}
			if info, err := os.Stat(filepath.Join(got.Root, "a/kept")); err != nil || info.ModTime().Unix() != 1_700_000_000 {
				t.Errorf("times are lost: %v %v", info, err)
			}
		})
	}
}

func untar(t *testing.T, archive []byte, dir string) {
	t.Helper()
	for r := tar.NewReader(strings.NewReader(string(archive))); ; {
		h, err := r.Next()
		if err != nil {
			return
		}
		b := make([]byte, h.Size)
		if _, err := r.Read(b); err != nil && h.Size == 0 {
			t.Fatal(err)
		}
		at := filepath.Join(dir, h.Name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, b, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUsers: who the program is inside, and that it has a name there.
func TestUsers(t *testing.T) {
	for user, want := range map[string]struct {
		uid  int
		name string
	}{"": {0, "server:x:1000:"}, "root": {0, "server:x:1000:"}, "0:0": {0, "server:x:1000:"}, "65532:65532": {65532, "server:x:65532:65532::/run/server:/bin/sh"}, "me": {4711, "me:x:4711"}} {
		i := open(t, newStore(t), inFile(t, oci.New(v1.ImageConfig{User: user}, nil, oci.Tar(oci.File("etc/passwd", "me:x:4711:4711::/:/x"))).Layout()))
		text, err := os.ReadFile(filepath.Join(i.Root, "etc/passwd"))
		if err != nil || i.Config.UID != want.uid || !strings.Contains(string(text), "\n"+want.name) && !strings.HasPrefix(string(text), want.name) {
			t.Errorf("%q is %d, in %q %v", user, i.Config.UID, text, err)
		}
	}
}

// TestHostile: images that try to get at something, or cannot be what they say, are refused with a sentence, and touch nothing
// but their own tree.
func TestHostile(t *testing.T) {
	beside := t.TempDir()
	if err := os.WriteFile(filepath.Join(beside, "canary"), []byte("alive"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := listing(t, beside)
	one := func(entries ...oci.Entry) *oci.Image { return oci.New(v1.ImageConfig{}, nil, oci.Tar(entries...)) }
	spoilt := func(change func(*v1.Image, *v1.Manifest), layers ...oci.Layer) *oci.Image {
		return oci.New(v1.ImageConfig{}, change, layers...)
	}
	config := func(c v1.ImageConfig) *oci.Image { return oci.New(c, nil) }
	plain := oci.Tar(oci.File("x", "x"))
	many := make([]oci.Entry, limits.Files+1)
	for i := range many {
		many[i] = oci.File(fmt.Sprint("f", i), "")
	}
	deep := oci.File(strings.Repeat("d/", 200)+"x", "")
	loop := []oci.Entry{oci.Symlink("l1", "l2"), oci.Symlink("l2", "l1"), oci.File("l1/x", "")}
	for name, c := range map[string]struct {
		image *oci.Image
		why   string
	}{
		"climbs":                     {one(oci.File("../../canary", "dead")), "leads out of the image"},
		"climbs in the middle":       {one(oci.File("a/../../canary", "dead")), "leads out of the image"},
		"second name outside":        {one(oci.Link("x", "../../../"+beside+"/canary")), "leads out of the image"},
		"second name, absolute":      {one(oci.Link("x", beside+"/canary")), "no file of the image"},
		"second name of a directory": {one(oci.Dir("d"), oci.Link("x", "d")), "no file of the image"},
		"a device":                   {one(oci.Of(tar.TypeBlock, "sda", "")), "it is a device"},
		"a device by a link":         {one(oci.Symlink("x", "dev"), oci.Of(tar.TypeChar, "x/mem", "")), "it is a device"},
		"a pipe":                     {one(oci.Of(tar.TypeFifo, "p", "")), "named pipe"},
		"an unknown kind":            {one(oci.Of('Q', "q", "")), "not known here"},
		"takes away nothing":         {one(oci.File("a/.wh.", "")), "no name"},
		"takes away the top":         {one(oci.File("a/.wh...", "")), "no name"},
		"links in a circle":          {one(loop...), "too many links"},
		"a file as directory":        {one(oci.File("f", ""), oci.File("f/x", "")), "no directory"},
		"etc is a link":              {one(oci.Symlink("etc", beside)), "its /etc is no directory"},
		"run is a link":              {one(oci.Symlink("run", "/")), "its /run is no directory"},
		"proc is a file":             {one(oci.File("proc", "")), "its /proc is no directory"},
		"too many files":             {one(many...), "more files"},
		"too deep":                   {one(deep), "leads out of the image"},
		"a large file":               {one(oci.File("x", strings.Repeat("x", int(limits.Bytes)+1))), "larger than 8 MiB"},
		"a bomb":                     {spoilt(nil, oci.Tar(oci.File("x", strings.Repeat("\x00", int(limits.Bytes)+1))).Gzip()), "larger than 8 MiB"},
		"a bomb behind the end":      {spoilt(nil, oci.Layer{Plain: append(append([]byte{}, plain.Plain...), make([]byte, limits.Bytes)...), Type: v1.MediaTypeImageLayer}.Zstd()), "larger than 8 MiB"},
		"a bomb of zstd":             {spoilt(nil, oci.Tar(oci.File("x", strings.Repeat("\x00", int(limits.Bytes)+1))).Zstd()), "larger than 8 MiB"},
		"says to be small":           {spoilt(func(_ *v1.Image, m *v1.Manifest) { m.Layers[0].Size = 10 }, plain), "not those that its digest names"},
		"says to be huge":            {spoilt(func(_ *v1.Image, m *v1.Manifest) { m.Layers[0].Size = 1 << 60 }, plain), "larger than 8 MiB"},
		"sizes that turn over":       {spoilt(func(_ *v1.Image, m *v1.Manifest) { m.Layers[0].Size, m.Layers[1].Size = 5<<20, 1<<63-1 }, plain, plain), "larger than 8 MiB"},
		"less than nothing":          {spoilt(func(_ *v1.Image, m *v1.Manifest) { m.Layers[0].Size = -1 }, plain), "larger than 8 MiB"},
		"too many layers":            {spoilt(nil, plain, plain, plain, plain, plain, plain, plain, plain, plain, plain, plain), "11 layers"},
		"other layer inside":         {spoilt(func(c *v1.Image, _ *v1.Manifest) { c.RootFS.DiffIDs[0] = digest.FromString("other") }, plain), "not those that its digest names"},
		"fewer layers inside":        {spoilt(func(c *v1.Image, _ *v1.Manifest) { c.RootFS.DiffIDs = nil }, plain), "names 0 layers"},
		"a layer elsewhere":          {spoilt(func(_ *v1.Image, m *v1.Manifest) { m.Layers[0].MediaType = dockerForeignLayer + ".gzip" }, plain), "kept elsewhere"},
		"a layer of no kind":         {spoilt(func(_ *v1.Image, m *v1.Manifest) { m.Layers[0].MediaType = "text/html" }, plain), "kind that is not known"},
		"a layer without sum":        {spoilt(func(_ *v1.Image, m *v1.Manifest) { m.Layers[0].Digest = "sha256:../../../etc/passwd" }, plain), "no digest"},
		"no tar":                     {spoilt(nil, oci.Layer{Plain: []byte(strings.Repeat("nonsense", 200)), Packed: []byte(strings.Repeat("nonsense", 200)), Type: v1.MediaTypeImageLayer}), "its layer 1"},
		"cut off":                    {spoilt(nil, oci.Layer{Plain: plain.Plain, Packed: oci.Tar(oci.File("x", "x")).Gzip().Packed[:50], Type: v1.MediaTypeImageLayerGzip}), "its layer 1"},
		"not an image":               {spoilt(func(_ *v1.Image, m *v1.Manifest) { m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json" }, plain), "no image but another thing"},
		"another machine":            {spoilt(func(c *v1.Image, _ *v1.Manifest) { c.Architecture = "s390x" }, plain), "made for linux/s390x"},
		"a machine of colours":       {spoilt(func(c *v1.Image, _ *v1.Manifest) { c.Architecture = "\x1b[31mred" }, plain), "made for a machine that it does not name"},
		"another system":             {spoilt(func(c *v1.Image, _ *v1.Manifest) { c.OS = "windows" }, plain), "made for windows/"},
		"an unknown user":            {config(v1.ImageConfig{User: "me"}), "does not name"},
		"a user below zero":          {config(v1.ImageConfig{User: "-1"}), "numbers go from 1"},
		"no environment":             {config(v1.ImageConfig{Env: []string{"NOPE"}}), "no NAME=value"},
		"a NUL":                      {config(v1.ImageConfig{Env: []string{"A=\x00"}}), "NUL"},
		"begins nowhere":             {config(v1.ImageConfig{WorkingDir: "work"}), "not absolute"},
		"begins in a file":           {oci.New(v1.ImageConfig{WorkingDir: "/x/y"}, nil, plain), "no directory"},
		"two documents in one":       {&oci.Image{Type: v1.MediaTypeImageManifest, Manifest: []byte(`{"schemaVersion":2,"manifests":[{}],"layers":[{}]}`)}, "read in two ways"},
		"schema 1":                   {&oci.Image{Type: v1.MediaTypeImageManifest, Manifest: []byte(`{"schemaVersion":1,"fsLayers":[{"blobSum":"x"}]}`)}, "schema 1"},
		"nothing":                    {&oci.Image{Type: v1.MediaTypeImageManifest, Manifest: []byte(`{}`)}, "no manifest"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			if why := refused(t, s, inFile(t, c.image.Layout())); !strings.Contains(why, c.why) || strings.Contains(why, "\n") {
				t.Errorf("said %q, want %q", why, c.why)
			}
		})
	}
	if after := listing(t, beside); after != before {
		t.Errorf("beside the image stands now\n%s", after)
	}
}

// TestLinksOutStayIn: a link may say what it likes; what is written through it is inside.
func TestLinksOutStayIn(t *testing.T) {
	home, err := os.UserHomeDir() // not below /tmp, which becomes a link
	if err != nil {
		t.Fatal(err)
	}
	beside, err := os.MkdirTemp(home, "beside-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(beside) })
	i := open(t, newStore(t), inFile(t, oci.New(v1.ImageConfig{WorkingDir: "/up/" + beside + "/w"}, nil, oci.Tar(oci.Symlink("abs", beside), oci.File("abs/planted", "1"), oci.Symlink("up", "../../../../../../.."),
		oci.File("up/top", "1"), oci.Symlink("tmp", beside), oci.File("tmp/gone", "1"), oci.Symlink("etc2", "/etc"), oci.File("etc2/passwd", "x"), oci.File("etc/.wh.passwd", ""))).Layout()))
	if text := listing(t, beside); text != "" {
		t.Errorf("outside stands %s", text)
	}
	for _, at := range []string{beside + "/planted", "top", beside + "/w"} {
		if _, err := os.Lstat(filepath.Join(i.Root, at)); err != nil {
			t.Error(err)
		}
	}
}

// TestArchives that are none.
func TestArchives(t *testing.T) {
	good := oci.New(v1.ImageConfig{}, nil, oci.Tar(oci.File("x", "x")))
	other := oci.New(v1.ImageConfig{User: "7"}, nil, oci.Tar(oci.File("x", "x")))
	both := oci.Index([]v1.Descriptor{good.Descriptor(""), other.Descriptor("")}, good, other)
	for name, c := range map[string]struct {
		archive []byte
		why     string
	}{
		"no tar": {[]byte(strings.Repeat("not a tar ", 100)), "no tar file"}, "empty": {oci.Tar().Plain, "no image in it"}, "compressed": {oci.Tar(oci.File("index.json", "{}")).Gzip().Packed, "must be decompressed"},
		"several": {both.Layout(), "does not say for which machines"}, "none": {oci.Tar(oci.File("index.json", "{}")).Plain, "no image in it"},
		"index is a link in a circle": {oci.Tar(oci.Symlink("index.json", "index.json")).Plain, "no image in it"},
		"a blob is missing":           {oci.Tar(oci.File("index.json", string(good.Layout()[1024:]))).Plain, "its index.json"},
		"several saved":               {oci.Tar(oci.File("manifest.json", `[{},{}]`)).Plain, "2 images"},
		"no config":                   {oci.Tar(oci.File("manifest.json", `[{"Config":"../../etc/passwd"}]`)).Plain, "not in the file"},
		"no layer":                    {oci.Tar(oci.File("c", fmt.Sprintf(`{"os":"linux","architecture":%q,"rootfs":{"diff_ids":[%q]}}`, runtime.GOARCH, digest.FromString("x"))), oci.File("manifest.json", `[{"Config":"c","Layers":["/etc/passwd"]}]`)).Plain, "not in the file"},
	} {
		if why := refused(t, newStore(t), inFile(t, c.archive)); !strings.Contains(why, c.why) {
			t.Errorf("%s: said %q, want %q", name, why, c.why)
		}
	}
	for _, ref := range []string{"file:/no/such/file", "file:" + t.TempDir()} {
		if why := refused(t, newStore(t), ref); !strings.Contains(why, "cannot be read") && !strings.Contains(why, "no image in it") {
			t.Errorf("%s: said %q", ref, why)
		}
	}
}

// TestLists: of a list the image for this machine is taken.
func TestLists(t *testing.T) {
	mine, other := oci.New(v1.ImageConfig{User: "1"}, nil), oci.New(v1.ImageConfig{User: "2"}, nil)
	attested := other.Descriptor("")
	attested.Annotations = map[string]string{dockerReference: "attestation-manifest"}
	variant := other.Descriptor(runtime.GOARCH)
	variant.Platform = &v1.Platform{OS: "linux", Architecture: runtime.GOARCH, Variant: "v99"}
	for name, c := range map[string]struct {
		list []v1.Descriptor
		why  string
	}{
		"among others": {[]v1.Descriptor{other.Descriptor("s390x"), variant, attested, mine.Descriptor(runtime.GOARCH)}, ""}, "alone": {[]v1.Descriptor{attested, mine.Descriptor("")}, ""},
		"for others": {[]v1.Descriptor{other.Descriptor("s390x"), attested}, "made for linux/s390x"}, "says nothing": {[]v1.Descriptor{other.Descriptor(""), mine.Descriptor("")}, "several images"},
		"empty": {nil, "no image"},
	} {
		i := oci.Index(c.list, mine, other)
		if c.why != "" {
			if why := refused(t, newStore(t), inFile(t, i.Layout())); !strings.Contains(why, c.why) {
				t.Errorf("%s: said %q", name, why)
			}
			continue
		}
		if got := open(t, newStore(t), inFile(t, i.Layout())); got.Config.UID != 1 || got.Digest != i.Digest() {
			t.Errorf("%s: took %v, called %s", name, got.Config, got.Digest)
		}
	}
	nested := oci.Index([]v1.Descriptor{mine.Descriptor("")}, mine)
	for range maxNesting {
		nested = oci.Index([]v1.Descriptor{nested.Descriptor("")}, nested)
	}
	if why := refused(t, newStore(t), inFile(t, nested.Layout())); !strings.Contains(why, "lists of lists") {
		t.Error(why)
	}
}

func FuzzLay(f *testing.F) {
	for _, l := range layers() {
		f.Add(l.Plain)
	}
	f.Add(oci.Tar(oci.Symlink("a", "/"), oci.File("a/b/.wh..wh..opq", ""), oci.Link("x", "a/../y")).Plain)
	f.Fuzz(func(t *testing.T, layer []byte) {
		top := t.TempDir()
		dir := filepath.Join(top, "in")
		if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(top, "canary"), []byte("alive"), 0o600)); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = root.Close() }()
		left := int64(1 << 20)
		in := &tree{root: root, files: 100, spend: func(n int64) error {
			if left -= n; left < 0 {
				return errTooMany
			}
			return nil
		}}
		for range 2 {
			_ = in.lay(strings.NewReader(string(layer))) // refusing is right; what counts is what stands outside
		}
		text, err := os.ReadFile(filepath.Join(top, "canary"))
		list, lerr := os.ReadDir(top)
		if err != nil || lerr != nil || string(text) != "alive" || len(list) != 2 {
			t.Errorf("outside: %q %v %v", text, err, list)
		}
		err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err == nil && info.Mode()&(fs.ModeDevice|fs.ModeNamedPipe|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky) != 0 {
				t.Errorf("%s is %s", path, info.Mode())
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func FuzzChoose(f *testing.F) {
	i := oci.New(v1.ImageConfig{}, nil, oci.Tar(oci.File("x", "x")))
	f.Add(i.Manifest)
	f.Add(oci.Index([]v1.Descriptor{i.Descriptor("")}, i).Manifest)
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := choose(t.Context(), layout{&tarFile{}}, text, limits)
		if (got == nil) == (err == nil) {
			t.Errorf("%v %v", got, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("r.example:5000/a/b:tag")
	f.Add("file:/x")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(r.String()); err != nil || again != r {
			t.Errorf("%q is %v, and that is %v %v", text, r, again, err)
		}
	})
}
