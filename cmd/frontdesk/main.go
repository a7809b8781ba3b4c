// Command frontdesk stands between AI agents, MCP servers and the APIs that they use: see README.md.
package main

import "os"

func main() {
	if err := execute(); err != nil {
		os.Exit(complain(os.Stderr, err))
	}
}
