package server

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sinceAcknowledged returns the time since the client's system has last acknowledged data, which each comment of the
// keep-alive asks for. It is 0 for a connection that is not TCP or has no descriptor of its own.
func (c *Client) sinceAcknowledged() (silent time.Duration) {
	raw := c.input.raw
	if raw == nil && c.socket.raw != nil { // TLS
		raw, _ = rawConn(c.socket.raw)
	}
	if raw == nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { silent = lastAcknowledgement(int(fd)) })
	return silent
}

func lastAcknowledgement(fd int) time.Duration {
	info, err := unix.GetsockoptTCPInfo(fd, syscall.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	return time.Duration(info.Last_ack_recv) * time.Millisecond
}
