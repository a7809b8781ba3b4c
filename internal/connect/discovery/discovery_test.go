package discovery_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"frontdesk.dev/frontdesk/internal/catalog"
	"frontdesk.dev/frontdesk/internal/connect/discovery"
	"frontdesk.dev/frontdesk/internal/identity"
	"frontdesk.dev/frontdesk/internal/kit/fault"
	"frontdesk.dev/frontdesk/internal/store"
)

// vendor is an MCP server and its authorization server, which say of themselves what a test wants.
type vendor struct {
	*httptest.Server
	open       bool                 // wants no token
	challenge  string               // WWW-Authenticate
	resource   func(map[string]any) // changes the metadata of the MCP server
	server     func(map[string]any) // and of its authorization server
	registers  func(asked map[string]any) (int, map[string]any)
	registered []map[string]any
}

func newVendor(t *testing.T) *vendor {
	v := &vendor{resource: func(map[string]any) {}, server: func(map[string]any) {}}
	mux := http.NewServeMux()
	write := func(w http.ResponseWriter, status int, doc any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(doc)
	}
	mux.HandleFunc("POST /mcp", func(w http.ResponseWriter, _ *http.Request) {
		if v.open {
			write(w, http.StatusOK, map[string]any{})
			return
		}
		if v.challenge != "" {
			w.Header().Set("WWW-Authenticate", v.challenge)
		}
		w.WriteHeader(http.StatusUnauthorized)
	})
	about := func(w http.ResponseWriter, _ *http.Request) {
		doc := map[string]any{"resource": v.URL + "/mcp", "authorization_servers": []string{v.URL}, "scopes_supported": []string{"read", "write"}}
		v.resource(doc)
		write(w, http.StatusOK, doc)
	}
	mux.HandleFunc("GET /.well-known/oauth-protected-resource/mcp", about)
	mux.HandleFunc("GET /elsewhere", about)
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, _ *http.Request) {
		doc := map[string]any{"issuer": v.URL, "authorization_endpoint": v.URL + "/authorize", "token_endpoint": v.URL + "/token", "code_challenge_methods_supported": []string{"S256"},
			"authorization_response_iss_parameter_supported": true, "scopes_supported": []string{"read", "offline_access"}, "registration_endpoint": v.URL + "/register"}
		v.server(doc)
		write(w, http.StatusOK, doc)
	})
	mux.HandleFunc("POST /register", func(w http.ResponseWriter, r *http.Request) {
		var asked map[string]any
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
			t.Error(err)
		}
		v.registered = append(v.registered, asked)
		if v.registers != nil {
			status, doc := v.registers(asked)
			write(w, status, doc)
			return
		}
		write(w, http.StatusCreated, map[string]any{"client_id": "dynamic-1"})
	})
	v.Server = httptest.NewServer(mux)
	t.Cleanup(v.Close)
	return v
}

type finding struct {
	*discovery.Finder
	up  *catalog.Upstream
	cat *catalog.Catalog
}

