//go:build (!unix && !windows) || solaris

package embedded

import (
	"errors"
	"os"
)

// tryLock has no implementation for this system.
func tryLock(*os.File) error { return errors.ErrUnsupported }
