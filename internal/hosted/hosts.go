package hosted

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"frontdesk.dev/frontdesk/internal/audit"
	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

// acquire returns the process of this key, started if there is none that can serve, with one user more: release it.
// Errors: of Ask.Open; fault.Unavailable where it does not start, or is not tried again yet; fault.RateLimited at a cap.
func (h *Hosts) acquire(ctx context.Context, a Ask, k key, d dialect) (*process, error) {
	p, fresh, err := h.find(a, k, d)
	if err != nil {
		return nil, err
	}
	if fresh {
		// Whoever else waits for it must not lose it because this caller went away.
		p.start(context.WithoutCancel(ctx), a)
	}
	select {
	case <-p.ready:
	case <-ctx.Done():
		p.release()
		return nil, fault.New(fault.Unavailable, a.Server.Title+" did not start in time", ctx.Err())
	}
	if p.failed != nil {
		p.release()
		return nil, p.failed
	}
	return p, nil
}

// find takes the running process, or makes the place for a new one.
func (h *Hosts) find(a Ask, k key, d dialect) (p *process, fresh bool, err error) {
	now := h.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.procs == nil {
		h.procs, h.streams, h.failures, h.logs, h.uids = map[key]*process{}, map[string]*outbox{}, map[owner]*failure{}, map[owner]*ring{}, map[int]bool{}
	}
	if h.closed {
		return nil, false, fault.New(fault.Unavailable, "Frontdesk is stopping", nil)
	}
	if p := h.procs[k]; p != nil {
		if p.serves(a.Server.Program, now) {
			p.use(now)
			return p, false, nil
		}
		h.retire(p, "replaced by a new one")
	}
	if f := h.failures[k.owner]; f != nil && now.Before(f.until) {
		wait := f.until.Sub(now)
		return nil, false, fault.Later(fmt.Sprintf("%s does not run; it is tried again in %s. An operator sees why with `frontdesk servers logs %s`", a.Server.Title, wait.Round(time.Second), a.Server.Name), wait, nil)
	}
	if err := h.room(k.owner); err != nil {
		return nil, false, err
	}
	uid, err := h.freeUID()
	if err != nil {
		return nil, false, err
	}
	p = &process{hosts: h, key: k, dialect: d, server: a.Server, log: h.logOf(k.owner), ready: make(chan struct{}), gone: make(chan struct{}), calls: map[int64]*call{}, asked: map[string]bool{},
		sessions: map[string]*outbox{}, uid: uid, started: now}
	h.procs[k] = p
	p.use(now)
	return p, true, nil
}

// room makes sure that one process more may run; where it may not, an idle one of the same user goes, or of anybody.
func (h *Hosts) room(o owner) error {
	mine := func(p *process) bool { return p.key.tenant == o.tenant && p.key.principal == o.principal }
	if n := h.count(mine); n >= h.Per && !h.evict(mine) {
		return fault.New(fault.RateLimited, fmt.Sprintf("%d servers run for you already, and all are at work; try again when one has finished", n), nil)
	}
	if n := h.count(func(*process) bool { return true }); n >= h.Max && !h.evict(func(*process) bool { return true }) {
		return fault.Later("no further server can be started here: all that may run are at work; try again later", 5*time.Second, nil)
	}
	return nil
}

func (h *Hosts) count(which func(*process) bool) (n int) {
	for _, p := range h.procs {
		if which(p) {
			n++
		}
	}
	return n
}

// evict ends the process that has been idle for longest.
func (h *Hosts) evict(which func(*process) bool) bool {
	var oldest *process
	for _, p := range h.procs {
		if used, calls := p.usage(); which(p) && calls == 0 {
			if oldest == nil {
				oldest = p
			} else if u, _ := oldest.usage(); used.Before(u) {
				oldest = p
			}
		}
	}
	if oldest != nil {
		h.retire(oldest, "made room for another")
	}
	return oldest != nil
}

// retire takes a process out of use; it ends when its calls have. h.mu is held.
func (h *Hosts) retire(p *process, why string) {
	if h.procs[p.key] == p {
		delete(h.procs, p.key)
	}
	go p.drain(why)
}

