//go:build linux

package hosted

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/hosted/image"
	"frontdesk.dev/frontdesk/internal/hosted/sandbox"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/test/world/oci"
)

// serverImage is the world's stdio server in an image of nothing else.
func serverImage(t testing.TB) *oci.Image {
	t.Helper()
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	return oci.New(v1.ImageConfig{Entrypoint: []string{"./server"}, WorkingDir: "/srv/app", User: "4711", Env: []string{"OF_THE_IMAGE=1", "HOME=/root", "TRACKER_TOKEN=its own", "PATH=/opt/bin:/bin"}}, nil,
		oci.Tar(oci.Program("srv/app/server", b), oci.Link("bin/true", "srv/app/server"), oci.Link("server", "srv/app/server"), oci.Dir("usr/bin"), oci.Symlink("tmp", "/var/tmp"), oci.Symlink("etc/shadow", "/proc/1/root/etc/shadow")))
}

// newImageDesk is a desk whose server is in an image.
func newImageDesk(t testing.TB, i *oci.Image, change func(*catalog.Program)) *desk {
	t.Helper()
	dir := t.TempDir()
	at := filepath.Join(dir, "image.tar")
	if err := os.WriteFile(at, i.Layout(), 0o600); err != nil {
		t.Fatal(err)
	}
	d := newDesk(t, func(p *catalog.Program) {
		p.Image, p.Argv, p.Read = "file:"+at, nil, nil
		if change != nil {
			change(p)
		}
	})
	d.CA = func() []byte { return []byte("the authority") }
	// Closed to others, as data_dir is: the server's own user could never come here.
	images := &image.Store{Dir: filepath.Join(dir, "images"), Log: slog.New(slog.DiscardHandler), Now: d.Now}
	images.Use(image.Settings{Limits: image.Bounds{Bytes: 1 << 30, Files: 10_000, Layers: 10}, Total: 2 << 30})
	d.Images = images
	return d
}

// TestImage: a server of an image is served as any other: each user has a process of his own, with a keycard and no more.
func TestImage(t *testing.T) {
	d := newImageDesk(t, serverImage(t), nil)
	var all sync.WaitGroup
	for _, who := range []string{"alice", "bob"} {
		all.Go(func() {
			s := d.begin(who, nothing)
			got, _ := d.say(who, s, tools("1", "whoami", ""))
			d.wantSaid(got, "200 Bearer ", " asks /egress/tracker/user")
			env, _ := d.say(who, s, tools("1", "env", ""))
			d.wantSaid(env, "OF_THE_IMAGE=1", "TRACKER_TOKEN=***", "HOME=/run/server", "PATH=/opt/bin:/bin", "SSL_CERT_FILE=/run/frontdesk/ca.pem", "HTTPS_PROXY=http://127.0.0.1:3128")
			for _, c := range [][2]string{{"list /", "got: bin dev etc proc run server srv tmp usr"}, {"list /dev", "got: fd full null random stderr stdin stdout urandom zero"}, {"read /run/frontdesk/ca.pem", "got: 13 bytes"},
				{"write /tmp/x", "got: written"}, {"list /run/server", "got: x"}, {"write here", "got: written"}, {"list .", "got: here server"}, {"read /etc/passwd", "got: "}, {"list /run", "got: frontdesk server"}} {
				try, want := c[0], c[1]
				got, _ := d.say(who, s, tools("1", "escape", try))
				if !strings.Contains(got, `"text":"`+want) {
					t.Errorf("%s: %s", try, got)
				}
			}
		})
	}
	all.Wait()
	l := d.States(identity.DefaultTenant, "")
	if len(l) != 2 || l[0].Pid == l[1].Pid || !strings.HasPrefix(l[0].Image, "sha256:") {
		t.Errorf("running are %+v", l)
	}
}

