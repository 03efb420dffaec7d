//go:build !linux

package server

import (
	"net"
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

// detach returns conn: package net waits for it.
func detach(_ *Client, conn net.Conn) net.Conn { return conn }
