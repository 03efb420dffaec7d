package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"

	"go.yaml.in/yaml/v3"
)

// chart renders the Helm chart with values over its own, with those of Helm's functions that it uses.
func chart(t *testing.T, values map[string]any) (documents []map[string]any, err error) {
	t.Helper()
	const folder = "deploy/helm/shoal/"
	all, meta := map[string]any{}, map[string]any{}
	if err := errors.Join(yaml.Unmarshal([]byte(read(t, folder+"values.yaml")), &all),
		yaml.Unmarshal([]byte(read(t, folder+"Chart.yaml")), &meta)); err != nil {
		t.Fatal(err)
	}
	for name, value := range values {
		all[name] = value
	}
	templates := template.New("chart")
	indent := func(n int, text string) string {
		return strings.Repeat(" ", n) + strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", n))
	}
	templates.Funcs(template.FuncMap{
		"nindent": func(n int, text string) string { return "\n" + indent(n, text) },
		"toYaml": func(value any) (string, error) {
			text, err := yaml.Marshal(value)
			return strings.TrimSuffix(string(text), "\n"), err
		},
		"include": func(name string, data any) (string, error) {
			var out strings.Builder
			err := templates.ExecuteTemplate(&out, name, data)
			return out.String(), err
		},
		"default": func(standard, value any) any {
			if value == nil || value == "" {
				return standard
			}
			return value
		},
		"until": func(n int) (numbers []int) {
			for i := range n {
				numbers = append(numbers, i)
			}
			return numbers
		},
		"int":       func(n int) int { return n },
		"list":      func(items ...any) []any { return items },
		"quote":     func(value any) string { return fmt.Sprintf("%q", fmt.Sprint(value)) },
		"sha256sum": func(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) },
		"fail":      func(text string) (string, error) { return "", errors.New(text) },
	})
	files, err := filepath.Glob(repository + folder + "templates/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no templates: %v", err)
	}
	if _, err := templates.ParseFiles(files...); err != nil {
		t.Fatal(err)
	}
	data := map[string]any{
		"Values":  all,
		"Release": map[string]any{"Name": "r", "Namespace": "n"},
		"Chart":   map[string]any{"AppVersion": meta["appVersion"]},
	}
	for _, file := range files {
		name := filepath.Base(file)
		if strings.HasPrefix(name, "_") {
			continue
		}
		var out bytes.Buffer
		if err := templates.ExecuteTemplate(&out, name, data); err != nil {
			return nil, err
		}
		for decoder := yaml.NewDecoder(&out); ; {
			var document map[string]any
			if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s is not YAML: %v", name, err)
			}
			if document != nil {
				documents = append(documents, document)
			}
		}
	}
	return documents, nil
}

