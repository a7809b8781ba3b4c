package connect

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/catalog/live"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/oauth"
	"frontdesk.dev/frontdesk/internal/kit/secret"
	"frontdesk.dev/frontdesk/internal/vault"
)

const (
	accountTimeout = 15 * time.Second
	maxAccount     = 1 << 20
	maxKey         = 4096
	maxLabel       = 1024
	minHalf        = 8 // of a key that is two; a shorter one would be taken out of answers where it stands by chance
)

// account asks the vendor whose credential it is; the same call proves that it works. A provider without an account call
// leaves it unknown.
func (d *Desk) account(ctx context.Context, up *catalog.Upstream, c vault.Connection, s vault.Secrets) (id, label string, err error) {
	a := up.Provider.Account
	if a.URL == "" {
		return "", "", nil
	}
	in := up.Provider.Injection
	if c.Method == catalog.APIKey && up.Provider.APIKey.Injection != nil {
		in = *up.Provider.APIKey.Injection
	}
	resp, body, err := d.ask(ctx, up, asking{a.Method, accountURL(up, c, a.URL), a.Body, in, c.Site.Value}, s)
	if err != nil {
		return "", "", fault.Later(up.Title+" does not answer, so the new credential could not be tested; nothing was saved; try again", time.Minute, err)
	}
	means, _ := up.Provider.Says(resp.StatusCode, resp.Header, func() []byte { return body }, nil)
	switch refused := resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden; {
	case refused && means != catalog.MeansDead && (means != "" || resp.StatusCode == http.StatusForbidden) && withheld(up, c):
		return "", "", nil // it works, but not for this
	case refused:
		return "", "", fault.New(fault.Invalid, up.Title+" does not accept this credential; nothing was saved; make sure that it is whole, and has the rights it needs", nil)
	case resp.StatusCode != http.StatusOK:
		return "", "", fault.New(fault.Unavailable, fmt.Sprintf("%s answered with status %d when the new credential was tested; nothing was saved; try again later", up.Title, resp.StatusCode), nil)
	case means == catalog.MeansDead: // said under status 200
		return "", "", fault.New(fault.Invalid, up.Title+" does not accept this credential; nothing was saved; make sure that it is whole, and has the rights it needs", nil)
	}
	if up.Sites != nil && up.Sites.Whole {
		return "", "", nil
	}
	id, label = lookup(body, a.ID), cmp.Or(lookup(body, a.Label), lookup(body, a.Or))
	d.Catalog.Showed(ctx, up, func() []catalog.Showing { return live.OfAccount(up, resp.Header, id, label) })
	return id, label, nil
}

// withheld reports whether the person did not give what the account's call wants.
func withheld(up *catalog.Upstream, c vault.Connection) bool {
	o := up.Provider.OAuth
	return o != nil && len(o.Beside) > 0 && c.Method != catalog.APIKey && !oauth.HasScopes(c.Scopes, o.Beside...)
}

// asking is a request to a vendor's API with a credential that need not be stored yet.
type asking struct {
	method, url, body string
	in                catalog.Injection
	site              string // at which the account is, once that is known
}

// ask sends it, and reads of the answer what is too long by one byte at most.
func (d *Desk) ask(ctx context.Context, up *catalog.Upstream, a asking, s vault.Secrets) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, accountTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, cmp.Or(a.method, http.MethodGet), a.url, strings.NewReader(a.body))
	if err != nil {
		return nil, nil, err
	}
	if a.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for k, v := range up.Provider.Headers {
		r.Header.Set(k, v)
	}
	if up.Sites != nil && a.site != "" {
		for k, v := range up.Sites.Headers {
			r.Header.Set(k, strings.ReplaceAll(v, "{site}", a.site))
		}
	}
	r.Header.Set("Accept", "application/json")
	resp, err := d.call(r, a.in, s)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAccount+1))
	return resp, body, err
}

func (d *Desk) call(r *http.Request, in catalog.Injection, s vault.Secrets) (*http.Response, error) {
	bound, err := s.Bound(d.OAuth)
	if err != nil {
		return nil, err
	}
	if bound != nil {
		return bound.Send(r, d.API.Do)
	}
	put, _ := vault.Place(in, s.Access)
	if err := put(r); err != nil {
		return nil, err
	}
	return d.API.Do(r)
}

// Refuses implements exchange.Witness.
func (d *Desk) Refuses(ctx context.Context, up *catalog.Upstream, c vault.Connection, s vault.Secrets) bool {
	up, err := up.At(c.Site.Value)
	if err != nil {
		return false // it is not asked there any more
	}
	_, _, err = d.account(ctx, up, c, s)
	return fault.KindOf(err) == fault.Invalid
}

// accountURL takes a path as one on the upstream's own first origin, or on the site of the connection, so that a self-hosted vendor is
// asked itself.
func accountURL(up *catalog.Upstream, c vault.Connection, ref string) string {
	ref = strings.ReplaceAll(ref, "{site}", c.Site.Value)
	if strings.HasPrefix(ref, "/") && len(up.Origins) > 0 {
		u := *up.Origins[0]
		if up.Sites != nil {
			if at, err := up.Sites.At(c.Site.Value); err == nil {
				u = *at
			}
		}
		path, query, _ := strings.Cut(ref, "?")
		u.Path, u.RawQuery = strings.TrimSuffix(u.Path, "/")+path, query
		return u.String()
	}
	return ref
}

// lookup follows a JSON pointer (RFC 6901) to a string or number; "" for anything else.
func lookup(body []byte, pointer string) string {
	l, ok := oauth.Texts(body, pointer)
	if !ok || len(l) != 1 || len(l[0]) > maxLabel || strings.ContainsFunc(l[0], unicode.IsControl) {
		return ""
	}
	return l[0]
}

// checkKey refuses what cannot be a key for this vendor before it is sent anywhere.
func checkKey(c *catalog.Catalog, up *catalog.Upstream, key secret.Text) error {
	v := key.Expose()
	if v == "" || len(v) > maxKey || strings.ContainsFunc(v, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
		return fault.New(fault.Invalid, "this is not a key: it is empty, too long, or has spaces or line breaks in it; nothing was saved", nil)
	}
	if u, err := url.Parse(v); err == nil && u.Scheme != "" && u.Host != "" {
		return fault.New(fault.Invalid, "this is a web address, not a key; nothing was saved", nil)
	}
	if in := up.Provider.APIKey; in != nil && in.Injection != nil && in.Injection.Kind == catalog.InjectPair {
		if first, second, _ := strings.Cut(v, ":"); min(len(first), len(second)) < minHalf {
			return fault.New(fault.Invalid, up.Title+" wants two keys: write both, with a colon between them; nothing was saved", nil)
		}
	}
	if other := c.ShapedLike(v, up.Provider); other != nil {
		return fault.New(fault.Invalid, "this looks like a credential of "+other.Name+", not of "+up.Title+"; nothing was saved", nil)
	}
	return nil
}
