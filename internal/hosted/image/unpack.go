package image

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"frontdesk.dev/frontdesk/internal/hosted/sandbox"
)

// unpack lays an image out below dir, which is there and empty, and returns what is run of it and how much it is. Whatever it
// returns, what is below dir is safe to look at; with an error it is not to be used.
func (f *found) unpack(ctx context.Context, dir string, limits Bounds, wrote func(bytes int64) error) (Config, sum, error) {
	config, user, plain, err := f.read()
	if err != nil {
		return Config{}, sum{}, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return Config{}, sum{}, err
	}
	defer func() { _ = root.Close() }() // nothing is written through it
	u := &unpacking{ctx: ctx, limits: limits, wrote: wrote}
	u.tree = tree{root: root, files: limits.Files, spend: u.spend}
	for i, l := range f.layers {
		if err := u.layer(f, l, plain[i]); err != nil {
			return Config{}, sum{}, err
		}
	}
	if err := u.furnish(&config, user); err != nil {
		return Config{}, sum{}, err
	}
	return config, sum{u.bytes, limits.Files - u.tree.files}, nil
}

// sum is how much an image is on disk.
type sum struct {
	Bytes int64
	Files int
}

// unpacking is the work on one image.
type unpacking struct {
	ctx    context.Context // of this work, which it is a part of
	tree   tree
	limits Bounds
	wrote  func(bytes int64) error
	bytes  int64 // of files
	read   int64 // of layers, decompressed
}

// spend counts what is about to be written.
func (u *unpacking) spend(n int64) error {
	if n > u.limits.Bytes-u.bytes {
		return tooLarge(u.limits)
	}
	u.bytes += n
	return u.wrote(n)
}

// layer lays one layer, and proves that its bytes are those that the manifest names (l), and, decompressed, those that the
// config names (plain).
func (u *unpacking) layer(f *found, l v1.Descriptor, plain digest.Digest) error {
	here := fmt.Sprintf("its layer %d", u.tree.layer+1)
	r, err := f.open(u.ctx, l)
	if err != nil {
		return fmt.Errorf("%s: %w", here, err)
	}
	defer func() { _ = r.Close() }() // read to its end, or of no use
	packed := &proof{r: r}
	if l.Digest != "" {
		packed.sum, packed.size = l.Digest.Verifier(), l.Size
	}
	unpacked, err := decompressed(packed)
	if err != nil {
		return fmt.Errorf("%s: %w", here, err)
	}
	defer func() { _ = unpacked.Close() }() // its reader says what is wrong with it
	counted := &proof{r: reader(func(p []byte) (int, error) {
		if err := context.Cause(u.ctx); err != nil {
			return 0, err
		}
		n, err := unpacked.Read(p)
		if u.read += int64(n); u.read > u.limits.Bytes {
			return 0, tooLarge(u.limits)
		}
		return n, err
	}), sum: plain.Verifier(), size: -1}
	if err := u.tree.lay(counted); err != nil {
		return err
	}
	// What stands behind the last entry is part of what the digests name.
	for _, rest := range []io.Reader{counted, packed} {
		if _, err := io.Copy(io.Discard, rest); err != nil {
			return fmt.Errorf("%s: %w", here, err)
		}
	}
	if !packed.holds() || !counted.holds() {
		return fmt.Errorf("%s: %w", here, errDigest)
	}
	return nil
}

// proof passes bytes on, and knows at their end whether they were the right ones.
type proof struct {
	r    io.Reader
	sum  digest.Verifier // nil where nothing is to be proven
	size int64           // in bytes; -1 = not known
	n    int64
}

func (p *proof) Read(b []byte) (int, error) {
	if p.sum != nil && p.size >= 0 && int64(len(b)) > p.size-p.n+1 {
		b = b[:p.size-p.n+1] // one more than there may be: that it is there is enough
	}
	n, err := p.r.Read(b)
	p.n += int64(n)
	if p.sum != nil {
		_, _ = p.sum.Write(b[:n]) // a hash takes all
		if p.size >= 0 && p.n > p.size {
			return 0, errDigest
		}
	}
	return n, err
}

func (p *proof) holds() bool {
	return p.sum == nil || (p.size < 0 || p.n == p.size) && p.sum.Verified()
}

type reader func(p []byte) (int, error)

func (f reader) Read(p []byte) (int, error) { return f(p) }

// maxWindow bounds the memory that a zstd layer may ask for: what the highest levels of the reference implementation use.
const maxWindow = 128 << 20

