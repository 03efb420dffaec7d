package natsbroker

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shoal-go/shoal/broker/brokertest"
)

// TestSupervisor_IsUnhealthyWithoutLeader: while a stream has no leader, the server does not respond to the request for
// its state. A publication that fails for that reason, before the check or in the middle of it, ends the wait long before
// the timeout of a call.
func TestSupervisor_IsUnhealthyWithoutLeader(t *testing.T) {
	s := serveWithoutJetStream(t)
	for _, before := range []bool{true, false} {
		opt := Options{URL: s.ClientURL(), ProbeInterval: 10 * time.Millisecond, CallTimeout: time.Hour}.withDefaults()
		r := brokertest.NewRecorder()
		v := &supervisor{opt: opt, streamManager: streamManager{Options: opt}, handler: r, epochs: newEpochs()}
		session, err := dial(t.Context(), opt, r, newSubscriptions(), v.epochs)
		if err != nil {
			t.Fatal(err)
		}
		if before {
			session.suspectStream("store", errNoAnswer)
		}
		if _, err = session.conn.Subscribe("$JS.API.STREAM.INFO.SHOAL", func(*nats.Msg) {
			session.suspectStream("store", errNoAnswer)
		}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		checked := make(chan struct{})
		go func() {
			defer close(checked)
			v.check(ctx, session)
		}()
		r.Await(t, "bad health", func() bool { return r.Fault() != nil })
		if text := r.Fault().Error(); !strings.Contains(text, "it has no leader, or JetStream is disabled") {
			t.Errorf("the health is %q, want it to name the causes", text)
		}
		cancel()
		<-checked
		session.close()
	}
}

// TestSupervisor_ReportsAReasonOnce: attempts to connect fail with errors that name different local ports.
func TestSupervisor_ReportsAReasonOnce(t *testing.T) {
	r := brokertest.NewRecorder()
	v := &supervisor{handler: r}
	for _, err := range []error{
		errors.New("read tcp 127.0.0.1:58402->127.0.0.1:4222: EOF"), errors.New("read tcp 127.0.0.1:58416->127.0.0.1:4222: EOF"),
		errors.New("i/o timeout"), nil, nil,
	} {
		v.health(err)
	}
	if n := len(r.HealthReports()); n != 3 {
		t.Errorf("%d reports, want 3: %v", n, r.HealthReports())
	}
}
