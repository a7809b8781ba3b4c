package browser_test

import (
	"bufio"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// demo starts `make demo`, and returns the address that it tells people to open.
func demo(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "demo")
	if out, err := exec.Command("go", "build", "-o", bin, "../demo").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(bin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it has ended already if this fails
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		if _, address, ok := strings.Cut(lines.Text(), "open this:"); ok {
			return strings.Fields(address)[0]
		}
	}
	t.Fatal("the demo ended, and said no address")
	return ""
}

// reads waits until the page says so.
func (p *person) reads(words string) {
	p.t.Helper()
	for range 500 {
		if said, err := chromedp.Run(p.ctx, chromedp.Evaluate[string](`document.body.innerText`)); err == nil && strings.Contains(said, words) { // between two pages there is none
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.t.Fatalf("the page never said %q:\n%s", words, p.text())
}

// follow opens the first link whose address holds part, in the same tab.
func (p *person) follow(part string) {
	p.t.Helper()
	href := eval[string](p, `[...document.querySelectorAll('a')].map(a => a.href).find(h => h.includes('`+part+`')) || ''`)
	if href == "" {
		p.t.Fatalf("no link leads to %s:\n%s", part, p.text())
	}
	p.goTo(href)
}

// let makes the agent try a tool: the page goes on by itself until there is an answer.
func (p *person) let(tool string) {
	p.t.Helper()
	if !eval[bool](p, `(() => { const b = [...document.querySelectorAll('button')].find(b => b.textContent === '`+tool+`'); if (b) setTimeout(() => b.click(), 0); return !!b })()`) {
		p.t.Fatalf("there is no button %q:\n%s", tool, p.text())
	}
}

// TestTheDemoByHand plays the demo as a person does: let the agent try, be asked, connect, see the answer, look, disconnect,
// see it ask again.
func TestTheDemoByHand(t *testing.T) {
	p := open(t)
	agent := demo(t)
	p.goTo(agent)
	p.look("", "An employee's agent")
	p.let("whoami")
	p.reads("sign in here")
	p.follow("/authorize")
	p.signIn("alice")
	p.look("", "use issues as you?")
	p.press("Allow")
	p.look("", "Connect it now?")
	p.press("Later: a tool that needs it will ask then")
	p.goTo(agent)
	p.reads("is not connected for the user yet")
	p.follow("/connect/")
	p.look("", "asks to use your Tracker through issues")
	p.press("Continue to Tracker")
	p.signIn("octo-alice")
	p.press("Authorize")
	p.look("", "Tracker is connected as octo-alice")
	p.goTo(agent)
	p.let("whoami")
	p.reads(`octo-alice"`)
	p.follow("/portal/activity")
	p.look("", "What agents did for you")
	p.press("What is connected")
	p.look("", "What is connected for you")
	p.press("Disconnect Tracker")
	p.look("", "Disconnected from Tracker")
	p.goTo(agent)
	before := strings.Count(p.text(), "is not connected for the user yet")
	p.let("list_issues")
	p.reads("list_issues: ")
	if got := strings.Count(p.text(), "is not connected for the user yet"); got != before+1 {
		t.Errorf("after the end it asks again; the agent's page:\n%s", p.text())
	}
}
