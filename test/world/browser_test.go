package world_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/test/world"
)

// pages serves fixed pages, and at /said what the browser said of itself and its form.
func pages(t *testing.T, html map[string]string) *httptest.Server {
	t.Helper()
	mux := http.NewServeMux()
	for path, body := range html {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<!doctype html>"+body) })
	}
	mux.HandleFunc("/said", func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		h := r.Header
		fmt.Fprintf(w, "%s form=%s site=%s origin=%s", r.Method, r.Form.Encode(), h.Get("Sec-Fetch-Site"), h.Get("Origin"))
	})
	mux.HandleFunc("/hop", func(w http.ResponseWriter, r *http.Request) {
		code := http.StatusFound
		if r.FormValue("keep") != "" {
			code = http.StatusTemporaryRedirect
		}
		http.Redirect(w, r, r.FormValue("to"), code)
	})
	mux.HandleFunc("/cookie", func(w http.ResponseWriter, r *http.Request) {
		if c, err := r.Cookie("c"); err == nil {
			_, _ = io.WriteString(w, "back again with "+c.Value)
			return
		}
		http.SetCookie(w, &http.Cookie{Name: "c", Value: "crumb", Path: "/"})
		_, _ = io.WriteString(w, "first visit")
	})
	mux.HandleFunc("/strict", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'none'; form-action "+r.FormValue("allow"))
		fmt.Fprintf(w, `<!doctype html><form method=post action=/hop><input name=to value=%q><button>Go</button></form>`, r.FormValue("to"))
	})
	ts := httptest.NewServer(mux)
	t.Cleanup(ts.Close)
	return ts
}

func TestBrowserCookiesArePersonal(t *testing.T) {
	ts := pages(t, nil)
	one, two := world.NewBrowser(), world.NewBrowser()
	for i, tc := range []struct {
		b    *world.Browser
		want string
	}{{one, "first visit"}, {one, "back again with crumb"}, {two, "first visit"}} {
		if p := must[*world.Shown](t)(tc.b.Open(within(t), ts.URL+"/cookie")); p.Text() != tc.want {
			t.Errorf("visit %d: %q, want %q", i, p.Text(), tc.want)
		}
	}
	if got := one.Cookies(ts.URL); len(got) != 1 || got[0].Value != "crumb" {
		t.Errorf("cookies %v", got)
	}
}

func TestBrowserGoesOn(t *testing.T) {
	ts := pages(t, map[string]string{
		"/now":   `<meta http-equiv=refresh content="0; url=/said?by=refresh">`,
		"/later": `<meta http-equiv=refresh content="30"><title>Waiting</title>`,
		"/loop":  `<meta http-equiv=refresh content="0;url=/loop">`,
	})
	b := world.NewBrowser()
	p := must[*world.Shown](t)(b.Open(within(t), ts.URL+"/hop?to=/now"))
	if !strings.Contains(p.Text(), "by=refresh") {
		t.Errorf("ended at %s", p.URL)
	}
	want := []world.Visit{{"GET", ts.URL + "/hop?to=/now", 302}, {"GET", ts.URL + "/now", 200}, {"GET", ts.URL + "/said?by=refresh", 200}}
	if d := cmp.Diff(want, b.History()); d != "" {
		t.Errorf("history (-want +got):\n%s", d)
	}
	if p := must[*world.Shown](t)(b.Open(within(t), ts.URL+"/later")); p.Title != "Waiting" {
		t.Errorf("a page that polls was left: %s", p.URL)
	}
	if _, err := b.Open(within(t), ts.URL+"/loop"); err == nil {
		t.Error("went round for ever")
	}
}

func TestBrowserSaysWhereItComesFrom(t *testing.T) {
	other := pages(t, nil)
	ts := pages(t, nil)
	form := func(method, action string) string {
		return fmt.Sprintf(`<form method=%s action=%q><input name=a value=b><input name=to value=/said><button>Go</button></form>`, method, action)
	}
	foreign := strings.Replace(other.URL, "127.0.0.1", "localhost", 1)
	home := pages(t, map[string]string{
		"/same": form("post", "/said"), "/sibling": form("post", ts.URL+"/said"), "/cross": form("post", foreign+"/said"),
		"/get": form("get", "/said"), "/kept": form("post", "/hop?keep=1"), "/dropped": form("post", "/hop"),
	})
	b := world.NewBrowser()
	if p := must[*world.Shown](t)(b.Open(within(t), home.URL+"/said")); !strings.Contains(p.Text(), "site=none") {
		t.Errorf("typed: %s", p.Text())
	}
	for path, want := range map[string]string{
		"/same":    "POST form=a=b&to=%2Fsaid site=same-origin origin=" + home.URL,
		"/sibling": "POST form=a=b&to=%2Fsaid site=same-site origin=" + home.URL,
		"/cross":   "POST form=a=b&to=%2Fsaid site=cross-site origin=" + home.URL,
		"/get":     "GET form=a=b&to=%2Fsaid site=same-origin origin=",
		"/kept":    "POST form=a=b&to=%2Fsaid site=same-origin origin=" + home.URL,
		"/dropped": "GET form= site=same-origin origin=",
	} {
		must[*world.Shown](t)(b.Open(within(t), home.URL+path))
		if p := must[*world.Shown](t)(b.Click(within(t), "Go")); p.Text() != want {
			t.Errorf("%s: %q, want %q", path, p.Text(), want)
		}
	}
}

func TestBrowserObeysFormAction(t *testing.T) {
	other, ts := pages(t, nil), pages(t, nil)
	for _, tc := range []struct {
		allow string
		to    string
		ok    bool
	}{
		{"'self'", "/said", true},
		{"'self'", other.URL + "/said", false}, // the redirect after the POST is stopped, as in Chromium
		{"'self' " + other.URL, other.URL + "/said", true},
		{"'none'", "/said", false},
		{"", "/said", false},
	} {
		b := world.NewBrowser()
		must[*world.Shown](t)(b.Open(within(t), ts.URL+"/strict?allow="+strings.ReplaceAll(tc.allow, " ", "+")+"&to="+tc.to))
		if _, err := b.Click(within(t), "Go"); (err == nil) != tc.ok || (err != nil && !strings.Contains(err.Error(), "form-action")) {
			t.Errorf("form-action %s towards %s: %v", tc.allow, tc.to, err)
		}
	}
}

func TestBrowserBeforeItsFirstPage(t *testing.T) {
	b := world.NewBrowser()
	if _, err := b.Click(within(t), "anything"); err == nil {
		t.Error("clicked on nothing")
	}
	if b.Fill("a", "b") == nil {
		t.Error("filled in nothing")
	}
	if _, err := b.Open(within(t), "http://127.0.0.1:1/"); err == nil {
		t.Error("a closed port answered")
	}
}
