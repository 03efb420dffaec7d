//go:build unix

package main

import (
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// hangReads replaces a file by one whose reads do not end before the test does, as of a network file system whose
// server is away. reached waits for a read that has begun.
func hangReads(t *testing.T, path string) (reached func()) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		var writer *os.File
		eventually(t, path+" is being read", func() bool {
			opened, err := os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
			if errors.Is(err, syscall.ENXIO) { // it has no reader
				return false
			}
			if err != nil {
				t.Fatal(err)
			}
			writer = opened
			return true
		})
		t.Cleanup(func() { _ = writer.Close() })
	}
}

// A certificate that cannot be read to its end keeps neither clients nor the end of the process waiting.
func TestServe_CertificateReadThatHangs(t *testing.T) {
	ca := newAuthority(t)
	certFile, keyFile := ca.issue(t, time.Now().Add(time.Hour))
	s := serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=open", "--tls-cert="+certFile, "--tls-key="+keyFile,
		"--drain=1s")
	hangReads(t, certFile)()
	s.waitForLog(t, "certificate reload failed, keeping the current one")
	conn, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if status := s.end(); status != statusDone {
		t.Errorf("status = %d", status)
	}
}

// A reload that cannot read a file to its end does not keep the process from ending.
func TestServe_EndsDuringAReloadThatHangs(t *testing.T) {
	keys := writeFile(t, "keys", "a-key")
	s := serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=open", "--api-key-file="+keys, "--drain=1s")
	reached := hangReads(t, keys)
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	reached()
	if status := s.end(); status != statusDone {
		t.Errorf("status = %d", status)
	}
	if !strings.Contains(s.log.String(), `msg="shutdown step failed" step=reload`) {
		t.Errorf("the log does not name the reload:\n%s", s.log)
	}
}

// SIGHUP during the start neither ends the process nor is forgotten.
func TestServe_ReloadsAfterSIGHUPDuringTheStart(t *testing.T) {
	var once sync.Once
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		once.Do(func() {
			if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
				t.Error(err)
			}
		})
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	defer keys.Close()
	s := serve(t, 1, "--jwks="+keys.URL, "--jwt-audience=any", "--authorize=open")
	s.waitForLog(t, "msg=reloaded")
	if log := s.log.String(); strings.Index(log, "msg=reloaded") < strings.Index(log, "version=") {
		t.Errorf("it reloads before it serves:\n%s", log)
	}
}
