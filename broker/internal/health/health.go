// Package health holds the parts of the brokers that explain to an operator why an engine does not serve a node.
package health

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"unicode"
)

// Storage decides whether an engine's storage counts as full. Near its limit an engine refuses one message and accepts
// the next one because another has expired, so storage that was full counts as full until it clearly has room again.
// The zero value has room. It is not safe for concurrent use.
type Storage struct {
	refusal  error
	accepted int // consecutive probes that the engine has accepted since the last refusal
}

// ProbesToRecover is the number of consecutive accepted probes after which storage has room again.
const ProbesToRecover = 10

// Probe records that the engine refused a message for want of room, or accepted one if refusal is nil. roomy means that
// the engine's usage is known to be clearly below its limit. It returns the reason why the storage counts as full, or
// nil.
func (s *Storage) Probe(refusal error, roomy bool) error {
	s.accepted++
	switch {
	case refusal != nil:
		s.refusal, s.accepted = refusal, 0
	case roomy || s.accepted >= ProbesToRecover:
		s.refusal = nil
	}
	return s.refusal
}

// Full reports whether the storage counts as full.
func (s *Storage) Full() bool { return s.refusal != nil }

// Reason returns the text of an error without numbers, such as the ports of connections, or "". Equal reasons are
// reported and logged once.
func Reason(err error) string {
	if err == nil {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsDigit(r) {
			return -1
		}
		return r
	}, err.Error())
}

// Names returns how the operator sets an option of a broker, such as --broker-tls-ca for AuthorityOption. A nil Names
// returns the name of the option itself.
type Names func(option string) string

// Options of TLS that an error may name.
const (
	AuthorityOption   = "TLS.RootCAs"
	CertificateOption = "TLS.Certificates"
	URLOption         = "URL"
)

// Of returns the name of an option.
func (n Names) Of(option string) string {
	if n != nil {
		if name := n(option); name != "" {
			return name
		}
	}
	return "Options." + option
}

// ExplainTLS adds the remedy to the error of a connection over TLS, and returns other errors unchanged. config is the
// configuration of TLS, nil if the node does not ask for it.
func ExplainTLS(err error, names Names, config *tls.Config) error {
	if remedy := tlsRemedy(err, names, config); remedy != "" {
		return fmt.Errorf("%w: %s", err, remedy)
	}
	return err
}

func tlsRemedy(err error, names Names, config *tls.Config) string {
	var (
		invalid x509.CertificateInvalidError
		refused *net.OpError
	)
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return "set the authority of the server's certificate by " + names.Of(AuthorityOption)
	case errors.As(err, new(x509.HostnameError)):
		return "set a host of the server's certificate in " + names.Of(URLOption)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the server's certificate, or correct the clocks"
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return "replace the server's certificate, or set its authority by " + names.Of(AuthorityOption)
	case errors.As(err, new(tls.RecordHeaderError)):
		return "the server does not use TLS on this port: correct " + names.Of(URLOption)
	case errors.As(err, &refused) && refused.Op == "remote error":
		return "the server refused the connection: set a valid client certificate of its authority by " +
			names.Of(CertificateOption)
	case config == nil || !IsClosed(err):
		return ""
	case len(config.Certificates) > 0 || config.GetClientCertificate != nil:
		return "if this persists, the server may not accept the client certificate of " + names.Of(CertificateOption)
	}
	return "if this persists, the server may require a client certificate: set it by " + names.Of(CertificateOption)
}

// IsClosed reports whether the server closed the connection. With TLS 1.3 that may overtake the alert with the reason.
func IsClosed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) ||
		errors.Is(err, syscall.EPIPE)
}
