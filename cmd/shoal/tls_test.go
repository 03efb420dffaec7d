package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/internal/reload"
	"github.com/shoal-go/shoal/internal/testlog"
)

// newPair returns a certificate for 127.0.0.1 and its key, in PEM.
func newPair(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

func overwrite(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A certificate that no client accepts is used, because a proxy may not check it, and the log says so.
func TestNewCertificate_WarnsOfOneThatIsNotValid(t *testing.T) {
	ca := newAuthority(t)
	for until, want := range map[time.Time]bool{time.Now().Add(-time.Minute): true, time.Now().Add(time.Hour): false} {
		cert, key := ca.issue(t, until)
		var log testlog.Buffer
		if _, err := newCertificate("certificate", cert, key, func(time.Time) {}, slog.New(slog.NewTextHandler(&log, nil))); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(log.String(), `level=WARN msg="certificate is not valid now"`); got != want {
			t.Errorf("valid until %v, log:\n%s", until, &log)
		}
	}
}

func TestServeTLS(t *testing.T) {
	cert, key := newPair(t, "shoal")
	certFile, keyFile := writeFile(t, "cert.pem", string(cert)), writeFile(t, "key.pem", string(key))
	s := serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=open", "--api-key=k",
		"--tls-cert="+certFile, "--tls-key="+keyFile)
	if !strings.HasPrefix(s.url, "https://") {
		t.Errorf("it says that it serves on %s", s.url)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	response, err := (&http.Client{Transport: transport}).Get(s.url + "/v1/stats")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized || response.ProtoMajor != 1 {
		t.Errorf("answered %d over %s", response.StatusCode, response.Proto)
	}
}

func TestCertificateThatDoesNotFit(t *testing.T) {
	cert, _ := newPair(t, "one")
	_, key := newPair(t, "other")
	certFile, keyFile := writeFile(t, "cert.pem", string(cert)), writeFile(t, "key.pem", string(key))
	r := shoal(t, nil, "", good("--tls-cert="+certFile, "--tls-key="+keyFile)...)
	r.wantErrors(t, statusUsage, "private key does not match public key")
}

// A key with a password, in either form of PEM, is refused with the remedy.
func TestCheckConfig_RefusesEncryptedKey(t *testing.T) {
	cert, _ := newPair(t, "one")
	certFile := writeFile(t, "cert.pem", string(cert))
	for _, block := range []pem.Block{
		{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")},
		{Type: "EC PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-128-CBC,00"}, Bytes: []byte("x")},
	} {
		keyFile := writeFile(t, "key.pem", string(pem.EncodeToMemory(&block)))
		r := shoal(t, nil, "", good("--tls-cert="+certFile, "--tls-key="+keyFile)...)
		r.wantErrors(t, statusUsage, "the key is encrypted, want it without a password, as openssl pkey ")
	}
}

// check-config says that a certificate is not valid now, of the listener and of the broker, as the log of serve does.
func TestCheckConfig_WarnsOfExpiredCertificates(t *testing.T) {
	ca := newAuthority(t)
	cert, key := ca.issue(t, time.Unix(1750000000, 0))
	r := shoal(t, nil, "", good("--tls-cert="+cert, "--tls-key="+key,
		"--broker=rediss://h", "--broker-tls-cert="+cert, "--broker-tls-key="+key)...)
	r.wantDone(t)
	const problem = " is valid from 1970-01-01T00:00:00Z until 2025-06-15T15:06:40Z only; renew it, or correct the clock\n"
	if r.out != "configuration ok\nwarning: --broker-tls-cert"+problem+"warning: --tls-cert"+problem {
		t.Errorf("output:\n%s", r.out)
	}
}

func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	cert, key := newPair(t, "before")
	overwrite(t, certFile, cert)
	overwrite(t, keyFile, key)
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Buffer
		config, _, err := newTLSConfig(certFile, keyFile, func(time.Time) {}, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		want := func(name string) {
			t.Helper()
			pair, err := config.GetCertificate(nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := pair.Leaf.Subject.CommonName; got != name {
				t.Errorf("certificate of %q, want %q", got, name)
			}
		}
		want("before")
		cert, key := newPair(t, "afterwards")
		overwrite(t, certFile, cert)
		want("before") // looked at only once a second
		<-time.After(reload.Interval)
		want("before") // half of the pair does not do
		if !strings.Contains(log.String(), "certificate") {
			t.Error("a pair that does not fit is not logged")
		}
		overwrite(t, keyFile, key)
		<-time.After(reload.Interval)
		want("afterwards")
		if err := os.Remove(certFile); err != nil {
			t.Fatal(err)
		}
		<-time.After(reload.Interval)
		want("afterwards")
	})
}

// authority is a certificate authority of a test.
type authority struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
	file string // its certificate in PEM
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	text, keyText := newPair(t, "authority")
	pair, err := tls.X509KeyPair(text, keyText)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := pair.PrivateKey.(ed25519.PrivateKey)
	return authority{pair.Leaf, key, writeFile(t, "ca.pem", string(text))}
}

// issue returns the files of a certificate for 127.0.0.1, servers and clients, that is valid until a time, and of its key.
func (a authority) issue(t *testing.T, until time.Time) (cert, key string) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node"}, NotBefore: time.Unix(0, 0), NotAfter: until,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.cert, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return writeFile(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))),
		writeFile(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})))
}

// The public listener refuses old versions of TLS, and clients without a valid certificate of its authority.
func TestServeTLS_RequiresVersionAndClientCertificate(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	cert, key := ca.issue(t, time.Now().Add(time.Hour))
	s := serve(t, 1, "--jwt-secret="+goodSecret, "--authorize=open", "--api-key=k", "--tls-cert="+cert, "--tls-key="+key,
		"--tls-client-ca="+ca.file, "--tls-min-version=1.3")
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	for name, c := range map[string]struct {
		issuer  *authority
		until   time.Duration
		version uint16
		ok      bool
	}{
		"right":           {&ca, time.Hour, tls.VersionTLS13, true},
		"old version":     {&ca, time.Hour, tls.VersionTLS12, false},
		"none":            {nil, 0, tls.VersionTLS13, false},
		"expired":         {&ca, -time.Hour, tls.VersionTLS13, false},
		"other authority": {&other, time.Hour, tls.VersionTLS13, false},
	} {
		config := &tls.Config{RootCAs: roots, MaxVersion: c.version} // an old version is to be refused
		if c.issuer != nil {
			cert, key := c.issuer.issue(t, time.Now().Add(c.until))
			pair, err := tls.LoadX509KeyPair(cert, key)
			if err != nil {
				t.Fatal(err)
			}
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		transport := &http.Transport{TLSClientConfig: config}
		response, err := (&http.Client{Transport: transport}).Get(s.url + "/v1/stats")
		if err == nil {
			_ = response.Body.Close()
		}
		if (err == nil) != c.ok {
			t.Errorf("%s: the request ended with %v", name, err)
		}
		transport.CloseIdleConnections()
	}
}
