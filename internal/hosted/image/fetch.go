package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// fetches are the fetches of a store. What is in them is guarded by the store's lock.
type fetches struct {
	life    context.Context   // of Run, which they end with; nil before it
	running map[string]*fetch // by reference; one that has failed stays, so that it is not tried at once again
	slots   chan struct{}     // how many may be at work
	wake    chan struct{}     // to look now
	all     sync.WaitGroup
}

// fetch is one image on its way.
type fetch struct {
	started time.Time
	done    chan struct{} // closed when it is over
	err     error         // why it is not there; what follows is guarded by the store's lock
	bytes   int64         // written so far
	times   int           // failed in a row
	until   time.Time     // no other one before
}

const (
	atOnce     = 4
	fetchLimit = 30 * time.Minute
	firstWait  = time.Second // after the first failure in a row; doubled for each further one
	longest    = time.Minute
)

func (f *fetches) poke() {
	select {
	case f.poked() <- struct{}{}:
	default: // it will look anyway
	}
}

func (f *fetches) poked() chan struct{} {
	if f.wake == nil {
		f.wake = make(chan struct{}, 1)
	}
	return f.wake
}

func (f *fetch) over() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// wait waits for the end of a fetch.
func (f *fetch) wait(ctx context.Context, now func() time.Time) error {
	select {
	case <-f.done:
	case <-ctx.Done():
		return fault.Later("its image is still being fetched; try again in a while", 5*time.Second, nil)
	}
	if f.err == nil {
		return nil
	}
	return fault.Later("its image is not here", max(f.until.Sub(now()), firstWait), f.err)
}

// fetch returns the fetch of a reference that is at work, or that has failed and is not tried again yet, else a new one. s.mu is
// held.
func (s *Store) fetch(ref Reference) *fetch {
	last := s.running[ref.String()]
	if last != nil && (!last.over() || s.Now().Before(last.until)) {
		return last
	}
	return s.begin(ref, last, false)
}

// again is a fetch that asks where the reference leads now. s.mu is held.
func (s *Store) again(ref Reference) *fetch {
	last := s.running[ref.String()]
	if last != nil && !last.over() {
		return last
	}
	return s.begin(ref, last, true)
}

func (s *Store) begin(ref Reference, last *fetch, anew bool) *fetch {
	f := &fetch{started: s.Now(), done: make(chan struct{})}
	if last != nil {
		f.times = last.times
	}
	if s.running == nil {
		s.running, s.slots = map[string]*fetch{}, make(chan struct{}, atOnce)
	}
	s.running[ref.String()] = f
	if l := s.leads[ref.String()]; ref.Tag != "" && l.Digest != "" && !anew {
		ref.Digest = l.Digest // a tag is asked once where it leads
	}
	life := s.life
	if life == nil {
		life = context.Background()
	}
	s.all.Go(func() {
		ctx, cancel := context.WithTimeoutCause(life, fetchLimit, fmt.Errorf("it is not here after %s", fetchLimit))
		defer cancel()
		s.slots <- struct{}{}
		err := s.bring(ctx, ref, f)
		<-s.slots
		s.over(ref, f, err)
	})
	return f
}

// over says how a fetch ended.
func (s *Store) over(ref Reference, f *fetch, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := ref.named().String()
	if err != nil {
		f.times++
		f.err, f.until = err, s.Now().Add(min(firstWait<<min(f.times-1, 10), longest))
		s.Log.Warn("an image could not be had", "image", text, "why", err.Error(), "next", f.until.Sub(s.Now()).String())
	} else {
		delete(s.running, text)
	}
	close(f.done)
}

// named is the reference as the config has it, where a tag's digest was known.
func (r Reference) named() Reference {
	if r.Tag != "" {
		r.Digest = ""
	}
	return r
}