func TestHelm_RendersEachForm(t *testing.T) {
	for name, c := range map[string]struct {
		values map[string]any
		want   string
	}{
		"embedded NATS": {nil, "ConfigMap NetworkPolicy PodDisruptionBudget Service Service Service StatefulSet"},
		"with files":    {map[string]any{"storage": "1Gi"}, "ConfigMap NetworkPolicy PodDisruptionBudget Service Service Service StatefulSet"},
		"one node":      {map[string]any{"replicas": 1}, "ConfigMap NetworkPolicy PodDisruptionBudget Service Service Service StatefulSet"},
		"one node with files": {map[string]any{"replicas": 1, "storage": "1Gi"},
			"ConfigMap NetworkPolicy PodDisruptionBudget Service Service Service StatefulSet"},
		"memory": {map[string]any{"replicas": 1, "broker": "memory"},
			"ConfigMap Deployment NetworkPolicy PodDisruptionBudget Service Service"},
		"Redis, everything": {map[string]any{
			"broker":         "redis://redis:6379",
			"autoscaling":    map[string]any{"enabled": true, "minReplicas": 2, "maxReplicas": 9, "connections": 20000},
			"ingress":        map[string]any{"enabled": true, "host": "h", "className": "nginx", "tlsSecret": "s"},
			"serviceMonitor": map[string]any{"enabled": true, "interval": "15s"},
		}, "ConfigMap Deployment HorizontalPodAutoscaler Ingress NetworkPolicy PodDisruptionBudget Service Service ServiceMonitor"},
		"broker in the secret": {map[string]any{
			"brokerInSecret": true, "podDisruptionBudget": map[string]any{"enabled": false},
			"networkPolicy": map[string]any{"enabled": false},
		}, "ConfigMap Deployment Service Service"},
	} {
		documents, err := chart(t, c.values)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var kinds, env []string
		for _, d := range documents {
			kinds = append(kinds, fmt.Sprint(d["kind"]))
			if text, _ := yaml.Marshal(d); strings.Contains(string(text), "SHOAL_NODE_NAME") {
				env = []string{"SHOAL_NODE_NAME=r-shoal-0"}
			}
		}
		for _, d := range documents {
			if d["kind"] == "ConfigMap" {
				checkConfigMap(t, name, d, env)
			}
		}
		slices.Sort(kinds)
		if got := strings.Join(kinds, " "); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
	for want, values := range map[string]map[string]any{
		"autoscaling needs a broker": {"autoscaling": map[string]any{"enabled": true}},
		"replicas is 2":              {"replicas": 2},
		"broker is memory":           {"broker": "memory"},
	} {
		if _, err := chart(t, values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want an error with %q", values, err, want)
		}
	}
}

// The alerts go by the job shoal, which the ServiceMonitor takes from the admin service.
func TestHelm_MonitorHasTheJobOfTheAlerts(t *testing.T) {
	documents, err := chart(t, map[string]any{"serviceMonitor": map[string]any{"enabled": true, "interval": "15s"}})
	if err != nil {
		t.Fatal(err)
	}
	field := func(document map[string]any, path ...string) any {
		var value any = document
		for _, name := range path {
			fields, _ := value.(map[string]any)
			value = fields[name]
		}
		return value
	}
	var label, job string
	for _, d := range documents {
		switch {
		case d["kind"] == "ServiceMonitor":
			label = fmt.Sprint(field(d, "spec", "jobLabel"))
		case field(d, "metadata", "name") == "r-shoal-admin":
			job = fmt.Sprint(field(d, "metadata", "labels", "app.kubernetes.io/name"))
		}
	}
	if label != "app.kubernetes.io/name" || job != "shoal" {
		t.Errorf("the job is the label %s, and the name of the service is %s", label, job)
	}
}

// A node without a broker is replaced, so that there are never two; others are updated without an interruption.
func TestHelm_NeverRunsTwoUnconnectedNodes(t *testing.T) {
	for broker, want := range map[string]string{"memory": "Recreate", "redis://redis:6379": "maxSurge"} {
		documents, err := chart(t, map[string]any{"replicas": 1, "broker": broker})
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range documents {
			if text, _ := yaml.Marshal(d); d["kind"] == "Deployment" && !strings.Contains(string(text), want) {
				t.Errorf("%s: want %s in\n%s", broker, want, text)
			}
		}
	}
}

// checkConfigMap has shoal check the settings of the chart, with secrets in files of the test's own and the variables of
// the pod.
func checkConfigMap(t *testing.T, name string, document map[string]any, env []string) {
	t.Helper()
	data, _ := document["data"].(map[string]any)
	text, _ := data["shoal.yaml"].(string)
	folder := t.TempDir()
	for file, content := range map[string]string{
		"jwt-secret": goodSecret, "api-key": "key", "cluster-secret": goodSecret, "broker": "redis://h:6379",
	} {
		if err := os.WriteFile(filepath.Join(folder, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Contains(text, "cluster-route") && !strings.Contains(text, "- r-shoal-2.r-shoal-cluster:6222") {
		t.Errorf("%s: the routes do not name every node:\n%s", name, text)
	}
	text = strings.ReplaceAll(text, "/etc/shoal-secret", folder)
	r := shoal(t, env, "", "check-config", "--config="+writeFile(t, "shoal.yaml", text))
	if r.status != statusDone {
		t.Errorf("%s: %s\n%s", name, r.err, text)
	}
}

// knownVariables returns the environment variables of serve.
func knownVariables(t *testing.T) map[string]bool {
	t.Helper()
	parser, err := newParser(newSettings(nil), streams{}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for name := range flagNames(parser.Model.Node) {
		known[variable(name)] = true
	}
	return known
}

// Every variable and flag in the files of deploy exists.
func TestDeploy_SettingsExist(t *testing.T) {
	known := knownVariables(t)
	known[variable("config")] = true
	for _, path := range []string{"deploy/Dockerfile", "deploy/compose.yml", "deploy/helm/shoal/templates/_helpers.tpl", "deploy/shoal.service"} {
		text := read(t, path)
		names := regexp.MustCompile(`\bSHOAL_[A-Z_]+`).FindAllString(text, -1)
		for _, match := range regexp.MustCompile(`(?m)^(?:ExecStart=|\t).*$`).FindAllString(text, -1) {
			for _, flag := range regexp.MustCompile(`--([a-z-]+)=`).FindAllStringSubmatch(match, -1) {
				if path == "deploy/shoal.service" && flag[1] != "config" {
					names = append(names, variable(flag[1]))
				}
			}
		}
		if len(names) == 0 {
			t.Errorf("%s names no settings", path)
		}
		for _, name := range names {
			if !known[name] {
				t.Errorf("%s uses %s, which does not exist", path, name)
			}
		}
	}
}

func TestDeploy_ComposeIsConsistent(t *testing.T) {
	var file struct {
		Services map[string]struct {
			Image    string
			Networks []string
			Secrets  []string
			Command  []string
		}
		Secrets  map[string]any
		Networks map[string]any
	}
	if err := yaml.Unmarshal([]byte(read(t, "deploy/compose.yml")), &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Services) != 5 {
		t.Errorf("there are %d services", len(file.Services))
	}
	redis, runbook := file.Services["redis"].Command, read(t, "docs/runbook.md")
	if i := slices.Index(redis, "--maxmemory-policy"); i < 0 || redis[i+1] != "noeviction" ||
		!strings.Contains(runbook, "maxmemory-policy "+redis[i+1]) {
		t.Errorf("Redis is started by %v, which evicts accepted messages; see docs/runbook.md", redis)
	}
	nginx := read(t, "deploy/compose-nginx.conf")
	for name, service := range file.Services {
		if service.Image == "shoal" && !strings.Contains(nginx, name+":8080") {
			t.Errorf("nginx does not know %s", name)
		}
		for _, network := range service.Networks {
			if file.Networks[network] == nil {
				t.Errorf("%s uses the network %s, which does not exist", name, network)
			}
		}
		for _, secret := range service.Secrets {
			if file.Secrets[secret] == nil {
				t.Errorf("%s uses the secret %s, which does not exist", name, secret)
			}
		}
	}
}

// Proxies that no test can run follow the same rules as the tested ones: no query in a log, no Forwarded of a client.
func TestDeploy_ProxyFilesKeepTheRules(t *testing.T) {
	const noQuery = `log_format no_query '$remote_addr [$time_local] "$request_method $uri $server_protocol" $status $body_bytes_sent';` +
		"\n    access_log /var/log/nginx/access.log no_query;\n"
	for path, rules := range map[string][]string{
		"deploy/nginx.conf":             {noQuery, `proxy_set_header Forwarded "";`},
		"deploy/compose-nginx.conf":     {noQuery, `proxy_set_header Forwarded "";`},
		"deploy/haproxy.cfg":            {"http-request del-header Forwarded", "hard-stop-after 1h"},
		"deploy/Caddyfile":              {"header_up -Forwarded"},
		"deploy/envoy.yaml":             {"request_headers_to_remove: [forwarded]"},
		"deploy/helm/shoal/values.yaml": {`nginx.ingress.kubernetes.io/enable-access-log: "false"`},
	} {
		text := read(t, path)
		for _, rule := range rules {
			if !strings.Contains(text, rule) {
				t.Errorf("%s lacks %s", path, rule)
			}
		}
		if strings.Count(text, "access_log ") != strings.Count(text, "no_query;") {
			t.Errorf("%s has an access log with queries", path)
		}
	}
}

// The image has the binary alone, runs without rights, and checks its health with it.
func TestDeploy_ImageIsMinimal(t *testing.T) {
	text := read(t, "deploy/Dockerfile")
	_, final, _ := strings.Cut(text, "\nFROM scratch\n")
	for _, want := range []string{
		"\nUSER 65532:65532\n", "COPY deploy/image.yaml /etc/shoal/shoal.yaml", "ENV SHOAL_CONFIG=/etc/shoal/shoal.yaml\n", `CMD ["/shoal", "health"]`, `ENTRYPOINT ["/shoal"]`, "/etc/ssl/certs/ca-certificates.crt",
	} {
		if !strings.Contains(final, want) {
			t.Errorf("the last stage lacks %q", want)
		}
	}
	if !strings.Contains(text, "CGO_ENABLED=0") {
		t.Error("the binary is not static")
	}
	// Copied as a part of its parent, the folder keeps its mode.
	if !strings.Contains(text, "RUN mkdir -m 1777 /out/tmp\n") || !strings.Contains(final, "COPY --from=build /out/ /\n") {
		t.Error("the image has no folder for temporary files, which nats-embedded needs")
	}
	// A variable of the image would win over each file that is mounted.
	if n := strings.Count(final, "SHOAL_"); n != 1 {
		t.Errorf("the image sets %d variables of shoal, want SHOAL_CONFIG alone", n)
	}
	env := []string{"SHOAL_JWT_SECRET=" + goodSecret, "SHOAL_AUTHORIZE=claims"}
	shoal(t, env, "", "check-config", "--config="+repository+"deploy/image.yaml").wantDone(t)
}

// The page for contributors names each tool that the tests need.
func TestContributing_NamesEachTool(t *testing.T) {
	page := strings.ToLower(read(t, "CONTRIBUTING.md"))
	tools := regexp.MustCompile(`has_(?:program )?(\w+) \|\|`).FindAllStringSubmatch(read(t, ".ci/tools.sh"), -1)
	if len(tools) == 0 {
		t.Fatal(".ci/tools.sh looks for no tool")
	}
	for _, tool := range tools {
		if !strings.Contains(page, tool[1]) {
			t.Errorf("CONTRIBUTING.md does not name %s", tool[1])
		}
	}
}

// systemd checks the unit where it is installed.
func TestDeploy_UnitPassesSystemd(t *testing.T) {
	unit := read(t, "deploy/shoal.service")
	for _, want := range []string{"ExecStart=/usr/bin/nohup ", "ExecReload=", "LimitNOFILE=", "User=shoal\n", "ProtectSystem=strict", "NoNewPrivileges=yes"} {
		if !strings.Contains(unit, want) {
			t.Errorf("the unit lacks %s", want)
		}
	}
	// Credentials are copied at the start, so that a reload would read the old secrets.
	for _, flag := range []string{"--config", "--jwt-secret-file", "--api-key-file"} {
		if !strings.Contains(unit, flag+"=/etc/shoal/") {
			t.Errorf("%s names no file that a reload reads", flag)
		}
	}
	if strings.Contains(unit, "\nLoadCredential") {
		t.Error("the unit has credentials, which a reload cannot change")
	}
	// A panic ends the process with status 2, too.
	if strings.Contains(unit, "\nRestartPreventExitStatus") || !strings.Contains(unit, "\nStartLimitIntervalSec=0\n") {
		t.Error("the unit does not restart a node that has crashed")
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return
	}
	file := writeFile(t, "shoal.service", strings.ReplaceAll(unit, "/usr/local/bin/shoal", os.Args[0]))
	out, err := exec.Command(analyze, "verify", file).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, file) || strings.Contains(line, "shoal.service:") {
			t.Errorf("systemd-analyze: %s", line)
		}
	}
	if err != nil {
		t.Errorf("systemd-analyze: %v:\n%s", err, out)
	}
}
