package shoalprom_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/shoalprom"
)

// plain is a broker that stores nothing, keeping one that does.
type plain struct{ err error }

func (plain) Run(ctx context.Context, _ broker.Handler) error { <-ctx.Done(); return nil }
func (p plain) Subscribe(context.Context, ...string) error    { return p.err }
func (p plain) Unsubscribe(context.Context, ...string) error  { return p.err }
func (p plain) Publish(context.Context, string, []byte) error { return p.err }

type storing struct{ plain }

func (s storing) Store(context.Context, string, []byte) (broker.Position, error) {
	return broker.Position{}, s.err
}

func (s storing) History(context.Context, string, broker.Position) (broker.Snapshot, error) {
	return broker.Snapshot{}, s.err
}
func (s storing) Newest(context.Context, string) (broker.Snapshot, error) {
	return broker.Snapshot{}, s.err
}
func (s storing) Positions(context.Context, ...string) ([]broker.Position, error) { return nil, s.err }
func (s storing) Forget(context.Context, string) error                            { return s.err }

// once is a broker that recognises repetitions.
type once struct{ storing }

func (o once) StoreOnce(context.Context, string, []byte, broker.Once) (broker.Position, bool, error) {
	return broker.Position{}, true, o.err
}
func (o once) CheckOnce(context.Context, string, broker.Once) error { return o.err }

// gather returns the values of all metrics, by name and labels.
func gather(t *testing.T, m *shoalprom.Metrics) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += " " + label.GetValue()
			}
			values[name] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue() +
				float64(metric.GetHistogram().GetSampleCount())
		}
	}
	return values
}

// Each call of a broker is counted by its outcome, and a broker that stores messages stays one.
func TestBroker_CountsCalls(t *testing.T) {
	m := shoalprom.New()
	if _, ok := m.Broker(plain{}).(broker.HistoryBroker); ok {
		t.Error("a broker that stores nothing has become one that does")
	}
	for _, err := range []error{nil, broker.ErrUnavailable, context.DeadlineExceeded, errors.New("no memory")} {
		b, ok := m.Broker(storing{plain{err}}).(broker.HistoryBroker)
		if !ok {
			t.Fatal("a broker that stores messages no longer does")
		}
		if _, ok := b.(broker.IdempotentBroker); ok {
			t.Error("a broker has learnt to recognise repetitions")
		}
		ctx := t.Context()
		idempotent, ok := m.Broker(once{storing{plain{err}}}).(broker.IdempotentBroker)
		if !ok {
			t.Fatal("a broker has unlearnt to recognise repetitions")
		}
		if _, replayed, got := idempotent.StoreOnce(ctx, "c", nil, broker.Once{}); !replayed || !errors.Is(got, err) {
			t.Errorf("StoreOnce returned %v, %v", replayed, got)
		}
		if got := idempotent.CheckOnce(ctx, "c", broker.Once{}); !errors.Is(got, err) {
			t.Errorf("CheckOnce returned %v, want %v", got, err)
		}
		_, e1 := b.Store(ctx, "c", nil)
		_, e2 := b.History(ctx, "c", broker.Position{})
		_, e3 := b.Newest(ctx, "c")
		_, e4 := b.Positions(ctx, "c")
		for _, got := range []error{
			e1, e2, e3, e4, b.Forget(ctx, "c"), b.Publish(ctx, "c", nil), b.Subscribe(ctx, "c"), b.Unsubscribe(ctx, "c"),
		} {
			if !errors.Is(got, err) {
				t.Errorf("a call returned %v, want %v", got, err)
			}
		}
	}
	values := gather(t, m)
	for _, call := range []string{"subscribe", "unsubscribe", "publish", "store", "history", "newest", "positions", "forget", "store_once", "check_once"} {
		if values["shoal_broker_calls_total "+call+" ok"] != 1 || values["shoal_broker_calls_total "+call+" refused"] != 1 ||
			values["shoal_broker_calls_total "+call+" unavailable"] != 2 || values["shoal_broker_call_seconds "+call] != 4 {
			t.Errorf("the calls of %s are not counted right: %v", call, values)
		}
	}
}

// The metrics agree with the server and with each other: a pedantic registry finds no inconsistency.
func TestMetrics_ReadTheServer(t *testing.T) {
	m := shoalprom.New()
	domain, err := manager.New(manager.Options{Broker: m.Broker(plain{})})
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.New(server.Options{
		Manager: domain, Authorize: server.AuthorizeOpen, Observer: m.Observer(), MaxConnections: 7,
		Authenticate: func(context.Context, string) (server.Identity, error) { return server.Identity{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := errors.Join(s.Close(ctx), domain.Close(ctx)); err != nil {
			t.Error(err)
		}
	})
	if len(gather(t, m)) == 0 {
		t.Error("nothing is exported before Attach")
	}
	m.Attach(s)
	o := m.Observer()
	o.Written(time.Second)
	o.Waited(time.Second)
	o.Authenticated(server.Denied, time.Second)
	o.Authorized(server.Unavailable, time.Second)
	values := gather(t, m)
	for name, want := range map[string]float64{
		"shoal_connections_limit": 7, "shoal_ready": 0, "shoal_broker_healthy": 0, "shoal_broker_nodes": 1,
		"shoal_residence_seconds": 1, "shoal_queue_age_seconds": 1, "shoal_authentication_seconds denied": 1,
		"shoal_authorization_seconds unavailable": 1, "shoal_connections base websocket": 0,
	} {
		if got, ok := values[name]; !ok || got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}
