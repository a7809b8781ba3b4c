package portal

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/kit/web"
)

// KeyPage takes pasted keys where the page for them is another process's than all others: nothing that is pasted passes the gateway. Like a
// vendor's page it knows nobody. It takes a key for a flow that it is shown the state of, and sends the browser back with another state,
// which that browser alone gets; whether it is the one that left is for the callback to find. All fields are required.
type KeyPage struct {
	Tenant  identity.Tenant
	Prefix  string // of its paths
	Pages   *web.Pages
	Catalog *catalog.Catalog
	Keys    Keeper
	Home    string // the person's pages
	Now     func() time.Time

	tries web.Rate
}

// Keeper keeps a pasted key until its browser is back (connect.Desk).
type Keeper interface {
	// Keep redeems the state of a form's body and returns the address to which the browser goes back. Errors are for the person.
	Keep(ctx context.Context, t identity.Tenant, up catalog.UpstreamName, body []byte) (back string, err error)
}

const triesPerMin = 60 // of one address

// Mount adds the routes.
func (k *KeyPage) Mount(mux *http.ServeMux) {
	mux.Handle("GET "+k.Prefix+"/key/{upstream}", k.Pages.Forms(k.at(k.show)))
	mux.Handle("POST "+k.Prefix+"/key/{upstream}", k.Pages.Forms(k.at(k.take)))
	k.Pages.Mount(mux)
}

// at is the one switch from errors to this page.
func (k *KeyPage) at(h func(w http.ResponseWriter, r *http.Request, up *catalog.Upstream) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		up := k.Catalog.Upstream(k.Tenant, catalog.UpstreamName(r.PathValue("upstream")))
		if up == nil || up.Provider.APIKey == nil {
			http.NotFound(w, r)
			return
		}
		err := h(w, r, up)
		if err == nil {
			return
		}
		status, said := http.StatusBadRequest, fault.Message(err)
		switch fault.KindOf(err) {
		case fault.Denied, fault.NotFound:
			status = http.StatusForbidden
		case fault.RateLimited:
			status = http.StatusTooManyRequests
		case fault.Unavailable, fault.Internal:
			status = http.StatusServiceUnavailable
			k.Pages.Log.Error("the page for keys", "upstream", up.Name, "error", err)
		}
		k.Pages.Render(w, status, web.Page{Template: "notice", Title: "That did not work", View: notice{Lines: []string{said}, Link: k.Home, Button: "Your pages"}})
	})
}

func (k *KeyPage) show(w http.ResponseWriter, r *http.Request, up *catalog.Upstream) error {
	f := up.Provider.APIKey
	k.Pages.Render(w, http.StatusOK, web.Page{Template: "key", Title: "Paste a key for " + up.Title, View: keyView{up.Title, f.Where, f.URL, r.URL.Query().Get("state"), r.URL.Path, k.Home,
		k.Now().Add(24 * time.Hour).UTC().Format(time.DateOnly), f.First, inWords(up, up.Scopes, nil)}})
	return nil
}

func (k *KeyPage) take(w http.ResponseWriter, r *http.Request, up *catalog.Upstream) error {
	if !k.tries.Allow(web.Address(r), k.Now(), time.Minute, triesPerMin) {
		return &fault.Error{Kind: fault.RateLimited, Msg: "too many keys were tried from this address; try again in a minute", RetryAfter: time.Minute}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return fault.New(fault.Invalid, "the form could not be read; go back and try again", nil)
	}
	back, err := k.Keys.Keep(r.Context(), k.Tenant, up.Name, body)
	if err != nil {
		return err
	}
	u, err := url.Parse(back)
	if err != nil {
		return err
	}
	k.Pages.Leave(w, "Back to your pages", back, u.Hostname())
	return nil
}
