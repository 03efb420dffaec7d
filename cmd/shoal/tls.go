package main

import (
	"crypto/tls"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificateInterval is how often the files of a certificate are looked at.
const certificateInterval = time.Second

// certificate is the certificate in two files, read again when they have changed. current may be called from
// any number of goroutines.
type certificate struct {
	certFile, keyFile string
	logger            *slog.Logger

	// mu protects the rest. Reading the files under it makes other handshakes wait for the same reading.
	mu     sync.Mutex
	pair   *tls.Certificate
	looked time.Time
	seen   [2]fileVersion
}

// fileVersion tells one content of a file from the next.
type fileVersion struct {
	modified time.Time
	size     int64
}

// newTLSConfig returns the configuration of a listener with the certificate in two files.
func newTLSConfig(certFile, keyFile string, logger *slog.Logger) (*tls.Config, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, logger: logger}
	if err := c.readIfChangedLocked(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"http/1.1"}, // which alone can be upgraded to a WebSocket
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.current(), nil },
	}, nil
}

func (c *certificate) current() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) >= certificateInterval {
		if err := c.readIfChangedLocked(); err != nil {
			c.logger.Error("reading the certificate failed, going on with the one there is", "error", err)
		}
	}
	return c.pair
}

func (c *certificate) readIfChangedLocked() error {
	c.looked = time.Now()
	var versions [2]fileVersion
	for i, path := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		versions[i] = fileVersion{info.ModTime(), info.Size()}
	}
	if versions == c.seen {
		return nil
	}
	// What was there before reading counts as seen: if only one of the files has been replaced so far, the
	// pair does not fit, and the other's change is another version.
	c.seen = versions
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return err
	}
	c.pair = &pair
	return nil
}
