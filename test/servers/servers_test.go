//go:build linux

package servers_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"frontdesk.dev/frontdesk/test/stage"
	"frontdesk.dev/frontdesk/test/world"
	"frontdesk.dev/frontdesk/test/world/oci"
)

// server is one of npm's or PyPI's, and all that an operator has to know of it.
type server struct {
	name      string // of server and upstream
	pkg, main string
	module    string // of Python, whose main is called; "" = npm's
	version   string
	args      []string
	host      string
	injection string // YAML; the default where empty
	egress    string // the same: where its keycard stands besides
	door      string // as the table says it
	env       map[string]string
	tool      string
	ask       func(mark string) map[string]any
}

func one(name string) func(string) map[string]any {
	return func(mark string) map[string]any { return map[string]any{name: mark} }
}

var servers = []server{
	{name: "github", pkg: "@modelcontextprotocol/server-github", main: "dist/index.js", host: "api.github.com", door: "proxy", env: map[string]string{"GITHUB_PERSONAL_ACCESS_TOKEN": "{keycard}"}, tool: "search_repositories", ask: one("query")},
	{name: "gitlab", pkg: "@modelcontextprotocol/server-gitlab", main: "dist/index.js", host: "gitlab.com", door: "base URL", env: map[string]string{"GITLAB_PERSONAL_ACCESS_TOKEN": "{keycard}", "GITLAB_API_URL": "{egress:gitlab}/api/v4"}, tool: "search_repositories", ask: one("search")},
	{name: "slack", pkg: "@modelcontextprotocol/server-slack", main: "dist/index.js", host: "slack.com", door: "proxy", env: map[string]string{"SLACK_BOT_TOKEN": "{keycard}", "SLACK_TEAM_ID": "T1"}, tool: "slack_get_user_profile", ask: one("user_id")},
	{name: "notion", pkg: "@notionhq/notion-mcp-server", main: "bin/cli.mjs", host: "api.notion.com", door: "base URL", env: map[string]string{"NOTION_TOKEN": "{keycard}", "BASE_URL": "{egress:notion}"}, tool: "API-post-search", ask: one("query")},
	{name: "sentry", pkg: "@sentry/mcp-server", main: "dist/index.js", host: "sentry.io", door: "proxy", env: map[string]string{"SENTRY_ACCESS_TOKEN": "{keycard}"}, tool: "find_organizations", ask: one("query")},
	{name: "gitlab2", pkg: "@zereight/mcp-gitlab", main: "build/index.js", host: "gitlab.com", door: "proxy", env: map[string]string{"GITLAB_PERSONAL_ACCESS_TOKEN": "{keycard}"}, tool: "search_repositories", ask: one("search")},
	{name: "jira", pkg: "@aashari/mcp-server-atlassian-jira", main: "dist/index.js", host: "acme.atlassian.net", injection: "{kind: basic, format: 'desk@acme.example:{token}'}", door: "proxy", env: map[string]string{"ATLASSIAN_SITE_NAME": "acme", "ATLASSIAN_USER_EMAIL": "desk@acme.example", "ATLASSIAN_API_TOKEN": "{keycard}"}, tool: "jira_get",
		ask: func(mark string) map[string]any { return map[string]any{"path": "/rest/api/3/search?jql=" + mark} }},
	{name: "figma", pkg: "figma-developer-mcp", main: "dist/bin.js", args: []string{"--stdio"}, host: "api.figma.com", injection: "{kind: header, name: X-Figma-Token, format: '{token}'}", door: "proxy", env: map[string]string{"FIGMA_API_KEY": "{keycard}", "FRAMELINK_TELEMETRY": "off"}, tool: "get_figma_data", ask: one("fileKey")},
	{name: "tavily", pkg: "tavily-mcp", main: "build/index.js", host: "api.tavily.com", egress: "{token_in: {json: [/api_key]}}", door: "proxy, in a header and in the body", env: map[string]string{"TAVILY_API_KEY": "{keycard}"}, tool: "tavily_search", ask: one("query")},
	{name: "maps", pkg: "@modelcontextprotocol/server-google-maps", main: "dist/index.js", host: "maps.googleapis.com", injection: "{kind: query, name: key}", door: "proxy, in the query", env: map[string]string{"GOOGLE_MAPS_API_KEY": "{keycard}"}, tool: "maps_geocode", ask: one("address")},
	{name: "brave", pkg: "@brave/brave-search-mcp-server", main: "dist/index.js", host: "api.search.brave.com", injection: "{kind: header, name: X-Subscription-Token, format: '{token}'}", door: "proxy", env: map[string]string{"BRAVE_API_KEY": "{keycard}"}, tool: "brave_web_search", ask: one("query")},
	{name: "jirapy", pkg: "mcp-atlassian", module: "mcp_atlassian", host: "acme.atlassian.net", injection: "{kind: basic, format: 'desk@acme.example:{token}'}", door: "proxy", env: map[string]string{"JIRA_URL": "https://acme.atlassian.net", "JIRA_USERNAME": "desk@acme.example", "JIRA_API_TOKEN": "{keycard}"}, tool: "jira_search", ask: one("jql")},
}

