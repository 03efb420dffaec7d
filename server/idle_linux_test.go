package server_test

import (
	"fmt"
	"runtime"
	"testing"
)

// A connection that waits for its client has no goroutine.
func TestPoller_IdleConnectionsHaveNoGoroutines(t *testing.T) {
	n := start(t)
	n.raw(t, "").enter("first") // what all connections share is there from now on
	before := runtime.NumGoroutine()
	const many, spare = 300, 100
	for i := range many {
		n.raw(t, "").enter(fmt.Sprintf("u%d", i))
	}
	waitFor(t, func() bool { return runtime.NumGoroutine() < before+spare })
}
