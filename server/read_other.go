//go:build !unix

package server

import (
	"errors"
	"syscall"
)

// errNotHere is why sockets are read from by their own method.
var errNotHere = errors.New("server: this system's sockets are not read from without waiting")

func rawConn(syscall.Conn) (syscall.RawConn, error) { return nil, errNotHere }

func tryRead(uintptr, []byte) (n int, silent bool, err error) { return 0, false, errNotHere }
