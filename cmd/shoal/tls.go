package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/shoal-go/shoal/internal/reload"
)

// newTLSConfig returns the configuration of the public listeners.
func (n *node) newTLSConfig() (*tls.Config, error) {
	f := n.flags
	config, refresh, err := newTLSConfig(f.TLSCert, f.TLSKey, n.metrics.certificateExpires, n.log)
	if err != nil {
		return nil, fmt.Errorf("cannot read the certificate: %w; see --tls-cert and --tls-key", err)
	}
	n.refresh = append(n.refresh, refresh)
	config.MinVersion = tlsVersion(f.TLSMinVersion)
	if f.TLSClientCA == "" {
		return config, nil
	}
	authorities, err := newAuthorities("client certificate authorities", f.TLSClientCA, n.log)
	if err != nil {
		return nil, fmt.Errorf("cannot read --tls-client-ca: %w", err)
	}
	n.refresh = append(n.refresh, authorities.Reload)
	config.ClientAuth = tls.RequireAndVerifyClientCert
	config.ClientCAs = authorities.Current()
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		current := config.Clone()
		current.ClientCAs, current.GetConfigForClient = authorities.Current(), nil
		return current, nil
	}
	return config, nil
}

// newAuthorities returns the certificates in PEM of a file, which are reloaded when it changes.
func newAuthorities(name, file string, logger *slog.Logger) (*reload.Files[*x509.CertPool], error) {
	return reload.New(reload.Options[*x509.CertPool]{
		Name: name, Paths: []string{file}, Logger: logger,
		Parse: func(contents [][]byte) (*x509.CertPool, error) { return parseAuthorities(contents[0]) },
	})
}

// parseAuthorities parses certificates in PEM.
func parseAuthorities(text []byte) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("there is no certificate in PEM in it")
	}
	return pool, nil
}

// tlsVersion returns the version of TLS that a flag names.
func tlsVersion(name string) uint16 {
	if name == "1.3" {
		return tls.VersionTLS13
	}
	return tls.VersionTLS12
}

// newCertificate returns the certificate in two files, which is reloaded when they change. A pair that does not fit, as
// while only one of the files has been replaced, leaves the current one in use. expires is called with the end of the
// validity of each certificate that is read.
func newCertificate(name, certFile, keyFile string, expires func(time.Time), logger *slog.Logger) (
	*reload.Files[*tls.Certificate], error,
) {
	return reload.New(reload.Options[*tls.Certificate]{
		Name:  name,
		Paths: []string{certFile, keyFile},
		Parse: func(contents [][]byte) (*tls.Certificate, error) {
			pair, err := tls.X509KeyPair(contents[0], contents[1])
			if err != nil && isEncrypted(contents[1]) {
				err = errors.New("the key is encrypted, want it without a password, as openssl pkey -in KEY -out FILE writes it")
			}
			return &pair, err
		},
		Attrs: func(pair *tls.Certificate) []slog.Attr {
			expires(pair.Leaf.NotAfter)
			from, until := validity(pair)
			if logger != nil && !isValidNow(pair) {
				// It is used all the same: a proxy in front may not check it, and the clock may be wrong.
				logger.Warn(name+" is not valid now", "valid_from", from, "valid_until", until, "remedy", renew)
			}
			return []slog.Attr{slog.String("valid_until", until)}
		},
		Logger: logger,
	})
}

// renew is the remedy for a certificate that is not valid now.
const renew = "renew it, or correct the clock"

// isValidNow reports whether the validity of a certificate has begun and not ended.
func isValidNow(pair *tls.Certificate) bool {
	now := time.Now()
	return !now.Before(pair.Leaf.NotBefore) && !now.After(pair.Leaf.NotAfter)
}

// validity returns the beginning and the end of a certificate's validity.
func validity(pair *tls.Certificate) (from, until string) {
	return pair.Leaf.NotBefore.UTC().Format(time.RFC3339), pair.Leaf.NotAfter.UTC().Format(time.RFC3339)
}

// isEncrypted reports whether a private key in PEM is encrypted with a password, as PKCS #8 or in an older form.
func isEncrypted(key []byte) bool {
	for block, rest := pem.Decode(key); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED") {
			return true
		}
	}
	return false
}

// newTLSConfig returns the configuration of a listener with the certificate in two files; see newCertificate. refresh
// reads them at once.
func newTLSConfig(certFile, keyFile string, expires func(time.Time), logger *slog.Logger) (
	config *tls.Config, refresh func(), err error,
) {
	files, err := newCertificate("certificate", certFile, keyFile, expires, logger)
	if err != nil {
		return nil, nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"}, // only HTTP/1.1 can be upgraded to a WebSocket
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return files.Current(), nil },
		// A batch of messages goes into as few records as it fits.
		DynamicRecordSizingDisabled: true,
	}, files.Reload, nil
}
