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
	a := up.Provider.AccountOf(c.Method)
	if a.URL == "" {
		return "", "", nil
	}
	a.URL = accountURL(up, c, a.URL)
	resp, body, err := d.ask(ctx, up, asking{a, up.Provider.InjectionOf(c.Method), c}, s)
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
	case means == catalog.MeansDead, len(a.Form) > 0 && lookup(body, "/active") == "false": // said under status 200
		return "", "", fault.New(fault.Invalid, up.Title+" does not accept this credential; nothing was saved; make sure that it is whole, and has the rights it needs", nil)
	}
	if up.Sites != nil && up.Sites.Whole {
		return "", "", nil
	}
	id, label = a.Whose(func(pointer string) string { return lookup(body, pointer) })
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
	catalog.Account
	in catalog.Injection
	of vault.Connection // with its site, once that is known
}

// request is what is asked, without the credential in its own place.
func (d *Desk) request(ctx context.Context, up *catalog.Upstream, a asking, s vault.Secrets) (*http.Request, error) {
	body, kind := a.Body, "application/json"
	if before, after, ok := strings.Cut(body, "{token}"); ok {
		var err error
		if body, err = vault.Fill(s.Access)(before, after, true); err != nil {
			return nil, err
		}
	}
	if len(a.Form) > 0 {
		e, err := d.Clients.Endpoint(up, up.Method(a.of.Method).Through(a.of.Client))
		if err != nil {
			return nil, err
		}
		form, fill := url.Values{}, strings.NewReplacer("{token}", s.Access.Expose(), "{client_id}", e.ClientID, "{client_secret}", e.Secret.Expose())
		for name, value := range a.Form {
			form.Set(name, fill.Replace(value))
		}
		body, kind = form.Encode(), "application/x-www-form-urlencoded"
	}
	r, err := http.NewRequestWithContext(ctx, cmp.Or(a.Method, http.MethodGet), a.URL, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != "" {
		r.Header.Set("Content-Type", kind)
	}
	return r, nil
}

// ask sends it, and reads of the answer what is too long by one byte at most.
func (d *Desk) ask(ctx context.Context, up *catalog.Upstream, a asking, s vault.Secrets) (*http.Response, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, accountTimeout)
	defer cancel()
	r, err := d.request(ctx, up, a, s)
	if err != nil {
		return nil, nil, err
	}
	for k, v := range up.Provider.Headers {
		r.Header.Set(k, v)
	}
	if site := a.of.Site.Value; up.Sites != nil && site != "" {
		for k, v := range up.Sites.Headers {
			r.Header.Set(k, strings.ReplaceAll(v, "{site}", site))
		}
	}
	r.Header.Set("Accept", "application/json")
	resp, err := d.call(r, up, a, s)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAccount+1))
	return resp, body, err
}

func (d *Desk) call(r *http.Request, up *catalog.Upstream, a asking, s vault.Secrets) (*http.Response, error) {
	if len(a.Form) > 0 { // the client asks, not the credential
		return d.API.Do(r)
	}
	bound, err := s.Bound(d.OAuth)
	if err != nil {
		return nil, err
	}
	if bound != nil {
		return bound.Send(r, d.API.Do)
	}
	put, _ := d.Clients.Place(up, a.of.Method, a.in, s.Access)
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
	if k := up.Provider.APIKey; k != nil && k.First != nil {
		if first, second, _ := strings.Cut(v, ":"); !k.First.Fits(first) || len(second) < minHalf || up.Provider.InjectionOf(catalog.APIKey).Kind == catalog.InjectPair && len(first) < minHalf {
			return fault.New(fault.Invalid, up.Title+" wants two things, and one of them is missing or cannot be it: "+k.First.Name+", and the key; nothing was saved", nil)
		}
	}
	if other := c.ShapedLike(v, up.Provider); other != nil {
		return fault.New(fault.Invalid, "this looks like a credential of "+other.Name+", not of "+up.Title+"; nothing was saved", nil)
	}
	return nil
}
