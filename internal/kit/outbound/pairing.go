package outbound

import (
	"bytes"
	"crypto/tls"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// Pairing are Pins that follow their files, so that certificates are changed while both sides run: a file that has changed is read
// within seconds, and at once when the other side shows a certificate that is not known. Files that do not belong together yet, as
// while they are being written, change nothing. What is no longer pinned is not heard any more, on old connections either. Safe for
// concurrent use.
type Pairing struct {
	cert, key, peer string
	now             func() time.Time
	log             *slog.Logger

	mu      sync.Mutex
	pins    Pins   // guarded by mu, as is what follows
	version int    // counts what the pins were
	seen    string // the files, as they were when they were read
	looked  time.Time
	trouble error // the files as they are cannot be used, and the pins are of before
}

// pairingEvery is how often the files are looked at.
const pairingEvery = 5 * time.Second

// Pair reads both ends from PEM files, as ReadPins does.
func Pair(cert, key, peer string, now func() time.Time, log *slog.Logger) (*Pairing, error) {
	p := &Pairing{cert: cert, key: key, peer: peer, now: now, log: log}
	p.seen, p.looked = p.stamp(), now()
	var err error
	p.pins, err = ReadPins(cert, key, peer, now)
	return p, err
}

// stamp tells whether a file has changed.
func (p *Pairing) stamp() string {
	var b []byte
	for _, name := range []string{p.cert, p.key, p.peer} {
		if info, err := os.Stat(name); err == nil {
			b = info.ModTime().AppendFormat(b, time.RFC3339Nano)
			b = append(b, byte(info.Size()), byte(info.Size()>>8), ' ')
		}
	}
	return string(b)
}

// current are the pins of now, and their number. They are read again where the files have changed; at once says that this cannot wait.
func (p *Pairing) current(atOnce bool) (Pins, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if !atOnce && now.Sub(p.looked) < pairingEvery {
		return p.pins, p.version
	}
	p.looked = now
	seen := p.stamp()
	if seen == p.seen && p.trouble == nil {
		return p.pins, p.version
	}
	fresh, err := ReadPins(p.cert, p.key, p.peer, p.now)
	if err != nil {
		if p.trouble == nil {
			p.log.Warn("the certificates between gateway and broker were changed and cannot be used as they are; those of before go on", "error", err)
		}
		p.trouble = err
		return p.pins, p.version
	}
	p.seen, p.trouble = seen, nil
	if !bytes.Equal(fresh.Own.Certificate[0], p.pins.Own.Certificate[0]) || !slices.Equal(fresh.Peers, p.pins.Peers) {
		p.pins, p.version = fresh, p.version+1
		p.log.Info("the certificates between gateway and broker were read anew", "own", p.cert, "known_of_the_other_side", len(fresh.Peers))
	}
	return p.pins, p.version
}

// Trouble says why the files as they are cannot be used; nil where they are.
func (p *Pairing) Trouble() error {
	p.current(false)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trouble
}

// verify holds what the other side shows against the pins; what they do not know is looked up in the file once more.
func (p *Pairing) verify(s tls.ConnectionState) error {
	pins, _ := p.current(false)
	if err := pins.verify(s); err == nil {
		return nil
	}
	pins, _ = p.current(true)
	return pins.verify(s)
}

// Listening is how the listening end speaks TLS.
func (p *Pairing) Listening() *tls.Config {
	base := p.pins.Listening()
	base.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pins, _ := p.current(false)
		c := pins.Listening()
		c.VerifyConnection = p.verify
		return c, nil
	}
	return base
}

// Guard serves whoever is still known: a connection outlives the pin by which it was made, its requests do not.
func (p *Pairing) Guard(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || p.verify(*r.TLS) != nil {
			w.Header().Set("Connection", "close") // GOAWAY, in HTTP/2
			http.Error(w, "the certificate of this connection is not pinned any more", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// To returns a transport to the listening end at host:port, as Pins.To does. Once a pin has changed, requests go by new connections.
func (p *Pairing) To(address string) http.RoundTripper { return &paired{pairing: p, address: address} }

type paired struct {
	pairing *Pairing
	address string

	mu      sync.Mutex
	at      *http.Transport // guarded by mu
	version int             // of the pins that at is made by; guarded by mu
}

func (t *paired) RoundTrip(r *http.Request) (*http.Response, error) {
	pins, version := t.pairing.current(false)
	t.mu.Lock()
	if t.at == nil || t.version != version {
		if t.at != nil {
			defer t.at.CloseIdleConnections() // what is open on others ends there
		}
		t.at, t.version = pins.to(t.address, t.pairing.verify), version
	}
	at := t.at
	t.mu.Unlock()
	return at.RoundTrip(r)
}

// Expiry is when a certificate between the two sides ends.
type Expiry struct {
	File string
	Ends time.Time
}

// Expiries are those of our certificate, and of the first of the other side's to end.
func (p *Pairing) Expiries() (l []Expiry) {
	for _, file := range []string{p.cert, p.peer} {
		if ends, err := Ends(file); err == nil && !ends.IsZero() {
			l = append(l, Expiry{file, ends})
		}
	}
	return l
}

// PairingSoon is how long before its end a certificate between the two sides is told of.
const PairingSoon = 60 * 24 * time.Hour

// Tell says in the log which certificates end soon.
func (p *Pairing) Tell() {
	now := p.now()
	for _, e := range p.Expiries() {
		switch {
		case now.After(e.Ends):
			p.log.Error("a certificate between gateway and broker has ended: they refuse each other by it; docs/domains.md says how to change it", "file", e.File, "ended", e.Ends.Format(time.DateOnly))
		case now.Add(PairingSoon).After(e.Ends):
			p.log.Warn("a certificate between gateway and broker ends soon; docs/domains.md says how to change it while both run", "file", e.File, "ends", e.Ends.Format(time.DateOnly))
		}
	}
}
