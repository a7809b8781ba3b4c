package browser_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/storybook"
	"frontdesk.dev/frontdesk/test/world"
)

// person drives a real Chromium in which no page may run scripts, and looks at each page with axe as it goes.
type person struct {
	t   *testing.T
	ctx context.Context
	axe string
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

func open(t *testing.T) *person {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		missing(t, "needs Chromium: `make tools` installs it on Debian")
	}
	axe, err := os.ReadFile("../tools/node_modules/axe-core/axe.min.js")
	if err != nil {
		missing(t, "needs axe-core: `make tools` fetches it")
	}
	ctx, cancel := chromedp.NewContext(context.Background())
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(ctx, 5*time.Minute)
	t.Cleanup(cancel)
	p := &person{t, ctx, string(axe)}
	p.narrow(1000)
	return p
}

func (p *person) narrow(width int64) {
	p.t.Helper()
	if _, err := chromedp.Call(p.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 800, DeviceScaleFactor: 1}); err != nil {
		p.t.Fatal(err)
	}
}

// media asks for light or dark, as a system does.
func (p *person) media(scheme string) {
	p.t.Helper()
	if _, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *person) goTo(url string) {
	p.t.Helper()
	if _, err := chromedp.RunResponse(p.ctx, chromedp.Navigate(url)); err != nil {
		p.t.Fatal(err)
	}
}

