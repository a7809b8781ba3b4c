package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"text/template"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"frontdesk.dev/frontdesk/cmd/frontdesk/config"
)

// runs reports whether a command line is one of ours: its command exists, and takes these flags.
func runs(t *testing.T, args []string) {
	t.Helper()
	c, rest, err := root().Find(args)
	if err != nil || c == root() || !c.Runnable() {
		t.Errorf("%q is no command: %v", args, err)
		return
	}
	if err := c.ParseFlags(rest); err != nil {
		t.Errorf("%q: %v", args, err)
	} else if err := c.ValidateArgs(c.Flags().Args()); err != nil {
		t.Errorf("%q: %v", args, err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func parse(t *testing.T, name, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := yaml.UnmarshalWithOptions([]byte(text), &v, yaml.Strict()); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, text)
	}
	return v
}

// at follows keys and positions into a parsed document.
func at(t *testing.T, v any, path ...any) any {
	t.Helper()
	for _, p := range path {
		switch k := p.(type) {
		case string:
			v = v.(map[string]any)[k]
		case int:
			v = v.([]any)[k]
		}
		if v == nil {
			t.Fatalf("there is no %v", path)
		}
	}
	return v
}

func texts(v any) []string {
	var l []string
	for _, e := range v.([]any) {
		l = append(l, e.(string))
	}
	return l
}

// TestContainerfile: what it copies is there, and what it runs is a command of ours.
func TestContainerfile(t *testing.T) {
	text := read(t, "../../deploy/Containerfile")
	for _, m := range regexp.MustCompile(`(?m)^COPY ([a-z. ]+) \S+$`).FindAllStringSubmatch(text, -1) {
		for _, name := range strings.Fields(m[1]) {
			if _, err := os.Stat("../../" + name); err != nil {
				t.Error(err)
			}
			if !strings.Contains(read(t, "../../.containerignore"), "!"+name) {
				t.Errorf(".containerignore hides %s", name)
			}
		}
	}
	var args []string
	if m := regexp.MustCompile(`(?m)^CMD (\[.*\])$`).FindStringSubmatch(text); m == nil || json.Unmarshal([]byte(m[1]), &args) != nil {
		t.Fatal("no CMD")
	}
	runs(t, args)
	if !regexp.MustCompile(`(?m)^USER [1-9]\d*`).MatchString(text) {
		t.Error("it runs as root")
	}
}

func TestCompose(t *testing.T) {
	for _, file := range []string{"compose.yaml", "compose-domains.yaml"} {
		c := parse(t, file, read(t, "../../deploy/"+file))
		for name := range at(t, c, "services").(map[string]any) {
			s := at(t, c, "services", name).(map[string]any)
			for _, secret := range texts(s["secrets"]) {
				at(t, c, "secrets", secret, "file")
			}
			for _, v := range texts(s["volumes"]) {
				if from, _, _ := strings.Cut(v, ":"); !strings.HasPrefix(from, ".") {
					if _, ok := at(t, c, "volumes").(map[string]any)[from]; !ok {
						t.Errorf("%s, %s: volume %s is declared nowhere", file, name, from)
					}
				}
			}
			if s["command"] != nil {
				runs(t, texts(s["command"]))
			}
			if s["ports"] == nil {
				continue
			}
			for _, p := range texts(s["ports"]) {
				if !strings.HasPrefix(p, "127.0.0.1:") {
					t.Errorf("%s: port %s is open to everybody, without TLS", file, p)
				}
			}
		}
	}
	// Of two processes the one that faces strangers holds nothing that opens a credential.
	d := parse(t, "compose-domains.yaml", read(t, "../../deploy/compose-domains.yaml"))
	for _, secret := range texts(at(t, d, "services", "gateway", "secrets")) {
		if secret == "dsn" || secret == "database" || secret == "idp" || secret == "broker.key" {
			t.Errorf("the gateway is given %s", secret)
		}
	}
	if d["services"].(map[string]any)["gateway"].(map[string]any)["environment"] != nil || at(t, d, "services", "broker").(map[string]any)["ports"] != nil {
		t.Error("the gateway is given the environment, or the broker's port is open")
	}
}

// chart renders the Helm chart as far as it goes without Helm: its templates use no more than these functions.
func chart(t *testing.T, domains bool) map[string][]map[string]any {
	t.Helper()
	files, err := filepath.Glob("../../deploy/helm/templates/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	chosen := parse(t, "values.yaml", read(t, "../../deploy/helm/values.yaml"))
	at(t, chosen, "domains").(map[string]any)["enabled"] = domains
	values := map[string]any{"Values": chosen, "Release": map[string]any{"Name": "frontdesk"},
		"Chart": parse(t, "Chart.yaml", read(t, "../../deploy/helm/Chart.yaml"))}
	funcs := template.FuncMap{"quote": func(v any) string { return strconv.Quote(v.(string)) },
		"toJson": func(v any) (string, error) { b, err := json.Marshal(v); return string(b), err },
		"indent": func(n int, s string) string {
			pad := strings.Repeat(" ", n)
			return pad + strings.ReplaceAll(s, "\n", "\n"+pad)
		},
		"int": func(n uint64) int { return int(n) },
		"until": func(n int) (l []int) {
			for i := range n {
				l = append(l, i)
			}
			return l
		},
		"sha256sum": func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) }}
	kinds := map[string][]map[string]any{}
	for _, f := range files {
		var b bytes.Buffer
		if err := template.Must(template.New(f).Funcs(funcs).Option("missingkey=error").Parse(read(t, f))).Execute(&b, values); err != nil {
			t.Fatal(err)
		}
		for _, doc := range strings.Split(b.String(), "\n---\n") {
			if strings.TrimSpace(doc) == "" { // what the values leave out
				continue
			}
			v := parse(t, f, doc)
			kinds[v["kind"].(string)] = append(kinds[v["kind"].(string)], v)
		}
	}
	return kinds
}

