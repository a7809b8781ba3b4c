package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Store are the images on this disk. Fields above mu are required, but for Stall. Safe for concurrent use by one process; no
// other may use the directory meanwhile.
type Store struct {
	Dir   string            // made where it is not there; nobody else's
	HTTP  http.RoundTripper // with the guard for found addresses
	Stall time.Duration     // how long a registry may send nothing; 0 = 30 s
	Log   *slog.Logger
	Now   func() time.Time

	mu     sync.Mutex
	loaded bool     // guarded by mu, as is what follows
	set    Settings // until Use, nothing is let through
	images map[digest.Digest]*stored
	leads  map[string]lead // references that are no digests
	fetches
}

// Settings are what the config says of images.
type Settings struct {
	References []string            // those of its servers
	Registries map[string]Registry // by host
	Limits     Bounds              // of one image
	Total      int64               // bytes of all
}

// stored is a whole image on disk.
type stored struct {
	saved
	open int // by how many processes
}

// saved is what stands beside an image's tree.
type saved struct {
	Form   int           `json:"form"` // of this file and of the tree; another one is fetched anew
	Digest digest.Digest `json:"digest"`
	Arch   string        `json:"arch"`
	Owner  int           `json:"owner,omitempty"` // of the tree's files
	Config Config        `json:"config"`
	Sum    sum           `json:"sum"`
	At     time.Time     `json:"at"`
}

// lead is where a tag, or a file, led when it was looked at.
type lead struct {
	Digest digest.Digest `json:"digest"`
	At     time.Time     `json:"at"`
	stamp  string        // of a file: as it was then; "" = a tag
}

const (
	form      = 2
	rootName  = "root"
	savedName = "image.json"
	leadsName = "tags.json"
	tmpPrefix = "tmp-"  // not whole yet
	oldPrefix = "gone-" // not whole any more
	tick      = time.Minute
	keep      = 24 * time.Hour // of images that the config does not name any more
)

// Use makes a config the current one. The images that it names are fetched while Run runs.
func (s *Store) Use(c Settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.References = slices.Compact(slices.Sorted(slices.Values(c.References)))
	s.set = c
	for ref, f := range s.running {
		if f.over() {
			delete(s.running, ref) // what failed may be right now
		}
	}
	s.poke()
}

// Run fetches what the config names, tries again what could not be had, and removes what nobody needs, until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	s.mu.Lock()
	err := s.load()
	s.life = ctx
	poked := s.poked()
	s.mu.Unlock()
	if err != nil {
		return err
	}
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		s.look()
		select {
		case <-ctx.Done():
			s.all.Wait()
			return nil
		case <-poked:
		case <-t.C:
		}
	}
}

// look starts what is missing, and removes what is not needed.
func (s *Store) look() {
	s.mu.Lock()
	for _, text := range s.set.References {
		if ref, err := Parse(text); err == nil && s.images[s.lead(ref)] == nil {
			s.fetch(ref)
		}
	}
	old := s.sweep(0)
	s.mu.Unlock()
	s.discard(old)
}

// Open returns an image for a process, fetched if it is not there. It waits until ctx ends. Errors are fault.Unavailable: its
// message is for callers, its cause for the operator.
func (s *Store) Open(ctx context.Context, text string) (*Image, error) {
	ref, err := Parse(text)
	if err != nil {
		return nil, err
	}
	for {
		s.mu.Lock()
		if err := s.load(); err != nil {
			s.mu.Unlock()
			return nil, err
		}
		if i := s.images[s.lead(ref)]; i != nil {
			i.open++
			s.mu.Unlock()
			return &Image{Digest: i.Digest, Root: filepath.Join(s.path(i.Digest), rootName), Config: i.Config, Owner: i.Owner, store: s, ref: text}, nil
		}
		f := s.fetch(ref)
		s.mu.Unlock()
		if err := f.wait(ctx, s.Now); err != nil {
			return nil, err
		}
	}
}

// Refresh looks anew where a tag or a file leads, and waits until what is there now is on disk, or ctx ends. Processes that run
// go on with what they have; Image.Current tells them.
func (s *Store) Refresh(ctx context.Context, text string) (State, error) {
	ref, err := Parse(text)
	if err != nil {
		return State{}, err
	}
	s.mu.Lock()
	if err := s.load(); err != nil {
		s.mu.Unlock()
		return State{}, err
	}
	f := s.again(ref)
	s.mu.Unlock()
	if err := f.wait(ctx, s.Now); err != nil {
		return State{}, err
	}
	return s.state(text), nil
}

// States lists the images of the config.
func (s *Store) States() map[string]State {
	s.mu.Lock()
	wanted := slices.Clone(s.set.References)
	s.mu.Unlock()
	m := map[string]State{}
	for _, text := range wanted {
		m[text] = s.state(text)
	}
	return m
}

func (s *Store) state(text string) State {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := State{Reference: text, Phase: Missing}
	ref, err := Parse(text)
	if err != nil {
		return st
	}
	f := s.running[text]
	if f != nil {
		st.Since = f.started
		if f.over() {
			st.Why = f.err.Error()
		}
	}
	st.Digest = string(s.lead(ref))
	if i := s.images[digest.Digest(st.Digest)]; i != nil {
		st.Phase, st.Bytes, st.Files, st.Since = Ready, i.Sum.Bytes, i.Sum.Files, i.At
	} else if f != nil && !f.over() {
		st.Phase, st.Bytes = Fetching, f.bytes
	}
	return st
}

