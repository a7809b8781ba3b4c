// Package operate has the commands by which operators speak with the running server.
package operate

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"frontdesk.dev/frontdesk/cmd/frontdesk/console"
	"frontdesk.dev/frontdesk/internal/admin"
	"frontdesk.dev/frontdesk/internal/identity"
)

// Commands are about what runs: its config, what it decides, people's connections and access, and the servers that it runs.
func Commands() []*cobra.Command {
	return []*cobra.Command{reloadCommand(), explainCommand(), connectionsCommand(), accessCommand(), caCommand(), serversCommand()}
}

func reloadCommand() *cobra.Command {
	return &cobra.Command{Use: "reload", Short: "let the running server read its config again (as SIGHUP does)", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var said map[string]string
			if err := console.Ask(c, http.MethodPost, "/reload", nil, &said); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), said["reloaded"])
			return err
		}}
}

func explainCommand() *cobra.Command {
	var q admin.Question
	var args string
	var api admin.APIRequest
	c := &cobra.Command{Use: "explain --server SERVER (--tool TOOL | --api METHOD --url URL) --user USER", Short: "say what would be decided, by which policies, and with which credential method",
		Example: "  frontdesk explain --user alice --server issues --tool create_issue --args '{\"repo\":\"acme/website\"}'\n" +
			"  frontdesk explain --user alice --server issues --api POST --url https://api.github.com/repos/acme/website/issues --body '{\"title\":\"x\"}'",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if args != "" {
				if err := json.Unmarshal([]byte(args), &q.Arguments); err != nil {
					return fmt.Errorf("--args is no JSON object: %w", err)
				}
			}
			if api.Method != "" {
				q.API = &api
			}
			body, err := json.Marshal(q)
			if err != nil {
				return err
			}
			var e admin.Explanation
			if err := console.Ask(c, http.MethodPost, "/explain", bytes.NewReader(body), &e); err != nil {
				return err
			}
			if done, err := console.JSON(c, e); done || err != nil {
				return err
			}
			_, err = fmt.Fprint(c.OutOrStdout(), console.PrintableText(explanation(&e, q)))
			return err
		}}
	f := c.Flags()
	f.StringVar(&q.User, "user", "", "id, subject, name or e-mail of a person")
	f.StringVar(&q.Service, "service", "", "subject of a workload, instead of --user")
	f.StringSliceVar(&q.Groups, "group", nil, "groups to assume instead of those that are known")
	f.StringVar(&q.Client, "client", "", "client_id of the agent")
	f.StringVar(&q.Server, "server", "", "name of the MCP server")
	f.StringVar(&q.Tool, "tool", "", "name of the tool")
	f.StringVar(&api.Method, "api", "", "method of an API request that the server might send, instead of --tool")
	f.StringVar(&api.URL, "url", "", "its URL, as https://api.example.com/x?y=z")
	f.StringVar(&api.Body, "body", "", "its body")
	f.StringVar(&api.Type, "type", "application/json", "the type of its body")
	f.StringVar(&args, "args", "", "the tool's arguments as JSON")
	f.StringVar((*string)(&q.Tenant), "tenant", string(identity.DefaultTenant), "tenant")
	if err := c.MarkFlagRequired("server"); err != nil {
		panic(err) // a flag that does not exist: a slip in the lines above
	}
	c.MarkFlagsOneRequired("tool", "api")
	c.MarkFlagsMutuallyExclusive("tool", "api")
	c.MarkFlagsRequiredTogether("api", "url")
	return c
}

// explanation is what a person reads.
func explanation(e *admin.Explanation, q admin.Question) string {
	var b strings.Builder
	verdict := "yes"
	switch {
	case e.Refused != "":
		verdict = "no: " + e.Refused
	case !e.Allow:
		verdict = "no: " + e.Reason
	case e.WouldDeny:
		verdict = "yes, because the server is only observed; policy says no: " + e.Reason
	}
	what := "call " + q.Tool
	if q.API != nil {
		what = "send " + q.API.Method + " " + q.API.URL
	}
	fmt.Fprintf(&b, "May %s %s at %s?  %s\n", cmp.Or(q.User, q.Service), what, q.Server, verdict)
	if e.Operation != "" {
		fmt.Fprintf(&b, "  operation   %s\n", e.Operation)
	}
	for _, m := range e.Masks {
		fmt.Fprintf(&b, "  kept back   %s\n", m)
	}
	for _, p := range e.Policies {
		fmt.Fprintf(&b, "  decided by  %s\n", p)
	}
	for _, p := range e.Errors {
		fmt.Fprintf(&b, "  erred       %s\n", p)
	}
	if !e.Visible {
		fmt.Fprintln(&b, "  not listed  the tool does not exist for this caller")
	}
	for _, m := range e.Missing {
		fmt.Fprintf(&b, "  asks first  %s: %s %s\n", m.Upstream, m.Why, m.Reason)
	}
	for _, up := range slices.Sorted(maps.Keys(e.Upstreams)) {
		fmt.Fprintf(&b, "credential for %s\n", up)
		if of := e.Accounts[up]; of != "" {
			fmt.Fprintf(&b, "  connection  %s\n", of)
		}
		for _, v := range e.Upstreams[up] {
			mark := " "
			if v.Used {
				mark = "*"
			}
			fmt.Fprintf(&b, "  %s %-20s %s\n", mark, v.Method, v.Why)
		}
	}
	return b.String()
}
