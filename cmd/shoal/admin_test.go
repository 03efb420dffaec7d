package main

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
)

func TestHealth_IsTheExitStatus(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	socket := "unix:" + filepath.Join(t.TempDir(), "a")
	unready := serve(t, 1, "--jwks=http://"+gone.Addr().String(), "--jwt-audience=any", "--authorize=open")
	admin := strings.TrimPrefix(unready.admin, "http://")
	serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=open", "--admin-addr="+socket)

	shoal(t, nil, "", "health", "--admin-addr="+admin).wantDone(t)
	shoal(t, []string{"SHOAL_ADMIN_ADDR=" + socket}, "", "health", "--ready").wantDone(t)
	shoal(t, nil, "", "health", "--ready", "--admin-addr="+admin).wantErrors(t, statusFailed, "/readyz answers 503: ")
	shoal(t, nil, "", "health", "--admin-addr="+gone.Addr().String()).wantErrors(t, statusFailed, "nothing listens there")
	shoal(t, nil, "", "health", "--admin-addr=nonsense").wantErrors(t, statusUsage, "host:port")
}

func TestHealth_ReachesListenersOnAnyAddress(t *testing.T) {
	for address, want := range map[string]string{
		"0.0.0.0:9090": "127.0.0.1:9090", ":9090": "127.0.0.1:9090", "[::]:9090": "[::1]:9090", "10.0.0.1:1": "10.0.0.1:1",
	} {
		if got := reachable(address); got != want {
			t.Errorf("%s is reached at %s, want %s", address, got, want)
		}
	}
}
