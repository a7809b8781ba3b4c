package image

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// archive is an image that lies on this machine: a directory in the OCI layout, a tar file of one, or what `docker save` and
// `podman save` write.
type archive interface {
	// open opens a file of it by its name, cleaned; fs.ErrNotExist where there is none.
	open(name string) (io.ReadCloser, int64, error)
	io.Closer
}

func openArchive(at string) (archive, error) {
	info, err := os.Stat(at)
	if err != nil {
		return nil, fmt.Errorf("the file %s cannot be read", at)
	}
	if info.IsDir() {
		root, err := os.OpenRoot(at)
		if err != nil {
			return nil, fmt.Errorf("the directory %s cannot be read", at)
		}
		return directory{root}, nil
	}
	f, err := os.Open(at)
	if err != nil {
		return nil, fmt.Errorf("the file %s cannot be read", at)
	}
	t := &tarFile{File: f, entries: map[string]section{}}
	if err := t.index(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", filepath.Base(at), err), f.Close())
	}
	return t, nil
}

type directory struct{ *os.Root }

func (d directory) open(name string) (io.ReadCloser, int64, error) {
	info, err := d.Lstat(name) // before it is opened: a pipe would wait for its writer
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, 0, err
	}
	f, err := d.Root.Open(name)
	return f, info.Size(), err
}

// tarFile is a tar file whose entries are read where they stand.
type tarFile struct {
	*os.File
	entries map[string]section
}

type section struct {
	offset, size int64
	link         string // of an entry that is another name: that of `docker save` for a layer that comes twice
}

const maxEntries = 10_000

func (t *tarFile) index() error {
	in := tar.NewReader(t.File)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errors.New("this is no tar file (a compressed one must be decompressed first)")
		}
		if len(t.entries) == maxEntries {
			return fmt.Errorf("it has more than %d entries", maxEntries)
		}
		name := path.Clean("/" + h.Name)[1:]
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := t.Seek(0, io.SeekCurrent)
			if err != nil {
				return err
			}
			t.entries[name] = section{offset: at, size: h.Size}
		case tar.TypeLink:
			t.entries[name] = section{link: path.Clean("/" + h.Linkname)[1:]}
		case tar.TypeSymlink:
			t.entries[name] = section{link: path.Join("/", path.Dir(name), h.Linkname)[1:]}
		}
	}
}

func (t *tarFile) open(name string) (io.ReadCloser, int64, error) {
	for range maxLinks {
		s, ok := t.entries[name]
		if !ok {
			break
		}
		if s.link == "" {
			return io.NopCloser(io.NewSectionReader(t.File, s.offset, s.size)), s.size, nil
		}
		name = s.link
	}
	return nil, 0, fs.ErrNotExist
}

// findIn looks for the one image of an archive. What it returns is read from there: close the archive after that.
func findIn(ctx context.Context, a archive, limits Bounds) (*found, error) {
	index, err := small(a, v1.ImageIndexFile)
	if err == nil {
		l := layout{a}
		var list v1.Index
		if err := json.Unmarshal(index, &list); err != nil {
			return nil, errors.New("its index.json cannot be read")
		}
		one, err := alone(list.Manifests)
		if err != nil {
			return nil, err
		}
		top, err := whole(ctx, l.document, one)
		if err != nil {
			return nil, fmt.Errorf("its manifest: %w", err)
		}
		return choose(ctx, l, top, limits)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	saved, err := small(a, "manifest.json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("there is no image in it: neither index.json (OCI layout) nor manifest.json (docker save)")
	}
	if err != nil {
		return nil, err
	}
	return saves(a, saved, limits)
}

// alone is the only image of a layout's index, under however many names. Of several that differ by their machines, forThisMachine
// chooses.
func alone(list []v1.Descriptor) (v1.Descriptor, error) {
	var one v1.Descriptor
	for _, d := range list {
		if one.Digest != "" && one.Digest != d.Digest {
			return forThisMachine(list)
		}
		one = d
	}
	if one.Digest == "" {
		return one, errors.New("there is no image in it")
	}
	return one, nil
}

// small reads a document of an archive whole.
func small(a archive, name string) ([]byte, error) {
	r, size, err := a.open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // read by then
	if size > maxDocument {
		return nil, fmt.Errorf("its %s is larger than 4 MiB", name)
	}
	return io.ReadAll(io.LimitReader(r, maxDocument))
}

// layout are the blobs of an OCI layout.
type layout struct{ archive }

func (l layout) document(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	return l.blob(ctx, d)
}

func (l layout) blob(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	r, _, err := l.open(path.Join(v1.ImageBlobsDir, d.Digest.Algorithm().String(), d.Digest.Encoded()))
	if err != nil {
		return nil, fmt.Errorf("%.80s is not in the file", d.Digest)
	}
	return r, nil
}

// saves reads what `docker save` wrote before it took to the OCI layout, and podman writes by default. There only the config
// vouches for layers, and its own digest for it.
func saves(a archive, manifest []byte, limits Bounds) (*found, error) {
	var list []struct {
		Config string
		Layers []string
	}
	if err := json.Unmarshal(manifest, &list); err != nil {
		return nil, errors.New("its manifest.json cannot be read")
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("it holds %d images: save one alone", len(list))
	}
	if len(list[0].Layers) > limits.Layers {
		return nil, fmt.Errorf("it has %d layers, more than %d", len(list[0].Layers), limits.Layers)
	}
	config, err := small(a, inArchive(list[0].Config))
	if err != nil {
		return nil, errors.New("its config is not in the file")
	}
	f := &found{digest: digest.FromBytes(config), config: config}
	for _, name := range list[0].Layers {
		f.layers = append(f.layers, v1.Descriptor{Annotations: map[string]string{v1.AnnotationTitle: inArchive(name)}})
	}
	f.open = func(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
		r, _, err := a.open(d.Annotations[v1.AnnotationTitle])
		if err != nil {
			return nil, fmt.Errorf("%.200q is not in the file", d.Annotations[v1.AnnotationTitle])
		}
		return r, nil
	}
	return f, nil
}

func inArchive(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }
