package natsbroker_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"
)

// inUse returns how many bytes are in use, and how many goroutines run.
func inUse() (bytes, goroutines int) {
	runtime.GC()
	runtime.GC() // empties pools as well
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc), runtime.NumGoroutine()
}

// TestSubscriptions_AreSmallAndLeaveNothing subscribes to many channels and leaves them. The server is in the same
// process, so that the bounds include its share.
func TestSubscriptions_AreSmallAndLeaveNothing(t *testing.T) {
	const (
		count        = 20_000
		perChannel   = 2 << 10 // bytes, about half of them the server's
		left         = count * perChannel / 8
		fewOtherwise = 20 // goroutines that come and go in client and server
	)
	// However busy the machine is, the connection is not given up, and no call ends before its answer.
	opt := quick(serve(t))
	opt.ProbeInterval, opt.CallTimeout = time.Hour, time.Hour
	n := join(t, opt)
	channels := make([]string, count)
	for i := range channels {
		channels[i] = fmt.Sprint("upload:", i)
	}
	bytesBefore, goroutinesBefore := inUse()
	for some := range slices.Chunk(channels, 500) { // each of which the connection has written before the next
		n.subscribe(t, some...)
	}
	n.store(t, channels[count-1], "1")
	n.awaitPayloads(t, channels[count-1], "1")
	bytes, goroutines := inUse()
	if each := (bytes - bytesBefore) / count; each > perChannel {
		t.Errorf("a subscription costs %d bytes, want at most %d", each, perChannel)
	}
	if more := goroutines - goroutinesBefore; more > fewOtherwise {
		t.Errorf("%d subscriptions cost %d goroutines, want none each", count, more)
	}
	if err := n.Unsubscribe(t.Context(), channels...); err != nil {
		t.Fatal(err)
	}
	n.subscribe(t, "upload:x") // behind which the server has taken all of that
	if bytes, _ = inUse(); bytes-bytesBefore > left {
		t.Errorf("%d subscriptions left cost %d bytes, want at most %d", count, bytes-bytesBefore, left)
	}
}