// decompressed undoes gzip or zstd, as the first bytes say.
func decompressed(r io.Reader) (io.ReadCloser, error) {
	in := bufio.NewReaderSize(r, 64<<10)
	first, err := in.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(first, []byte{0x1f, 0x8b}):
		return gzip.NewReader(in)
	case bytes.Equal(first, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(in), nil
}

// hosts is what a program finds of names: its network has nothing else.
const hosts = "127.0.0.1 localhost server\n"

// furnish makes the tree one that a program can run in: what the sandbox mounts on is there, /tmp is the scratch directory, the
// user has a name, and the program's own directory exists.
func (u *unpacking) furnish(c *Config, user string) error {
	t := &u.tree
	t.fresh, t.known = map[string]bool{}, map[string]string{}
	for _, dir := range append([]string{"/etc"}, sandbox.Mounts...) {
		at := dir[1:]
		info, err := t.root.Lstat(at)
		if err == nil && !info.IsDir() {
			return fmt.Errorf("its %s is no directory", dir)
		}
		if err := t.directory(at); err != nil {
			return err
		}
	}
	for _, at := range []string{"tmp", "var/tmp"} {
		if info, err := t.root.Lstat(path.Dir(at)); err != nil || !info.IsDir() {
			continue
		}
		if err := t.clear(at); err != nil {
			return err
		}
		if err := t.root.Symlink(sandbox.Scratch, at); err != nil {
			return err
		}
	}
	if err := u.name(c, user); err != nil {
		return err
	}
	if err := u.put("etc/hosts", hosts); err != nil {
		return err
	}
	if c.Dir == "" {
		return nil
	}
	if !path.IsAbs(c.Dir) {
		return fmt.Errorf("its working directory %.200q is not absolute", c.Dir)
	}
	c.Dir = path.Clean(c.Dir)
	dir, err := clean(c.Dir)
	if err == nil {
		_, err = t.follow(dir)
	}
	if err != nil {
		return fmt.Errorf("its working directory %.200q: %w", c.Dir, err)
	}
	return nil
}

// name finds out who the program is, and gives him a name where the image has none: programs ask for it. Whoever would be root
// is nobody in particular: the sandbox knows no root.
func (u *unpacking) name(c *Config, user string) error {
	people, err := u.text("etc/passwd")
	if err != nil {
		return err
	}
	user, _, _ = strings.Cut(user, ":") // groups mean nothing where everything can be read
	if n, err := strconv.Atoi(user); err == nil {
		c.UID = n
	} else if user != "" && user != "root" {
		n, ok := lookUp(people, user)
		if !ok {
			return fmt.Errorf("it runs as the user %.100q, whom its /etc/passwd does not name", user)
		}
		c.UID = n
	}
	if c.UID < 0 || c.UID > maxUID {
		return fmt.Errorf("it runs as the user %d: numbers go from 1 to %d", c.UID, maxUID)
	}
	uid := strconv.Itoa(c.UID)
	if c.UID == 0 {
		uid = strconv.Itoa(sandbox.Nobody)
	}
	if has(people, uid) {
		return nil
	}
	groups, err := u.text("etc/group")
	if err != nil {
		return err
	}
	if !has(groups, uid) {
		err = u.put("etc/group", closed(groups)+"server:x:"+uid+":\n")
	}
	return errors.Join(err, u.put("etc/passwd", closed(people)+"server:x:"+uid+":"+uid+"::"+sandbox.Scratch+":/bin/sh\n"))
}

const (
	maxUID  = 1<<31 - 2
	maxText = 1 << 20 // of /etc/passwd and the like
)

// lookUp finds a user's number in a passwd file.
func lookUp(people, user string) (int, bool) {
	for line := range strings.Lines(people) {
		if f := strings.Split(line, ":"); len(f) > 3 && f[0] == user {
			n, err := strconv.Atoi(f[2])
			return n, err == nil
		}
	}
	return 0, false
}

// has reports whether a passwd or group file has a name for a number.
func has(text, id string) bool {
	for line := range strings.Lines(text) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) > 2 && f[2] == id {
			return true
		}
	}
	return false
}

// closed is a text that ends with its line.
func closed(text string) string {
	if text == "" || strings.HasSuffix(text, "\n") {
		return text
	}
	return text + "\n"
}

// text reads a small file of the tree; what is none counts as empty.
func (u *unpacking) text(at string) (string, error) {
	info, err := u.tree.root.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if info.Size() > maxText {
		return "", fmt.Errorf("its /%s is larger than 1 MiB", at)
	}
	b, err := u.tree.root.ReadFile(at)
	return string(b), err
}

// put writes a file of ours into the tree, in the place of whatever is there.
func (u *unpacking) put(at, text string) error {
	if err := u.tree.clear(at); err != nil {
		return err
	}
	return errors.Join(u.tree.root.WriteFile(at, []byte(text), 0o644), u.tree.root.Chmod(at, 0o644))
}
