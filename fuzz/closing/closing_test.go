package main

import (
	"fmt"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Connections end within the deadline, although some are stuck, and every client that reads gets its code.
func TestClosing_EndsStuckConnections(t *testing.T) {
	before := descriptors()
	t.Run("side by side", func(t *testing.T) {
		for _, c := range []trial{
			{connections: 1000, stuck: 50, call: callDisconnect, within: patient},
			{connections: 1000, stuck: 50, call: callClose, within: patient},
			{connections: 200, stuck: 10, call: callDisconnect, within: patient, secure: true},
			{connections: 200, stuck: 10, call: callClose, within: patient, secure: true},
		} {
			t.Run(fmt.Sprintf("%s TLS=%v", c.call, c.secure), func(t *testing.T) {
				t.Parallel()
				c.shared = true
				var s side
				r, err := c.run(t.Context(), s.do)
				if err != nil {
					t.Fatal(err)
				}
				if r.problem != "" || r.told != c.connections-c.stuck {
					t.Errorf("%s returned %q; %d of %d clients were told, the others: %v", c.call, r.problem, r.told,
						c.connections-c.stuck, r.wrong)
				}
				if r.after.Open != 0 || r.after.Connections != 0 || r.after.Subscriptions != 0 {
					t.Errorf("left behind: %+v", r.after)
				}
			})
		}
	})
	if now := descriptors(); now > before+spareDescriptors {
		t.Errorf("%d descriptors are open, %d were before", now, before)
	}
}
