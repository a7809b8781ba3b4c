// Package oci builds container images, well-made and hostile ones, as archives and in a registry.
package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// Entry is an entry of a layer.
type Entry struct {
	tar.Header
	Body []byte
}

// File is an entry with content.
func File(name, body string) Entry {
	return Entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(body))}, []byte(body)}
}

// Program is a file that can be run.
func Program(name string, body []byte) Entry {
	return Entry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(body))}, body}
}

// Of is an entry of another type, with a link's target where it is one.
func Of(typeflag byte, name, link string) Entry {
	return Entry{Header: tar.Header{Name: name, Typeflag: typeflag, Linkname: link, Mode: 0o755}}
}

// Dir, Symlink and Link are what they say.
func Dir(name string) Entry            { return Of(tar.TypeDir, name, "") }
func Symlink(name, to string) Entry    { return Of(tar.TypeSymlink, name, to) }
func Link(name, existing string) Entry { return Of(tar.TypeLink, name, existing) }

// Layer is a layer, as it is and as it is sent.
type Layer struct {
	Plain, Packed []byte
	Type          string
}

// Tar is a layer that is not compressed.
func Tar(entries ...Entry) Layer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if e.ModTime.IsZero() {
			e.ModTime = time.Unix(1_700_000_000, 0)
		}
		if err := w.WriteHeader(&e.Header); err != nil {
			panic(err)
		}
		if _, err := w.Write(e.Body); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return Layer{b.Bytes(), b.Bytes(), v1.MediaTypeImageLayer}
}

// Gzip compresses a layer.
func (l Layer) Gzip() Layer {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(l.Plain)
	if cerr := w.Close(); err != nil || cerr != nil {
		panic(fmt.Sprint(err, cerr))
	}
	return Layer{l.Plain, b.Bytes(), v1.MediaTypeImageLayerGzip}
}

// Zstd compresses a layer.
func (l Layer) Zstd() Layer {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return Layer{l.Plain, w.EncodeAll(l.Plain, nil), v1.MediaTypeImageLayer + "+zstd"}
}

// Image is one, with every blob of it by its digest.
type Image struct {
	Manifest []byte
	Type     string // of the manifest
	Blobs    map[digest.Digest][]byte
	Config   digest.Digest
	Layers   []Layer
}

// New makes an image for this machine; change may spoil its config and manifest before they have digests.
func New(config v1.ImageConfig, change func(*v1.Image, *v1.Manifest), layers ...Layer) *Image {
	if change == nil {
		change = func(*v1.Image, *v1.Manifest) {}
	}
	c := v1.Image{Platform: v1.Platform{OS: "linux", Architecture: runtime.GOARCH}, Config: config, RootFS: v1.RootFS{Type: "layers"}}
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	i := &Image{Blobs: map[digest.Digest][]byte{}, Layers: layers}
	for _, l := range layers {
		c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromBytes(l.Plain))
		m.Layers = append(m.Layers, i.add(l.Type, l.Packed))
	}
	change(&c, &m)
	m.Config = merge(i.add(v1.MediaTypeImageConfig, encode(c)), m.Config)
	i.Config = m.Config.Digest
	change(&c, &m)
	i.Manifest, i.Type = encode(m), m.MediaType
	return i
}

// merge lets a change keep what it wrote into the config's descriptor.
func merge(d, changed v1.Descriptor) v1.Descriptor {
	if changed.MediaType != "" {
		d.MediaType = changed.MediaType
	}
	return d
}

func (i *Image) add(mediaType string, b []byte) v1.Descriptor {
	d := digest.FromBytes(b)
	i.Blobs[d] = b
	return v1.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(b))}
}

// Digest is the manifest's.
func (i *Image) Digest() digest.Digest { return digest.FromBytes(i.Manifest) }

// Descriptor names the manifest, for a platform where that is not "".
func (i *Image) Descriptor(arch string) v1.Descriptor {
	d := v1.Descriptor{MediaType: i.Type, Digest: i.Digest(), Size: int64(len(i.Manifest))}
	if arch != "" {
		d.Platform = &v1.Platform{OS: "linux", Architecture: arch}
	}
	return d
}

// Index is a list of images; what it lists goes where it goes.
func Index(list []v1.Descriptor, of ...*Image) *Image {
	i := &Image{Type: v1.MediaTypeImageIndex, Blobs: map[digest.Digest][]byte{}, Manifest: encode(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: list})}
	for _, o := range of {
		i.Blobs[o.Digest()] = o.Manifest
		for d, b := range o.Blobs {
			i.Blobs[d] = b
		}
	}
	return i
}

// Layout is the image as a tar file in the OCI layout.
func (i *Image) Layout() []byte {
	entries := []Entry{File("oci-layout", `{"imageLayoutVersion":"1.0.0"}`), File("index.json", string(encode(v1.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []v1.Descriptor{i.Descriptor("")}})))}
	add := func(d digest.Digest, b []byte) {
		entries = append(entries, File("blobs/sha256/"+d.Encoded(), string(b)))
	}
	add(i.Digest(), i.Manifest)
	for d, b := range i.Blobs {
		add(d, b)
	}
	return Tar(entries...).Plain
}

// Saved is the image as `docker save` wrote it before it took to the OCI layout.
func (i *Image) Saved() []byte {
	config := i.Config.Encoded() + ".json"
	m := []map[string]any{{"Config": config, "RepoTags": []string{"mcp/server:1"}}}
	entries := []Entry{File(config, string(i.Blobs[i.Config]))}
	var names []string
	for n, l := range i.Layers {
		name := fmt.Sprintf("%d/layer.tar", n)
		names = append(names, name)
		entries = append(entries, File(name, string(l.Plain)))
	}
	m[0]["Layers"] = names
	return Tar(append(entries, File("manifest.json", string(encode(m))))...).Plain
}

// Push puts the image into a registry.
func (i *Image) Push(registry http.Handler, repository, reference string) {
	put := func(method, path, mediaType string, b []byte) {
		r := httptest.NewRequest(method, path, bytes.NewReader(b))
		r.Header.Set("Content-Type", mediaType)
		w := httptest.NewRecorder()
		registry.ServeHTTP(w, r)
		if w.Code/100 != 2 {
			panic(fmt.Sprint(path, " ", w.Code, " ", w.Body))
		}
	}
	for d, b := range i.Blobs {
		var probe struct {
			MediaType string            `json:"mediaType"`
			Layers    []json.RawMessage `json:"layers"`
			Config    json.RawMessage   `json:"config"`
		}
		put(http.MethodPost, "/v2/"+repository+"/blobs/uploads/?digest="+string(d), "application/octet-stream", b)
		if len(b) < 1<<20 && json.Unmarshal(b, &probe) == nil && probe.Layers != nil {
			put(http.MethodPut, "/v2/"+repository+"/manifests/"+string(d), probe.MediaType, b)
		}
	}
	put(http.MethodPut, "/v2/"+repository+"/manifests/"+reference, i.Type, i.Manifest)
}

// Installed is a program of this machine with the libraries and the loader that it is linked to, at their own paths.
func Installed(program string) ([]Entry, error) {
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w", program, err)
	}
	paths := []string{program}
	for f := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(f, "/") {
			paths = append(paths, f)
		}
	}
	var l []Entry
	for _, path := range paths {
		b, err := os.ReadFile(path) // a library's links followed: one file a name
		if err != nil {
			return nil, err
		}
		l = append(l, Program(path[1:], b))
	}
	return l, nil
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
