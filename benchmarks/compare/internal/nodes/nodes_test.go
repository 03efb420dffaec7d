package nodes

import (
	"errors"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/load"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start starts a node, and closes it when the test ends.
func start(t *testing.T, o Options) *Node {
	t.Helper()
	n := &Node{}
	err := n.Start(o, &worker.None{})
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Each published message is received, in order, at full speed and at a rate.
func TestNode_ReceivesAll(t *testing.T) {
	const briefly, patience = 20 * time.Millisecond, 20 * time.Second
	n, none := start(t, Options{Broker: Memory}), &worker.None{}
	var published, scheduled Published
	var all, later State
	for i, err := range []error{
		n.Follow(3, none), n.Probe(*none, none), n.Publish(results.Timed{Params: results.Params{Channels: 3, Bytes: 256, Publishers: 5}, For: briefly}, &published),
		n.Publish(results.Timed{Params: results.Params{Channels: 3, Bytes: 256, Publishers: 2, Rate: 1000}, For: briefly}, &scheduled),
		n.Wait(Wait{Total: published.Messages + scheduled.Messages, For: patience}, &all), n.Reset(*none, none), n.Wait(Wait{}, &later),
	} {
		if err != nil {
			t.Errorf("call %d: %v", i, err)
		}
	}
	total := published.Messages + scheduled.Messages
	if published.Messages == 0 || published.Began == 0 || scheduled.Messages != 20 || all.Received != total || all.Disorder != 0 {
		t.Errorf("published are %+v and %+v, received %+v", published, scheduled, all)
	}
	if all.Last == 0 || all.Latency.P50 <= 0 || all.Latency.P999 < all.Latency.P50 || later.Latency.P50 != 0 || later.Received != total {
		t.Errorf("the state is %+v, and %+v after the times were removed", all, later)
	}
}

// Lost, repeated and overtaking messages are noticed, by publisher.
func TestDisorderIsCounted(t *testing.T) {
	s := &sink{times: load.NewTimes(), newest: make([]uint64, MaxPublishers)}
	send := func(who, n uint64) {
		m := message.Message{Channel: "u0", Sent: 1, Number: n*MaxPublishers + who, Size: message.MinSize}
		s.Send(frame.ForUpload(frame.Message{UploadID: "u0", Body: m.AppendEvent(nil)}))
	}
	for _, step := range []struct{ who, n, want uint64 }{
		{0, 0, 0}, {0, 1, 0}, {7, 1, 0}, {0, 2, 0}, {7, 3, 1}, {0, 2, 2}, {7, 4, 2}, {0, 5, 3}, {0, 4, 4},
	} {
		send(step.who, step.n)
		if got := s.disorder.Load(); got != step.want {
			t.Errorf("after number %d of publisher %d, %d are out of order, want %d", step.n, step.who, got, step.want)
		}
	}
	if got := s.got.Load(); got != 8 {
		t.Errorf("%d have come, want 8: a greeting does not count", got)
	}
}

func TestStart_UnknownBroker(t *testing.T) {
	if err := (&Node{}).Start(Options{Broker: "pigeons", URL: "carrier://pigeons"}, nil); err == nil || !strings.Contains(err.Error(), "pigeons") {
		t.Errorf("the error is %v", err)
	}
	if err := (&Broker{}).Start("pigeons", nil); err == nil || !strings.Contains(err.Error(), "pigeons") {
		t.Errorf("the error is %v", err)
	}
}

// A server in this process serves a node, alone and as one of a cluster.
func TestNode_Embedded(t *testing.T) {
	n, none := start(t, Options{Broker: Embedded}), &worker.None{}
	if err := errors.Join(n.Follow(2, none), n.Probe(*none, none)); err != nil {
		t.Error(err)
	}
}
