package hosted

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/hosted/image"
	"frontdesk.dev/frontdesk/internal/hosted/sandbox"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/mcp"
	"frontdesk.dev/frontdesk/internal/kit/redact"
)

// process is one running server of one caller.
type process struct {
	hosts   *Hosts
	key     key
	dialect dialect
	server  *catalog.Server
	uid     int
	log     *ring
	started time.Time

	ready  chan struct{} // closed when it can serve, or failed says why not; what follows is set by then
	failed error
	card   *Card
	cell   *sandbox.Cell
	image  *image.Image // nil where it is a program of this machine
	hide   *redact.Redactor
	took   time.Duration
	legacy bool   // it speaks with a handshake
	hello  []byte // the result of its handshake, as it came

	ending
	over atomic.Bool
	gone chan struct{} // closed when everything of it is

	writing sync.Mutex // one line at a time

	mu       sync.Mutex
	users    int // guarded by mu, as is what follows
	used     time.Time
	last     int64
	calls    map[int64]*call
	asked    map[string]bool // ids of what it asks its client
	sessions map[string]*outbox
	nonsense int
}

// ending is why a process ended that did not do so by itself.
type ending struct {
	wanted atomic.Pointer[string] // why it was asked to
	killed atomic.Pointer[string] // what it did for which it was killed
}

// start makes the process, and closes ready in any case.
func (p *process) start(ctx context.Context, a Ask) {
	defer close(p.ready)
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(p.hosts.Patience, patience))
	defer cancel()
	err := p.fetch(ctx)
	if err == nil {
		p.card, err = a.Open(ctx)
	}
	if err != nil {
		p.failed = err
		p.over.Store(true)
		p.leave()
		p.hosts.ended(p, true, "")
		close(p.gone)
		return
	}
	card := p.card
	p.hide = redact.New([][]byte{[]byte(card.Keycard.Expose())})
	if err := p.exec(); err != nil {
		why := "it cannot be started: " + err.Error()
		p.fail(why)
		p.killed.Store(&why)
		p.finish(nil)
		return
	}
	if err := p.greet(ctx); err != nil {
		p.undone(err)
	}
	p.took = p.hosts.Now().Sub(p.started)
}

// undone ends a process that could not be greeted. What it said last, and how it ended if it did, is there when the operator is told.
func (p *process) undone(err error) {
	why := "it was started, but " + err.Error()
	if errors.Is(err, errOver) {
		select {
		case <-p.gone:
		case <-time.After(stopLimit): // it closed its input, and lives on
		}
	}
	p.kill(why)
	<-p.gone
	if how := *p.killed.Load(); how != why {
		why = "it was started, but " + how
	} else if end := p.cell.Wait(); errors.Is(err, errOver) && end != nil {
		why += ": " + end.Error()
	}
	p.fail(why)
	p.hosts.because(p.key.owner, why)
}

// kill ends the process for something that it did. The first reason counts.
func (p *process) kill(why string) {
	p.killed.CompareAndSwap(nil, &why)
	p.cell.Kill()
}

// fetch gets the image that the program is in, if it is in one. Half of the patience is for that: the server has to answer in the
// other. It goes on without us where it takes longer, so who calls again may find it.
func (p *process) fetch(ctx context.Context) (err error) {
	ref := p.server.Program.Image
	if ref == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(p.hosts.Patience, patience)/2)
	defer cancel()
	if p.image, err = p.hosts.Images.Open(ctx, ref); err == nil {
		return nil
	}
	why := fault.Message(err)
	if cause := errors.Unwrap(err); cause != nil {
		why += ": " + cause.Error()
	}
	p.log.add(p.hosts.Now(), "frontdesk: "+ref+": "+why)
	return fault.Later(p.server.Title+" does not run: "+fault.Message(err), fault.RetryAfter(err), err)
}

// leave lets go of the image.
func (p *process) leave() {
	if p.image != nil {
		p.image.Close()
	}
}

