//go:build !linux

package main

import "os/exec"

// endWithParent does nothing: this system cannot tie a command to its parent.
func endWithParent(*exec.Cmd) {}
