//go:build !linux && !darwin

package outbox

import "net"

// limitUnsent limits the send buffer of a connection, since this system has no limit for unsent bytes alone.
func limitUnsent(conn *net.TCPConn, n int) { _ = conn.SetWriteBuffer(n) }
