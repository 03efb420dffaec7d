package runner

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/control"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/sinks"
)

// sinkProcess is a manager with its sinks, in a process of its own. It is used from one goroutine.
type sinkProcess struct {
	config Config
	trial  trial
	child  *control.Child[sinks.Request, sinks.Answer]
}

// withoutSockets makes a measurement with connections that only count.
func withoutSockets(ctx context.Context, c Config, t trial) (map[results.Metric]float64, error) {
	command := exec.Command(c.Program, "sinks") //nolint:gosec // it is this program
	command.Env = procsOf(t.params)
	startCtx, cancel := context.WithTimeout(ctx, c.Patience)
	defer cancel()
	child, _, err := control.Start[sinks.Request, sinks.Answer](startCtx, "sinks", command)
	if err != nil {
		return nil, err
	}
	s := &sinkProcess{config: c, trial: t, child: child}
	m, err := s.measure(ctx)
	if err != nil {
		child.Kill()
		return nil, err
	}
	return m, child.Close()
}

// procsOf is the environment of a process that is to use so many processors.
func procsOf(p results.Params) []string {
	if p.Procs == 0 {
		return nil // as this process
	}
	return append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(p.Procs))
}

func (s *sinkProcess) measure(ctx context.Context) (map[results.Metric]float64, error) {
	m := map[results.Metric]float64{}
	weigh := s.trial.sweep == Logical
	p := s.trial.params
	connected, err := s.ask(ctx, sinks.Request{Do: sinks.Connect, Connections: p.Connections, Weigh: weigh})
	if err != nil {
		return nil, err
	}
	subscribed, err := s.ask(ctx, sinks.Request{
		Do: sinks.Subscribe, Uploads: p.Channels, Bytes: p.Bytes, Shuffled: p.Work == results.Shuffled, Weigh: weigh,
	})
	if err != nil {
		return nil, err
	}
	if weigh {
		m[results.ConnectTime] = nanoseconds(connected)
		m[results.SubscribeTime] = nanoseconds(subscribed)
		m[results.RegistryConnection] = float64(connected.Grown) / float64(p.Connections)
		m[results.RegistrySubscription] = float64(subscribed.Grown) / float64(p.Connections)
		return m, s.load(ctx, m)
	}
	return m, s.work(ctx, m)
}

// work executes the swept operation for some time.
func (s *sinkProcess) work(ctx context.Context, m map[results.Metric]float64) error {
	do := map[string]string{
		results.Broadcast: sinks.Broadcast, results.Shuffled: sinks.Broadcast, results.Publish: sinks.Publish, results.Churn: sinks.Churn,
	}
	a, err := s.ask(ctx, sinks.Request{Do: do[s.trial.params.Work], For: s.config.Measure})
	if err != nil {
		return err
	}
	m[results.Operations] = float64(a.Operations) / a.Took.Seconds()
	if do[s.trial.params.Work] == sinks.Broadcast {
		m[results.PerReceiver] = nanoseconds(a)
	}
	return nil
}

// load gives each upload its first message, and then publishes to them for a while: first undisturbed, then with
// the garbage collected during that time.
func (s *sinkProcess) load(ctx context.Context, m map[results.Metric]float64) error {
	filled, err := s.ask(ctx, sinks.Request{Do: sinks.Fill, Weigh: true})
	if err != nil {
		return err
	}
	m[results.HeldMessage] = float64(filled.Grown) / float64(s.trial.params.Channels)
	m[results.Heap] = float64(filled.Heap)
	m[results.ResidentTotal] = float64(filled.Resident)
	if s.trial.params.Work == results.OneUpload {
		return nil // one publish takes as long as the upload has receivers, which is another sweep's
	}
	published, err := s.ask(ctx, sinks.Request{Do: sinks.Publish, For: s.config.Measure})
	if err != nil {
		return err
	}
	collected, err := s.ask(ctx, sinks.Request{Do: sinks.Publish, For: s.config.Measure, Collect: true})
	if err != nil {
		return err
	}
	m[results.Operations] = float64(published.Operations) / published.Took.Seconds()
	m[results.Collected] = milliseconds(int64(collected.Collected))
	m[results.Pause] = milliseconds(int64(collected.Pause))
	return nil
}

// ask has the process do something, within the patience.
func (s *sinkProcess) ask(ctx context.Context, q sinks.Request) (sinks.Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.Patience+q.For)
	defer cancel()
	a, err := s.child.Call(ctx, q)
	if err == nil && q.Do == sinks.Subscribe && a.Subscriptions != s.trial.params.Connections {
		err = fmt.Errorf("runner: %d of %d connections are subscribed", a.Subscriptions, s.trial.params.Connections)
	}
	return a, err
}

// nanoseconds is the duration of one operation.
func nanoseconds(a sinks.Answer) float64 {
	return float64(a.Took/time.Nanosecond) / float64(a.Operations)
}
