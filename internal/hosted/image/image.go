// Package image answers: which file tree on this disk is the image that the config names?
//
// Servers are published as OCI images. Here one is fetched from its registry, or read from a file, laid out as a plain tree
// below data_dir, and handed to the sandbox as a program's whole, read-only root. No container runtime is asked: there is
// none to trust, and no socket that is as good as root.
//
// An image is hostile until it is proven to be what its digest says, and stays a stranger's then. Its layers are laid out
// inside of an os.Root, by a reader that follows links within the tree alone; devices, set-user-id bits, owners and
// attributes do not exist here; bytes, files and layers are bounded. What was not laid out whole and verified is never
// found: a tree gets its name in one step, after everything else. A registry learns no password but by its own host, or one
// that the config names.
package image

import (
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"frontdesk.dev/frontdesk/internal/kit/secret"
)

// Reference names an image: in a registry by tag or digest, or in a file of this machine.
type Reference struct {
	Registry   string // host, with its port where it has one
	Repository string
	Tag        string        // "" with a digest
	Digest     digest.Digest // "" with a tag
	File       string        // absolute path of an archive, or of a directory in the OCI layout; "" = in a registry
}

// Forms of names, as the distribution spec and its reference implementation have them.
var (
	hostForm       = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*|\[[0-9a-f:]+\])(:[0-9]{1,5})?$`)
	repositoryForm = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagForm        = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$`)
)

// dockerHub is what docker.io stands for, and where it is.
const (
	dockerHub     = "docker.io"
	dockerHubHost = "registry-1.docker.io"
)

const fileScheme = "file:"

// Parse reads a reference as the config has it. The registry and the version must be said: what "github" means, and which
// version is the latest, is for others to change.
func Parse(text string) (Reference, error) {
	if path, ok := strings.CutPrefix(text, fileScheme); ok {
		if !filepath.IsAbs(path) {
			return Reference{}, fmt.Errorf("the path of an image file must be absolute")
		}
		return Reference{File: filepath.Clean(path)}, nil
	}
	host, rest, ok := strings.Cut(text, "/")
	if !ok || host != "localhost" && !strings.ContainsAny(host, ".:") || !hostForm.MatchString(host) {
		return Reference{}, fmt.Errorf("%q does not say which registry it is in", text)
	}
	r := Reference{Registry: host}
	name, sum, pinned := strings.Cut(rest, "@")
	name, tag, tagged := strings.Cut(name, ":")
	switch {
	case len(name) > 255 || !repositoryForm.MatchString(name):
		return Reference{}, fmt.Errorf("%q is no name of an image", name)
	case pinned:
		r.Digest = digest.Digest(sum)
		if err := checkDigest(r.Digest); err != nil {
			return Reference{}, err
		}
	case !tagged:
		return Reference{}, fmt.Errorf("%q does not say which version: a tag or a digest", text)
	case !tagForm.MatchString(tag):
		return Reference{}, fmt.Errorf("%q is no tag", tag)
	default:
		r.Tag = tag
	}
	if r.Repository = name; host == dockerHub && !strings.Contains(name, "/") {
		r.Repository = "library/" + name
	}
	return r, nil
}

// String is the reference as Parse reads it.
func (r Reference) String() string {
	switch {
	case r.File != "":
		return fileScheme + r.File
	case r.Digest != "":
		return r.Registry + "/" + r.Repository + "@" + string(r.Digest)
	}
	return r.Registry + "/" + r.Repository + ":" + r.Tag
}

// Origin is where a registry is reached, unless the config says otherwise.
func Origin(registry string) *url.URL {
	if registry == dockerHub {
		registry = dockerHubHost
	}
	return &url.URL{Scheme: "https", Host: registry}
}

func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 && d.Algorithm() != digest.SHA512 {
		return fmt.Errorf("%.100q is no digest of the form sha256:… or sha512:…", string(d))
	}
	return nil
}

// Registry is what the config says of one.
type Registry struct {
	URL      *url.URL // where it is reached; nil = Origin
	Username string
	Password secret.Text
	Realm    *url.URL // where its tokens are, if neither there nor at its own site; nil = there
}

// Bounds are what an image may be at most. The zero Bounds let nothing through.
type Bounds struct {
	Bytes  int64 // of its files, and of its layers when they are decompressed
	Files  int   // entries of its layers, overwritten ones among them
	Layers int
}

// Config is what an image says of its program.
type Config struct {
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	Env        []string `json:"env,omitempty"` // NAME=value
	Dir        string   `json:"dir,omitempty"` // where it begins, "" = anywhere
	UID        int      `json:"uid,omitempty"` // its own user, where it names one that is not root; 0 = none
}

// Image is one on this disk, kept there until Close.
type Image struct {
	Digest digest.Digest // what its reference led to
	Root   string        // its file tree, to be mounted read-only
	Config Config
	Owner  int // whose files those of the tree are; 0 = our own

	store *Store
	ref   string
	once  sync.Once
}

// Argv is what is run: command, or the image's own entrypoint where there is none, with args, or, where there are none either, with
// the image's own arguments.
func (i *Image) Argv(command, args []string) ([]string, error) {
	argv := slices.Concat(command, args)
	switch {
	case len(command) > 0:
	case len(args) > 0:
		argv = slices.Concat(i.Config.Entrypoint, args)
	default:
		argv = slices.Concat(i.Config.Entrypoint, i.Config.Cmd)
	}
	if len(argv) == 0 {
		return nil, fmt.Errorf("the image names no program: say which with command: [...]")
	}
	return argv, nil
}

// Current reports whether the reference still leads to this image.
func (i *Image) Current() bool { return i.store.leadsTo(i.ref) == i.Digest }

// Close lets the image be removed when it is no longer in the config.
func (i *Image) Close() { i.once.Do(func() { i.store.closed(i.Digest) }) }

// State is an image of the config, as operators see it.
type State struct {
	Reference string    `json:"reference"`
	Digest    string    `json:"digest,omitempty"` // "" until it is known
	Phase     Phase     `json:"phase"`
	Why       string    `json:"why,omitempty"`   // what went wrong last
	Bytes     int64     `json:"bytes,omitempty"` // on disk; of one that is fetched: so far
	Since     time.Time `json:"since,omitzero"`  // it was laid out, or has been tried
	Files     int       `json:"files,omitempty"`
}

// String is the state in a line.
func (i State) String() string {
	words := string(i.Phase)
	if i.Digest != "" {
		words += " " + i.Digest
	}
	if i.Bytes > 0 {
		words += fmt.Sprintf(" (%d MiB)", (i.Bytes+1<<19)>>20)
	}
	if i.Why != "" {
		words += ": " + i.Why
	}
	return words
}

// Phase is how far an image is.
type Phase string

const (
	Ready    Phase = "ready"
	Fetching Phase = "fetching"
	Missing  Phase = "missing" // it could not be had, and is tried again
)
