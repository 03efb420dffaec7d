package redisbroker

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/shoal-go/shoal/broker"
)

// ears is one connection for subscriptions. It passes received messages on from the connection's own goroutine,
// one after the other and in the order in which the server said it. subscribe and unsubscribe may be called
// from any number of goroutines, but for one channel only one at a time.
type ears struct {
	shard *shard
	conn  rueidis.DedicatedClient
	probe string        // the channel on which it hears itself
	heard atomic.Int64  // how many times it did
	echo  chan struct{} // holds a token once it has heard itself
	lost  <-chan error  // is sent why the connection has ended, and closed
	sent  int64         // how many messages it was sent by attend
	mute  bool          // whether the last probe found the line for commands of no use; only the shard's run uses it

	// Only the connection's goroutine uses the fields below.
	next position // the position told last, of the very next message
}

// position is a published position with its channel, and the trace context of the message if it has one.
type position struct {
	channel string
	broker.Position
	trace string
}

// listen makes a connection for subscriptions. An error of connecting shows with the first use.
func (s *shard) listen(l *line) *ears {
	conn, _ := l.client.Dedicate()
	e := &ears{shard: s, conn: conn, probe: probePrefix + s.broker.id + ":" + s.addr, echo: make(chan struct{}, 1)}
	e.lost = conn.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: e.hear, OnSubscription: e.changed})
	return e
}

// close closes the connection, and returns when nothing is heard any more.
func (e *ears) close() {
	e.conn.Close()
	for range e.lost { // it is closed after the last call to hear
	}
}

// hear takes a message from the connection.
func (e *ears) hear(m rueidis.PubSubMessage) {
	if channel, ok := e.shard.broker.naming.marked(m.Channel); ok {
		e.mark(channel, m.Message)
		return
	}
	next := e.next
	e.next = position{}
	if m.Channel == e.probe {
		e.heard.Add(1)
		select {
		case e.echo <- struct{}{}:
		default:
		}
		return
	}
	if len(m.Message) > e.shard.broker.opt.MaxPayload {
		e.shard.broker.oversized(m.Channel, len(m.Message))
		return
	}
	message := broker.Message{Channel: m.Channel, Payload: []byte(m.Message)}
	// Nothing comes between a position and its message, so any other message has none.
	if next.channel == m.Channel {
		message.Position = next.Position
		message.Prev = next.Offset - 1
		message.Trace = next.trace
	}
	e.shard.handler.Receive(message)
}

// mark takes the position of the next message, or a new epoch.
func (e *ears) mark(channel, text string) {
	e.next = position{}
	text, trace, _ := strings.Cut(text, " ")
	text, fresh := strings.CutSuffix(text, "!")
	at, ok := parsePosition(text)
	switch {
	case !ok || !fresh && at.Offset == 0:
		e.shard.broker.opt.Logger.Warn("redisbroker: what should be a message's position is none: "+
			"is another program publishing there?", "channel", markPrefix+channel)
	case fresh:
		e.shard.handler.Receive(broker.Message{Channel: channel, Position: at})
	default:
		e.next = position{channel: channel, Position: at, trace: broker.BoundTrace(trace)}
	}
}

// parsePosition reads epoch-offset, which is how the scripts and the ids of a stream's entries say it.
func parsePosition(text string) (broker.Position, bool) {
	epoch, digits, _ := strings.Cut(text, "-")
	offset, err := strconv.ParseUint(digits, 10, 64)
	return broker.Position{Epoch: epoch, Offset: offset}, err == nil && epoch != ""
}

// changed takes the news of a subscription. One that we did not end is ended by a cluster that has moved the slot.
func (e *ears) changed(s rueidis.PubSubSubscription) {
	if s.Kind == "sunsubscribe" {
		e.shard.evicted(s.Channel)
	}
}

// atOnce is how many channels one command names at most.
const atOnce = 512

// subscribe subscribes to channels, and returns when the server has confirmed that.
func (e *ears) subscribe(ctx context.Context, channels []string) error {
	return e.all(ctx, channels, func(names []string) rueidis.Completed {
		return e.conn.B().Subscribe().Channel(names...).Build()
	}, func(names ...string) rueidis.Completed {
		return e.conn.B().Ssubscribe().Channel(names...).Build()
	})
}

// unsubscribe takes subscribe back.
func (e *ears) unsubscribe(ctx context.Context, channels []string) error {
	return e.all(ctx, channels, func(names []string) rueidis.Completed {
		return e.conn.B().Unsubscribe().Channel(names...).Build()
	}, func(names ...string) rueidis.Completed {
		return e.conn.B().Sunsubscribe().Channel(names...).Build()
	})
}

// all sends commands for all channels. A position is published on a channel of its own, subscribed to in the same command
// as the channel it is about, so that neither is heard without the other.
func (e *ears) all(
	ctx context.Context, channels []string,
	plain func([]string) rueidis.Completed, sharded func(...string) rueidis.Completed,
) error {
	naming := e.shard.broker.naming
	for len(channels) > 0 {
		some := channels[:min(len(channels), atOnce)]
		channels = channels[len(some):]
		commands := make([]rueidis.Completed, 0, 1+len(some))
		if naming.tags != nil {
			// A command may name only channels of one slot. Messages of other programs arrive by plain pub/sub.
			for _, channel := range some {
				commands = append(commands, sharded(naming.mark(channel), channel))
			}
			commands = append(commands, plain(some))
		} else {
			names := make([]string, 0, 2*len(some))
			for _, channel := range some {
				names = append(names, naming.mark(channel), channel)
			}
			commands = append(commands, plain(names))
		}
		if err := e.do(ctx, commands...); err != nil {
			return err
		}
	}
	return nil
}

// do sends commands and returns the first error.
func (e *ears) do(ctx context.Context, commands ...rueidis.Completed) error {
	// While a command waits there are no probes, so that a frozen server has to show by then.
	silence := max(missable*e.shard.broker.opt.ProbeInterval, time.Second)
	ctx, cancel := context.WithTimeout(ctx, min(e.shard.broker.opt.Timeout, silence))
	defer cancel()
	var errs []error
	for _, result := range e.conn.DoMulti(ctx, commands...) {
		if err := result.Error(); err != nil && !errors.Is(err, rueidis.Nil) {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return errs[0]
	}
	return nil
}
