package redisbroker

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

// touchPart is which part of the time that messages are kept may pass between two touches.
const touchPart = 3

// touch keeps the streams of the channels that are held from expiring, so that one that is followed does
// not lose its epoch while nothing happens. It ends with ctx.
func (s *shard) touch(ctx context.Context) {
	again := time.NewTicker(s.broker.opt.TTL / touchPart)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			s.touchAll(ctx, s.channels())
		}
	}
}

// touchAll touches channels, some at a time. Failures are left to the next round: the server is out of reach then,
// or has begun a new term.
func (s *shard) touchAll(ctx context.Context, channels []string) {
	const atOnce = 64
	for len(channels) > 0 {
		some := channels[:min(len(channels), atOnce)]
		channels = channels[len(some):]
		l := s.line.Load()
		if l == nil {
			return
		}
		commands := make([]rueidis.Completed, len(some))
		for i, channel := range some {
			commands[i] = l.command(touchScript, s.broker.naming.key(channel))
		}
		limited, cancel := context.WithTimeout(ctx, s.broker.opt.Timeout)
		results := l.client.DoMulti(limited, commands...)
		cancel()
		for _, result := range results {
			if err := result.Error(); err != nil && kind(err) == "" {
				return
			}
		}
	}
}
