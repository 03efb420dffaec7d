package server_test

import (
	"fmt"
	"runtime"
	"testing"
)

// A connection that waits for its client has no goroutine, over TLS neither.
func TestPoller_IdleConnectionsHaveNoGoroutines(t *testing.T) {
	t.Run("TCP", func(t *testing.T) { idleConnections(t, start(t)) })
	t.Run("TLS", func(t *testing.T) { idleConnections(t, startTLS(t)) })
}

func idleConnections(t *testing.T, n *node) {
	t.Helper()
	n.raw(t, "").enter("first") // starts the goroutines that all connections share
	before := runtime.NumGoroutine()
	const many, spare = 150, 50
	for i := range many {
		n.raw(t, "").enter(fmt.Sprintf("u%d", i))
	}
	waitFor(t, func() bool { return runtime.NumGoroutine() < before+spare })
}

// An event stream that waits has no goroutine either.
func TestEvents_IdleStreamsHaveNoGoroutines(t *testing.T) {
	n := start(t)
	readUntil(t, n.dialEvents("first", "1.1"), "}\n\n")
	before := runtime.NumGoroutine()
	const many, spare = 300, 100
	for i := range many {
		readUntil(t, n.dialEvents(fmt.Sprintf("u%d", i), "1.1"), "}\n\n")
	}
	waitFor(t, func() bool { return runtime.NumGoroutine() < before+spare })
}
