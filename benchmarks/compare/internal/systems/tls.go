package systems

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// serverName is the name in the certificate of every server.
const serverName = "compare.invalid"

// NewCertificate writes a new certificate and its key into a folder, as PEM files, and returns the configuration of a server under
// test with it: TLS 1.3, session tickets, and everything else as the standard library has it.
func NewCertificate(folder string) (certificate, key string, config *tls.Config, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{serverName}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return "", "", nil, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", "", nil, err
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
	pair, err := tls.X509KeyPair(public, secret)
	certificate, key = filepath.Join(folder, "certificate.pem"), filepath.Join(folder, "key.pem")
	err = errors.Join(err, os.WriteFile(certificate, public, 0o600), os.WriteFile(key, secret, 0o600))
	return certificate, key, &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13}, err
}

// ClientTLS returns the configuration of clients: they share their session tickets, as one that has been here before
// does, and do not check the certificate, which would be the clients' work.
func ClientTLS() *tls.Config {
	return &tls.Config{
		ServerName: serverName, MinVersion: tls.VersionTLS13, ClientSessionCache: tls.NewLRUClientSessionCache(0),
		InsecureSkipVerify: true, //nolint:gosec // as above
	}
}
