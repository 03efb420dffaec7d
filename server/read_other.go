//go:build !unix

package server

import (
	"errors"
	"syscall"
)

// errNoRawRead makes attach use net.Conn.Read.
var errNoRawRead = errors.New("server: reading without blocking is not implemented on this system")

func rawConn(syscall.Conn) (syscall.RawConn, error) { return nil, errNoRawRead }

func tryWrite(uintptr, []byte) (int, error) { return 0, errNoRawRead }

func tryRead(uintptr, []byte) (n int, empty bool, err error) { return 0, false, errNoRawRead }
