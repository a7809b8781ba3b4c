package world

import (
	"context"
	"fmt"
	"net/http"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"frontdesk.dev/frontdesk/test/world/capture"
)

// VendorMCPConfig describes the tracker's own MCP server.
type VendorMCPConfig struct {
	Listen    string // address; any free loopback port where empty
	Tracker   string // the tracker's base URL, which is its issuer; required
	Stateless bool   // as in IssuesConfig
}

// VendorMCP is an MCP server that is the upstream itself: it wants the tracker's own access token and nothing else.
type VendorMCP struct {
	Recorder capture.Recorder // what it received; here the tracker's token belongs
	*party
	cfg VendorMCPConfig
	api *apiClient
}

// NewVendorMCP starts one; its endpoint is MCP.
func NewVendorMCP(cfg VendorMCPConfig) (*VendorMCP, error) {
	if cfg.Tracker == "" {
		return nil, fmt.Errorf("a vendor's MCP server needs its tracker")
	}
	p, err := listen(cfg.Listen)
	if err != nil {
		return nil, err
	}
	v := &VendorMCP{party: p, cfg: cfg}
	v.api = newAPIClient(cfg.Tracker+"/api", "Authorization", &v.Recorder)
	srv := v.build()
	h := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return srv },
		&mcp.StreamableHTTPOptions{Stateless: cfg.Stateless, PropagateRequestCancellation: true})
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/oauth-protected-resource/mcp", v.metadata)
	mux.Handle("/mcp", v.Recorder.Handler(v.guard(h)))
	p.serve(mux)
	return v, nil
}

// MCP is the endpoint and the resource identifier.
func (v *VendorMCP) MCP() string { return v.URL() + "/mcp" }

// Close ends the server and its connections to the API.
func (v *VendorMCP) Close() error {
	v.api.http.CloseIdleConnections()
	return v.party.Close()
}

// metadata is RFC 9728.
func (v *VendorMCP) metadata(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]any{
		"resource":                 v.MCP(),
		"resource_name":            "Tracker",
		"authorization_servers":    []string{v.cfg.Tracker},
		"scopes_supported":         []string{ScopeRead, ScopeWrite},
		"bearer_methods_supported": []string{"header"},
	})
}

// guard asks the tracker whose token this is; no other token opens anything here.
func (v *VendorMCP) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		challenge := fmt.Sprintf(`Bearer resource_metadata="%s/.well-known/oauth-protected-resource/mcp"`, v.URL())
		token, ok := bearer(r.Header)
		if ok {
			status, _, err := v.api.call(r.Context(), "Bearer "+token, apiRequest{http.MethodGet, "/user", ""})
			if err != nil {
				http.Error(w, "the tracker does not answer", http.StatusBadGateway)
				return
			}
			ok = status == http.StatusOK
			challenge += `, error="invalid_token"`
		}
		if !ok {
			w.Header().Set("WWW-Authenticate", challenge)
			http.Error(w, "sign in at the tracker", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (v *VendorMCP) build() *mcp.Server {
	srv := mcp.NewServer(&mcp.Implementation{Name: "tracker-mcp", Title: "Tracker", Version: "1.0.0"}, nil)
	for name, path := range map[string]string{"whoami": "/user", "list_issues": "/issues"} {
		mcp.AddTool(srv, &mcp.Tool{Name: name, Description: "Asks the tracker for " + path + ".", Annotations: &mcp.ToolAnnotations{ReadOnlyHint: true}},
			func(ctx context.Context, req *mcp.CallToolRequest, _ noArgs) (*mcp.CallToolResult, any, error) {
				return v.api.tool(ctx, req.Extra.Header.Get("Authorization"), apiRequest{http.MethodGet, path, ""})
			})
	}
	return srv
}
