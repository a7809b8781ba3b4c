package issuer

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/outbound"
)

type documentKey struct {
	tenant identity.Tenant
	url    string
}

type document struct {
	client  Client // as it was last; not to be used after until
	until   time.Time
	retryAt time.Time // after a failure, which is not remembered otherwise
}

// document fetches a client ID metadata document (draft-ietf-oauth-client-id-metadata-document): the client_id is its URL,
// and its host stands for the client.
func (g *Registry) document(ctx context.Context, t identity.Tenant, id, address string) (Client, error) {
	host, err := documentHost(id)
	if err != nil {
		return Client{}, err
	}
	key, now := documentKey{t, id}, g.Now()
	g.mu.Lock()
	known := g.documents[key]
	g.mu.Unlock()
	if now.Before(known.until) {
		return known.client, nil
	}
	if now.Before(known.retryAt) {
		return Client{}, fault.Later("the client's metadata document could not be fetched a moment ago; try again", known.retryAt.Sub(now), nil)
	}
	switch {
	case known.client.ID != "":
		// It was good before, so it is not counted: a stranger who asks for others of its host must not keep its agents out. Who comes while
		// it is read anew goes on with what was.
		g.mu.Lock()
		g.documents[key] = document{client: known.client, until: now.Add(documentCooldown)}
		g.mu.Unlock()
	case !g.sources.Allow(address, now, time.Minute, documentsPerMin) || !g.hosts.Allow(host, now, time.Minute, documentsPerMin):
		return Client{}, slow("too many client metadata documents were asked for; try again in a minute", time.Minute)
	}
	c, fresh, err := g.fetchDocument(ctx, t, id)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.documents == nil || len(g.documents) > maxDocuments {
		g.documents = map[documentKey]document{}
	}
	if err != nil {
		g.documents[key] = document{client: known.client, retryAt: now.Add(documentCooldown)}
		if known.client.ID != "" && errors.Is(err, errAway) { // invalid_client would make its agents forget their sign-ins
			return Client{}, fault.Later("the client's metadata document cannot be fetched now; try again", documentCooldown, errAway)
		}
		return Client{}, err
	}
	g.documents[key] = document{client: c, until: now.Add(fresh)}
	return c, nil
}

// errAway is for a publisher who does not answer, or says that he cannot now.
var errAway = errors.New("the publisher of the document is away")

var errDocument = refuse(oauth.CodeInvalidClient, "the client's metadata document cannot be used; its publisher has to mend it")

// documentHost checks the form of a client_id that is a URL, before anything is fetched.
func documentHost(id string) (string, error) {
	u, err := url.Parse(id)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Contains(id, "#") || u.Path == "" || u.Path == "/" || len(id) > 1024 {
		return "", errDocument
	}
	for segment := range strings.SplitSeq(u.Path, "/") {
		if segment == "." || segment == ".." {
			return "", errDocument
		}
	}
	return u.Hostname(), nil
}

// documentFields are those that we read. Names match exactly, and duplicates are refused by the decoder.
type documentFields struct {
	ClientID     string   `json:"client_id"`
	Name         string   `json:"client_name"`
	URI          string   `json:"client_uri"`
	RedirectURIs []string `json:"redirect_uris"`
	AuthMethod   string   `json:"token_endpoint_auth_method"`
	Secret       any      `json:"client_secret"`
}

func (g *Registry) fetchDocument(ctx context.Context, t identity.Tenant, id string) (Client, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, documentTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, id, nil)
	if err != nil {
		return Client{}, 0, errDocument
	}
	r.Header.Set("Accept", "application/json")
	resp, err := g.Fetch.Do(r)
	if err != nil {
		return Client{}, 0, errors.Join(errDocument, errAway, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= http.StatusInternalServerError {
		return Client{}, 0, errors.Join(errDocument, errAway)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	kind, _, merr := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	isJSON := kind == "application/json" || strings.HasSuffix(kind, "+json")
	if err != nil || merr != nil || resp.StatusCode != http.StatusOK || len(body) > maxDocument || !isJSON {
		return Client{}, 0, errDocument
	}
	var f documentFields
	if json.Unmarshal(body, &f) != nil || f.ClientID != id || f.Secret != nil || len(f.RedirectURIs) == 0 || len(f.RedirectURIs) > maxRedirects {
		return Client{}, 0, errDocument
	}
	if f.AuthMethod != "" && f.AuthMethod != "none" {
		return Client{}, 0, refuse(oauth.CodeInvalidClient, "the client's metadata document asks for a way of authentication that is not supported here; none is")
	}
	for _, uri := range f.RedirectURIs {
		if len(uri) > maxURI || !documentRedirect(uri) && !g.listed(uri) {
			return Client{}, 0, errDocument
		}
	}
	return Client{Tenant: t, ID: identity.ClientID(id), Name: f.Name, URI: f.URI, RedirectURIs: f.RedirectURIs, How: RegisteredDocument, Created: g.Now()},
		freshness(resp.Header.Get("Cache-Control")), nil
}

// documentRedirect takes https and loopback, nothing that a browser or shell could run.
func documentRedirect(uri string) bool {
	if _, ok := loopback(uri); ok {
		return true
	}
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Contains(uri, "#") {
		return false
	}
	if _, err := outbound.Origin("https://" + u.Host); err != nil { // consent shows it: letters of other scripts look like some of ours
		return false
	}
	_, literal := netip.ParseAddr(u.Hostname()) // a web client has a name, and not this machine's
	return literal != nil && !strings.EqualFold(u.Hostname(), "localhost")
}

// freshness is the max-age, within our bounds.
func freshness(cacheControl string) time.Duration {
	for d := range strings.SplitSeq(cacheControl, ",") {
		if v, ok := strings.CutPrefix(strings.TrimSpace(d), "max-age="); ok {
			if n, err := strconv.Atoi(v); err == nil {
				return min(max(time.Duration(n)*time.Second, documentFreshMin), documentFreshMax)
			}
		}
	}
	return documentFreshMin
}
