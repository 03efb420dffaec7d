//go:build unix

package load

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// spareFiles are the open files that a process needs beside its connections.
const spareFiles = 64

// checkFileLimit refuses a number of connections for which the process may not open enough files. The
// runtime has raised the limit as far as it may be raised.
func checkFileLimit(connections int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil // then the first connection too many says it
	}
	needed := uint64(connections + spareFiles)          //nolint:gosec // it has been validated
	if allowed := uint64(limit.Cur); allowed < needed { //nolint:unconvert // it is signed on some systems
		return fmt.Errorf("load: %d connections need %d open files and %d are allowed; "+
			"raise the open files limit: ulimit -n %d", connections, needed, allowed, needed)
	}
	return nil
}
