package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// nginx accepts the configuration of compose.yml, with addresses in place of the names of the nodes.
func TestDeploy_ComposeNginxPassesNginx(t *testing.T) {
	t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin") // where Debian has servers
	folder := t.TempDir()
	cert, key := newPair(t, "localhost")
	overwrite(t, filepath.Join(folder, "tls-crt"), cert)
	overwrite(t, filepath.Join(folder, "tls-key"), key)
	text := strings.NewReplacer(
		"node1:", "127.0.0.1:", "node2:", "127.0.0.2:", "node3:", "127.0.0.3:", "/run/secrets/", folder+"/",
		"worker_connections 65536", "worker_connections 512",
		"http {\n", "pid "+folder+"/pid;\nhttp {\naccess_log off;\nclient_body_temp_path "+folder+"/body;\nproxy_temp_path "+
			folder+"/proxy;\nfastcgi_temp_path "+folder+"/f;\nuwsgi_temp_path "+folder+"/u;\nscgi_temp_path "+folder+"/s;\n",
	).Replace(read(t, "deploy/compose-nginx.conf"))
	config := writeFile(t, "nginx.conf", text)
	check := exec.CommandContext(t.Context(), "nginx", "-t", "-q", "-e", "stderr", "-p", folder, "-c", config) //nolint:gosec // ours
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("%v (this test needs nginx: run .ci/tools.sh)\n%s", err, out)
	}
}

// systemd rates the exposure of the unit: 0 is none, 10 is that of a unit without hardening. Where systemd is missing,
// TestDeploy_UnitPassesSystemd holds the most important settings.
func TestDeploy_UnitIsHardened(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		return
	}
	out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=true", "--threshold=20", //nolint:gosec // ours
		repository+"deploy/shoal.service").CombinedOutput()
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
}
