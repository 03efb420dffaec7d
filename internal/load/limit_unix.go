//go:build unix

package load

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// otherFiles is the number of open files that a process needs besides its connections.
const otherFiles = 64

// checkFileLimit returns an error if the limit of open files is too low for the number of connections. The Go runtime
// has already raised the soft limit to the hard limit.
func checkFileLimit(connections int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return nil // unknown limit: opening a connection will fail
	}
	needed := uint64(connections + otherFiles)          //nolint:gosec // validated
	if allowed := uint64(limit.Cur); allowed < needed { // signed on some systems
		return fmt.Errorf("load: %d connections need %d open files and %d are allowed; "+
			"raise the open files limit: ulimit -n %d", connections, needed, allowed, needed)
	}
	return nil
}
