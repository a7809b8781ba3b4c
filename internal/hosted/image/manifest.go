package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// found is an image in its source: nothing of it is on disk yet.
type found struct {
	digest digest.Digest // of the document that the reference led to, by which the image is pinned
	config []byte        // verified by its digest
	layers []v1.Descriptor
	open   func(ctx context.Context, layer v1.Descriptor) (io.ReadCloser, error) // its bytes, not verified
}

// blobs are where documents and layers are taken from by their digest. What is read is verified by the reader.
type blobs interface {
	// document opens a manifest or an index.
	document(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error)
	// blob opens a config or a layer.
	blob(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error)
}

const (
	maxDocument = 4 << 20 // bytes of a manifest, an index or a config
	maxNesting  = 2       // indexes in each other
	maxListed   = 1_000   // entries of an index
)

// document is a manifest or an index, told apart by what is in it, not by what it is called: a document that can be read as
// both is refused (CVE-2021-41190).
type document struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	Manifests     []v1.Descriptor `json:"manifests"`
	Config        v1.Descriptor   `json:"config"`
	Layers        []v1.Descriptor `json:"layers"`
	FSLayers      json.RawMessage `json:"fsLayers"`
}

const (
	dockerConfig       = "application/vnd.docker.container.image.v1+json"
	dockerLayer        = "application/vnd.docker.image.rootfs.diff.tar"
	dockerForeignLayer = "application/vnd.docker.image.rootfs.foreign.diff.tar"
	dockerReference    = "vnd.docker.reference.type" // an annotation of what is no image: an attestation beside one
)

// layerTypes are those of layers that hold files. Whether one is compressed is seen from its bytes: Docker's own archives name
// one type for all.
var layerTypes = []string{v1.MediaTypeImageLayer, v1.MediaTypeImageLayer + "+gzip", v1.MediaTypeImageLayer + "+zstd", dockerLayer, dockerLayer + ".gzip", dockerLayer + ".zstd"}

// choose finds the image for this machine, starting with the document that the reference led to.
func choose(ctx context.Context, from blobs, top []byte, limits Bounds) (*found, error) {
	text := top
	for range maxNesting + 1 {
		var d document
		if err := json.Unmarshal(text, &d); err != nil {
			return nil, errors.New("what the reference leads to is no manifest of an image")
		}
		switch {
		case d.SchemaVersion == 1 || len(d.FSLayers) > 0:
			return nil, errors.New("the image is of schema 1, which was given up in 2019 and proves nothing: build or push it again with a current tool")
		case d.SchemaVersion != 2:
			return nil, errors.New("what the reference leads to is no manifest of an image")
		case len(d.Manifests) > 0 && (len(d.Layers) > 0 || d.Config.Digest != ""):
			return nil, errors.New("its manifest can be read in two ways, as an image and as a list of images")
		case len(d.Manifests) == 0:
			return image(ctx, from, d, top, limits)
		}
		next, err := forThisMachine(d.Manifests)
		if err != nil {
			return nil, err
		}
		if text, err = whole(ctx, from.document, next); err != nil {
			return nil, fmt.Errorf("its manifest: %w", err)
		}
	}
	return nil, errors.New("its manifest is a list of lists of lists")
}

// image looks at a manifest.
func image(ctx context.Context, from blobs, d document, top []byte, limits Bounds) (*found, error) {
	if d.Config.MediaType != v1.MediaTypeImageConfig && d.Config.MediaType != dockerConfig {
		return nil, fmt.Errorf("this is no image but another thing that registries keep (%.100q)", d.Config.MediaType)
	}
	if len(d.Layers) > limits.Layers {
		return nil, fmt.Errorf("it has %d layers, more than %d", len(d.Layers), limits.Layers)
	}
	var size int64
	for i, l := range d.Layers {
		if strings.HasPrefix(l.MediaType, dockerForeignLayer) || strings.Contains(l.MediaType, "nondistributable") {
			return nil, fmt.Errorf("its layer %d is kept elsewhere (%.100q): only layers of the registry itself are taken", i+1, l.MediaType)
		}
		if !slices.Contains(layerTypes, l.MediaType) {
			return nil, fmt.Errorf("its layer %d is of a kind that is not known here (%.100q)", i+1, l.MediaType)
		}
		if err := checkDigest(l.Digest); err != nil {
			return nil, fmt.Errorf("its layer %d: %w", i+1, err)
		}
		if l.Size < 0 || l.Size > limits.Bytes-size {
			return nil, tooLarge(limits)
		}
		size += l.Size
	}
	config, err := whole(ctx, from.blob, d.Config)
	if err != nil {
		return nil, fmt.Errorf("its config: %w", err)
	}
	return &found{digest: digest.FromBytes(top), config: config, layers: d.Layers, open: from.blob}, nil
}

