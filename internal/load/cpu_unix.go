//go:build unix

package load

import (
	"time"

	"golang.org/x/sys/unix"
)

// ProcessCPU returns the processor time that this process has used so far, all threads together, in its own
// code and in the system's. Both are 0 where the system does not tell.
func ProcessCPU() (user, system time.Duration) {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0, 0
	}
	return time.Duration(used.Utime.Nano()), time.Duration(used.Stime.Nano())
}