// fail tells the operator why, with what the server said last; callers are told that it does not run.
func (p *process) fail(why string) {
	p.failed = fault.Later(p.server.Title+" does not run; an operator sees why with `frontdesk servers logs "+string(p.server.Name)+"`", firstWait, errors.New(why))
	p.log.add(p.hosts.Now(), "frontdesk: "+why)
	p.hosts.Log.Warn("a hosted server does not start", "tenant", p.key.tenant, "server", p.key.server, "user", p.key.principal, "why", why, "said", p.log.last(5))
}

// exec builds the sandbox and runs the program in it.
func (p *process) exec() error {
	prog := p.server.Program
	setup := sandbox.Setup{Read: prog.Read, UID: p.uid, Scratch: prog.Scratch, Memory: prog.Memory, Processes: prog.Processes, CPU: prog.CPU, Files: openFiles, Write: map[string]string{}, Names: p.hosts.Catalog.Snapshot().Names(p.server)}
	for _, m := range prog.Require {
		setup.Require = append(setup.Require, sandbox.Measure(m))
	}
	if p.hosts.CA != nil {
		if pem := p.hosts.CA(); len(pem) > 0 {
			setup.Write[caFile] = string(pem)
		}
	}
	argv, base := prog.Argv, []string(nil)
	if p.image != nil {
		var err error
		if argv, err = p.image.Argv(argv, prog.Args); err != nil {
			return err
		}
		base = p.image.Config.Env
		setup.Root, setup.Dir, setup.Inside, setup.Owner = p.image.Root, p.image.Config.Dir, p.image.Config.UID, p.image.Owner
		setup.Require = append(setup.Require, sandbox.Files) // there is no other way to have it
	}
	cell, err := sandbox.Build(setup)
	if err != nil {
		return err
	}
	p.cell = cell
	if cell.ReadOnly != "" {
		p.log.add(p.hosts.Now(), "frontdesk: it can write to /tmp and HOME alone: the image's other files cannot have a layer over them here: "+cell.ReadOnly)
	}
	go p.hosts.Serve(cell.Listener, p.card.Act)
	if cell.Direct != nil {
		go p.hosts.ServeDirect(cell.Direct, p.card.Act)
	}
	if err := cell.Run(argv, p.environment(base)); err != nil {
		cell.Kill()
		return err
	}
	var pumps sync.WaitGroup
	pumps.Go(func() {
		if err := lines(cell.Stdout, maxMessage, p.heard); errors.Is(err, bufio.ErrTooLong) {
			p.kill("a message on its stdout is longer than 16 MiB")
		}
	})
	pumps.Go(func() { p.keep(cell.Stderr) })
	go func() {
		err := cell.Wait()
		// Where there are no namespaces, something that it has started may live on and hold these.
		late := time.AfterFunc(stopLimit, func() { _, _ = cell.Stdout.Close(), cell.Stderr.Close() })
		pumps.Wait()
		late.Stop()
		p.finish(err)
	}()
	return nil
}

// maxKept is how many bytes of stderr are looked at in each keptIn: who writes more is not to cost more.
const (
	maxKept = 128 << 10
	keptIn  = 100 * time.Millisecond
)

// keep reads stderr to its end, and keeps its last lines for the operator, without the keycard.
func (p *process) keep(stderr io.Reader) {
	begun, kept, lost, losing := time.Time{}, 0, 0, false
	say := func(now time.Time) {
		if lost > 0 {
			p.log.add(now, fmt.Sprintf("frontdesk: it wrote too much at once: %d bytes before this were left out", lost))
		}
		lost = 0
	}
	pieces(stderr, func(line []byte, cut int) {
		now := p.hosts.Now()
		if now.Sub(begun) >= keptIn {
			if !losing {
				say(now)
			}
			begun, kept, losing = now, 0, false
		}
		if kept+len(line) > maxKept {
			losing, lost = true, lost+len(line)+cut
			return
		}
		kept, lost = kept+len(line), lost+cut
		p.log.add(now, string(p.hide.Bytes(line)))
	})
	say(p.hosts.Now())
}