// forThisMachine picks the one of an index that is for this system and machine. What is said to be for no machine in
// particular is taken where it is alone.
func forThisMachine(list []v1.Descriptor) (v1.Descriptor, error) {
	if len(list) > maxListed {
		return v1.Descriptor{}, fmt.Errorf("it lists %d images, more than %d", len(list), maxListed)
	}
	var fits, silent []v1.Descriptor
	var offered []string
	for _, d := range list {
		switch p := d.Platform; {
		case d.Annotations[dockerReference] != "":
		case p == nil:
			silent = append(silent, d)
		case p.OS == "linux" && p.Architecture == runtime.GOARCH && (p.Variant == "" || p.Variant == baseline[runtime.GOARCH]):
			fits = append(fits, d)
		default:
			offered = append(offered, machine(p.OS, p.Architecture+p.Variant))
		}
	}
	switch {
	case len(fits) > 0:
		return fits[0], nil
	case len(silent) > 1:
		return v1.Descriptor{}, errors.New("it lists several images and does not say for which machines")
	case len(silent) == 1:
		return silent[0], nil
	}
	return v1.Descriptor{}, fmt.Errorf("there is none for linux/%s: it is made for %s", runtime.GOARCH, strings.Join(offered[:min(len(offered), 10)], ", "))
}

// machine is a foreign word for one, for people.
func machine(system, arch string) string {
	if m := system + "/" + arch; machineForm.MatchString(m) {
		return m
	}
	return "a machine that it does not name"
}

var machineForm = regexp.MustCompile(`^[a-z0-9]{1,20}/[a-z0-9]{1,20}$`)

// baseline is the variant of a machine that every one of its kind is.
var baseline = map[string]string{"amd64": "v1", "arm64": "v8"}

// whole reads what is small, and verifies it.
func whole(ctx context.Context, open func(context.Context, v1.Descriptor) (io.ReadCloser, error), d v1.Descriptor) ([]byte, error) {
	if err := checkDigest(d.Digest); err != nil {
		return nil, err
	}
	if d.Size < 0 || d.Size > maxDocument {
		return nil, errors.New("it is larger than 4 MiB")
	}
	r, err := open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // read whole by then
	text, err := io.ReadAll(io.LimitReader(r, d.Size+1))
	if err != nil {
		return nil, err
	}
	if int64(len(text)) != d.Size || d.Digest.Algorithm().FromBytes(text) != d.Digest {
		return nil, errDigest
	}
	return text, nil
}

var errDigest = errors.New("its bytes are not those that its digest names: what was sent was changed, or is a lie")

func tooLarge(limits Bounds) error {
	return fmt.Errorf("it is larger than %d MiB (hosting: {image_mb: ...} says how large one may be)", limits.Bytes>>20)
}

// read looks at the config of an image: what it says of its program, as which user that runs (a name or a number, of the image's
// own), and the digests of its layers when they are decompressed.
func (f *found) read() (c Config, user string, layers []digest.Digest, err error) {
	said, err := f.said()
	if err != nil {
		return Config{}, "", nil, err
	}
	for _, v := range said.Config.Env {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			return Config{}, "", nil, fmt.Errorf("its environment holds %.100q, which is no NAME=value", v)
		}
	}
	return Config{Entrypoint: said.Config.Entrypoint, Cmd: said.Config.Cmd, Env: said.Config.Env, Dir: said.Config.WorkingDir}, said.Config.User, said.RootFS.DiffIDs, nil
}

func (f *found) said() (c v1.Image, err error) {
	if err := json.Unmarshal(f.config, &c); err != nil {
		return c, errors.New("its config cannot be read")
	}
	if c.OS != "linux" || c.Architecture != runtime.GOARCH {
		return c, fmt.Errorf("it is made for %s, and this machine is linux/%s", machine(c.OS, c.Architecture), runtime.GOARCH)
	}
	if len(c.RootFS.DiffIDs) != len(f.layers) {
		return c, fmt.Errorf("its config names %d layers, its manifest %d", len(c.RootFS.DiffIDs), len(f.layers))
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := checkDigest(d); err != nil {
			return c, err
		}
	}
	if strings.Contains(strings.Join(slices.Concat(c.Config.Entrypoint, c.Config.Cmd, c.Config.Env, []string{c.Config.WorkingDir, c.Config.User}), ""), "\x00") {
		return c, errors.New("its config holds a NUL, which no program can be told")
	}
	return c, nil
}
