package embedded

import (
	"os"

	"golang.org/x/sys/windows"
)

// tryLock locks a file until it is closed or the process ends. It does not wait for another process that has locked it.
func tryLock(file *os.File) error {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	return windows.LockFileEx(windows.Handle(file.Fd()), flags, 0, 1, 0, new(windows.Overlapped))
}
