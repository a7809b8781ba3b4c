package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/doctor"
	"frontdesk.dev/frontdesk/internal/hosted/sandbox"
)

// sandboxCommand is how the binary runs itself as the first process of a sandbox. It is for nobody's hands.
func sandboxCommand() *cobra.Command {
	return &cobra.Command{Use: sandbox.Command, Hidden: true, Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		sandbox.Init()
		return fmt.Errorf("this is not for hands: `frontdesk serve` runs it")
	}}
}

// standing says which walls stand here, and why the others do not: one sandbox is built, by the process that would build the
// servers', and taken down again.
func standing() map[string]string {
	report := sandbox.Report{}
	c, err := sandbox.Build(sandbox.Setup{UID: 79_999, Memory: 64 << 20, Processes: 16, Files: 64})
	if err == nil {
		defer c.Kill()
		report = c.Report
	}
	found := map[string]string{}
	for _, m := range sandbox.Measures {
		switch {
		case err != nil:
			found[doctor.WallPrefix+string(m)] = err.Error()
		case !report.Held(m):
			found[doctor.WallPrefix+string(m)] = report[m]
		default:
			found[doctor.WallPrefix+string(m)] = doctor.Stands
		}
	}
	return found
}
