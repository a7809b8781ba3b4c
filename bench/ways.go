package main

import (
	"errors"
	"fmt"
	"strings"

	"frontdesk.dev/frontdesk/test/world"
)

// ways is everybody of a row: three ways to the same tool, each with a server of its own.
type ways struct {
	direct, bare, through way
	desk                  *desk
}

// callers is how many users call, in turn.
const callers = 1000

// ways starts everybody, with so many stored users, of whom so many call.
func (b *bench) ways(tool string, stored, calling int) (*ways, error) {
	api, err := b.start("api")
	if err != nil {
		return nil, err
	}
	apiURL := "http://" + api.addr
	w := &ways{}
	if w.direct, err = b.directWay(tool, apiURL, calling); err != nil {
		return nil, err
	}
	if w.bare, err = b.bareWay(tool, apiURL, calling); err != nil {
		return nil, err
	}
	w.desk, w.through, err = b.deskWay(tool, apiURL, stored, calling)
	return w, err
}

func (b *bench) directWay(tool, api string, calling int) (way, error) {
	server, err := b.start("server", "-to", api)
	if err != nil {
		return way{}, err
	}
	x, err := exchanges(server.addr, "/mcp", tool, calling, ownCredential)
	return way{name: "direct", tool: tool, addr: server.addr, exchanges: x, server: []int{server.pid}}, err
}

// bareWay has a proxy before the server and, where the tool calls the API, one behind it.
func (b *bench) bareWay(tool, api string, calling int) (way, error) {
	out, err := b.start("proxy", "-to", api)
	if err != nil {
		return way{}, err
	}
	server, err := b.start("server", "-to", "http://"+out.addr)
	if err != nil {
		return way{}, err
	}
	in, err := b.start("proxy", "-to", "http://"+server.addr)
	if err != nil {
		return way{}, err
	}
	gateway := []int{in.pid}
	if tool == "fetch" {
		gateway = append(gateway, out.pid)
	}
	x, err := exchanges(in.addr, "/mcp", tool, calling, ownCredential)
	return way{name: "bare proxy", tool: tool, addr: in.addr, exchanges: x, gateway: gateway, server: []int{server.pid}}, err
}

func (b *bench) deskWay(tool, api string, stored, calling int) (*desk, way, error) {
	egress, err := world.Port()
	if err != nil {
		return nil, way{}, err
	}
	server, err := b.start("server", "-to", "http://"+egress+"/egress/api")
	if err != nil {
		return nil, way{}, err
	}
	d, err := b.open(setting{stored: stored, server: "http://" + server.addr, egress: egress, api: api})
	if err != nil {
		return nil, way{}, err
	}
	addr := strings.TrimPrefix(d.Public, "http://")
	x, err := exchanges(addr, "/mcp/tools", tool, calling, b.idp.token)
	w := way{name: "Frontdesk", tool: tool, addr: addr, exchanges: x, gateway: []int{d.Pid()}, server: []int{server.pid}, desk: d}
	if err != nil {
		return nil, way{}, err
	}
	return d, w, b.greet(w)
}

// greet lets every caller in once, which is the start and not what is measured: tokens are verified, credentials unsealed.
func (b *bench) greet(w way) error {
	l := load{addr: w.addr, exchanges: w.exchanges, conns: 1, count: len(w.exchanges)}
	r, err := l.drive(b.ctx, func() {}, func() {})
	w.desk.sent(r.all, w.tool)
	return err
}

// sent counts calls that were answered, and so have to be in the log.
func (d *desk) sent(calls int64, tool string) {
	if tool != apiAlone {
		d.calls += calls
	}
	if tool == apiAlone || tool == "fetch" {
		d.apis += calls
	}
}

// ownCredential is what a client without Frontdesk has to hold.
func ownCredential(user int) (string, error) { return credential(user), nil }

// exchanges are the same call of each user, in the modern era, some 1 KB long.
func exchanges(addr, path, tool string, users int, token func(user int) (string, error)) ([]exchange, error) {
	var all []exchange
	for i := range users {
		t, err := token(i)
		if err != nil {
			return nil, err
		}
		body := fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"%s","arguments":{"text":"%s","count":3,"deep":{"list":[1,2,3],"flag":true}},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"elicitation":{"url":{}}},"io.modelcontextprotocol/clientInfo":{"name":"bench","version":"1"}}}}`,
			i+1, tool, filling)
		said := filling
		if tool == "fetch" {
			said = "hello " + login(i)
		}
		all = append(all, exchange{
			request: post(addr, path, t, "Mcp-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\nMcp-Name: "+tool+"\r\n", body),
			want:    answer(fmt.Append(nil, i+1), []byte(said)),
		})
	}
	if len(all) == 0 {
		return nil, errors.New("nobody calls")
	}
	return all, nil
}

// post is a request with the headers that an agent's client sends.
func post(addr, path, token, headers, body string) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bench\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nAccept: application/json, text/event-stream\r\n%sContent-Length: %d\r\n\r\n%s",
		path, addr, token, headers, len(body), body)
}
