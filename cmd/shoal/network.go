package main

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/shoal-go/shoal/internal/printable"
)

// networkReason returns why a server did not answer, in an operator's words where those of Go name a step of a library.
// known is false for other errors, whose own text is returned.
func networkReason(err error) (reason string, known bool) {
	var name *net.DNSError
	var record tls.RecordHeaderError
	var late interface{ Timeout() bool }
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.ECONNABORTED), errors.Is(err, syscall.EPIPE):
		return "the connection broke off", true
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nothing listens there", true
	case errors.As(err, &name) && name.IsNotFound:
		return "no host has the name " + printable.Text(name.Name), true
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return "it does not speak TLS", true
	case errors.As(err, &late) && late.Timeout():
		return "it does not answer in time", true
	case strings.Contains(err.Error(), "malformed HTTP "): // net/http has no type for it
		return "it does not speak HTTP", true
	}
	return err.Error(), false
}
