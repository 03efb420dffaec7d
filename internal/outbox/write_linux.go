//go:build linux && !386 && !s390x

package outbox

import (
	"syscall"
	"unsafe"
)

// rawBytes is the largest write that is done without notifying the scheduler (syscall.RawSyscall). Such a write takes
// the kernel about ten microseconds, and the notification costs one or two. Longer writes would keep a P from other
// goroutines for too long.
const rawBytes = 16 << 10

// write is send(2) with MSG_DONTWAIT: it does not block even if the application has made the descriptor blocking, for
// example by calling Fd on the result of TCPConn.File. A blocked raw system call would block the scheduler.
func write(fd uintptr, buf []byte) (int, error) {
	if len(buf) == 0 {
		return 0, nil
	}
	const flags = syscall.MSG_DONTWAIT | syscall.MSG_NOSIGNAL
	var sent uintptr
	var errno syscall.Errno
	//nolint:gosec // unsafe.Pointer: the conversion that package syscall itself uses
	if n := uintptr(len(buf)); len(buf) <= rawBytes {
		sent, _, errno = syscall.RawSyscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&buf[0])), n, flags, 0, 0)
	} else {
		sent, _, errno = syscall.Syscall6(syscall.SYS_SENDTO, fd, uintptr(unsafe.Pointer(&buf[0])), n, flags, 0, 0)
	}
	switch errno {
	case 0:
		return int(sent), nil
	case syscall.ENOTSOCK: // a descriptor that Config.Raw provides
		return syscall.Write(int(fd), buf)
	default:
		return 0, errno
	}
}
