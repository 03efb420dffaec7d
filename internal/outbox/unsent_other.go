//go:build !linux

package outbox

import "net"

// limitUnsent has no effect on this system: live frames may be delayed by the recovery in the kernel's send buffer.
func limitUnsent(net.Conn, bool) {}
