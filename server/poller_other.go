//go:build !linux

package server

import "syscall"

// poller accepts no clients on systems other than Linux, so each has a dedicated reader.
type poller struct{}

func (*poller) add(*Client, syscall.RawConn) bool { return false }

func (*poller) watchHangUp(*Client, syscall.RawConn) bool { return false }

func (*poller) remove(*Client) {}

func (*poller) close() {}
