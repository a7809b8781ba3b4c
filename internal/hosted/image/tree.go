package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// tree is a file tree while layers are laid onto each other. Nothing in it is ever outside of root, whatever names and links
// a layer has: links are followed here, within the tree, and os.Root refuses what would lead out of it all the same.
type tree struct {
	root  *os.Root
	files int                     // entries that may still come
	spend func(bytes int64) error // is told of every byte before it is written

	layer int
	fresh map[string]bool   // what this layer has written: whiteouts hide only what lies below it
	known map[string]string // directories as layers name them -> where they are, links followed
}

const (
	maxName  = 4_096 // bytes of a path, as in the kernel
	maxDepth = 100
	maxLinks = 40 // of a path, as in the kernel
)

// Names of entries that take something away (OCI image spec, "Whiteouts").
const (
	whiteout      = ".wh."
	opaque        = ".wh..wh..opq"
	whiteoutsMeta = ".wh..wh." // of AUFS itself
)

// lay lays the next layer onto what is there.
func (t *tree) lay(r io.Reader) error {
	t.layer++
	t.fresh, t.known = map[string]bool{}, map[string]string{}
	for in := tar.NewReader(r); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("its layer %d: %w", t.layer, err)
		}
		if t.files--; t.files < 0 {
			return errTooMany
		}
		if err := t.entry(h, in); err != nil {
			return fmt.Errorf("%.200q of its layer %d: %w", h.Name, t.layer, err)
		}
	}
}

var (
	errTooMany = errors.New("it has more files than an image may have here")
	errLeaves  = errors.New("the name leads out of the image")
)

func (t *tree) entry(h *tar.Header, content io.Reader) error {
	name, err := clean(h.Name)
	if err != nil || h.Typeflag == tar.TypeXGlobalHeader {
		return err
	}
	if name == "." || name == "dev" || strings.HasPrefix(name, "dev/") {
		return nil // the root is there, and /dev will be the sandbox's own
	}
	dir, err := t.follow(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	if strings.HasPrefix(base, whiteout) {
		return t.hide(dir, base)
	}
	at := path.Join(dir, base)
	switch h.Typeflag {
	case tar.TypeDir:
		return t.directory(at)
	case tar.TypeReg:
		return t.file(at, h, content)
	case tar.TypeSymlink:
		if len(h.Linkname) > maxName || h.Linkname == "" {
			return errors.New("it is a link to nothing")
		}
		if err := t.clear(at); err != nil {
			return err
		}
		return t.root.Symlink(h.Linkname, at)
	case tar.TypeLink:
		return t.link(at, h.Linkname)
	case tar.TypeChar, tar.TypeBlock:
		return errors.New("it is a device, which no image may bring")
	case tar.TypeFifo:
		return errors.New("it is a named pipe, which no image may bring")
	}
	return fmt.Errorf("it is of a kind that is not known here (%q)", h.Typeflag)
}

// clean is a name as it stands in a layer, relative to the root.
func clean(name string) (string, error) {
	parts := strings.Split(name, "/")
	if slices.Contains(parts, "..") || len(name) > maxName || len(parts) > maxDepth {
		return "", errLeaves
	}
	return path.Join(".", strings.TrimLeft(name, "/")), nil
}

// follow is where a directory is when the links on its way are followed as they would be inside: from the tree's own root, and
// never above it. Directories that are not there are made.
func (t *tree) follow(dir string) (string, error) {
	if at, ok := t.known[dir]; ok {
		return at, nil
	}
	done, rest := ".", strings.Split(dir, "/")
	for links := maxLinks; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		if part == "" || part == "." {
			continue
		}
		if part == ".." {
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		info, err := t.root.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if err := t.directory(next); err != nil {
				return "", err
			}
		case err != nil:
			return "", err
		case info.Mode()&fs.ModeSymlink != 0:
			if links--; links < 0 {
				return "", errors.New("the way to it goes through too many links")
			}
			to, err := t.root.Readlink(next)
			if err != nil {
				return "", err
			}
			if path.IsAbs(to) {
				done = "."
			}
			rest = append(strings.Split(to, "/"), rest...)
			continue
		case !info.IsDir():
			return "", errors.New("what should hold it is no directory")
		}
		done = next
		t.fresh[done] = true
	}
	t.known[dir] = done
	return done, nil
}

