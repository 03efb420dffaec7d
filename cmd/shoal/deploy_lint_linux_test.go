package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// linter returns the path of the program of testdata/deploylint.
func linter(t *testing.T) string {
	t.Helper()
	build := exec.Command(repository + ".ci/deploylint.sh")
	build.Stderr = os.Stderr
	path, err := build.Output()
	if err != nil {
		t.Fatalf("the linters of deploy cannot be built: %v", err)
	}
	return strings.TrimSpace(string(path))
}

// chartValues are the forms of the Helm chart that are linted, by the name of the file.
var chartValues = map[string]string{
	"embedded.yaml": "",
	"memory.yaml":   "broker: memory\nreplicas: 1\n",
	"files.yaml":    "storage: 1Gi\nstorageClass: fast\n",
	"redis.yaml": "broker: redis://redis:6379\n" +
		"autoscaling: {enabled: true, minReplicas: 2, maxReplicas: 9, connections: 20000}\n" +
		"ingress: {enabled: true, host: h, className: nginx, tlsSecret: s, annotations: {a: b}}\n" +
		"serviceMonitor: {enabled: true, interval: 15s}\n" +
		"podAnnotations: {a: b}\nnodeSelector: {a: b}\nimagePullSecrets: [{name: s}]\n",
	"secret.yaml": "brokerInSecret: true\npodDisruptionBudget: {enabled: false}\nnetworkPolicy: {enabled: false}\n",
}

// The files of deploy pass the linter of the program that reads them.
func TestDeploy_FilesPassTheirLinters(t *testing.T) {
	program := linter(t)
	chart := []string{"chart", repository + "deploy/helm/shoal"}
	for name, text := range chartValues {
		chart = append(chart, writeFile(t, name, text))
	}
	for _, args := range [][]string{
		{"dockerfile", repository + "deploy/Dockerfile"},
		{"compose", repository + "deploy/compose.yml"},
		{"envoy", repository + "deploy/envoy.yaml"},
		chart,
	} {
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v:\n%s", args[0], err, out)
		}
	}
}

// The linters find faults: each of these is planted into a copy.
func TestDeploy_LintersFindFaults(t *testing.T) {
	program := linter(t)
	for _, c := range []struct{ kind, file, from, to, want string }{
		{"dockerfile", "deploy/Dockerfile", " AS build", " as build", "FromAsCasing"},
		{"dockerfile", "deploy/Dockerfile", "\nUSER ", "\nUSR ", "unknown instruction"},
		{"compose", "deploy/compose.yml", "stop_grace_period", "stop_grace", "stop_grace"},
		{"compose", "deploy/compose.yml", "networks: [inside]", "networks: [outside]", "outside"},
		{"envoy", "deploy/envoy.yaml", "connect_timeout: 2s", "connect_timeout: -2s", "ConnectTimeout"},
		{"envoy", "deploy/envoy.yaml", "num_retries", "retries", "retries"},
		{"envoy", "deploy/envoy.yaml", "stat_prefix: public", `stat_prefix: ""`, "StatPrefix"},
	} {
		text := read(t, c.file)
		if !strings.Contains(text, c.from) {
			t.Fatalf("%s has no %q", c.file, c.from)
		}
		file := writeFile(t, filepath.Base(c.file), strings.ReplaceAll(text, c.from, c.to))
		out, err := exec.Command(program, c.kind, file).CombinedOutput()
		if err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%q in %s: %v, want a problem with %s:\n%s", c.to, c.file, err, c.want, out)
		}
	}
	for values, want := range map[string]string{
		"resources: {limits: [memory]}": "limits",
		"podAnnotations: {a: [b]}":      "annotations",
		"autoscaling: {enabled: true}":  "autoscaling",
		"replicas: many":                "replicas",
		"nodeSelector: {a: {b: c}}":     "nodeSelector",
		"image: {tag: x: y}":            "did not find expected",
	} {
		file := writeFile(t, "values.yaml", values)
		check := exec.Command(program, "chart", repository+"deploy/helm/shoal", file)
		out, err := check.CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s: %v, want a problem with %s:\n%s", values, err, want, out)
		}
	}
}

// nginx accepts the configuration of compose.yml, with addresses in place of the names of the nodes.
func TestDeploy_ComposeNginxPassesNginx(t *testing.T) {
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin") // where Debian has servers
	folder := t.TempDir()
	cert, key := newPair(t, "localhost")
	overwrite(t, filepath.Join(folder, "tls-crt"), cert)
	overwrite(t, filepath.Join(folder, "tls-key"), key)
	text := strings.NewReplacer(
		"node1:", "127.0.0.1:", "node2:", "127.0.0.2:", "node3:", "127.0.0.3:", "/run/secrets/", folder+"/", "/var/log/nginx", folder,
		"worker_connections 65536", "worker_connections 512",
		"http {\n", "pid "+folder+"/pid;\nhttp {\nclient_body_temp_path "+folder+"/body;\nproxy_temp_path "+
			folder+"/proxy;\nfastcgi_temp_path "+folder+"/f;\nuwsgi_temp_path "+folder+"/u;\nscgi_temp_path "+folder+"/s;\n",
	).Replace(read(t, "deploy/compose-nginx.conf"))
	config := writeFile(t, "nginx.conf", text)
	check := exec.CommandContext(t.Context(), "nginx", "-t", "-q", "-e", "stderr", "-p", folder, "-c", config)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v (this test needs nginx: run .ci/tools.sh)\n%s", err, out)
	}
}

// systemd rates the exposure of the unit: from 0, not exposed, to 10, not hardened. Where systemd is missing,
// TestDeploy_UnitPassesSystemd holds the most important settings.
func TestDeploy_UnitIsHardened(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return
	}
	out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=20",
		repository+"deploy/shoal.service").CombinedOutput()
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}
