package outbox

import (
	"syscall"
	"unsafe"
)

// rawBytes is the largest write that is done without notifying the scheduler (syscall.RawSyscall). Such a write takes the
// kernel about ten microseconds, and the notification costs one or two. Longer writes would keep a P from other
// goroutines for too long.
const rawBytes = 16 << 10

// write is write(2). The descriptor must be non-blocking.
func write(fd uintptr, buf []byte) (int, error) {
	if len(buf) == 0 || len(buf) > rawBytes {
		return syscall.Write(int(fd), buf)
	}
	//nolint:gosec // the conversion that package syscall itself uses
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
