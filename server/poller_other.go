//go:build !linux

package server

import (
	"syscall"
	"time"
)

// poller accepts no clients on systems other than Linux, so each has a dedicated reader.
type poller struct{}

func (*poller) add(*Client, syscall.RawConn) bool { return false }

func (*poller) watchHangUp(*Client, syscall.RawConn) bool { return false }

func (*poller) remove(*Client) {}

func (*poller) close() {}

// sinceAcknowledged returns 0: on this system only a failing write shows that the client of an event stream is gone.
func (c *Client) sinceAcknowledged() time.Duration { return 0 }
