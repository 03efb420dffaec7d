//go:build unix

package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/shoal-go/shoal/broker/redisbroker"
)

// becomesReady ends the test unless a node with the arguments becomes ready.
func becomesReady(t *testing.T, args ...string) {
	t.Helper()
	s := serveDev(t, args...)
	eventually(t, "the node is ready", func() bool {
		status, _ := call(t, "GET", s.admin+"/readyz", "", "")
		return status == http.StatusOK
	})
}

// A node reaches Redis over TLS, with a client certificate, as a user with only the documented permissions.
func TestServe_RedisOverTLS(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue(t, time.Now().Add(time.Hour))
	secure := freeAddress(t)
	_, port, _ := net.SplitHostPort(secure)
	user := append([]string{"--user", "node", "on", ">pass-7361"}, strings.Fields(redisbroker.Permissions(""))...)
	reserveRedis(t, append([]string{
		"--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca.file,
		"--tls-auth-clients", "yes",
	}, user...)...).start()
	becomesReady(t, "--broker=rediss://node:pass-7361@"+secure, "--broker-tls-ca="+ca.file, "--broker-tls-cert="+cert,
		"--broker-tls-key="+key, "--broker-tls-min-version=1.3")
}

// A node reaches NATS over TLS, with a client certificate and an nkey.
func TestServe_NATSOverTLS(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue(t, time.Now().Add(time.Hour))
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AddCert(ca.cert)
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, _ := user.PublicKey()
	seed, _ := user.Seed()
	nats := startNATS(t, &server.Options{
		TLS: true, TLSVerify: true, TLSTimeout: patience.Seconds(),
		TLSConfig: &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert,
			ClientCAs: clients,
		},
		Nkeys: []*server.NkeyUser{{Nkey: public}},
	})
	becomesReady(t, "--broker="+strings.Replace(nats.ClientURL(), "nats://", "tls://", 1), "--broker-tls-ca="+ca.file,
		"--broker-tls-cert="+cert, "--broker-tls-key="+key, "--nats-nkey="+writeFile(t, "seed", string(seed)))
}

// A broker that the node does not trust, or that does not trust the node, makes it unready. The error, in the log and at
// /readyz, names the flag that helps. Only the reason of the first case is certain: with TLS 1.3 the refusal of a server may
// be overtaken by the end of the connection.
func TestServe_IsUnreadyWhereTLSToTheBrokerFails(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	cert, key := ca.issue(t, time.Now().Add(time.Hour))
	expiredCert, expiredKey := ca.issue(t, time.Now().Add(-time.Hour))
	foreignCert, foreignKey := other.issue(t, time.Now().Add(time.Hour))
	secure := freeAddress(t)
	_, port, _ := net.SplitHostPort(secure)
	reserveRedis(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca.file,
		"--tls-auth-clients", "yes").start()
	flags := func(ca authority, cert, key string) []string {
		return []string{"--broker-tls-ca=" + ca.file, "--broker-tls-cert=" + cert, "--broker-tls-key=" + key}
	}
	for name, test := range map[string]struct {
		args    []string
		reasons []string
	}{
		"wrong authority": {flags(other, cert, key),
			[]string{"certificate signed by unknown authority", "set the authority", "--broker-tls-ca"}},
		"no certificate":      {[]string{"--broker-tls-ca=" + ca.file}, []string{secure, "--broker-tls-cert"}},
		"expired certificate": {flags(ca, expiredCert, expiredKey), []string{secure, "--broker-tls-cert"}},
		"foreign certificate": {flags(ca, foreignCert, foreignKey), []string{secure, "--broker-tls-cert"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveDev(t, append(test.args, "--broker=rediss://"+secure)...)
			names := func(text string) bool {
				return !slices.ContainsFunc(test.reasons, func(reason string) bool { return !strings.Contains(text, reason) })
			}
			eventually(t, "/readyz and the log have the reason and the flag", func() bool {
				status, text := call(t, "GET", s.admin+"/readyz", "", "")
				return status == http.StatusServiceUnavailable && names(text) && names(s.log.String())
			})
		})
	}
}

// A node that does not trust the certificate of NATS, or whose credentials have expired, ends with an error that names the
// flag and the remedy.
func TestServe_EndsWhereNATSCannotBeUsed(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	cert, key := ca.issue(t, time.Now().Add(time.Hour))
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	secure := startNATS(t, &server.Options{
		TLS: true, TLSTimeout: patience.Seconds(),
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}},
	})
	locked := startNATS(t, &server.Options{Username: "other", Password: "secret"})
	user, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	seed, _ := user.Seed()
	expired := base64.RawURLEncoding.EncodeToString([]byte(`{"exp":1750000000}`))
	credentials := writeFile(t, "node.creds", "-----BEGIN NATS USER JWT-----\ne30."+expired+".c2ln\n"+
		"------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n"+string(seed)+"\n------END USER NKEY SEED------\n")
	for name, c := range map[string]struct {
		args    []string
		reasons []string
	}{
		"wrong authority": {
			[]string{"--broker=" + strings.Replace(secure.ClientURL(), "nats://", "tls://", 1), "--broker-tls-ca=" + other.file},
			[]string{"certificate signed by unknown authority", "--broker-tls-ca"},
		},
		"expired credentials": {
			[]string{"--broker=" + locked.ClientURL(), "--nats-credentials=" + credentials},
			[]string{"--nats-credentials expired at 2025-06-15T15:06:40Z", "issue new ones"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := shoal(t, nil, "", append([]string{
				"serve", "--dev", "--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--log-level=error", "--log-format=json",
			}, c.args...)...)
			r.withoutLog().wantErrors(t, statusFailed, "the broker cannot be used: ")
			for _, reason := range c.reasons {
				if !strings.Contains(r.err, reason) {
					t.Errorf("the error lacks %q:\n%s", reason, r.err)
				}
			}
		})
	}
}
