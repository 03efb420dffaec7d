//go:build unix

package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
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

// A broker that the node does not trust, or that does not trust the node, makes it unready. Only the first reason is certain:
// with TLS 1.3 the refusal of a server may be overtaken by the end of the connection.
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
		args   []string
		reason string
	}{
		"wrong authority":     {flags(other, cert, key), "certificate signed by unknown authority"},
		"no certificate":      {[]string{"--broker-tls-ca=" + ca.file}, secure},
		"expired certificate": {flags(ca, expiredCert, expiredKey), secure},
		"foreign certificate": {flags(ca, foreignCert, foreignKey), secure},
	} {
		t.Run(name, func(t *testing.T) {
			s := serveDev(t, append(test.args, "--broker=rediss://"+secure)...)
			eventually(t, "/readyz has the reason", func() bool {
				status, text := call(t, "GET", s.admin+"/readyz", "", "")
				return status == http.StatusServiceUnavailable && strings.Contains(text, test.reason)
			})
		})
	}
}
