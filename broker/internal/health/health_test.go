package health_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/shoal-go/shoal/broker/internal/health"
)

// recovers is how many accepted probes in a row prove that storage has room again, as docs and operators know it.
const recovers = 10

// Storage near its limit, which refuses one message and accepts the next ones, stays full until it clearly has room.
func TestStorage_DoesNotFlapNearItsLimit(t *testing.T) {
	var s health.Storage
	full := errors.New("full")
	if err := s.Probe(nil, false); err != nil || s.Full() {
		t.Fatalf("storage that accepts a message is full: %v", err)
	}
	for range 3 {
		if err := s.Probe(full, false); !errors.Is(err, full) {
			t.Fatalf("after a refusal the reason is %v, want %v", err, full)
		}
		for i := 1; i < recovers; i++ {
			if err := s.Probe(nil, false); !errors.Is(err, full) {
				t.Fatalf("after %d accepted probes the reason is %v, want %v", i, err, full)
			}
		}
	}
	if err := s.Probe(nil, false); err != nil || s.Full() {
		t.Errorf("after %d accepted probes the storage is full: %v", recovers, err)
	}
	_ = s.Probe(full, true)
	if !s.Full() {
		t.Error("storage that has just refused a message has room")
	}
	if err := s.Probe(nil, true); err != nil || s.Full() {
		t.Errorf("storage that is far below its limit is full: %v", err)
	}
}

// Each failure of TLS names the option that mends it; other errors and plain connections get no advice.
func TestExplainTLS_NamesTheOption(t *testing.T) {
	names := health.Names(func(option string) string {
		return map[string]string{health.AuthorityOption: "--ca", health.CertificateOption: "--cert"}[option]
	})
	plain, withCertificate := new(tls.Config), &tls.Config{Certificates: make([]tls.Certificate, 1)}
	verification := func(err error) error { return &tls.CertificateVerificationError{Err: err} }
	for _, c := range []struct {
		err    error
		config *tls.Config
		want   string // "": the error is unchanged
	}{
		{verification(x509.UnknownAuthorityError{}), plain, "--ca"},
		{verification(x509.HostnameError{Certificate: new(x509.Certificate)}), plain, "Options.URL"},
		{verification(x509.CertificateInvalidError{Reason: x509.Expired}), plain, "renew"},
		{verification(errors.New("other")), plain, "--ca"},
		{tls.RecordHeaderError{Msg: "not TLS"}, plain, "Options.URL"},
		{&net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}, plain, "--cert"},
		{io.EOF, plain, "may require"},
		{io.EOF, withCertificate, "may not accept"},
		{io.EOF, nil, ""},
		{&net.OpError{Op: "dial", Err: errors.New("connection refused")}, plain, ""},
	} {
		wrapped := fmt.Errorf("connect: %w", c.err)
		got := health.ExplainTLS(wrapped, names, c.config)
		if !errors.Is(got, c.err) && got != wrapped { //nolint:errorlint // identity
			t.Errorf("%v does not wrap %v", got, c.err)
		}
		if c.want == "" && got.Error() != wrapped.Error() || !strings.Contains(got.Error(), c.want) {
			t.Errorf("%v is explained as %q, want %q", c.err, got, c.want)
		}
	}
}
