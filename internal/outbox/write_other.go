//go:build !unix

package outbox

import (
	"errors"
	"net"
	"syscall"
)

// rawConn returns nil: on this system all connections use blocking writes.
func rawConn(net.Conn) syscall.RawConn { return nil }

func tryWrite(uintptr, []byte) (int, error) { return 0, errors.ErrUnsupported }

func writable(uintptr) bool { return true }
