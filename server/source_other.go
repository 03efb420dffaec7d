//go:build !unix

package server

import (
	"io"
	"net"
)

// newSource returns what the bytes of a connection are read from.
func newSource(conn net.Conn) io.Reader { return conn }