// TestChart: the config that it writes is one that check accepts; its pods run our commands, on ports and probes that exist.
func TestChart(t *testing.T) {
	for _, name := range []string{"IDP_SECRET", "GITHUB_SECRET"} {
		t.Setenv(name, "s")
	}
	t.Setenv("DATABASE_URL", "postgres://x")
	t.Setenv("GATEWAY_DATABASE_URL", "postgres://y")
	for _, domains := range []bool{false, true} {
		t.Run(fmt.Sprintf("domains %v", domains), func(t *testing.T) { checkChart(t, chart(t, domains), domains) })
	}
}

func checkChart(t *testing.T, kinds map[string][]map[string]any, domains bool) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("frontdesk.yaml", []byte(at(t, kinds["ConfigMap"][0], "data", "frontdesk.yaml").(string)), 0o600); err != nil {
		t.Fatal(err)
	}
	// The README's lines, which values.yaml shows too, may say egress; the chart says it itself.
	cfg, err := config.Checked("frontdesk.yaml")
	if err != nil {
		t.Fatalf("the chart's config:\n%v", err)
	}
	ports := map[string]bool{}
	for _, workload := range append(kinds["Deployment"], kinds["StatefulSet"]...) {
		pod := at(t, workload, "spec", "template", "spec")
		runs(t, texts(at(t, pod, "initContainers", 0, "args")))
		runs(t, texts(at(t, pod, "containers", 0, "args")))
		own := map[string]bool{}
		for _, p := range at(t, pod, "containers", 0, "ports").([]any) {
			own[at(t, p, "name").(string)], ports[at(t, p, "name").(string)] = true, true
		}
		for _, probe := range []string{"livenessProbe", "readinessProbe"} {
			if !own[at(t, pod, "containers", 0, probe, "httpGet", "port").(string)] {
				t.Errorf("%s asks a port that is not there", probe)
			}
		}
	}
	for _, service := range kinds["Service"] {
		for _, p := range at(t, service, "spec", "ports").([]any) {
			if !ports[at(t, p, "targetPort").(string)] {
				t.Errorf("the service leads to a port that is not there: %v", p)
			}
		}
	}
	roles := 1
	if domains {
		roles = 2
		heldApart(t, kinds, cfg)
	}
	if len(kinds["NetworkPolicy"]) != roles || len(kinds["Service"]) != roles || len(kinds["Ingress"]) != 1 {
		t.Errorf("got %d policies, %d services, %d ways in", len(kinds["NetworkPolicy"]), len(kinds["Service"]), len(kinds["Ingress"]))
	}
}

// heldApart: the gateway's pods are given no secret that the broker's are, and find each broker by a name that it has.
func heldApart(t *testing.T, kinds map[string][]map[string]any, cfg *config.Config) {
	given := func(workload map[string]any) []any {
		pod := at(t, workload, "spec", "template", "spec")
		return []any{at(t, pod, "containers", 0, "envFrom", 0, "secretRef", "name"), at(t, pod, "volumes", 1, "secret", "secretName")}
	}
	gateway, broker := given(kinds["Deployment"][0]), given(kinds["StatefulSet"][0])
	if diff := cmp.Diff([]any{"frontdesk-gateway-environment", "frontdesk-gateway"}, gateway); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]any{"frontdesk-environment", "frontdesk-broker"}, broker); diff != "" {
		t.Error(diff)
	}
	for i, address := range append([]string{cfg.Domains.Address}, cfg.Domains.Others...) {
		if want := fmt.Sprintf("%s-%d.%s:8443", at(t, kinds["StatefulSet"][0], "metadata", "name"), i, at(t, kinds["StatefulSet"][0], "spec", "serviceName")); address != want {
			t.Errorf("broker %d is looked for at %s, and is at %s", i, address, want)
		}
	}
	if n := at(t, kinds["StatefulSet"][0], "spec", "replicas").(uint64); int(n) != 1+len(cfg.Domains.Others) {
		t.Errorf("there are %d brokers", n)
	}
}

// TestUnit: systemd understands every line, where systemd is.
func TestUnit(t *testing.T) {
	text := read(t, "../../deploy/frontdesk.service")
	m := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/frontdesk (.*)$`).FindStringSubmatch(text)
	if m == nil {
		t.Fatal("no ExecStart")
	}
	runs(t, strings.Fields(m[1]))
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return
	}
	unit := filepath.Join(t.TempDir(), "frontdesk.service")
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(text, "/usr/local/bin/frontdesk", "/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", "--man=no", unit).CombinedOutput(); err != nil || strings.Contains(string(out), "frontdesk.service") {
		t.Errorf("systemd-analyze: %v\n%s", err, out)
	}
}

// TestRolesOfUnits: what the drop-ins for two hosts run are commands of ours, and the gateway's hands over no secret.
func TestRolesOfUnits(t *testing.T) {
	for _, r := range []config.Role{config.RoleGateway, config.RoleBroker} {
		text := read(t, "../../deploy/frontdesk-"+string(r)+".conf")
		_, line, ok := strings.Cut(text, "ExecStart=\nExecStart=/usr/local/bin/frontdesk ")
		line, _, _ = strings.Cut(line, "\n")
		if !ok || !strings.HasSuffix(line, "--role "+string(r)) {
			t.Errorf("%s runs %q", r, line)
		}
		runs(t, strings.Fields(line))
		if (r == config.RoleGateway) != strings.Contains(text, "LoadCredential=\n") {
			t.Errorf("%s: the secrets of the unit", r)
		}
	}
}
