package main

import (
	"flag"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// update writes the files that tests compare with: go test ./cmd/frontdesk -update
var update = flag.Bool("update", false, "write golden files and docs anew")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"frontdesk": main})
}

// TestScripts plays what operators type. The scripts are the specification of the command line: every message in its form.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "../../test/script", UpdateScripts: *update, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			for _, name := range []string{"PUBLIC", "EGRESS", "OPS"} {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				e.Setenv(name, l.Addr().String())
				if err := l.Close(); err != nil {
					return err
				}
			}
			e.Setenv("HOME", e.WorkDir)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// expand FILE: writes the environment's variables into a file.
			"expand": func(s *testscript.TestScript, _ bool, args []string) {
				for _, name := range args {
					text := os.Expand(s.ReadFile(name), s.Getenv)
					s.Check(os.WriteFile(s.MkAbs(name), []byte(text), 0o600))
				}
			},
			// ready: waits until the server that the script started is.
			"ready": func(s *testscript.TestScript, _ bool, _ []string) {
				for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
					if resp, err := http.Get("http://" + s.Getenv("OPS") + "/readyz"); err == nil {
						_ = resp.Body.Close()
						if resp.StatusCode == http.StatusOK {
							return
						}
					}
				}
				s.Fatalf("the server is not ready")
			},
			// get PATH FILE: fetches from the ops listener.
			"get": func(s *testscript.TestScript, _ bool, args []string) {
				resp, err := http.Get("http://" + s.Getenv("OPS") + args[0])
				s.Check(err)
				defer func() { _ = resp.Body.Close() }()
				f, err := os.Create(filepath.Join(s.Getenv("WORK"), args[1]))
				s.Check(err)
				_, err = f.ReadFrom(resp.Body)
				s.Check(err)
				s.Check(f.Close())
			},
		}})
}
