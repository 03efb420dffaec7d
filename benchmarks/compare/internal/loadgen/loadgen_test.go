package loadgen

import (
	"strings"
	"testing"

	"go.uber.org/goleak"
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
