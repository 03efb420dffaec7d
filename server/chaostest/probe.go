package chaostest

import (
	"context"
	"errors"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"
)

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
		for n := 1; c.pause(probeInterval); n++ {
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

// stop ends the client and returns its measurements.
func (p *probe) stop() (Latency, int) {
	p.cancel()
	<-p.done
	return sum(p.times), p.lost
}
