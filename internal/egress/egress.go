// Package egress serves API calls out: what an MCP server sends with its transaction token arrives here, and leaves
// with the credential.
//
// It reads host, method and path, refuses what two readers could understand differently, and passes every request
// through the broker. It trusts a transaction token and nothing else about its sender. It holds no credential.
package egress