func newFinding(t *testing.T, v *vendor) *finding {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{Path: filepath.Join(t.TempDir(), "test.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	at, err := url.Parse(v.URL + "/mcp")
	if err != nil {
		t.Fatal(err)
	}
	up := &catalog.Upstream{Tenant: identity.DefaultTenant, Name: "own", Title: "Own", Origins: []*url.URL{at}, Resource: v.URL + "/mcp", Provider: &catalog.Provider{ID: "mcp:own", Name: "Own"},
		Methods: []catalog.Method{{Kind: catalog.AuthorizationCode}}}
	cat := &catalog.Catalog{}
	cat.Set(&catalog.Snapshot{Upstreams: map[identity.Tenant]map[catalog.UpstreamName]*catalog.Upstream{identity.DefaultTenant: {"own": up}}})
	return &finding{&discovery.Finder{Catalog: cat, Store: db, HTTP: &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		URL:     func(_ identity.Tenant, path string) string { return "http://127.0.0.1:1" + path },
		Foreign: func(_ identity.Tenant, issuer string) bool { return issuer == "http://127.0.0.1:1/idp" },
		Secret:  func(*catalog.Upstream) bool { return false }, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: time.Now}, up, cat}
}

// TestFound: an upstream that is given by its URL alone gets its authorization server and a client there, once for all replicas; what was
// found is what the catalogue says from then on.
func TestFound(t *testing.T) {
	for name, c := range map[string]struct {
		change       func(v *vendor, f *finding)
		client, auth string
		scopes       string
		registered   int
		dpop         string
	}{
		"registered by itself":      {client: "dynamic-1", auth: "none", scopes: "read write", registered: 1},
		"scopes of the challenge":   {change: func(v *vendor, _ *finding) { v.challenge = `Bearer scope="read"` }, client: "dynamic-1", auth: "none", scopes: "read", registered: 1},
		"metadata of the challenge": {change: func(v *vendor, _ *finding) { v.challenge = `Bearer resource_metadata="` + v.URL + `/elsewhere"` }, client: "dynamic-1", auth: "none", scopes: "read write", registered: 1},
		"by a key of ours": {change: func(v *vendor, _ *finding) {
			v.server = func(m map[string]any) {
				m["token_endpoint_auth_methods_supported"] = []string{"private_key_jwt", "none"}
			}
		}, client: "dynamic-1", auth: "private_key_jwt", scopes: "read write", registered: 1},
		"by our document, before dynamic": {change: func(v *vendor, _ *finding) {
			v.server = func(m map[string]any) { m["client_id_metadata_document_supported"] = true }
		}, client: "http://127.0.0.1:1" + discovery.DocumentPath + "own", auth: "none", scopes: "read write"},
		"by the config, before all": {change: func(v *vendor, f *finding) {
			f.up.Methods[0].Client = "by-hand"
			v.server = func(m map[string]any) { m["client_id_metadata_document_supported"] = true }
		}, client: "by-hand", auth: "none", scopes: "read write"},
		"by the config, with a secret": {change: func(_ *vendor, f *finding) {
			f.up.Methods[0].Client = "by-hand"
			f.Secret = func(*catalog.Upstream) bool { return true }
		}, client: "by-hand", auth: "basic", scopes: "read write"},
		"the second server that it names": {change: func(v *vendor, _ *finding) {
			v.resource = func(m map[string]any) { m["authorization_servers"] = []string{"http://127.0.0.1:1/idp", v.URL} }
		}, client: "dynamic-1", auth: "none", scopes: "read write", registered: 1},
		"tokens that are bound to keys": {change: func(v *vendor, _ *finding) {
			v.challenge = `DPoP algs="ES256", resource_metadata="` + v.URL + `/elsewhere"`
			v.resource = func(m map[string]any) { m["dpop_bound_access_tokens_required"] = true }
			v.server = func(m map[string]any) { m["dpop_signing_alg_values_supported"] = []string{"EdDSA", "ES256"} }
		}, client: "dynamic-1", auth: "none", scopes: "read write", registered: 1, dpop: catalog.DPoPAlways},
		"an API that takes such tokens": {change: func(v *vendor, _ *finding) {
			v.resource = func(m map[string]any) { m["dpop_signing_alg_values_supported"] = []string{"ES256"} }
			v.server = func(m map[string]any) { m["dpop_signing_alg_values_supported"] = []string{"ES256"} }
		}, client: "dynamic-1", auth: "none", scopes: "read write", registered: 1, dpop: catalog.DPoPAlways},
		"its server alone would bind": {change: func(v *vendor, _ *finding) {
			v.server = func(m map[string]any) { m["dpop_signing_alg_values_supported"] = []string{"ES256"} }
		}, client: "dynamic-1", auth: "none", scopes: "read write", registered: 1},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVendor(t)
			f := newFinding(t, v)
			if c.change != nil {
				c.change(v, f)
			}
			got, err := f.Find(t.Context(), f.up)
			if err != nil {
				t.Fatal(err)
			}
			o := got.Provider.OAuth
			if o.Issuer != v.URL || o.Token != v.URL+"/token" || !o.IssPromised || o.Resource != v.URL+"/mcp" || o.TokenAuth != c.auth || o.DPoP != c.dpop || got.Methods[0].Client != c.client ||
				strings.Join(o.Asked(nil), " ") != c.scopes+" offline_access" || len(v.registered) != c.registered {
				t.Errorf("found %+v, client %q, registered %v", o, got.Methods[0].Client, v.registered)
			}
			if f.cat.Upstream(identity.DefaultTenant, "own") != got || f.up.Provider.OAuth != nil {
				t.Error("the catalogue does not say it, or the config's own entry was changed")
			}
			// Another replica, and one after a reload, learns it from the store, without asking anybody.
			v.Close()
			f.cat.Set(&catalog.Snapshot{Upstreams: map[identity.Tenant]map[catalog.UpstreamName]*catalog.Upstream{identity.DefaultTenant: {"own": f.up}}})
			if err := f.Load(t.Context()); err != nil {
				t.Fatal(err)
			}
			if again := f.cat.Upstream(identity.DefaultTenant, "own"); again.Provider.OAuth == nil || again.Methods[0].Client != c.client {
				t.Error("it was forgotten")
			}
		})
	}
}