// eval runs in the page by the debugger, which the page's own policy does not hold back.
func eval[T any](p *person, js string) T {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](js, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

// press clicks the button or link that reads so, as the keyboard's Enter on it does, and waits for the page after it.
func (p *person) press(words string) {
	p.t.Helper()
	before := eval[string](p, `location.href + performance.timeOrigin`)
	quoted, _ := json.Marshal(words)
	if !eval[bool](p, `(() => { const e = [...document.querySelectorAll('button,a')].find(e => e.textContent.trim() === `+string(quoted)+`); if (!e) return false; e.focus(); setTimeout(() => e.click(), 0); return true })()`) {
		p.t.Fatalf("there is no %q on the page:\n%s", words, p.text())
	}
	p.settle(before)
}

// settle waits until another page than before is there, and stays.
func (p *person) settle(before string) {
	p.t.Helper()
	for range 400 {
		now, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`document.readyState === 'complete' && !document.querySelector('meta[http-equiv=refresh]') ? location.href + performance.timeOrigin : ''`))
		if err == nil && now != "" && now != before {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.t.Fatalf("the page stays:\n%s", p.text())
}

func (p *person) text() string { return eval[string](p, `document.body.innerText`) }

// signIn fills in whatever login form is there.
func (p *person) signIn(name string) {
	p.t.Helper()
	before := eval[string](p, `location.href + performance.timeOrigin`)
	n, _ := json.Marshal(name)
	if !eval[bool](p, `(() => { const i = [...document.querySelectorAll('input:not([type=hidden])')]; if (i.length < 2) return false; i[0].value = `+string(n)+`; i[1].value = '`+world.Password+`'; setTimeout(() => i[1].form.requestSubmit(), 0); return true })()`) {
		p.t.Fatalf("there is no login form:\n%s", p.text())
	}
	p.settle(before)
}

// picture keeps what the page looks like, for the docs.
func (p *person) picture(name string) {
	p.t.Helper()
	png, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("../../docs/images", name+".png"), png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// look checks a page with axe in light and dark, and at 320 pixels, and takes its picture where it has a name.
func (p *person) look(name, firstLine string) {
	p.t.Helper()
	if got := eval[string](p, `document.querySelector('h1').innerText`); !strings.Contains(got, firstLine) {
		p.t.Fatalf("%s: the first line is %q, want %q\n%s", name, got, firstLine, p.text())
	}
	for _, dark := range []string{"light", "dark"} {
		p.media(dark)
		if v := eval[string](p, p.axe+`;axe.run().then(r => r.violations.map(v => v.id + ": " + v.nodes.map(n => n.html).join(" ")).join("\n"))`); v != "" {
			p.t.Errorf("%s (%s): axe finds\n%s", name, dark, v)
		}
	}
	p.media("light")
	if os.Getenv("FRONTDESK_PICTURES") != "" && name != "" {
		p.picture(name)
	}
	p.narrow(320)
	if wide := eval[bool](p, `document.documentElement.scrollWidth > 320`); wide {
		p.t.Errorf("%s: it scrolls sideways at 320 pixels", name)
	}
	p.narrow(1000)
}

func TestPagesInARealBrowser(t *testing.T) {
	p := open(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	s, err := stage.New(ctx, t.TempDir(), stage.Options{Methods: "[authorization_code]"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })

	// An agent asks; its person is the browser.
	link := make(chan string, 1)
	agent, err := world.NewAgent(world.AgentConfig{URL: s.Desk().MCP("issues"), Name: "Ada \u202eevil <b>Agent</b>", Era: world.Era2025November,
		Browser: world.OpenerFunc(func(_ context.Context, address string) error { link <- address; return nil })})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agent.Close() })
	answer := make(chan string, 1)
	go func() {
		r, err := agent.Call(ctx, "whoami", nil)
		if err != nil {
			answer <- err.Error()
			return
		}
		answer <- world.Text(r)
	}()
	p.goTo(<-link)
	p.signIn("alice")
	p.look("", "use issues as you?")
	if strings.ContainsRune(p.text(), '\u202e') {
		t.Error("a direction character of the client's name reached the page")
	}
	p.press("Allow")
	p.look("", "Connect it now?")
	p.press("Later: a tool that needs it will ask then")
	text := <-answer
	url := text[strings.LastIndex(text, "\n")+1:]
	p.goTo(url)
	p.look("", "asks to use your Tracker through issues")
	p.press("Continue to Tracker")
	p.signIn("octo-alice")
	p.press("Authorize")
	p.look("", "Tracker is connected as octo-alice")
	p.goTo(s.Desk().Public + "/portal/")
	p.look("", "What is connected for you")
	if r, err := agent.Call(ctx, "list_issues", nil); err != nil || r.IsError {
		t.Error(r, err)
	}
	p.goTo(s.Desk().Public + "/portal/activity")
	p.look("", "What agents did for you")
	p.goTo(url)
	p.look("", "This request was answered")
	p.goTo(s.Desk().Public + "/callback/tracker?code=x&state=y")
	p.look("", "That did not work")
	p.goTo(s.Desk().Public + "/portal/")
	p.press("Disconnect Tracker")
	p.look("", "Disconnected from Tracker")
	p.goTo(s.Desk().Public + "/signout")
	p.look("", "Sign out")
}

// TestEveryPageInEveryState looks at the storybook: first line, axe, light and dark, 320 pixels, weight, and that the keyboard
// reaches all there is. With FRONTDESK_PICTURES=1 it takes the pictures in docs/images (make pictures).
func TestEveryPageInEveryState(t *testing.T) {
	p := open(t)
	h, err := storybook.Handler(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	for _, s := range storybook.Stories {
		p.goTo(srv.URL + "/" + s.Name)
		p.look(s.Name, s.First)
		p.tabThrough(s.Name)
		if n := eval[int](p, `document.documentElement.outerHTML.length + performance.getEntriesByType("resource").reduce((n, e) => n + e.decodedBodySize, 0)`); n > 100_000 {
			t.Errorf("%s weighs %d bytes", s.Name, n)
		}
		if eval[bool](p, `[...document.querySelectorAll('script,[onclick],[style]')].length > 0`) {
			t.Errorf("%s needs a script, or holds a style", s.Name)
		}
		if small := eval[string](p, `[...document.querySelectorAll('button,a.button,input:not([type=hidden]),select')].filter(e => e.getBoundingClientRect().height < 43.5).map(e => e.outerHTML).join("\n")`); small != "" {
			t.Errorf("%s: smaller than a finger: %s", s.Name, small)
		}
	}
	if os.Getenv("FRONTDESK_PICTURES") != "" { // one of each kind
		for _, name := range []string{"connect", "connections", "activity"} {
			p.goTo(srv.URL + "/" + name)
			p.media("dark")
			p.picture(name + "-dark")
			p.media("light")
			p.narrow(320)
			p.picture(name + "-narrow")
			p.narrow(1000)
		}
	}
}

// tabThrough presses Tab until everything that can be used has had the focus.
func (p *person) tabThrough(name string) {
	p.t.Helper()
	const all = `[...document.querySelectorAll('a[href],button,input:not([type=hidden]),select,summary')].filter(e => e.checkVisibility())`
	want := eval[int](p, `window.seen = new Set(); document.activeElement.blur(); `+all+`.length`)
	got := 0
	for range want + 6 { // a date has several places
		if _, err := chromedp.Run(p.ctx, chromedp.KeyEvent("\t")); err != nil {
			p.t.Fatal(err)
		}
		if got = eval[int](p, `window.seen.add(document.activeElement); `+all+`.filter(e => window.seen.has(e)).length`); got == want {
			return
		}
	}
	p.t.Errorf("%s: the keyboard reaches %d of %d", name, got, want)
}
