package main

import (
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"time"

	"github.com/shoal-go/shoal/internal/reload"
)

// newTLSConfig returns the configuration of a listener with the certificate in two files, which is reloaded when they
// change. A pair that does not fit, as while only one of the files has been replaced, leaves the current one in use.
// expires is called with the end of the validity of each certificate that is read.
func newTLSConfig(certFile, keyFile string, expires func(time.Time), logger *slog.Logger) (*tls.Config, error) {
	files, err := reload.New(reload.Options[*tls.Certificate]{
		Name:  "certificate",
		Paths: []string{certFile, keyFile},
		Parse: func(contents [][]byte) (*tls.Certificate, error) {
			pair, err := tls.X509KeyPair(contents[0], contents[1])
			return &pair, err
		},
		Attrs: func(pair *tls.Certificate) []slog.Attr {
			leaf, err := x509.ParseCertificate(pair.Certificate[0])
			if err != nil {
				return nil
			}
			expires(leaf.NotAfter)
			return []slog.Attr{slog.String("valid_until", leaf.NotAfter.UTC().Format(time.RFC3339))}
		},
		Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"}, // only HTTP/1.1 can be upgraded to a WebSocket
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return files.Current(), nil },
	}, nil
}