// TestFoundHostile. A found server that lies of itself, or points elsewhere, gets no browser, no code and no proof of who
// we are, and nothing of it is kept.
func TestFoundHostile(t *testing.T) {
	other := newVendor(t)
	set := func(key string, value any) func(v *vendor, f *finding) {
		return func(v *vendor, _ *finding) { v.server = func(m map[string]any) { m[key] = value } }
	}
	about := func(key string, value any) func(v *vendor, f *finding) {
		return func(v *vendor, _ *finding) { v.resource = func(m map[string]any) { m[key] = value } }
	}
	for name, change := range map[string]func(v *vendor, f *finding){
		"A-040 no PKCE":                       set("code_challenge_methods_supported", nil),
		"A-040 plain alone":                   set("code_challenge_methods_supported", []string{"plain"}),
		"A-041 another issuer":                set("issuer", other.URL),
		"A-041 an issuer with a slash":        func(v *vendor, _ *finding) { v.server = func(m map[string]any) { m["issuer"] = v.URL + "/" } },
		"A-041 javascript":                    set("authorization_endpoint", "javascript:alert(1)"),
		"A-041 file":                          set("authorization_endpoint", "file:///etc/passwd"),
		"A-041 a shell":                       set("authorization_endpoint", "http://127.0.0.1/$(calc)`x`"),
		"A-041 token endpoint elsewhere":      set("token_endpoint", "https://bank.example/token"),
		"A-042 registration elsewhere":        set("registration_endpoint", "https://bank.example/register"),
		"A-042 pushed elsewhere":              set("pushed_authorization_request_endpoint", "https://bank.example/par"),
		"A-043 another resource":              about("resource", other.URL+"/mcp"),
		"A-043 the host alone":                func(v *vendor, _ *finding) { v.resource = func(m map[string]any) { m["resource"] = v.URL } },
		"A-043 the company's IdP":             about("authorization_servers", []string{"http://127.0.0.1:1/idp"}),
		"A-043 none":                          about("authorization_servers", nil),
		"A-043 metadata on a third site":      func(v *vendor, _ *finding) { v.challenge = `Bearer resource_metadata="http://evil.example/x"` },
		"A-043 an issuer that is not allowed": func(_ *vendor, f *finding) { f.up.Issuers = []string{"https://auth.example.com"} },
		"no sign-in":                          func(v *vendor, _ *finding) { v.open = true },
		"no registration":                     set("registration_endpoint", nil),
		"bound tokens, and nobody binds":      about("dpop_bound_access_tokens_required", true),
		"bound tokens, by no algorithm of ours": func(v *vendor, _ *finding) {
			v.resource = func(m map[string]any) { m["dpop_bound_access_tokens_required"] = true }
			v.server = func(m map[string]any) { m["dpop_signing_alg_values_supported"] = []string{"none", "HS256"} }
		},
		"a secret that nobody asked for": func(v *vendor, _ *finding) {
			v.registers = func(map[string]any) (int, map[string]any) {
				return 201, map[string]any{"client_id": "x", "client_secret": "s", "token_endpoint_auth_method": "client_secret_post"}
			}
		},
		"a registration that is none": func(v *vendor, _ *finding) {
			v.registers = func(map[string]any) (int, map[string]any) { return 201, map[string]any{} }
		},
		"a registration that is refused": func(v *vendor, _ *finding) {
			v.registers = func(map[string]any) (int, map[string]any) {
				return 400, map[string]any{"error": "invalid_redirect_uri"}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVendor(t)
			f := newFinding(t, v)
			change(v, f)
			got, err := f.Find(t.Context(), f.up)
			if fault.KindOf(err) != fault.Denied || !strings.Contains(fault.Message(err), "ask an operator") {
				t.Errorf("found %v (%v)", got, err)
			}
			if l, err := f.Store.Found(t.Context(), identity.DefaultTenant, "own"); err != nil || len(l) != 0 {
				t.Errorf("kept %v (%v)", l, err)
			}
			if f.cat.Upstream(identity.DefaultTenant, "own").Provider.OAuth != nil || len(other.registered) != 0 {
				t.Error("it is used all the same")
			}
		})
	}
	t.Run("away is not a no", func(t *testing.T) {
		v := newVendor(t)
		f := newFinding(t, v)
		v.Close()
		if _, err := f.Find(context.WithoutCancel(t.Context()), f.up); fault.KindOf(err) != fault.Unavailable {
			t.Error(err)
		}
	})
}

