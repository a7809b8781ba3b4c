package oauth

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"frontdesk.dev/frontdesk/internal/kit/dpop"
	"frontdesk.dev/frontdesk/internal/kit/fault"
)

const maxMetadata = 256 << 10

// Metadata is what Frontdesk reads and writes of an authorization server's metadata (RFC 8414 s2).
type Metadata struct {
	Issuer                string   `json:"issuer"`
	AuthorizationEndpoint string   `json:"authorization_endpoint,omitempty"`
	TokenEndpoint         string   `json:"token_endpoint,omitempty"`
	JWKSURI               string   `json:"jwks_uri,omitempty"`
	RegistrationEndpoint  string   `json:"registration_endpoint,omitempty"`
	RevocationEndpoint    string   `json:"revocation_endpoint,omitempty"`
	DeviceEndpoint        string   `json:"device_authorization_endpoint,omitempty"`
	ScopesSupported       []string `json:"scopes_supported,omitempty"`
	GrantTypes            []string `json:"grant_types_supported,omitempty"`
	TokenAuthMethods      []string `json:"token_endpoint_auth_methods_supported,omitempty"`
	ChallengeMethods      []string `json:"code_challenge_methods_supported,omitempty"`
	PushedEndpoint        string   `json:"pushed_authorization_request_endpoint,omitempty"`         // RFC 9126
	IssParameter          bool     `json:"authorization_response_iss_parameter_supported,omitzero"` // RFC 9207 s3
	ClientIDMetadata      bool     `json:"client_id_metadata_document_supported,omitzero"`
	ProofAlgorithms       []string `json:"dpop_signing_alg_values_supported,omitempty"` // RFC 9449 section 5.1
}

// SupportsS256 reports whether the server promises PKCE with S256. An MCP client must not go on without
// (MCP authorization, "Authorization Code Protection").
func (m Metadata) SupportsS256() bool { return slices.Contains(m.ChallengeMethods, ChallengeMethod) }

// Binds reports whether tokens of this server for that resource are to be bound to keys: where the resource demands it, or both speak
// of it in an algorithm of ours. A server that alone does is no ground: an API that knows Bearer tokens only would refuse them.
func (m Metadata) Binds(r ResourceMetadata) bool {
	return r.BoundTokens || slices.Contains(r.ProofAlgorithms, dpop.Algorithm) && slices.Contains(m.ProofAlgorithms, dpop.Algorithm)
}

// ResourceMetadata is what Frontdesk reads of a protected resource's metadata (RFC 9728 s2).
type ResourceMetadata struct {
	Resource             string   `json:"resource"`
	AuthorizationServers []string `json:"authorization_servers,omitempty"`
	ScopesSupported      []string `json:"scopes_supported,omitempty"`
	ProofAlgorithms      []string `json:"dpop_signing_alg_values_supported,omitempty"` // RFC 9449 section 5.1's, of the resource
	BoundTokens          bool     `json:"dpop_bound_access_tokens_required,omitzero"`
}

// Well-known names, inserted between host and path.
const (
	wellKnownServer   = "/.well-known/oauth-authorization-server"
	wellKnownOIDC     = "/.well-known/openid-configuration"
	wellKnownResource = "/.well-known/oauth-protected-resource"
)

// MetadataURLs returns where the metadata of issuer may be, in the order to try (RFC 8414 s3 and s5, OpenID Connect
// Discovery s4; MCP authorization wants all three where the issuer has a path).
func MetadataURLs(issuer string) ([]string, error) {
	u, ok := checkURL(issuer)
	if !ok || strings.Contains(issuer, "?") {
		return nil, fault.New(fault.Invalid, "an issuer is an https URL without query, fragment and user info", nil)
	}
	origin, path := u.Scheme+"://"+u.Host, strings.TrimSuffix(u.EscapedPath(), "/")
	if path == "" {
		return []string{origin + wellKnownServer, origin + wellKnownOIDC}, nil
	}
	return []string{origin + wellKnownServer + path, origin + wellKnownOIDC + path, origin + path + wellKnownOIDC}, nil
}

// ResourceMetadataURLs returns where the metadata of a protected resource may be: the form with the resource's path
// and query, then the root (RFC 9728 s3.1, MCP authorization).
func ResourceMetadataURLs(resource string) ([]string, error) {
	u, ok := checkURL(resource)
	if !ok {
		return nil, fault.New(fault.Invalid, "a resource is an https URL without fragment and user info", nil)
	}
	root, path := u.Scheme+"://"+u.Host+wellKnownResource, u.EscapedPath()
	if path == "/" {
		path = ""
	}
	if u.RawQuery != "" {
		path += "?" + u.RawQuery
	}
	if path == "" {
		return []string{root}, nil
	}
	return []string{root + path, root}, nil
}

