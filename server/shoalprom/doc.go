// Package shoalprom exports the metrics of a server, its manager and their broker to Prometheus.
//
//	metrics := shoalprom.New()
//	manager, err := manager.New(manager.Options{Broker: metrics.Broker(b)})
//	server, err := server.New(server.Options{Manager: manager, Observer: metrics.Observer(), …})
//	metrics.Attach(server)
//	prometheus.MustRegister(metrics)
//
// Counters and gauges are read when Prometheus scrapes, so they cost nothing in between. Durations are native histograms
// with classic buckets for scrapers without them. All labels have a fixed set of values. docs/metrics.md lists the
// metrics.
package shoalprom
