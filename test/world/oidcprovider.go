package world

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"frontdesk.dev/frontdesk/test/world/authserver"
)

// ErrNoNode says that the stricter upstream cannot run here, and what would help.
var ErrNoNode = errors.New("oidc-provider needs Node 22 or later (FRONTDESK_NODE or `node` on PATH) and `npm ci` in test/world/oidcprovider")

// SternUsers are the accounts of the stricter upstream; Password opens them.
var SternUsers = []string{"stern-alice", "stern-bob"}

// OIDCProviderConfig describes the stricter upstream. The zero value works but for the redirect URIs.
type OIDCProviderConfig struct {
	RedirectURIs  []string `json:"redirectURIs,omitempty"` // of the client `frontdesk`
	Secret        string   `json:"clientSecret,omitempty"` // FrontdeskSecret where empty
	AccessSeconds int      `json:"accessSeconds,omitempty"`
	RequirePAR    bool     `json:"requirePAR,omitempty"` // no authorization request that was not pushed (RFC 9126)
	JWKSURI       string   `json:"jwksURI,omitempty"`    // of the client: it then proves itself by private_key_jwt and has no secret
	Bound         bool     `json:"bound,omitempty"`      // it gives tokens that are bound to a key alone, and wants nonces in proofs, the API its own (RFC 9449)
	Port          int      `json:"port,omitempty"`       // any free one where 0
}

// OIDCProvider is npm's oidc-provider in a process of its own: a vendor that takes the specifications at their word.
// Its API at /api wants tokens whose `resource` it is; where a request names none, it is assumed.
type OIDCProvider struct{ *Process }

// NewOIDCProvider starts one, or gives ErrNoNode.
func NewOIDCProvider(ctx context.Context, cfg OIDCProviderConfig) (*OIDCProvider, error) {
	node, err := findNode(ctx)
	if err != nil {
		return nil, err
	}
	_, here, _, _ := runtime.Caller(0)
	dir := filepath.Join(filepath.Dir(here), "oidcprovider")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "oidc-provider")); err != nil {
		return nil, fmt.Errorf("%w: the packages are not installed", ErrNoNode)
	}
	settings, err := json.Marshal(cfg)
	if err != nil {
		return nil, fmt.Errorf("settings of oidc-provider: %w", err)
	}
	p, err := Spawn(ctx, node, filepath.Join(dir, "server.mjs"), string(settings))
	if err != nil {
		return nil, err
	}
	return &OIDCProvider{p}, nil
}

// findNode looks for a Node that is new enough.
func findNode(ctx context.Context) (string, error) {
	node := os.Getenv("FRONTDESK_NODE")
	if node == "" {
		node = "node"
	}
	out, err := exec.CommandContext(ctx, node, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("%w: %s does not run", ErrNoNode, node)
	}
	major, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(string(out)), "v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < 22 {
		return "", fmt.Errorf("%w: %s is %s", ErrNoNode, node, strings.TrimSpace(string(out)))
	}
	return node, nil
}

// API is the base URL of its REST API, and the resource that tokens are for.
func (o *OIDCProvider) API() string { return o.URL() + "/api" }

// Redemptions is every attempt to use a refresh token, in order.
func (o *OIDCProvider) Redemptions(ctx context.Context) ([]authserver.Redemption, error) {
	var out []authserver.Redemption
	err := o.Do(ctx, "redemptions", nil, &out)
	return out, err
}

// Tokens is every code, access and refresh token ever given out.
func (o *OIDCProvider) Tokens(ctx context.Context) ([]authserver.Issued, error) {
	var out []authserver.Issued
	err := o.Do(ctx, "tokens", nil, &out)
	return out, err
}
