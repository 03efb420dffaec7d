package main

import (
	"path/filepath"
	"testing"
)

// The stream of a NATS server in this process is bounded by the memory limit, as the histories are. Files, and servers
// elsewhere, have limits of their own.
func TestServe_BoundsTheStreamInItsMemory(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		args []string
		want func(*serveFlags) int
	}{
		"within, by default": {[]string{"--broker=nats-embedded"}, (*serveFlags).historyTotalBytes},
		"within":             {[]string{"--broker=nats-embedded", "--history-total-bytes=1TiB"}, (*serveFlags).historyTotalBytes},
		"files, by default": {
			[]string{"--broker=nats-embedded", "--broker-storage=file", "--broker-dir=" + dir},
			func(*serveFlags) int { return 0 },
		},
		"files": {
			[]string{"--broker=nats-embedded", "--broker-storage=file", "--broker-dir=" + dir, "--history-total-bytes=2MiB"},
			func(*serveFlags) int { return 2 << 20 },
		},
		"elsewhere, by default": {[]string{"--broker=nats://h"}, func(*serveFlags) int { return 0 }},
		"elsewhere":             {[]string{"--broker=nats://h", "--history-total-bytes=2MiB"}, func(*serveFlags) int { return 2 << 20 }},
	} {
		flags := parseServe(t, nil, append([]string{"--dev"}, c.args...)...)
		n := &node{flags: &flags}
		if got, want := n.natsOptions().MaxBytes, int64(c.want(&flags)); got != want {
			t.Errorf("%s: the stream has %d bytes, want %d", name, got, want)
		}
	}
}

// A node becomes ready however large its stream may grow: the server of NATS has no smaller limit of its own.
func TestServe_IsReadyWithTheLargestStream(t *testing.T) {
	s := serveDev(t, "--broker=nats-embedded", "--history-total-bytes=1TiB")
	for status, text := 0, ""; status != 200; {
		if status, text = call(t, "GET", s.admin+"/readyz", "", ""); status != 200 && status != 503 {
			t.Fatalf("/readyz answers %d %s", status, text)
		}
	}
}

// A machine or container without a folder for temporary files gets an error with the remedies.
func TestServe_WithoutTemporaryFolderNamesTheRemedy(t *testing.T) {
	t.Setenv("TMPDIR", filepath.Join(t.TempDir(), "missing"))
	shoal(t, nil, "", "serve", "--dev", "--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--broker=nats-embedded").
		wantErrors(t, statusFailed, "set TMPDIR to a folder that can be written to, or give --broker-storage file and --broker-dir")
}
