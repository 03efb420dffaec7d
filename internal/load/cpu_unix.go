//go:build unix

package load

import (
	"time"

	"golang.org/x/sys/unix"
)

// ProcessCPU returns the CPU time that all threads of this process have used, in user and in system mode. Both are 0 on
// systems that do not report it.
func ProcessCPU() (user, system time.Duration) {
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		return 0, 0
	}
	return time.Duration(used.Utime.Nano()), time.Duration(used.Stime.Nano())
}
