package config

import (
	"net"
	"strconv"

	"frontdesk.dev/frontdesk/internal/kit/conf"
)

// Role is which part of the program a process is.
type Role string

const (
	RoleAll     Role = "all"
	RoleGateway Role = "gateway" // the faces
	RoleBroker  Role = "broker"  // the waist, and what lies under it
)

// Domains are the two processes that gateway and broker can be.
type Domains struct {
	Address  string      `yaml:"address" required:"yes" doc:"where the gateway finds the broker, as broker.internal:8443"`
	Others   []string    `yaml:"others" doc:"further brokers over the same database; a gateway goes on at the next where one does not answer"`
	Listen   string      `yaml:"listen" doc:"where the broker listens for it; default: the port of address, on all addresses"`
	Gateway  End         `yaml:"gateway" required:"yes" doc:"the gateway's certificate, and its key, which the gateway's host alone needs"`
	Broker   End         `yaml:"broker" required:"yes" doc:"the broker's certificate, and its key, which the broker's host alone needs"`
	Database conf.Secret `yaml:"database" required:"yes" doc:"PostgreSQL DSN of the gateway's own account, as env:GATEWAY_DATABASE_URL; the gateway's host alone needs it"`
	Keys     *KeyPage    `yaml:"keys" doc:"where the broker itself shows the page that takes pasted keys, so that none passes the gateway; default: the gateway's pages take them"`
	Releases Releases    `yaml:"releases" doc:"how many credentials the broker releases in a minute, whatever gateways ask for"`
}

// End is one of the two.
type End struct {
	Cert conf.Secret `yaml:"cert" required:"yes" doc:"PEM file; of the other side, its certificates that are known: two while one takes the other's place"`
	Key  conf.Secret `yaml:"key" required:"yes" doc:"PEM file"`
	Ops  string      `yaml:"ops" doc:"address of its ops listener, where it is not ops.listen"`
}

// KeyPage is the one page of the broker's.
type KeyPage struct {
	URL    conf.URL `yaml:"url" required:"yes" doc:"where browsers reach it, as https://keys.example.com"`
	Listen string   `yaml:"listen" doc:"where the broker listens for it; default: the port of url, on all addresses"`
	TLS    *TLS     `yaml:"tls" doc:"certificate and key, where TLS ends there; without it one of trusted_proxies stands in front"`
}

// Releases are counted by each broker for itself.
type Releases struct {
	User int `yaml:"user" doc:"for one person; default 600"`
	All  int `yaml:"all" doc:"for all; default 60000"`
}

// domains checks what the form cannot say of them, and fills in defaults.
func (k *checker) domains() {
	d := k.Domains
	if d == nil {
		return
	}
	_, port, err := net.SplitHostPort(d.Address)
	if err != nil {
		k.wrong("domains.address", "this is no host and port", "write it as broker.internal:8443")
	}
	for i, o := range d.Others {
		if _, _, err := net.SplitHostPort(o); err != nil || o == d.Address {
			k.wrong("domains.others["+strconv.Itoa(i)+"]", "this is no host and port of another broker", "write it as broker-2.internal:8443")
		}
	}
	if d.Listen == "" {
		d.Listen = ":" + port
	}
	if _, _, err := net.SplitHostPort(d.Listen); err != nil {
		k.wrong("domains.listen", "this is no address to listen on", "write it as :8443 or 10.0.0.5:8443")
	}
	for at, s := range map[string]conf.Secret{"domains.gateway.cert": d.Gateway.Cert, "domains.gateway.key": d.Gateway.Key, "domains.broker.cert": d.Broker.Cert, "domains.broker.key": d.Broker.Key} {
		if !s.IsZero() && !s.IsFile() {
			k.wrong(at, "it is read from a file", "`frontdesk pair DIR` makes all four; write them as file:pair/gateway.crt")
		}
	}
	k.keyPage(d.Keys)
	d.Releases.User, d.Releases.All = orInt(d.Releases.User, 600), orInt(d.Releases.All, 60_000)
	if d.Releases.User < 0 || d.Releases.All < 0 {
		k.wrong("domains.releases", "a number of releases is above 0", "")
	}
	if !d.Database.IsZero() && d.Database == k.Database {
		k.wrong("domains.database", "gateway and broker have the same database account", "make one for the gateway, and give it what `frontdesk database grants ACCOUNT` prints")
	}
}

// keyPage checks where keys are pasted.
func (k *checker) keyPage(p *KeyPage) {
	if p == nil || p.URL.URL == nil {
		return
	}
	if p.URL.Path == "/" {
		p.URL.Path = ""
	}
	if p.URL.Path != "" || p.URL.Host == k.PublicURL.Host {
		k.wrong("domains.keys.url", "the page that takes keys has an address of its own, without a path", "url: https://keys.example.com, which leads to the broker and not to the gateway")
	}
	if p.Listen == "" {
		port := p.URL.Port()
		if port == "" {
			port = "443"
		}
		p.Listen = ":" + port
	}
	if _, _, err := net.SplitHostPort(p.Listen); err != nil {
		k.wrong("domains.keys.listen", "this is no address to listen on", "write it as :8444 or 10.0.0.5:8444")
	}
	for at, f := range map[string]conf.Secret{"domains.keys.tls.cert": cmpOrZero(p.TLS).Cert, "domains.keys.tls.key": cmpOrZero(p.TLS).Key} {
		if !f.IsZero() && !f.IsFile() {
			k.wrong(at, "it is read from a file, and again whenever that changes", "write it as file:keys.crt")
		}
	}
	switch {
	case k.local():
	case p.URL.Scheme != "https":
		k.wrong("domains.keys.url", "keys would travel in the open", "use https, and say where TLS ends: tls beside it, or trusted_proxies")
	case p.TLS == nil && len(k.TrustedProxies) == 0:
		k.wrong("domains.keys", "nothing says where TLS ends", "add  tls: {cert: file:keys.crt, key: file:keys.key}  or  trusted_proxies: [10.0.0.0/8]")
	}
}