// alone is the same program, which is told of no proxy: it goes straight to its API's name.
func (s server) alone() server {
	s.env = maps.Clone(s.env)
	for _, name := range []string{"HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy", "NODE_USE_ENV_PROXY"} {
		s.env[name] = ""
	}
	s.door = "its API's name"
	return s
}

// find looks for a package where npm put it, and says which version it is.
func (s *server) find(t *testing.T) (modules string) {
	t.Helper()
	for _, dir := range []string{os.Getenv("FRONTDESK_SERVERS"), "node_modules", "../tools/node_modules"} {
		text, err := os.ReadFile(filepath.Join(dir, s.pkg, "package.json"))
		if dir == "" || err != nil {
			continue
		}
		var p struct{ Version string }
		if err := json.Unmarshal(text, &p); err != nil {
			t.Fatal(err)
		}
		s.version = p.Version
		return reachable(t, dir)
	}
	t.Fatalf("%s is not installed: test/tools/install.sh, or make servers, does it", s.pkg)
	return ""
}

// install fetches a package of PyPI, as requirements.txt pins it.
func (s *server) install(t *testing.T) (venv string) {
	t.Helper()
	venv, err := filepath.Abs("node_modules/.venv")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{"/usr/bin/python3", "-m", "venv", venv}, {venv + "/bin/pip", "install", "--quiet", "-r", "requirements.txt"}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v (Debian: apt-get install python3-venv)\n%s", c, err, out)
		}
	}
	out, err := exec.Command(venv+"/bin/python", "-c", "from importlib.metadata import version; print(version('"+s.pkg+"'))").Output()
	if err != nil {
		t.Fatal(err)
	}
	s.version = strings.TrimSpace(string(out))
	return reachable(t, venv)
}

func node(t *testing.T) string {
	t.Helper()
	path := os.Getenv("FRONTDESK_NODE")
	if path == "" {
		path = "../tools/node_modules/node/bin/node"
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatalf("Node is not installed: test/tools/install.sh does it (%v)", err)
	}
	return filepath.Join(reachable(t, filepath.Dir(path)), "node")
}

// reachable is the directory, or a copy of it where one above it is closed to others: a hosted server has a user id of its own.
func reachable(t *testing.T, dir string) string {
	t.Helper()
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	for up := dir; up != "/"; up = filepath.Dir(up) {
		if info, err := os.Stat(up); err != nil {
			t.Fatal(err)
		} else if info.Mode().Perm()&0o005 != 0o005 {
			return duplicate(t, dir)
		}
	}
	return dir
}

func duplicate(t *testing.T, dir string) string {
	t.Helper()
	to, err := os.MkdirTemp("/var/tmp", "frontdesk-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(to) })
	if err := os.Chmod(to, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-r", dir, to).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(to, filepath.Base(dir))
}

// row is a line of the table.
type row struct {
	server
	result string
	start  string // of its processes: from the sandbox to the answer to the handshake
}

// way is how a server is run: the YAML of its entry that says so.
type way func(t *testing.T, s *server) string

// asCommand is a program of this machine.
func asCommand(t *testing.T, s *server) string {
	if s.module != "" {
		venv := s.install(t)
		return fmt.Sprintf("command: [%s/bin/python, -c, \"from %s import main; main()\"], sandbox: {read: [%s], memory_mb: 1024}", venv, s.module, venv)
	}
	bin, modules := node(t), s.find(t)
	return fmt.Sprintf("command: [%s, %s], sandbox: {read: [%s, %s], memory_mb: 1024}", bin, strings.Join(append([]string{filepath.Join(modules, s.pkg, s.main)}, s.args...), ", "), bin, modules)
}

// inImage is the same program in an image, with its packages, Node, and the libraries that Node is linked to.
func inImage(t *testing.T, s *server) string {
	t.Helper()
	linked, err := oci.Installed(node(t))
	if err != nil {
		t.Fatal(err)
	}
	linked[0].Name = "usr/local/bin/node"
	packages, err := exec.Command("tar", "-C", s.find(t), "--exclude=./node", "--transform=s,^\\.,opt/server/node_modules,", "-cf", "-", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(t.TempDir(), "image.tar")
	i := oci.New(v1.ImageConfig{Env: []string{"PATH=/usr/local/bin"}, Entrypoint: append([]string{"node", filepath.Join("node_modules", s.pkg, s.main)}, s.args...), WorkingDir: "/opt/server", User: "1001:0"}, nil,
		oci.Tar(linked...), oci.Layer{Plain: packages, Packed: packages, Type: v1.MediaTypeImageLayer})
	if err := os.WriteFile(at, i.Layout(), 0o600); err != nil {
		t.Fatal(err)
	}
	return "image: \"file:" + at + "\", sandbox: {memory_mb: 1024}"
}

// serve runs servers for two users in parallel and returns the table.
func serve(t *testing.T, how way, list []server) []row {
	t.Helper()
	var hosts, callbacks []string
	for _, s := range list {
		hosts, callbacks = append(hosts, s.host), append(callbacks, s.name)
	}
	v := newVendors(t, hosts)
	dir := t.TempDir()
	ca := filepath.Join(dir, "vendors.pem")
	if err := os.WriteFile(ca, v.CA, 0o644); err != nil {
		t.Fatal(err)
	}
	o := stage.Options{Callback: callbacks, Config: fmt.Sprintf("outbound: {proxy: %q, ca_file: %q}\nhosting: {per_user: 20}\n", v.Proxy, ca)}
	for i := range list {
		s := &list[i]
		o.Servers += fmt.Sprintf("  %s: {%s, env: %s, upstreams: [%s], allow: [group:engineering]}\n", s.name, how(t, s), asYAML(s.env), s.name)
	}
	started := make(chan struct{})
	var st *stage.Stage
	v.who = func(ctx context.Context, credential string) string { <-started; return owner(ctx, st, credential) }
	// The vendors' sign-in is the tracker's: what is tried here is how a credential reaches the API.
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for _, s := range list {
		o.Upstream += fmt.Sprintf("  %s: {provider: vendor-%s, client_id: frontdesk, client_secret: file:tracker.secret, scopes: [\"issues:read\", \"issues:write\"], methods: [authorization_code]}\n", s.name, s.name)
	}
	o.Providers = func(tracker string) (l string) {
		for _, s := range list {
			injection := ""
			if s.injection != "" {
				injection = "\n    injection: " + s.injection
			}
			if s.egress != "" {
				injection += "\n    egress: " + s.egress
			}
			l += fmt.Sprintf(`  vendor-%s:
    name: %s
    hosts: ["%s"]
    oauth: {issuer: %s, iss_promised: true, authorization_endpoint: %s/authorize, token_endpoint: %s/oauth/token, token_auth: basic, refresh: {rotation: strict, scope_needed: offline_access}}
    account: {url: /frontdesk-account, pointer: /login, id_pointer: /id}%s
`, s.name, s.name, s.host, tracker, tracker, tracker, injection)
		}
		return l
	}
	var err error
	if st, err = stage.New(ctx, dir, o); err != nil {
		t.Fatal(err)
	}
	close(started)
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(st.Desk().Log())
		}
	})
	rows := make([]row, len(list))
	for i, s := range list {
		rows[i] = try(t, st, v, s)
	}
	if l := v.strangers(); len(l) > 0 {
		t.Errorf("an API saw requests with a credential that is nobody's: %v", l)
	}
	return rows
}

