//go:build unix

package main

import "syscall"

// maxOpenFiles returns how many files the process may open, 0 if that is not known. The runtime has raised the limit as
// far as the system allows.
func maxOpenFiles() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil || limit.Cur > 1<<31 {
		return 0
	}
	return int(limit.Cur) // at most 1<<31; signed on some systems
}