func (h *Hosts) logOf(o owner) *ring {
	if r := h.logs[o]; r != nil {
		return r
	}
	if len(h.logs) >= maxLogs {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(h.logs)), func(a, b owner) int { return h.logs[a].used.Compare(h.logs[b].used) })
		delete(h.logs, oldest)
	}
	r := &ring{used: h.Now()}
	h.logs[o] = r
	return r
}

// freeUID is a user id that no other process here has. Where all are taken there is none: 0 would be our own.
func (h *Hosts) freeUID() (int, error) {
	for uid := firstUID; uid <= lastUID; uid++ {
		if !h.uids[uid] {
			h.uids[uid] = true
			return uid, nil
		}
	}
	return 0, fault.Later("no further server can be started here: all user ids are taken; try again later", 5*time.Second, nil)
}

// ended is told by a process that it is over. What it was not asked to is counted, so that a server that cannot live is
// not started again and again.
func (h *Hosts) ended(p *process, wanted bool, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.procs[p.key] == p {
		delete(h.procs, p.key)
	}
	delete(h.uids, p.uid)
	if wanted {
		delete(h.failures, p.key.owner)
		return
	}
	f := h.failures[p.key.owner]
	if now := h.Now(); f == nil || now.Sub(p.started) > settled {
		f = &failure{}
		h.failures[p.key.owner] = f
	}
	f.times++
	f.until, f.why = h.Now().Add(min(firstWait<<min(f.times-1, 10), longest)), why
}

// because says better why the last one failed.
func (h *Hosts) because(o owner, why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if f := h.failures[o]; f != nil {
		f.why = why
	}
}

// Run looks after the processes until ctx ends, and then ends them all.
func (h *Hosts) Run(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			h.Stop()
			return nil
		case <-t.C:
			h.look()
		}
	}
}

// look ends what must end: at once where the user's access has; when their calls have, those that are idle, too old, or no
// longer in the config.
func (h *Hosts) look() {
	now := h.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.procs {
		if !p.isReady() {
			continue
		}
		used, calls := p.usage()
		s := h.Catalog.Server(p.key.tenant, p.key.server)
		switch {
		case !p.card.Valid():
			delete(h.procs, p.key)
			go p.end("the user's access has ended")
		case s == nil || !p.serves(s.Program, now):
			h.retire(p, "the config has changed, or its keycard is about to expire")
		case p.image != nil && !p.image.Current():
			h.retire(p, "its image has been replaced")
		case calls == 0 && now.Sub(used) > s.Program.Idle:
			h.retire(p, "idle")
		}
	}
	maps.DeleteFunc(h.failures, func(_ owner, f *failure) bool { return now.Sub(f.until) > 2*longest })
	maps.DeleteFunc(h.streams, func(_ string, o *outbox) bool { return o.forgotten(now) })
}

// Wake looks at once: somebody's access has changed.
func (h *Hosts) Wake() { h.look() }

// Stop ends every process, and lets none be started any more.
func (h *Hosts) Stop() {
	h.mu.Lock()
	h.closed = true
	all := slices.Collect(maps.Values(h.procs))
	h.procs = map[key]*process{}
	h.mu.Unlock()
	for _, p := range all {
		go p.end("Frontdesk is stopping")
	}
	for _, p := range all {
		<-p.gone
	}
}