func asYAML(env map[string]string) string {
	b, err := json.Marshal(env) // JSON is YAML
	if err != nil {
		panic(err)
	}
	return string(b)
}

// owner asks the tracker whose token it is.
func owner(ctx context.Context, st *stage.Stage, credential string) string {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, st.Tracker.API()+"/user", nil)
	if err != nil {
		return ""
	}
	r.Header.Set("Authorization", "Bearer "+credential)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return ""
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	var u struct{ Login string }
	if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(body, &u) != nil {
		return ""
	}
	return u.Login
}

// try lets two users call one server at once, three times each, and looks at what the API saw.
func try(t *testing.T, st *stage.Stage, v *vendors, s server) row {
	t.Helper()
	r := row{server: s, result: "works"}
	var all sync.WaitGroup
	var mu sync.Mutex
	fail := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		r.result = "FAILS"
		t.Errorf(s.name+": "+format, args...)
	}
	for _, who := range []string{"alice", "bob"} {
		all.Go(func() {
			a, err := world.NewAgent(world.AgentConfig{URL: st.Desk().MCP(s.name), Name: "agent of " + who, Browser: st.Person(who, "Later: a tool that needs it will ask then")})
			if err != nil {
				fail("%v", err)
				return
			}
			defer func() { _ = a.Close() }()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			tools, err := a.Tools(ctx)
			if err != nil || !slices.Contains(tools, s.tool) {
				fail("%s cannot list its tools: %v %v", who, tools, err)
				return
			}
			mark := "of" + s.name + who
			for round := range 4 {
				res, err := a.Call(ctx, s.tool, s.ask(mark))
				if err != nil {
					fail("%s: %v", who, err)
					return
				}
				text := world.Text(res)
				if _, link, ok := strings.Cut(text, st.Desk().Public+"/connect/"); ok && round == 0 {
					link, _, _ = strings.Cut(link, "\n")
					if err := st.Person(who, "Continue to "+s.name).Open(ctx, st.Desk().Public+"/connect/"+strings.TrimSpace(link)); err != nil {
						fail("%s cannot connect: %v", who, err)
						return
					}
					continue
				}
				if res.IsError {
					fail("%s is told: %s", who, text)
				}
			}
			users := v.of(mark)
			if len(users) < 3 || slices.ContainsFunc(users, func(u string) bool { return u != "octo-"+who }) {
				fail("the API saw %s's calls as %v", who, users)
			}
		})
	}
	all.Wait()
	r.start, _ = st.Desk().Run("servers", "list")
	if r.result == "FAILS" {
		logs, _ := st.Desk().Run("servers", "logs", s.name)
		t.Logf("%s said:\n%s", s.name, logs)
	}
	return r
}
