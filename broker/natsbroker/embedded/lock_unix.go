//go:build unix && !solaris

package embedded

import (
	"os"
	"syscall"
)

// tryLock locks a file until it is closed or the process ends. It does not wait for another process that has locked it.
func tryLock(file *os.File) error {
	return syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
}
