package loadgen

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/internal/load"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Calls that make no sense are refused with the field at fault.
func TestClients_RefuseInvalidCalls(t *testing.T) {
	c := &Clients{}
	if err := c.Wait(Wait{}, &Received{}); err == nil || !strings.Contains(err.Error(), "no clients are open") {
		t.Errorf("waiting without clients: %v", err)
	}
	for want, q := range map[string]Audience{
		"is unknown":          {System: "nobody"},
		"Options.Addr":        {System: "gws"},
		"Options.Connections": {System: "shoal", Addr: "127.0.0.1:1", Connections: -1},
	} {
		if err := c.Open(q, &Opened{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: the error is %v, want one with %q", q, err, want)
		}
	}
}

// The time from the call that published is the one from the plan less the delay of the call.
func TestClients_TimeCalls(t *testing.T) {
	c := &Clients{called: load.NewTimes()}
	const planned, late = 50 * time.Second, 40 * time.Second // ago
	sent := time.Now().Add(-planned).UnixNano()
	got, ok := c.sent(message.Message{Channel: "u0", Sent: sent, Number: uint64(late), Size: message.MinSize}.JSON())
	if called := time.Duration(c.called.Percentiles().P50); !ok || got != sent || called < 9*time.Second || called > 30*time.Second {
		t.Errorf("planned at %d, %v, and called %v ago, want %d and 10s", got, ok, called, sent)
	}
}
