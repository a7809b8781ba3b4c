package config

import (
	"net"

	"frontdesk.dev/frontdesk/internal/kit/conf"
)

// Domains are the two processes that gateway and broker can be.
type Domains struct {
	Address  string      `yaml:"address" required:"yes" doc:"where the gateway finds the broker, as broker.internal:8443"`
	Listen   string      `yaml:"listen" doc:"where the broker listens for it; default: the port of address, on all addresses"`
	Gateway  End         `yaml:"gateway" required:"yes" doc:"the gateway's certificate, and its key, which the gateway's host alone needs"`
	Broker   End         `yaml:"broker" required:"yes" doc:"the broker's certificate, and its key, which the broker's host alone needs"`
	Database conf.Secret `yaml:"database" required:"yes" doc:"PostgreSQL DSN of the gateway's own account, as env:GATEWAY_DATABASE_URL; the gateway's host alone needs it"`
	Releases Releases    `yaml:"releases" doc:"how many credentials the broker releases in a minute, whatever gateways ask for"`
}

// End is one of the two.
type End struct {
	Cert conf.Secret `yaml:"cert" required:"yes" doc:"PEM file; of the other side, its certificates that are known: two while one takes the other's place"`
	Key  conf.Secret `yaml:"key" required:"yes" doc:"PEM file"`
	Ops  string      `yaml:"ops" doc:"address of its ops listener, where it is not ops.listen"`
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
	d.Releases.User, d.Releases.All = orInt(d.Releases.User, 600), orInt(d.Releases.All, 60_000)
	if d.Releases.User < 0 || d.Releases.All < 0 {
		k.wrong("domains.releases", "a number of releases is above 0", "")
	}
	if !d.Database.IsZero() && d.Database == k.Database {
		k.wrong("domains.database", "gateway and broker have the same database account", "make one for the gateway, and give it what `frontdesk database grants ACCOUNT` prints")
	}
}