// FetchMetadata gets and checks the metadata of issuer. The document must name exactly this issuer (RFC 8414 s3.3), and
// each of its endpoints must be an https URL, or http on loopback where the issuer is so too. Unavailable if the
// server is away, NotFound if it has no metadata, Invalid if what it has must not be used.
func FetchMetadata(ctx context.Context, doer Doer, issuer string) (Metadata, error) {
	urls, err := MetadataURLs(issuer)
	if err != nil {
		return Metadata{}, err
	}
	var m Metadata
	if err := fetchFirst(ctx, doer, urls, &m); err != nil {
		return Metadata{}, err
	}
	// Compared before anything else of the document is looked at, byte for byte: mix-up begins here (RFC 9700 s4.4).
	if m.Issuer != issuer {
		return Metadata{}, fault.New(fault.Invalid, "the metadata of "+issuer+" names another issuer", &OtherIssuer{m.Issuer})
	}
	for name, endpoint := range map[string]string{
		"authorization_endpoint": m.AuthorizationEndpoint, "token_endpoint": m.TokenEndpoint, "jwks_uri": m.JWKSURI,
		"registration_endpoint": m.RegistrationEndpoint, "revocation_endpoint": m.RevocationEndpoint,
		"device_authorization_endpoint": m.DeviceEndpoint, "pushed_authorization_request_endpoint": m.PushedEndpoint,
	} {
		if endpoint == "" {
			continue
		}
		if u, ok := checkEndpoint(endpoint); !ok || u.Scheme == "http" && strings.HasPrefix(issuer, "https:") {
			return Metadata{}, fault.New(fault.Invalid, "the metadata of "+issuer+" has an unusable "+name, nil)
		}
	}
	return m, nil
}

// OtherIssuer is the cause where metadata names an issuer that nobody asked for; what it names is the sender's word, for operators alone.
type OtherIssuer struct{ Named string }

func (o *OtherIssuer) Error() string { return fmt.Sprintf("it calls itself %.200q", o.Named) }

// FetchResourceMetadata gets and checks the metadata of a protected resource, from metadataURL if a challenge named
// one, else from the well-known places. The document must name exactly this resource (RFC 9728 s3.3). Errors as
// FetchMetadata.
func FetchResourceMetadata(ctx context.Context, doer Doer, resource, metadataURL string) (ResourceMetadata, error) {
	urls, err := ResourceMetadataURLs(resource)
	if err != nil {
		return ResourceMetadata{}, err
	}
	if metadataURL != "" {
		if u, ok := checkEndpoint(metadataURL); !ok || u.Scheme == "http" && strings.HasPrefix(resource, "https:") {
			return ResourceMetadata{}, fault.New(fault.Invalid, "the challenge of "+resource+" has an unusable resource_metadata", nil)
		}
		urls = []string{metadataURL}
	}
	var m ResourceMetadata
	if err := fetchFirst(ctx, doer, urls, &m); err != nil {
		return ResourceMetadata{}, err
	}
	if m.Resource != resource {
		return ResourceMetadata{}, fault.New(fault.Invalid, "the metadata of "+resource+" names another resource", nil)
	}
	for _, server := range m.AuthorizationServers {
		if _, err := MetadataURLs(server); err != nil {
			return ResourceMetadata{}, fault.New(fault.Invalid, "the metadata of "+resource+" names an unusable authorization server", nil)
		}
	}
	return m, nil
}

// fetchFirst decodes the first of urls that answers with JSON. Any other answer than 200 with JSON means 'not here':
// many hosts answer an unknown path with their start page. An unreachable host ends the search.
func fetchFirst(ctx context.Context, doer Doer, urls []string, into any) error {
	away := 0
	for _, u := range urls {
		doc, err := get(ctx, doer, u, maxMetadata)
		if fault.KindOf(err) == fault.Denied { // our own guard's no
			return err
		}
		if err != nil {
			return fault.New(fault.Unavailable, "the metadata at "+u+" cannot be fetched", quiet(err))
		}
		if doc.status == http.StatusTooManyRequests || doc.status >= 500 {
			away = doc.status
		}
		if doc.status != http.StatusOK || !doc.isJSON {
			continue
		}
		if !doc.whole {
			return fault.New(fault.Invalid, fmt.Sprintf("the metadata at %s is longer than %d KiB", u, maxMetadata>>10), nil)
		}
		if err := decode(doc.body, into); err != nil {
			return fault.New(fault.Invalid, "the metadata at "+u+" is malformed", nil)
		}
		return nil
	}
	if away != 0 {
		return fault.New(fault.Unavailable, fmt.Sprintf("the metadata at %s cannot be fetched (HTTP %d)", urls[0], away), nil)
	}
	return fault.New(fault.NotFound, "no metadata at "+strings.Join(urls, ", "), nil)
}

// SameSite reports whether two addresses belong to one owner, as far as names tell: one host, or one registrable domain. What a
// found server names elsewhere is not trusted: a code, a password, or a proof of who we are, would go there.
func SameSite(a, b string) bool {
	x, errX := url.Parse(a)
	y, errY := url.Parse(b)
	if errX != nil || errY != nil || x.Scheme != y.Scheme || x.Hostname() == "" {
		return false
	}
	if strings.EqualFold(x.Hostname(), y.Hostname()) {
		return true
	}
	one, errX := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(x.Hostname()))
	other, errY := publicsuffix.EffectiveTLDPlusOne(strings.ToLower(y.Hostname()))
	return errX == nil && errY == nil && one == other
}