// bring finds an image, lays it out beside the others, and gives it its name when it is whole.
func (s *Store) bring(ctx context.Context, ref Reference, f *fetch) error {
	s.mu.Lock()
	set := s.set
	s.mu.Unlock()
	stamp := stamp(ref) // before it is read: what changes meanwhile is read again
	from, end, err := find(ctx, s.HTTP, ref, set, cmp.Or(s.Stall, stall))
	if err != nil {
		return err
	}
	defer end()
	s.mu.Lock()
	have := s.images[from.digest] != nil
	s.mu.Unlock()
	if !have {
		if err := s.layOut(ctx, from, f, set.Limits); err != nil {
			return err
		}
	}
	if ref.named().Digest != "" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	text, l := ref.named().String(), lead{Digest: from.digest, At: s.Now(), stamp: stamp}
	if before := s.leads[text]; before.Digest != l.Digest {
		s.Log.Info("what an image's name leads to", "image", text, "digest", l.Digest, "before", before.Digest)
	}
	s.leads[text] = l
	return s.saveLeads()
}

// find looks into a file or asks a registry. Call end when nothing more is read.
func find(ctx context.Context, door http.RoundTripper, ref Reference, set Settings, stall time.Duration) (from *found, end func(), err error) {
	end = func() {}
	if ref.File == "" {
		r := &registry{Registry: set.Registries[ref.Registry], http: door, name: ref.Registry, repository: ref.Repository, stall: stall}
		if r.URL == nil {
			r.URL = Origin(ref.Registry)
		}
		from, err = r.find(ctx, ref, set.Limits)
		return from, end, err
	}
	a, err := openArchive(ref.File)
	if err != nil {
		return nil, end, err
	}
	end = func() { _ = a.Close() } // it was only read
	if from, err = findIn(ctx, a, set.Limits); err != nil {
		end()
	}
	return from, end, err
}

// Look says where a reference leads and how many bytes its layers are on their way, without keeping anything. Errors are sentences
// for the operator.
func Look(ctx context.Context, door http.RoundTripper, text string, set Settings) (d digest.Digest, size int64, err error) {
	ref, err := Parse(text)
	if err != nil {
		return "", 0, err
	}
	from, end, err := find(ctx, door, ref, set, stall)
	if err != nil {
		return "", 0, err
	}
	defer end()
	if _, _, _, err := from.read(); err != nil {
		return "", 0, err
	}
	for _, l := range from.layers {
		size += l.Size
	}
	return from.digest, size, nil
}

// layOut makes the tree, and what stands beside it, durable before it has its name: whatever happens meanwhile, nothing half is
// found later.
func (s *Store) layOut(ctx context.Context, from *found, f *fetch, limits Bounds) (err error) {
	tmp, err := os.MkdirTemp(s.Dir, tmpPrefix)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	root := filepath.Join(tmp, rootName)
	if err := errors.Join(os.Mkdir(root, 0o755), os.Chmod(root, 0o755)); err != nil {
		return err
	}
	config, size, err := from.unpack(ctx, root, limits, func(n int64) error { return s.wrote(f, n) })
	if err != nil {
		return err
	}
	if err := give(root, owner()); err != nil {
		return err
	}
	i := &stored{saved: saved{Form: form, Digest: from.digest, Arch: runtime.GOARCH, Owner: owner(), Config: config, Sum: size, At: s.Now()}}
	text, err := json.Marshal(i.saved)
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(filepath.Join(tmp, savedName), text, 0o600), syncAll(tmp)); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.images[i.Digest] != nil { // under another name it was quicker
		return os.RemoveAll(tmp)
	}
	if err := errors.Join(os.Rename(tmp, s.path(i.Digest)), syncAll(s.Dir)); err != nil {
		return err
	}
	s.images[i.Digest] = i
	f.bytes = 0 // it counts as an image now
	s.Log.Info("an image is here", "digest", i.Digest, "bytes", size.Bytes, "files", size.Files, "took", s.Now().Sub(f.started).String())
	return nil
}

// wrote counts what a fetch is about to write, and makes room for it.
func (s *Store) wrote(f *fetch, n int64) error {
	s.mu.Lock()
	var old []string
	if s.used()+n > s.set.Total {
		old = s.sweep(n)
	}
	fits := s.used()+n <= s.set.Total
	if fits {
		f.bytes += n
	}
	s.mu.Unlock()
	s.discard(old)
	if !fits {
		return fmt.Errorf("there is no room for it: images may take %d MiB together (hosting: {images_mb: ...})", s.set.Total>>20)
	}
	return nil
}
