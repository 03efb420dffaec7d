package serverproc

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A system publishes at once and at a rate; its listener and its goroutines end.
func TestServer_Publishes(t *testing.T) {
	s := &Server{}
	var started worker.Started
	if err := s.Start(Options{System: "write-loop", SendBuffer: 4096}, &started); err != nil || started.Addr == "" || started.PID != 0 {
		t.Fatalf("started is %+v, %v", started, err)
	}
	var published, scheduled Published
	for i, err := range []error{
		s.Publish(results.Params{Channels: 1, Messages: 3, Bytes: 256}, &published),
		s.Publish(results.Params{Channels: 1, Messages: 3, Bytes: 256, Rate: 1000}, &scheduled),
		s.Close(),
	} {
		if err != nil {
			t.Errorf("step %d: %v", i, err)
		}
	}
	if s.number != 3 || published.Began == 0 || scheduled.Late <= 0 {
		t.Errorf("%d messages were published: %+v, %+v", s.number, published, scheduled)
	}
}

func TestRun_RefusesInvalidOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"carrier://": {System: "shoal", Broker: "carrier://pigeons"},
		`"nobody"`:   {System: "nobody"},
		"centrifugo": {System: "centrifugo", Program: filepath.Join(t.TempDir(), "nothing")},
		"listen tcp": {System: "gws", Host: "256.0.0.1"},
	} {
		s := &Server{}
		if err := errors.Join(s.Start(o, &worker.Started{}), s.Close()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: the error is %v, want one with %q", o, err, want)
		}
	}
}