// States lists the running processes, of one server or of all (""), and behind them whose last one failed.
func (h *Hosts) States(t identity.Tenant, server catalog.ServerName) []State {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := []State{}
	for k, p := range h.procs {
		if k.tenant != t || server != "" && k.server != server || !p.isReady() {
			continue
		}
		used, calls := p.usage()
		s := State{Tenant: k.tenant, Server: k.server, User: k.principal, Client: k.client, Pid: p.cell.Pid(), Act: p.card.Act, Started: p.started, Took: p.took, Used: used, Calls: calls, Missing: map[string]string{}}
		if p.image != nil {
			s.Image = string(p.image.Digest)
		}
		for m, why := range p.cell.Report {
			s.Missing[string(m)] = why
		}
		l = append(l, s)
	}
	slices.SortFunc(l, func(a, b State) int { return a.Started.Compare(b.Started) })
	var failing []State
	for o, f := range h.failures {
		runs := slices.ContainsFunc(l, func(s State) bool { return s.Server == o.server && s.User == o.principal && s.Client == o.client })
		if o.tenant == t && (server == "" || o.server == server) && !runs {
			failing = append(failing, State{Tenant: o.tenant, Server: o.server, User: o.principal, Client: o.client, Failing: f.why, Until: f.until})
		}
	}
	slices.SortFunc(failing, func(a, b State) int {
		return cmp.Or(cmp.Compare(a.Server, b.Server), cmp.Compare(a.User, b.User), cmp.Compare(a.Client, b.Client))
	})
	return append(l, failing...)
}

// ImageStates lists the servers that have an image, by name.
func (h *Hosts) ImageStates(t identity.Tenant) []ImageState {
	l := []ImageState{}
	for name, s := range h.Catalog.Snapshot().Servers[t] {
		if s.Program != nil && s.Program.Image != "" {
			l = append(l, ImageState{name, h.Images.States()[s.Program.Image]})
		}
	}
	slices.SortFunc(l, func(a, b ImageState) int { return cmp.Compare(a.Server, b.Server) })
	return l
}

// Pull looks anew where the image of a server leads, and returns when that is here; nil where the server has none.
func (h *Hosts) Pull(ctx context.Context, t identity.Tenant, name catalog.ServerName) (*ImageState, error) {
	s := h.Catalog.Server(t, name)
	if s == nil || s.Program == nil || s.Program.Image == "" {
		return nil, nil
	}
	st, err := h.Images.Refresh(ctx, s.Program.Image)
	return &ImageState{name, st}, err
}

// Logs returns what the processes of a server printed last, of one principal or of all ("").
func (h *Hosts) Logs(t identity.Tenant, server catalog.ServerName, principal string) []Log {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := []Log{}
	for o, r := range h.logs {
		if o.tenant != t || o.server != server || principal != "" && o.principal != principal {
			continue
		}
		g := Log{User: o.principal, Client: o.client, Lines: r.last(0)}
		if f := h.failures[o]; f != nil && h.Now().Before(f.until) {
			g.Failing = f.why
		}
		l = append(l, g)
	}
	slices.SortFunc(l, func(a, b Log) int { return len(a.User) - len(b.User) })
	return l
}

// serves reports whether the process may take a call that begins now.
func (p *process) serves(program *catalog.Program, now time.Time) bool {
	if !p.isReady() {
		return !p.over.Load() // it is being started: with this very config
	}
	// A call may last; the keycard must outlive it. Short cards, of services, are used for most of their life.
	life := p.card.Expires.Sub(p.started)
	margin := min(p.server.CallLimit, life/4)
	return !p.over.Load() && p.failed == nil && p.card.Valid() && now.Before(p.card.Expires.Add(-margin)) && reflect.DeepEqual(program, p.server.Program)
}

func (p *process) isReady() bool {
	select {
	case <-p.ready:
		return p.failed == nil
	default:
		return false
	}
}

func (p *process) use(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users++
	p.used = now
}

func (p *process) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.users--
	p.used = p.hosts.Now()
}

func (p *process) usage() (used time.Time, users int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.used, p.users
}

// drain ends the process when nobody uses it any more, or after the longest that a call may last.
func (p *process) drain(why string) {
	deadline := time.NewTimer(p.server.CallLimit)
	defer deadline.Stop()
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for {
		if _, users := p.usage(); users == 0 {
			break
		}
		select {
		case <-p.gone:
			return
		case <-deadline.C:
			p.end(why)
			return
		case <-t.C:
		}
	}
	p.end(why)
}

// closeCard records how the process's own act ended.
func (p *process) closeCard(wanted bool, why string) {
	if p.card == nil {
		return
	}
	r := audit.ResultOK
	if !wanted {
		r = audit.ResultFailed
	}
	p.card.Close(r, why)
}
