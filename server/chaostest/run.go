// Package chaostest attacks a WebSocket server with misbehaving clients, for the tests of embedders: each [Attack] is
// one kind of client, [Run] starts some of them against any http.Handler, listener or URL, and the [Report] says which
// bound of the server stopped them, after how long, at which cost, and the latency of a well-behaved client beside
// them.
//
//	for _, attack := range chaostest.Attacks() {
//		report, err := chaostest.Run(t.Context(), chaostest.Target{Serve: srv.Serve, First: authMessage}, attack)
//		if err != nil {
//			t.Fatal(err)
//		}
//		if report.Open > 0 {
//			t.Errorf("%s: nothing has stopped %d clients", attack.Name, report.Open)
//		}
//	}
//
// Nothing in this package depends on Shoal's protocol but the default messages of [Target], which can be replaced.
package chaostest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Report is the result of an attack.
type Report struct {
	Attack string
	// Bounds are the bounds of the server that have stopped attackers, such as "close 1008 Message rate exceeded" or "HTTP
	// 400 …", with the number of attackers that each has stopped.
	Bounds map[string]int
	// Open is the number of attackers that nothing has stopped within Target.Watch.
	Open int
	// After is the time after which the last of the stopped attackers was stopped.
	After time.Duration
	// Connections is the number of connections that the attackers have opened, Sent and Received their bytes.
	Connections, Sent, Received int64
	// Memory and Descriptors are the most that the server's process needed beyond its state before the attack, CPU the
	// processor time that it has used. Zero unless Target.Process is set and the system is Linux.
	Memory      int64
	Descriptors int
	CPU         time.Duration
	// Healthy are the times from a ping to its pong of a well-behaved client beside the attack, Lost the pings without
	// an answer within 10 s.
	Healthy Latency
	Lost    int
	// Published is the number of messages that Target.Publish has published without an error, and Delivered how many of
	// them a well-behaved follower has received, which connects again if its connection ends.
	Published, Delivered int
}

// Latency sums up durations.
type Latency struct {
	Count            int
	Median, P99, Max time.Duration
}

// Run attacks a server, and blocks until every attacker was stopped, Target.Watch has passed, or ctx has ended. The
// error concerns the target: an invalid field, or a server that does not answer a well-behaved client before the
// attack.
func Run(ctx context.Context, target Target, attack Attack) (Report, error) {
	target, err := target.withDefaults()
	if err != nil {
		return Report{}, err
	}
	if attack.run == nil {
		return Report{}, errors.New("chaostest: the attack is not one of Attacks")
	}
	endpoint, stop, err := target.start()
	if err != nil {
		return Report{}, err
	}
	defer stop()
	p, err := startProbe(ctx, target, endpoint)
	if err != nil {
		return Report{}, fmt.Errorf("chaostest: a well-behaved client failed before the attack: %w", err)
	}
	f := follow(ctx, target, endpoint)
	ctx, cancel := context.WithTimeout(ctx, target.Watch)
	defer cancel()
	published := target.publish(ctx)
	watch := watchCost(target.Process)
	r := Report{Attack: attack.Name, Bounds: map[string]int{}}
	r.assault(ctx, target, endpoint, attack)
	r.Memory, r.Descriptors, r.CPU = watch()
	cancel()
	r.Published = <-published
	r.Delivered = f.stop(r.Published)
	r.Healthy, r.Lost = p.stop()
	return r, nil
}

// publish calls Target.Publish until ctx ends, and then sends how often it succeeded.
func (t Target) publish(ctx context.Context) (done chan int) {
	done = make(chan int, 1)
	go func() {
		published := 0
		defer func() { done <- published }()
		if t.Publish == nil {
			return
		}
		const interval = 5 * time.Millisecond
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if t.Publish(n) == nil { // a refusal does not end the attack
					published++
				}
			}
		}
	}()
	return done
}