// TestImageOfThisMachine: programs with a loader and libraries of their image run in it; a shell of this machine stands for all.
func TestImageOfThisMachine(t *testing.T) {
	var entries []oci.Entry
	for _, p := range []string{"/bin/sh", "/usr/bin/id", "/usr/bin/ls", "/usr/bin/cat"} {
		l, err := oci.Installed(p)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, l...)
	}
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	script := `id >&2; ls -ln / >&2; cat /proc/self/status >&2; touch /x || echo no >&2; exec /server`
	i := oci.New(v1.ImageConfig{Entrypoint: []string{"sh", "-c"}, Cmd: []string{script}, User: "web"}, nil, oci.Tar(entries...).Gzip(),
		oci.Tar(oci.Program("server", b), oci.File("etc/passwd", "web:x:82:82::/:/bin/sh\n"), oci.File("etc/group", "web:x:82:\n")).Zstd())
	d := newImageDesk(t, i, nil)
	got, _ := d.say("alice", d.begin("alice", nothing), tools("1", "echo", "hi"))
	d.wantSaid(got, "hi")
	d.until("what it said", func() bool { return strings.Contains(d.logs(), "starting with token") })
	d.wantSaid(d.logs(), "uid=82(web) gid=82(web) groups=82(web)", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "no\n")
	// And by another command of the same image.
	d = newImageDesk(t, i, func(p *catalog.Program) { p.Argv = []string{"/server", "-legacy"} })
	got, _ = d.say("alice", d.begin("alice", nothing), tools("1", "echo", "hi"))
	d.wantSaid(got, "hi")
	if strings.Contains(d.logs(), "uid=") {
		t.Error("the image's own command was run")
	}
}

// TestAnImageStaysAsItIs: where Frontdesk is no root, its programs have its own user id outside, and the image's files are theirs.
// What one of them changes, adds and removes is a layer of its own, which is bounded; the image stays for who runs next.
func TestAnImageStaysAsItIs(t *testing.T) {
	var entries []oci.Entry
	for _, p := range []string{"/bin/sh", "/usr/bin/touch", "/usr/bin/chmod", "/usr/bin/rm", "/usr/bin/ln", "/usr/bin/mkdir", "/usr/bin/mv", "/usr/bin/rmdir", "/usr/bin/head"} {
		l, err := oci.Installed(p)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, l...)
	}
	d := newImageDesk(t, oci.New(v1.ImageConfig{User: "82"}, nil, oci.Tar(append(entries, oci.File("file", "as it was"), oci.File("app/old/one", "1"))...)), nil)
	i, err := d.Images.Open(t.Context(), d.server.Program.Image)
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	err = filepath.WalkDir(i.Root, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, os.Geteuid(), os.Getegid())) // as they are where Frontdesk is no root
	})
	if err != nil {
		t.Fatal(err)
	}
	script := `for f in 'touch /file' 'chmod 777 /file' 'ln /file /app/x' 'mkdir /etc/x' 'mv /file /gone' 'rm -r /app/old' 'mkdir /app/old' 'rmdir /app/old' 'rm /usr/bin/ln'; do $f || echo failed: $f; done
		for f in 'touch /dev/x' 'touch /run/x' 'touch /proc/x' 'mkdir /old'; do $f 2>/dev/null && echo done: $f; done
		head -c 3000000 /dev/zero >/app/big && echo fits; head -c 3000000 /dev/zero >/tmp/big || echo full; echo end`
	for range 2 { // the second finds nothing of the first
		c, err := sandbox.Build(sandbox.Setup{Root: i.Root, Inside: i.Config.UID, Scratch: 4 << 20, Require: sandbox.Required}) // without a user id of its own
		if err != nil {
			t.Fatal(err)
		}
		defer c.Kill()
		if err := c.Run([]string{"sh", "-c", script}, []string{"PATH=/bin:/usr/bin"}); err != nil {
			t.Fatal(err)
		}
		said, err := io.ReadAll(c.Stdout)
		why, werr := io.ReadAll(c.Stderr)
		if err != nil || werr != nil || string(said) != "done: mkdir /old\nfits\nfull\nend\n" || c.ReadOnly != "" {
			t.Errorf("said %q, %s %v %v %q", said, why, err, werr, c.ReadOnly)
		}
		if text, err := os.ReadFile(filepath.Join(i.Root, "file")); err != nil || string(text) != "as it was" {
			t.Errorf("the file is %q, %v", text, err)
		}
		for _, path := range []string{"gone", "app/x", "app/big", "etc/x", "old"} {
			if _, err := os.Lstat(filepath.Join(i.Root, path)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is in the image: %v", path, err)
			}
		}
	}
}

