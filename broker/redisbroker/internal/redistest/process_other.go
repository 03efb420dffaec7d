//go:build !linux

package redistest

import "os/exec"

// endWithParent does nothing: this system cannot tie a command to its parent. The tests end their servers themselves.
func endWithParent(*exec.Cmd) {}
