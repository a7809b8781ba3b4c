// Command small is the smallest MCP server that can be hosted: a static program that reads a message a line and answers each with the
// same words. It costs next to nothing, so that what is measured is the hosting.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"strings"
)

var (
	hello  = `{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"small","version":"1"}}`
	answer = `{"content":[{"type":"text","text":"` + strings.Repeat("All work and no play makes a dull benchmark. ", 12) + `"}]}`
)

func main() {
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return // whoever spoke to us is gone
		}
		var m struct {
			ID     json.RawMessage `json:"id"`
			Method string          `json:"method"`
		}
		if json.Unmarshal(bytes.TrimSpace(line), &m) != nil || m.ID == nil {
			continue
		}
		said := `"result":` + answer
		switch m.Method {
		case "initialize":
			said = `"result":` + hello
		case "tools/call":
		default:
			said = `"error":{"code":-32601,"message":"no such method"}`
		}
		if _, err := os.Stdout.WriteString(`{"jsonrpc":"2.0","id":` + string(m.ID) + `,` + said + "}\n"); err != nil {
			return
		}
	}
}
