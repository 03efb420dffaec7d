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

// pubsub is one pub/sub connection. It delivers messages from the connection's own goroutine, one after the other and
// in the order in which the server sent them. subscribe and unsubscribe may be called from any number of goroutines,
// but for one channel only one at a time.
type pubsub struct {
	server       *server
	conn         rueidis.DedicatedClient
	probe        string        // the channel of its own probes
	echoes       atomic.Int64  // number of received probes
	echo         chan struct{} // holds a token once a probe was received
	lost         <-chan error  // receives the reason when the connection ends, then is closed
	sent         int64         // number of sent probes; only serve uses it
	term         string        // the term for which an interruption was reported; only serve uses it
	unanswered   int           // number of consecutive probes without an answer to commands; only serve uses it
	unresponsive bool          // whether the last probe over the command connection failed; only server.run uses it

	// Only the connection's goroutine uses the fields below.
	next position // received position of the next message
}

// position is a published position with its channel, and the trace context of the message if it has one.
type position struct {
	channel string
	broker.Position
	trace string
}

// openPubSub opens a pub/sub connection. An error of connecting shows at its first use.
func (s *server) openPubSub(l *commandConn) *pubsub {
	conn, _ := l.client.Dedicate()
	p := &pubsub{
		server: s, conn: conn, probe: probePrefix + s.broker.id + ":" + s.addr, term: l.term, echo: make(chan struct{}, 1),
	}
	p.lost = conn.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: p.receive, OnSubscription: p.subscriptionChanged})
	return p
}

// close closes the connection and waits for the last call of receive.
func (p *pubsub) close() {
	p.conn.Close()
	for range p.lost { // closed after the last call of receive
	}
}

// receive delivers a message of the connection.
func (p *pubsub) receive(m rueidis.PubSubMessage) {
	if channel, ok := p.server.broker.naming.parsePositionChannel(m.Channel); ok {
		p.receivePosition(channel, m.Message)
		return
	}
	next := p.next
	p.next = position{}
	if m.Channel == p.probe {
		p.echoes.Add(1)
		select {
		case p.echo <- struct{}{}:
		default:
		}
		return
	}
	if len(m.Message) > p.server.broker.opt.MaxPayload {
		p.server.broker.oversized(m.Channel, len(m.Message))
		return
	}
	message := broker.Message{Channel: m.Channel, Payload: []byte(m.Message)}
	// A position and its message are adjacent, so any other message has no position.
	if next.channel == m.Channel {
		message.Position = next.Position
		message.Prev = next.Offset - 1
		message.Trace = next.trace
	}
	p.server.handler.Receive(message)
}

// receivePosition records the position of the next message, or delivers a new epoch.
func (p *pubsub) receivePosition(channel, text string) {
	p.next = position{}
	text, trace, _ := strings.Cut(text, " ")
	text, fresh := strings.CutSuffix(text, "!")
	at, ok := parsePosition(text)
	switch {
	case !ok || !fresh && at.Offset == 0:
		p.server.broker.opt.Logger.Warn("redisbroker: what should be a message's position is none: "+
			"is another program publishing there?", "channel", positionPrefix+channel)
	case fresh:
		p.server.handler.Receive(broker.Message{Channel: channel, Position: at})
	default:
		p.next = position{channel: channel, Position: at, trace: broker.BoundTrace(trace)}
	}
}

// parsePosition parses epoch-offset, the form of the scripts and of the ids of stream entries.
func parsePosition(text string) (broker.Position, bool) {
	epoch, digits, _ := strings.Cut(text, "-")
	offset, err := strconv.ParseUint(digits, 10, 64)
	return broker.Position{Epoch: epoch, Offset: offset}, err == nil && epoch != ""
}

// subscriptionChanged handles a confirmation. A cluster ends subscriptions by itself when it has moved a slot.
func (p *pubsub) subscriptionChanged(s rueidis.PubSubSubscription) {
	if s.Kind == "sunsubscribe" {
		p.server.markOrphaned(s.Channel)
	}
}

// maxChannelsPerCommand is the largest number of channels in one command.
const maxChannelsPerCommand = 512

// subscribe subscribes to channels, and returns when the server has confirmed that.
func (p *pubsub) subscribe(ctx context.Context, channels []string) error {
	return p.sendAll(ctx, channels, func(names []string) rueidis.Completed {
		return p.conn.B().Subscribe().Channel(names...).Build()
	}, func(names ...string) rueidis.Completed {
		return p.conn.B().Ssubscribe().Channel(names...).Build()
	})
}

// unsubscribe ends subscriptions, and returns when the server has confirmed that.
func (p *pubsub) unsubscribe(ctx context.Context, channels []string) error {
	return p.sendAll(ctx, channels, func(names []string) rueidis.Completed {
		return p.conn.B().Unsubscribe().Channel(names...).Build()
	}, func(names ...string) rueidis.Completed {
		return p.conn.B().Sunsubscribe().Channel(names...).Build()
	})
}

// sendAll sends commands for all channels. A position is published on a channel of its own, subscribed to in the same
// command as the channel it is about, so that neither is received without the other.
func (p *pubsub) sendAll(
	ctx context.Context, channels []string,
	plain func([]string) rueidis.Completed, sharded func(...string) rueidis.Completed,
) error {
	naming := p.server.broker.naming
	for len(channels) > 0 {
		some := channels[:min(len(channels), maxChannelsPerCommand)]
		channels = channels[len(some):]
		commands := make([]rueidis.Completed, 0, 1+len(some))
		if naming.tags != nil {
			// A command may name only channels of one slot. Messages of other programs arrive by plain pub/sub.
			for _, channel := range some {
				commands = append(commands, sharded(naming.positionChannel(channel), channel))
			}
			commands = append(commands, plain(some))
		} else {
			names := make([]string, 0, 2*len(some))
			for _, channel := range some {
				names = append(names, naming.positionChannel(channel), channel)
			}
			commands = append(commands, plain(names))
		}
		if err := p.do(ctx, commands...); err != nil {
			return err
		}
	}
	return nil
}

// do sends commands and returns the first error.
func (p *pubsub) do(ctx context.Context, commands ...rueidis.Completed) error {
	// While a command waits there are no probes, so that a frozen server has to show by then.
	silence := max(maxMissedEchoes*p.server.broker.opt.ProbeInterval, time.Second)
	ctx, cancel := context.WithTimeout(ctx, min(p.server.broker.opt.Timeout, silence))
	defer cancel()
	var errs []error
	for _, result := range p.conn.DoMulti(ctx, commands...) {
		if err := result.Error(); err != nil && !errors.Is(err, rueidis.Nil) {
			errs = append(errs, err)
		}
	}
	if len(errs) > 0 {
		return errs[0]
	}
	return nil
}