// TestImagesThatDoNotRun: callers hear no more than that, operators why.
func TestImagesThatDoNotRun(t *testing.T) {
	for name, c := range map[string]struct {
		image *oci.Image
		why   string
	}{
		"no program":          {oci.New(v1.ImageConfig{}, nil), "names no program"},
		"a program elsewhere": {oci.New(v1.ImageConfig{Entrypoint: []string{"nope"}}, nil), "nope of the image cannot be run"},
		"no program at all":   {oci.New(v1.ImageConfig{Entrypoint: []string{"/x"}}, nil, oci.Tar(oci.Program("x", []byte("text")))), "must be a program for this kind of machine"},
		"no image":            {oci.New(v1.ImageConfig{User: "who"}, nil), "does not name"},
	} {
		t.Run(name, func(t *testing.T) {
			d := newImageDesk(t, c.image, nil)
			_, err := d.ask(t.Context(), "alice", "POST", "", `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
			if fault.KindOf(err) != fault.Unavailable || !strings.Contains(fault.Message(err), "does not run") || strings.Contains(fault.Message(err), c.why) {
				t.Errorf("the caller is told %v", err)
			}
			d.until("the reason", func() bool { return strings.Contains(d.logs(), c.why) })
			if len(d.runs()) != 0 {
				t.Error("it is said to run")
			}
		})
	}
}

// TestANewImage: processes of the one before end when their calls have; the next call is served by the new one.
func TestANewImage(t *testing.T) {
	d := newImageDesk(t, serverImage(t), nil)
	ref := d.server.Program.Image
	s := d.begin("alice", nothing)
	before := d.States(identity.DefaultTenant, "")[0]
	b, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	next := oci.New(v1.ImageConfig{Entrypoint: []string{"/other"}}, nil, oci.Tar(oci.Program("other", b)))
	for _, archive := range [][]byte{next.Layout()[:5000], next.Layout()} { // half of it first, as whoever writes it does
		if err := os.WriteFile(strings.TrimPrefix(ref, "file:"), archive, 0o600); err != nil {
			t.Fatal(err)
		}
		d.look()
		if got, _ := d.say("alice", s, tools("1", "echo", "on")); !strings.Contains(got, "on") || d.States(identity.DefaultTenant, "")[0].Pid != before.Pid {
			t.Errorf("a file that nobody has read yet ended what runs: %s", got)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if st, err := d.Images.Refresh(ctx, ref); err != nil || st.Digest == before.Image {
		t.Fatalf("%+v %v", st, err)
	}
	d.look()
	d.until("the end of the old one", func() bool { return len(d.States(identity.DefaultTenant, "")) == 0 })
	got, _ := d.say("alice", s, tools("1", "escape", "list /"))
	d.wantSaid(got, "other")
	if after := d.States(identity.DefaultTenant, "")[0]; after.Image == before.Image {
		t.Error("it is the same image")
	}
}

// TestAnImageThatIsNotHere: no act is opened for a process that cannot be started yet.
func TestAnImageThatIsNotHere(t *testing.T) {
	d := newImageDesk(t, serverImage(t), nil)
	d.Images = away{d.Images}
	_, err := d.ask(t.Context(), "alice", "POST", "", `{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
	if fault.KindOf(err) != fault.Unavailable || !strings.Contains(fault.Message(err), "its image is still being fetched") || fault.RetryAfter(err) <= 0 || d.opened.Load() != 0 {
		t.Errorf("the caller is told %v, after %d acts", err, d.opened.Load())
	}
	d.wantSaid(d.logs(), "the registry is away")
}

// away are images that cannot be had.
type away struct{ Images }

func (away) Open(context.Context, string) (*image.Image, error) {
	return nil, fault.Later("its image is still being fetched", time.Second, errors.New("the registry is away"))
}
