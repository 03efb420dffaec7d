package embedded

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

func TestLogger_MapsLevelsAndSamplesRouteErrors(t *testing.T) {
	var b bytes.Buffer
	l := logger{slog.New(slog.NewTextHandler(&b, nil)), &rate.Sometimes{First: 3, Interval: time.Hour}}
	l.Noticef("listening on %d", 1)
	l.Debugf("payload")
	l.Tracef("payload")
	l.Warnf("slow %s", "disk")
	l.Warnf("Healthcheck failed: %q", "a stream is being created")
	l.Errorf("no %s", "space")
	for range 50 {
		l.Errorf("Error trying to connect to route (attempt %d): refused", 1)
	}
	got := b.String()
	for text, want := range map[string]int{
		"listening": 0, "payload": 0, "Healthcheck": 0,
		`level=WARN msg="NATS server: slow disk"`: 1, `level=ERROR msg="NATS server: no space"`: 1,
		"connect to route": 3,
	} {
		if n := strings.Count(got, text); n != want {
			t.Errorf("%q is logged %d times, want %d:\n%s", text, n, want, got)
		}
	}
}