// TestRegistrationIsTheIssuersOwn: a client that one authorization server gave is never used at another.
func TestRegistrationIsTheIssuersOwn(t *testing.T) {
	v, second := newVendor(t), newVendor(t)
	second.registers = func(map[string]any) (int, map[string]any) { return 201, map[string]any{"client_id": "of-the-second"} }
	f := newFinding(t, v)
	if _, err := f.Find(t.Context(), f.up); err != nil {
		t.Fatal(err)
	}
	v.resource = func(m map[string]any) { m["authorization_servers"] = []string{second.URL} }
	moved := *f.up
	moved.Issuers = []string{second.URL} // the operator says who it is now
	f.cat.Set(&catalog.Snapshot{Upstreams: map[identity.Tenant]map[catalog.UpstreamName]*catalog.Upstream{identity.DefaultTenant: {"own": &moved}}})
	got, err := f.Find(t.Context(), &moved)
	if err != nil || got.Methods[0].Client != "of-the-second" || got.Provider.OAuth.Issuer != second.URL {
		t.Errorf("%+v (%v)", got, err)
	}
}

// TestForgotten: a registration that its server has forgotten is renewed once, for all replicas, and not before it is old enough to have
// been forgotten; what is not of our own making is never renewed.
func TestForgotten(t *testing.T) {
	v := newVendor(t)
	v.registers = func(map[string]any) (int, map[string]any) {
		return 201, map[string]any{"client_id": fmt.Sprintf("dynamic-%d", len(v.registered))}
	}
	f := newFinding(t, v)
	now := time.Now()
	f.Now = func() time.Time { return now }
	up, err := f.Find(t.Context(), f.up)
	if err != nil || !f.ByItself(up) || f.ByItself(f.up) {
		t.Fatalf("%v, of our own making: %v", err, f.ByItself(up))
	}
	other := *newFinding(t, v) // another replica
	other.Store, other.Now = f.Store, f.Now
	if err := other.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Forgotten(t.Context(), up, "dynamic-1"); fault.KindOf(err) != fault.Denied || len(v.registered) != 1 {
		t.Errorf("a young one: %v, %d registrations", err, len(v.registered))
	}

	now = now.Add(time.Hour)
	renewed, err := f.Forgotten(t.Context(), up, "dynamic-1")
	if err != nil || renewed.Methods[0].Client != "dynamic-2" || f.cat.Upstream(identity.DefaultTenant, "own") != renewed || !f.ByItself(renewed) {
		t.Fatalf("%v, %v", renewed, err)
	}
	// Who has not heard of it yet asks for no third one; who only reads learns of it too.
	theirs := other.cat.Upstream(identity.DefaultTenant, "own")
	if again, err := other.Forgotten(t.Context(), theirs, "dynamic-1"); err != nil || again.Methods[0].Client != "dynamic-2" || len(v.registered) != 2 {
		t.Errorf("%v, %v, %d registrations", again, err, len(v.registered))
	}
	now = now.Add(time.Hour)
	if _, err := other.Forgotten(t.Context(), theirs, "dynamic-2"); err != nil {
		t.Fatal(err)
	}
	if err := f.Load(t.Context()); err != nil || f.cat.Upstream(identity.DefaultTenant, "own").Methods[0].Client != "dynamic-3" {
		t.Errorf("%v, %s", err, f.cat.Upstream(identity.DefaultTenant, "own").Methods[0].Client)
	}

	now = now.Add(time.Hour)
	v.registers = func(map[string]any) (int, map[string]any) { return 500, map[string]any{} }
	if _, err := f.Forgotten(t.Context(), up, "dynamic-3"); fault.KindOf(err) != fault.Unavailable || f.cat.Upstream(identity.DefaultTenant, "own").Methods[0].Client != "dynamic-3" {
		t.Errorf("a server that is away: %v", err)
	}

	for name, change := range map[string]func(v *vendor, f *finding){
		"the config's client": func(_ *vendor, f *finding) { f.up.Methods[0].Client = "by-hand" },
		"a document of ours": func(v *vendor, _ *finding) {
			v.server = func(m map[string]any) { m["client_id_metadata_document_supported"] = true }
		},
	} {
		v := newVendor(t)
		f := newFinding(t, v)
		change(v, f)
		up, err := f.Find(t.Context(), f.up)
		if err != nil {
			t.Fatal(err)
		}
		f.Now = func() time.Time { return now }
		if _, err := f.Forgotten(t.Context(), up, up.Methods[0].Client); fault.KindOf(err) != fault.Denied || f.ByItself(up) || len(v.registered) != 0 {
			t.Errorf("%s: %v, %d registrations", name, err, len(v.registered))
		}
	}
}
