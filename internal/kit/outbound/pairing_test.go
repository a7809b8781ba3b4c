package outbound

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// pairs are two ends over files, and a clock that both have.
type pairs struct {
	t       *testing.T
	dir     string
	clock   atomic.Pointer[time.Time]
	log     bytes.Buffer
	far     *Pairing
	near    *Pairing
	wire    http.RoundTripper
	address string
}

func newPairs(t *testing.T) *pairs {
	t.Helper()
	p := &pairs{t: t, dir: t.TempDir()}
	now := time.Now()
	p.clock.Store(&now)
	for _, name := range []string{"gateway", "broker"} {
		if err := MakePin(p.dir, name, now); err != nil {
			t.Fatal(err)
		}
	}
	p.far, p.near = p.end("broker", "gateway"), p.end("gateway", "broker")
	s := httptest.NewUnstartedServer(p.far.Guard(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })))
	s.EnableHTTP2, s.TLS, s.Config.ErrorLog = true, p.far.Listening(), slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	s.StartTLS()
	t.Cleanup(s.Close)
	p.address = s.Listener.Addr().String()
	p.wire = p.near.To(p.address)
	return p
}

func (p *pairs) end(own, other string) *Pairing {
	p.t.Helper()
	// Each side has a file of its own of the other one's certificate.
	p.put(own+"-knows.crt", p.file(other+".crt"))
	e, err := Pair(filepath.Join(p.dir, own+".crt"), filepath.Join(p.dir, own+".key"), filepath.Join(p.dir, own+"-knows.crt"), func() time.Time { return *p.clock.Load() },
		slog.New(slog.NewTextHandler(&p.log, nil)))
	if err != nil {
		p.t.Fatal(err)
	}
	return e
}

func (p *pairs) file(name string) []byte {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil {
		p.t.Fatal(err)
	}
	return text
}

func (p *pairs) put(name string, text []byte) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), text, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pairs) later(d time.Duration) {
	now := p.clock.Load().Add(d)
	p.clock.Store(&now)
}

func (p *pairs) speaks(wire http.RoundTripper, want bool, when string) {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, "https://broker/", nil)
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := wire.RoundTrip(r)
	ok := err == nil && resp.StatusCode == http.StatusOK
	if err == nil {
		_ = resp.Body.Close()
	}
	if ok != want {
		p.t.Errorf("%s: speaks: %t (%v)", when, ok, err)
	}
}

// TestPairing: certificates of either side are changed while both run, in the order that the docs say, and at each step they speak, at once
// and on new connections; what is not pinned any more is not heard, on the connection that it has either.
func TestPairing(t *testing.T) {
	for _, side := range []struct{ own, other string }{{"gateway", "broker"}, {"broker", "gateway"}} {
		t.Run(side.own, func(t *testing.T) {
			p := newPairs(t)
			p.speaks(p.wire, true, "before")
			before := p.near.To(p.address)
			p.speaks(before, true, "before, on a connection of its own")
			fresh := t.TempDir()
			if err := MakePin(fresh, side.own, time.Now()); err != nil {
				t.Fatal(err)
			}
			read := func(name string) []byte {
				text, err := os.ReadFile(filepath.Join(fresh, name))
				if err != nil {
					t.Fatal(err)
				}
				return text
			}
			knows := side.other + "-knows.crt"
			p.put(knows, append(p.file(knows), read(side.own+".crt")...))
			p.speaks(p.wire, true, "with both known")
			p.put(side.own+".crt", read(side.own+".crt"))
			p.later(6 * time.Second)
			p.speaks(p.wire, true, "with the certificate there, and not its key yet")
			p.speaks(p.near.To(p.address), true, "with the certificate alone, on a new connection")
			own := p.near
			if side.own == "broker" {
				own = p.far
			}
			if own.Trouble() == nil {
				t.Error("files that do not belong together are no trouble")
			}
			p.put(side.own+".key", read(side.own+".key"))
			p.later(6 * time.Second)
			if err := own.Trouble(); err != nil {
				t.Error(err)
			}
			p.speaks(p.wire, true, "with the new one")
			p.speaks(p.near.To(p.address), true, "with the new one, on a new connection")
			p.put(knows, read(side.own+".crt"))
			p.later(6 * time.Second)
			p.speaks(p.wire, true, "with the new one alone")
			p.speaks(p.near.To(p.address), true, "with the new one alone, on a new connection")
		})
	}
}

// TestPairingEnds: whose pin is taken away is not heard on the connection that he has; what nobody knows yet is looked up in the file at
// once; and the end of a certificate is told before.
func TestPairingEnds(t *testing.T) {
	p := newPairs(t)
	other := t.TempDir()
	if err := MakePin(other, "gateway", time.Now()); err != nil {
		t.Fatal(err)
	}
	second, err := ReadPins(filepath.Join(other, "gateway.crt"), filepath.Join(other, "gateway.key"), filepath.Join(p.dir, "broker.crt"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	stranger := second.To(p.address)
	p.speaks(stranger, false, "nobody knows it")
	text, err := os.ReadFile(filepath.Join(other, "gateway.crt"))
	if err != nil {
		t.Fatal(err)
	}
	was := p.file("broker-knows.crt")
	p.put("broker-knows.crt", append(text, was...))
	p.speaks(stranger, true, "it was written down a moment ago")
	p.put("broker-knows.crt", was)
	p.later(6 * time.Second)
	p.speaks(stranger, false, "it was taken out, on the connection that it has")
	p.speaks(p.wire, true, "the other one goes on")

	p.far.Tell()
	if strings.Contains(p.log.String(), "ends soon") {
		t.Error(p.log.String())
	}
	p.later(pinLife - 59*24*time.Hour)
	p.far.Tell()
	if strings.Count(p.log.String(), "ends soon") != 2 {
		t.Errorf("two certificates end soon: %s", p.log.String())
	}
	p.later(60 * 24 * time.Hour)
	p.far.Tell()
	if strings.Count(p.log.String(), "has ended") != 2 {
		t.Errorf("two certificates have ended: %s", p.log.String())
	}
	p.speaks(p.wire, false, "both have ended")
}