func (t *tree) directory(at string) error {
	if info, err := t.root.Lstat(at); err == nil && info.IsDir() {
		t.fresh[at] = true
		return nil
	}
	if err := t.clear(at); err != nil {
		return err
	}
	if t.files--; t.files < 0 { // also of those that no entry names
		return errTooMany
	}
	return errors.Join(t.root.Mkdir(at, 0o755), t.root.Chmod(at, 0o755)) // whatever our umask is
}

// clear takes away what is at a place that this layer writes to.
func (t *tree) clear(at string) error {
	t.fresh[at] = true
	info, err := t.root.Lstat(at)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() || info.Mode()&fs.ModeSymlink != 0 {
		t.known = map[string]string{} // what went through it goes elsewhere now
	}
	return t.root.RemoveAll(at)
}

// file writes a file. Of its mode it keeps whether it is a program: the one user inside may read all, and change nothing.
func (t *tree) file(at string, h *tar.Header, content io.Reader) error {
	if err := t.spend(h.Size); err != nil {
		return err
	}
	if err := t.clear(at); err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if h.Mode&0o111 != 0 {
		mode = 0o755
	}
	f, err := t.root.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, content)
	if err == nil && n != h.Size {
		err = io.ErrUnexpectedEOF
	}
	// By the umask that we have; and by the times of its files a program knows whether what it made of them is old (Python).
	return errors.Join(err, f.Chmod(mode), f.Close(), t.root.Chtimes(at, h.ModTime, h.ModTime))
}

// link makes a second name for a file that is there.
func (t *tree) link(at, target string) error {
	target, err := clean(target)
	if err != nil {
		return err
	}
	dir, err := t.follow(path.Dir(target))
	if err != nil {
		return err
	}
	from := path.Join(dir, path.Base(target))
	info, err := t.root.Lstat(from)
	if err != nil || info.IsDir() {
		return fmt.Errorf("it is a second name for %.200q, which is no file of the image", target)
	}
	if from == at {
		return nil
	}
	if err := t.clear(at); err != nil {
		return err
	}
	return t.root.Link(from, at)
}

// hide carries out a whiteout: it takes away what lower layers have there.
func (t *tree) hide(dir, base string) error {
	if base != opaque && strings.HasPrefix(base, whiteoutsMeta) {
		return nil
	}
	if base == opaque {
		return t.empty(dir)
	}
	name := strings.TrimPrefix(base, whiteout)
	if name == "" || name == "." || name == ".." {
		return errors.New("it takes away what has no name")
	}
	at := path.Join(dir, name)
	if t.fresh[at] {
		return nil
	}
	err := t.clear(at)
	delete(t.fresh, at)
	return err
}

// empty takes away everything below a directory that this layer has not written itself.
func (t *tree) empty(dir string) error {
	d, err := t.root.Open(dir)
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	for _, name := range names {
		at := path.Join(dir, name)
		info, err := t.root.Lstat(at)
		switch {
		case err != nil:
			return err
		case t.fresh[at] && info.IsDir():
			err = t.empty(at)
		case !t.fresh[at]:
			t.known = map[string]string{}
			err = t.root.RemoveAll(at)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Owner is the user whose files are those of images, where we are root. Programs have other ones: they can change a copy alone.
const Owner = 69_999

// owner is whose files ours are; 0 = our own.
func owner() int {
	if os.Geteuid() == 0 {
		return Owner
	}
	return 0
}

// give makes a tree its owner's, and lets whoever has a copy of its files change that.
func give(root string, to int) error {
	if to == 0 {
		return nil
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil {
			err = os.Lchown(path, to, to)
		}
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.Chmod(path, info.Mode().Perm()|0o022)
	})
}
