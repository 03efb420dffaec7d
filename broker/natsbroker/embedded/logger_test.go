package embedded

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

func TestLogger_MapsLevelsAndSamplesRouteErrors(t *testing.T) {
	var b bytes.Buffer
	settled := false
	sample := func() *rate.Sometimes { return &rate.Sometimes{First: 3, Interval: time.Hour} }
	l := logger{slog.New(slog.NewTextHandler(&b, nil)), sample(), sample(), func() bool { return settled }}
	lone := func() {
		l.Warnf("%s", "Waiting for routing to be established...")
		for range 50 {
			l.Errorf("Error trying to connect to route (attempt %d): refused", 1)
		}
	}
	l.Noticef("listening on %d", 1)
	l.Debugf("payload")
	l.Tracef("payload")
	l.Warnf("slow %s", "disk")
	l.Warnf("Healthcheck failed: %q", "a stream is being created")
	l.Warnf("Plaintext passwords detected, use nkeys or bcrypt")
	l.Warnf("%s", "RAFT [a - _meta_] Falling behind in health check, commit 4 != applied 3")
	l.Warnf("%s", "Metalayer blocking snapshot starting")
	l.Errorf("no %s", "space")
	lone()
	if strings.Contains(b.String(), "rout") {
		t.Errorf("a server that is starting warns that it is alone:\n%s", &b)
	}
	settled = true
	lone()
	for i := range 50 {
		l.Errorf(fmt.Sprintf("127.0.0.1:50530 - rid:%d - %%s", i), "authentication error")
	}
	got := b.String()
	for text, want := range map[string]int{
		"listening": 0, "payload": 0, "Healthcheck": 0, "Plaintext": 0, "Metalayer": 0, "RAFT": 0,
		`level=WARN msg="NATS server: slow disk"`: 1, `level=ERROR msg="NATS server: no space"`: 1,
		"connect to route": 3, "authentication error": 3, "Waiting for routing": 1,
	} {
		if n := strings.Count(got, text); n != want {
			t.Errorf("%q is logged %d times, want %d:\n%s", text, n, want, got)
		}
	}
}