// caFile is where a server finds the authority that opens its HTTPS.
const caFile = "/run/frontdesk/ca.pem"

// environment is all that the program is told: what its image says (NAME=value), over that what is so in a sandbox, and over
// that what the config says. Nothing of our own environment is in it.
func (p *process) environment(image []string) []string {
	home := p.cell.Home
	env := map[string]string{"PATH": sandbox.SearchPath, "LANG": "C.UTF-8"}
	for _, v := range image {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	maps.Copy(env, map[string]string{"HOME": home, "TMPDIR": home, "USER": "server", "LOGNAME": "server", "NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"})
	base := "http://" + p.cell.Address
	if p.hosts.CA != nil && len(p.hosts.CA()) > 0 {
		for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"} {
			env[name] = base
		}
		for _, name := range []string{"NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO"} {
			env[name] = p.cell.Path(caFile)
		}
		env["NODE_USE_ENV_PROXY"] = "1"
	}
	if p.key.tenant != identity.DefaultTenant {
		base += "/t/" + string(p.key.tenant)
	}
	fill := []string{"{keycard}", p.card.Keycard.Expose()}
	for _, n := range p.server.Needs {
		fill = append(fill, "{egress:"+string(n.Upstream)+"}", base+"/egress/"+string(n.Upstream))
	}
	r := strings.NewReplacer(fill...)
	for name, v := range p.server.Program.Env {
		env[name] = r.Replace(v)
	}
	l := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		l = append(l, name+"="+env[name])
	}
	return l
}

// end stops the process: gently where it still may speak, at once where its user's access is over.
func (p *process) end(why string) {
	p.wanted.CompareAndSwap(nil, &why)
	<-p.ready
	if p.cell == nil {
		return
	}
	if p.card.Valid() {
		p.cell.Terminate()
		select {
		case <-p.gone:
			return
		case <-time.After(stopLimit):
		}
	}
	p.cell.Kill()
	<-p.gone
}

// finish is the one end of every process that had a card: calls are answered, its act is closed.
func (p *process) finish(err error) {
	p.over.Store(true)
	why, wanted := "it ended by itself", p.wanted.Load() != nil
	switch killed := p.killed.Load(); {
	case wanted:
		why = *p.wanted.Load()
	case killed != nil:
		why = *killed
	case err != nil:
		why = "it ended by itself: " + err.Error()
	}
	p.mu.Lock()
	calls := p.calls
	p.calls = map[int64]*call{}
	p.mu.Unlock()
	for _, c := range calls {
		c.finish(mcp.ErrorMessage(c.id, mcp.CodeUnavailable, p.server.Title+" ended while it worked on this. Nothing is known of what it did.", nil))
	}
	p.closeCard(wanted, why)
	p.leave()
	p.hosts.ended(p, wanted, why)
	if !wanted && p.isReady() { // else fail says it
		p.log.add(p.hosts.Now(), "frontdesk: "+why)
		p.hosts.Log.Warn("a hosted server ended", "tenant", p.key.tenant, "server", p.key.server, "user", p.key.principal, "why", why, "said", p.log.last(5))
	}
	close(p.gone)
}

// send writes one message. A server that does not read is ended: half a line would be garbage for ever.
func (p *process) send(msg []byte) error {
	p.writing.Lock()
	defer p.writing.Unlock()
	if f, ok := p.cell.Stdin.(interface{ SetWriteDeadline(time.Time) error }); ok {
		_ = f.SetWriteDeadline(time.Now().Add(writeLimit)) // where it cannot be set, the process's end unblocks us
	}
	if _, err := p.cell.Stdin.Write(mcp.Line(msg)); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.kill(fmt.Sprintf("it has not read its input for %s", writeLimit))
		}
		return fault.New(fault.Unavailable, p.server.Title+" has ended", err)
	}
	return nil
}

const writeLimit = 10 * time.Second
