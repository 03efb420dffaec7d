package runner

import (
	"context"
	"strings"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/results"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/yardsticks"
)

// prepare makes sure that the clients are there which are compared with, and returns their versions.
func (c Config) prepare(ctx context.Context) (map[string]string, error) {
	if len(c.Nodes.Brokers) == 0 || !c.Nodes.Yardsticks {
		return map[string]string{}, nil
	}
	_, err := yardsticks.NATSProgram(ctx)
	return map[string]string{
		yardsticks.NATSModule: yardsticks.NATSVersion, yardsticks.RedisModule: yardsticks.RedisVersion(ctx),
	}, err
}

// yardstick measures the throughput of the broker's own client, with the server in the state that the nodes left it in.
func (n *nodePair) yardstick(ctx context.Context) (map[results.Metric]float64, error) {
	p, name := n.trial.params, n.trial.entry.Name
	load := yardsticks.Load{
		Messages: int(guess(name) * n.config.Measure.Seconds()), Bytes: p.Bytes, Channels: p.Channels, InFlight: p.Publishers,
	}
	load.Messages = max(load.Messages, load.InFlight)
	run, err := n.client(ctx)
	if err != nil {
		return nil, err
	}
	for _, which := range []*node{n.from, n.to} { // they would receive too
		if err := which.Close(); err != nil {
			return nil, err
		}
	}
	before, err := n.server.cpu(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, n.config.Patience)
	defer cancel()
	came, err := run(ctx, name, load)
	if err != nil {
		return nil, err
	}
	after, err := n.server.cpu(ctx)
	if err != nil {
		return nil, err
	}
	count := float64(load.Messages)
	m := map[results.Metric]float64{
		results.Throughput: came.PerSecond, results.Delivered: count, results.Expected: count,
		results.PublisherCPU: float64(came.CPU) / count, results.BrokerCPU: float64(after-before) / count,
	}
	if came.SubscriberCPU > 0 {
		m[results.ReceiverCPU] = float64(came.SubscriberCPU) / count
	}
	return m, nil
}

// client returns the driver for the clients of the trial's broker.
func (n *nodePair) client(ctx context.Context) (func(context.Context, string, yardsticks.Load) (yardsticks.Result, error), error) {
	redis, ok := n.server.(*redisServer)
	if !ok {
		program, err := yardsticks.NATSProgram(ctx)
		return yardsticks.NATS{
			Program: program, URL: n.server.url(), Stream: "SHOAL", Subject: "upload", Live: "live.upload.>",
		}.Run, err
	}
	script, key, err := redis.FindScript(ctx, func() error {
		_, err := n.ask(ctx, n.from, nodes.Request{Do: nodes.Probe})
		return err
	})
	own := redis.Redis
	own.Script, own.Key = script, strings.TrimSuffix(key, "0")
	own.Channels = []string{"upload:u", "shoal.at:upload:u"}
	return own.Run, err
}

// guess is about how many messages a second a client brings, so that it takes about as long as it should.
func guess(client string) float64 {
	switch client {
	case yardsticks.Core, yardsticks.Plain:
		return 150_000
	case yardsticks.Sync:
		return 20_000
	}
	return 40_000
}