// lead is where a reference leads, as far as that is known; "" = it has to be looked at. s.mu is held.
func (s *Store) lead(ref Reference) digest.Digest {
	if ref.Digest != "" {
		return ref.Digest
	}
	l := s.leads[ref.String()]
	if now := stamp(ref); now != "" && now != l.stamp {
		return "" // the file is another one
	}
	return l.Digest
}

// leadsTo is where a reference led when it was looked at last: a file that has changed since counts when it has been read.
func (s *Store) leadsTo(text string) digest.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ref, err := Parse(text); err == nil && ref.Digest != "" {
		return ref.Digest
	}
	return s.leads[text].Digest
}

// stamp tells one state of a file from another; "" = it is no file, or not there.
func stamp(ref Reference) string {
	if ref.File == "" {
		return ""
	}
	info, err := os.Stat(ref.File)
	if err == nil && info.IsDir() {
		info, err = os.Stat(filepath.Join(ref.File, "index.json"))
	}
	if err != nil {
		return ""
	}
	return fmt.Sprint(info.Size(), info.ModTime().UnixNano())
}

func (s *Store) path(d digest.Digest) string {
	return filepath.Join(s.Dir, d.Algorithm().String()+"-"+d.Encoded())
}

// load reads what an earlier run has left, and removes what is not whole. s.mu is held.
func (s *Store) load() error {
	if s.loaded {
		return nil
	}
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("the directory of images cannot be made: %w", err)
	}
	list, err := os.ReadDir(s.Dir)
	if err != nil {
		return fmt.Errorf("the directory of images cannot be read: %w", err)
	}
	s.images, s.leads = map[digest.Digest]*stored{}, map[string]lead{}
	for _, e := range list {
		at := filepath.Join(s.Dir, e.Name())
		i := &stored{}
		if text, err := os.ReadFile(filepath.Join(at, savedName)); err == nil && json.Unmarshal(text, &i.saved) == nil && checkDigest(i.Digest) == nil &&
			s.path(i.Digest) == at && i.Form == form && i.Arch == runtime.GOARCH && i.Owner == owner() {
			s.images[i.Digest] = i
		} else if e.IsDir() {
			if err := os.RemoveAll(at); err != nil {
				return fmt.Errorf("what is left of an image cannot be removed: %w", err)
			}
		}
	}
	text, err := os.ReadFile(filepath.Join(s.Dir, leadsName))
	if err == nil {
		err = json.Unmarshal(text, &s.leads)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Log.Warn("where tags of images led is lost, so they are looked at anew", "file", leadsName, "error", err)
	}
	s.loaded = true
	return nil
}

// saveLeads writes where tags lead. s.mu is held.
func (s *Store) saveLeads() error {
	tags := maps.Clone(s.leads)
	maps.DeleteFunc(tags, func(ref string, l lead) bool { return l.stamp != "" || !slices.Contains(s.set.References, ref) })
	text, err := json.Marshal(tags)
	if err != nil {
		return err
	}
	tmp := filepath.Join(s.Dir, leadsName+".new")
	return errors.Join(os.WriteFile(tmp, text, 0o600), os.Rename(tmp, filepath.Join(s.Dir, leadsName)))
}

func (s *Store) closed(d digest.Digest) {
	now := s.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.images[d]; i != nil {
		i.open--
		_ = os.Chtimes(s.path(d), now, now) // it may be removed a little earlier, if not
	}
}

// used is the disk that images take, whole ones and those that are fetched. s.mu is held.
func (s *Store) used() (n int64) {
	for _, i := range s.images {
		n += i.Sum.Bytes
	}
	for _, f := range s.running {
		if !f.over() {
			n += f.bytes
		}
	}
	return n
}

// sweep takes images out of use that the config has not named for a while and no process has open, and more of those, the
// oldest first, where bytes are needed. It returns where they lie now, to be discarded without the lock. s.mu is held.
func (s *Store) sweep(need int64) (old []string) {
	named := map[digest.Digest]bool{}
	for _, text := range s.set.References {
		if ref, err := Parse(text); err == nil {
			named[s.lead(ref)] = true
		}
	}
	age := map[digest.Digest]time.Time{}
	for d, i := range s.images {
		if named[d] || i.open > 0 {
			continue
		}
		age[d] = i.At
		if info, err := os.Stat(s.path(d)); err == nil && info.ModTime().After(i.At) {
			age[d] = info.ModTime()
		}
	}
	for _, d := range slices.SortedFunc(maps.Keys(age), func(a, b digest.Digest) int { return age[a].Compare(age[b]) }) {
		if s.Now().Sub(age[d]) < keep && (need == 0 || s.used()+need <= s.set.Total) {
			continue
		}
		to, err := os.MkdirTemp(s.Dir, oldPrefix)
		if err == nil {
			err = os.Rename(s.path(d), filepath.Join(to, rootName)) // in one step
		}
		if err != nil {
			s.Log.Warn("an image that is not needed any more cannot be removed", "digest", d, "error", err)
			continue
		}
		delete(s.images, d)
		old = append(old, to)
		s.Log.Info("an image that is not needed any more was removed", "digest", d)
	}
	return old
}

func (s *Store) discard(old []string) {
	for _, at := range old {
		if err := os.RemoveAll(at); err != nil {
			s.Log.Warn("what is left of an image cannot be removed; the next start tries again", "error", err)
		}
	}
}
