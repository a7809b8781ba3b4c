package main

import (
	"crypto/tls"
	"os"
	"sync"
	"time"
)

// certificate is read again when its file changes, so that a renewal needs no restart.
type certificate struct {
	cert, key string

	mu      sync.Mutex // guards what follows
	current *tls.Certificate
	changed time.Time
	looked  time.Time
}

const lookAtCertificate = 10 * time.Second

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != nil && time.Since(c.looked) < lookAtCertificate {
		return c.current, nil
	}
	c.looked = time.Now()
	info, err := os.Stat(c.cert)
	if err == nil && c.current != nil && info.ModTime().Equal(c.changed) {
		return c.current, nil
	}
	pair, lerr := tls.LoadX509KeyPair(c.cert, c.key)
	if lerr != nil {
		if c.current != nil {
			return c.current, nil // half written: the old one goes on until the new one is whole
		}
		return nil, lerr
	}
	c.current = &pair
	if info != nil {
		c.changed = info.ModTime()
	}
	return c.current, nil
}
