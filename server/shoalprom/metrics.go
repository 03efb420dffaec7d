// Package shoalprom exports the metrics of a server, its manager and their broker to Prometheus.
//
//	metrics := shoalprom.New()
//	m, err := manager.New(manager.Options{Broker: metrics.Broker(b)})
//	s, err := server.New(server.Options{Manager: m, Observer: metrics.Observer(), …})
//	metrics.Attach(s)
//	prometheus.MustRegister(metrics)
//
// Counters and gauges are read when Prometheus scrapes, so they cost nothing in between. Durations are native
// histograms with classic buckets for scrapers without them. All labels have a fixed set of values. docs/metrics.md
// lists the metrics.
package shoalprom

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-go/shoal/server"
)

// Metrics is a prometheus.Collector. All methods may be called from any number of goroutines.
type Metrics struct {
	server atomic.Pointer[server.Server]

	residence, queueAge           prometheus.Histogram
	authentication, authorization *prometheus.HistogramVec
	brokerCalls                   *prometheus.CounterVec
	brokerTime                    *prometheus.HistogramVec
	calls                         map[string]call
	own                           []prometheus.Collector
}

// New returns metrics that are not attached to a server yet.
func New() *Metrics {
	m := &Metrics{
		residence: prometheus.NewHistogram(histogram("shoal_residence_seconds",
			"Time from publishing a message, or its arrival from the broker, until it was handed to the kernel, for a "+
				"sample of the writes.")),
		queueAge: prometheus.NewHistogram(histogram("shoal_queue_age_seconds",
			"Time for which the oldest message of a slow connection had waited, at each write to it.")),
		authentication: prometheus.NewHistogramVec(histogram("shoal_authentication_seconds",
			"Duration of checking a token, by outcome."), []string{"outcome"}),
		authorization: prometheus.NewHistogramVec(histogram("shoal_authorization_seconds",
			"Duration of deciding whether a user may follow an upload, by outcome."), []string{"outcome"}),
		brokerCalls: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "shoal_broker_calls_total",
			Help: "Calls of the broker, by call and outcome."}, []string{"call", "outcome"}),
		brokerTime: prometheus.NewHistogramVec(histogram("shoal_broker_call_seconds",
			"Duration of the broker's calls."), []string{"call"}),
	}
	m.calls = newCalls(m.brokerCalls, m.brokerTime)
	m.own = []prometheus.Collector{
		m.residence, m.queueAge, m.authentication, m.authorization, m.brokerCalls, m.brokerTime,
	}
	for _, outcome := range []server.Decision{server.Allowed, server.Denied, server.Unavailable} {
		m.authentication.WithLabelValues(string(outcome))
		m.authorization.WithLabelValues(string(outcome))
	}
	return m
}

// histogram returns the options of a histogram of durations: native, with classic buckets from 50 µs to 26 s.
func histogram(name, help string) prometheus.HistogramOpts {
	return prometheus.HistogramOpts{
		Name: name, Help: help,
		Buckets:                         prometheus.ExponentialBuckets(50e-6, 3, 13),
		NativeHistogramBucketFactor:     1.1,
		NativeHistogramMaxBucketNumber:  160,
		NativeHistogramMinResetDuration: time.Hour,
	}
}

// Observer returns the Options.Observer of the server.
func (m *Metrics) Observer() server.Observer {
	observe := func(h *prometheus.HistogramVec) func(server.Decision, time.Duration) {
		by := map[server.Decision]prometheus.Observer{}
		for _, outcome := range []server.Decision{server.Allowed, server.Denied, server.Unavailable} {
			by[outcome] = h.WithLabelValues(string(outcome))
		}
		return func(outcome server.Decision, took time.Duration) { by[outcome].Observe(took.Seconds()) }
	}
	return server.Observer{
		Written:       func(age time.Duration) { m.residence.Observe(age.Seconds()) },
		Waited:        func(age time.Duration) { m.queueAge.Observe(age.Seconds()) },
		Authenticated: observe(m.authentication),
		Authorized:    observe(m.authorization),
	}
}

// Attach has the metrics read a server's counts from now on.
func (m *Metrics) Attach(s *server.Server) { m.server.Store(s) }

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, c := range m.own {
		c.Describe(out)
	}
	for _, d := range descriptions {
		out <- d.desc
	}
}

// Collect implements prometheus.Collector. It visits every connection of the server.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range m.own {
		c.Collect(out)
	}
	if s := m.server.Load(); s != nil {
		newScrape(out).all(s)
	}
}
