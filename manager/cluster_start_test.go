package manager

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/shoal-go/shoal/broker"
)

// TestCluster_UnhealthyBrokerIsAWarningOnceItWasHealthy: the nodes of a cluster that is started wait for each other, which
// must not alert anybody.
func TestCluster_UnhealthyBrokerIsAWarningOnceItWasHealthy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(bytes.Buffer)
		opt := Options{Logger: slog.New(slog.NewTextHandler(log, nil))}
		starting := &cluster{manager: &Manager{opt: opt}}
		starting.Health(errors.New("no leader"))
		if text := log.String(); !strings.Contains(text, `level=INFO msg="broker unhealthy" error="no leader"`) {
			t.Errorf("at the start the log is %s", text)
		}
		n := openMember(t, broker.NewMemory(broker.MemoryOptions{}), opt)
		must(t, n.Ready())
		n.link.handler.Health(errors.New("no leader"))
		if text := log.String(); !strings.Contains(text, `level=WARN msg="broker unhealthy" error="no leader"`) {
			t.Errorf("after it was ready the log is %s", text)
		}
	})
}
