package world

import (
	"time"

	"frontdesk.dev/frontdesk/test/world/authserver"
)

// IdPConfig describes the company's identity provider. Its zero value works, but for the redirect URI of Frontdesk,
// which may be given later by Register.
type IdPConfig struct {
	Listen       string   // address; any free loopback port where empty
	RedirectURIs []string // of the client `frontdesk`
	Secret       string   // of the client `frontdesk`; FrontdeskSecret where empty

	// WorkloadAudiences are what the client `workload` (secret: Password) may get access tokens for by client_credentials.
	WorkloadAudiences []string

	AccessLifetime  time.Duration // also of ID tokens; 5 min where 0
	RefreshLifetime time.Duration // 12 h where 0
	Now             func() time.Time
}

// IdP is the company's identity provider: OpenID Connect, with rotating refresh tokens. The methods of
// authserver.Server dismiss users, rotate keys, mint tokens and set faults.
type IdP struct {
	*authserver.Server
	*party
	secret string
}

// NewIdP starts one.
func NewIdP(cfg IdPConfig) (*IdP, error) {
	p, err := listen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	if cfg.Secret == "" {
		cfg.Secret = FrontdeskSecret
	}
	server, err := authserver.New(authserver.Config{
		Issuer: p.url, Brand: "Acme Login", Users: Employees(), OpenID: true, Prefix: "idp",
		Clients:        []authserver.Client{{ID: "workload", Secret: Password, Audiences: cfg.WorkloadAudiences}},
		Rotation:       authserver.RotationStrict,
		AccessLifetime: cfg.AccessLifetime, RefreshLifetime: cfg.RefreshLifetime, Now: cfg.Now,
	})
	if err != nil {
		_ = p.ln.Close()
		return nil, err
	}
	idp := &IdP{Server: server, party: p, secret: cfg.Secret}
	idp.Register(cfg.RedirectURIs...)
	p.serve(server)
	return idp, nil
}

// Register says to which addresses the client `frontdesk` may be sent back; it replaces what was said before.
func (i *IdP) Register(redirectURIs ...string) {
	i.AddClient(authserver.Client{ID: FrontdeskClient, Secret: i.secret, Name: "Frontdesk", RedirectURIs: redirectURIs})
}

// URL is the issuer.
func (i *IdP) URL() string { return i.party.URL() }
