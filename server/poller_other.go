//go:build !linux

package server

// poller is where the operating system offers none that is made use of. Every client has a reader of its own.
type poller struct{}

func (*poller) add(*Client) bool { return false }

func (*poller) remove(*Client) {}

func (*poller) close() {}
