//go:build unix

package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// certificateFiles are the files of a broker and of its clients: an authority, and a certificate of it with its key.
type certificateFiles struct{ ca, cert, key string }

func issueFiles(t *testing.T) certificateFiles {
	t.Helper()
	ca := newAuthority(t)
	cert, key := ca.issue(t, time.Now().Add(time.Hour))
	return certificateFiles{ca.file, cert, key}
}

// rotate replaces the contents by those of a new authority.
func (f certificateFiles) rotate(t *testing.T) {
	t.Helper()
	next := issueFiles(t)
	for from, to := range map[string]string{next.ca: f.ca, next.cert: f.cert, next.key: f.key} {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// config is the configuration of a server that requires certificates of its clients.
func (f certificateFiles) config(t *testing.T) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(f.ca)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(text)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs: clients,
	}
}

// A broker that restarts with certificates of a new authority is connected to with the node's files as they are then.
func TestServe_UsesRotatedCertificatesForTheBroker(t *testing.T) {
	for name, start := range map[string]func(t *testing.T, f certificateFiles) (url string, restart func()){
		"redis": func(t *testing.T, f certificateFiles) (string, func()) {
			secure := freeAddress(t)
			_, port, _ := net.SplitHostPort(secure)
			r := reserveRedis(t, "--tls-port", port, "--tls-cert-file", f.cert, "--tls-key-file", f.key,
				"--tls-ca-cert-file", f.ca, "--tls-auth-clients", "yes").start()
			return "rediss://" + secure, func() {
				r.kill()
				r.start()
			}
		},
		"nats": func(t *testing.T, f certificateFiles) (string, func()) {
			secure := freeAddress(t)
			_, text, _ := net.SplitHostPort(secure)
			port, err := strconv.Atoi(text)
			if err != nil {
				t.Fatal(err)
			}
			begin := func() *server.Server {
				return startNATS(t, &server.Options{
					Port: port, TLS: true, TLSVerify: true, TLSTimeout: patience.Seconds(), TLSConfig: f.config(t),
				})
			}
			s := begin()
			return "tls://" + secure, func() {
				s.Shutdown()
				s.WaitForShutdown()
				begin()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := issueFiles(t)
			url, restart := start(t, f)
			s := serveDev(t, "--broker="+url, "--broker-tls-ca="+f.ca, "--broker-tls-cert="+f.cert, "--broker-tls-key="+f.key)
			ready := func(want int) func() bool {
				return func() bool {
					status, _ := call(t, "GET", s.admin+"/readyz", "", "")
					return status == want
				}
			}
			eventually(t, "the node is ready", ready(http.StatusOK))
			f.rotate(t)
			eventually(t, "the files are read again", func() bool {
				log := s.log.String()
				return strings.Count(log, "broker certificate authorities loaded") == 2 &&
					strings.Count(log, "broker client certificate loaded") == 2
			})
			before := strings.Count(s.log.String(), "broker healthy")
			restart()
			eventually(t, "the node is connected again", func() bool {
				return strings.Count(s.log.String(), "broker healthy") > before && ready(http.StatusOK)()
			})
		})
	}
}
