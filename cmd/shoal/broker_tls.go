package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// brokerTLS is how the node connects to its broker over TLS. The zero value stands for the default.
type brokerTLS struct {
	config *tls.Config
	// authorities returns the present certificates of --broker-tls-ca. nil: those of the system.
	authorities func() *x509.CertPool
	// refresh reads the files again.
	refresh []func()
}

// overTLS reports whether the broker's URL asks for TLS.
func (f *serveFlags) overTLS() bool {
	return strings.HasPrefix(f.Broker, "rediss") || strings.HasPrefix(f.Broker, "tls://")
}

// brokerTLS reads the files of the TLS connection to the broker. They are reloaded when they change, and used by the
// next connection.
func (f *serveFlags) brokerTLS(logger *slog.Logger) (t brokerTLS, err error) {
	if f.BrokerTLSCA == "" && f.BrokerTLSCert == "" && (f.BrokerTLSMin != "1.3" || !f.overTLS()) {
		return t, nil
	}
	t.config = &tls.Config{MinVersion: tlsVersion(f.BrokerTLSMin)}
	if f.BrokerTLSCA != "" {
		files, err := newAuthorities("broker certificate authorities", f.BrokerTLSCA, logger)
		if err != nil {
			return t, fmt.Errorf("cannot read --broker-tls-ca: %w", err)
		}
		t.authorities = files.Current
		t.refresh = append(t.refresh, files.Reload)
	}
	if f.BrokerTLSCert != "" {
		files, err := newCertificate("broker client certificate", f.BrokerTLSCert, f.BrokerTLSKey, func(time.Time) {}, logger)
		if err != nil {
			return t, fmt.Errorf("cannot read --broker-tls-cert and --broker-tls-key: %w", err)
		}
		t.config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return files.Current(), nil
		}
		t.refresh = append(t.refresh, files.Reload)
	}
	return t, nil
}

// openBrokerTLS is brokerTLS for the lifetime of the node.
func (n *node) openBrokerTLS() (brokerTLS, error) {
	t, err := n.flags.brokerTLS(n.log)
	n.refresh = append(n.refresh, t.refresh...)
	return t, err
}