// assault runs all attackers and counts how they end.
func (r *Report) assault(ctx context.Context, target Target, endpoint *url.URL, attack Attack) {
	start := time.Now()
	var mu sync.Mutex // protects r
	var running sync.WaitGroup
	var connections, sent, received atomic.Int64
	for range target.Clients {
		running.Go(func() {
			c := &client{
				target: target, endpoint: endpoint, ctx: ctx, sent: &sent, received: &received, rounds: &connections,
			}
			err := attack.run(c)
			c.close()
			mu.Lock()
			defer mu.Unlock()
			if name := bound(err); name != "" {
				r.Bounds[name]++
				r.After = time.Since(start)
			} else {
				r.Open++
			}
		})
	}
	running.Wait()
	r.Connections, r.Sent, r.Received = connections.Load(), sent.Load(), received.Load()
}

// sum returns the summary of durations.
func sum(all []time.Duration) Latency {
	if len(all) == 0 {
		return Latency{}
	}
	slices.Sort(all)
	return Latency{
		Count: len(all), Median: all[len(all)/2], P99: all[min(len(all)-1, len(all)*99/100)], Max: all[len(all)-1],
	}
}

// probe is a well-behaved client that sends a ping five times a second and measures the time to its pong.
type probe struct {
	cancel context.CancelFunc
	done   chan struct{}
	times  []time.Duration
	lost   int
}

const (
	probeInterval = 200 * time.Millisecond
	probePatience = 10 * time.Second
)

// startProbe connects and waits for the first pong.
func startProbe(ctx context.Context, target Target, endpoint *url.URL) (*probe, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := &probe{cancel: cancel, done: make(chan struct{})}
	c, err := p.connect(ctx, target, endpoint)
	if err == nil {
		_, err = p.round(c, 0)
	}
	if err != nil {
		cancel()
		if c != nil {
			c.close()
		}
		return nil, err
	}
	go func() {
		defer close(p.done)
		defer func() { c.close() }()
		for n := 1; p.read(c, probeInterval); n++ {
			took, err := p.round(c, n)
			if err == nil {
				p.times = append(p.times, took)
				continue
			}
			if ctx.Err() != nil {
				return
			}
			p.lost++
			c.close()
			if next, err := p.connect(ctx, target, endpoint); err == nil {
				c = next
			} else if next != nil {
				next.close()
			}
		}
	}()
	return p, nil
}

func (p *probe) connect(ctx context.Context, target Target, endpoint *url.URL) (*client, error) {
	waiting, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	c := &client{
		target: target, endpoint: endpoint, ctx: waiting,
		sent: new(atomic.Int64), received: new(atomic.Int64), rounds: new(atomic.Int64),
	}
	err := c.open()
	c.ctx = ctx
	return c, err
}

// round sends a ping and waits for its pong.
func (p *probe) round(c *client, n int) (time.Duration, error) {
	payload := strconv.Itoa(n)
	start := time.Now()
	if c.conn == nil {
		return 0, errors.New("not connected")
	}
	if err := c.conn.SetDeadline(start.Add(probePatience)); err != nil {
		return 0, err
	}
	if err := c.write(frame(ping, []byte(payload))); err != nil {
		return 0, err
	}
	for {
		opcode, got, err := c.next()
		switch {
		case err != nil:
			return 0, err
		case opcode == 0x8:
			return 0, closed(got)
		case opcode == 0x9:
			err = c.write(frame(pong, got))
		case opcode == 0xA && (string(got) == payload || len(got) == 0): // some servers do not return the payload
			return time.Since(start), nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// read takes what comes for a time, and reports false when the attack is over. The claims of an attacker that was
// stopped pass to its user, who is the probe's too: a client that read only while it waits for a pong would be a slow
// consumer.
func (p *probe) read(c *client, interval time.Duration) bool {
	until := time.Now().Add(interval)
	for c.conn != nil {
		if err := c.conn.SetReadDeadline(until); err != nil {
			break
		}
		if _, err := c.reader.Peek(1); err != nil { // the deadline; round reports any other error
			break
		}
		if err := c.conn.SetReadDeadline(time.Now().Add(probePatience)); err != nil {
			break
		}
		opcode, got, err := c.next()
		if err == nil && opcode == 0x9 {
			err = c.write(frame(pong, got))
		}
		if err != nil || opcode == 0x8 {
			c.close()
			break
		}
	}
	return c.pause(time.Until(until))
}

// stop ends the client and returns its measurements.
func (p *probe) stop() (Latency, int) {
	p.cancel()
	<-p.done
	return sum(p.times), p.lost
}
