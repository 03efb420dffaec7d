package outbox

import (
	"syscall"
	"unsafe"
)

// rawBytes is up to how many bytes are written without telling the scheduler. That takes the kernel some ten
// microseconds, and telling costs one or two: a processor that is thought to be away in a system call is looked
// after. More bytes take longer, so that others could miss it.
const rawBytes = 16 << 10

// write is write(2). The descriptor does not block.
func write(fd uintptr, buf []byte) (int, error) {
	if len(buf) == 0 || len(buf) > rawBytes {
		return syscall.Write(int(fd), buf)
	}
	//nolint:gosec // as package syscall itself does
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
