package server

import "testing"

// Input that is reported while a reader has the client is not lost: the reader must read once more before the client
// is parked.
func TestInput_ReportDuringAReadIsNotLost(t *testing.T) {
	var in input // a reader has it
	if in.markReadable() {
		t.Error("a client that is being read was queued for a second reader")
	}
	if in.park() {
		t.Error("the client was parked although input was reported")
	}
	if !in.park() {
		t.Error("the client was not parked after another read")
	}
	if !in.markReadable() {
		t.Error("a parked client was not queued")
	}
}
