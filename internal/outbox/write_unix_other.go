//go:build unix && (!linux || 386 || s390x)

package outbox

import "syscall"

// write is write(2). The descriptor must be non-blocking.
func write(fd uintptr, buf []byte) (int, error) { return syscall.Write(int(fd), buf) }
