//go:build !unix

package load

import "time"

// ProcessCPU returns the CPU time that all threads of this process have used, in user and in system mode. Both are 0 on
// systems that do not report it.
func ProcessCPU() (user, system time.Duration) { return 0, 0 }
