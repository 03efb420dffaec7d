package brokertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// broken is a node that breaks a promise in one way: each field, if not nil, takes the place of a method, and gets
// the sound one's node.
type broken struct {
	broker.HistoryBroker
	run       func(k broker.HistoryBroker, ctx context.Context, h broker.Handler) error
	subscribe func(k broker.HistoryBroker, ctx context.Context, channels []string) error
	leave     func(k broker.HistoryBroker, ctx context.Context, channels []string) error
	publish   func(k broker.HistoryBroker, ctx context.Context, channel string, payload []byte) error
	store     func(k broker.HistoryBroker, ctx context.Context, channel string, payload []byte) (broker.Position, error)
	history   func(k broker.HistoryBroker, ctx context.Context, channel string) (broker.Snapshot, error)
	positions func(found []broker.Position) []broker.Position
	forget    func(k broker.HistoryBroker, ctx context.Context, channel string) error
	storeOnce func(k broker.IdempotentBroker, channel string, payload []byte, once broker.Once) (broker.Position, bool, error)
}

func (b broken) StoreOnce(
	ctx context.Context, channel string, payload []byte, once broker.Once,
) (broker.Position, bool, error) {
	sound := b.HistoryBroker.(broker.IdempotentBroker) // breaking makes no others
	if b.storeOnce != nil {
		return b.storeOnce(sound, channel, payload, once)
	}
	return sound.StoreOnce(ctx, channel, payload, once)
}

func (b broken) CheckOnce(ctx context.Context, channel string, once broker.Once) error {
	sound := b.HistoryBroker.(broker.IdempotentBroker) // breaking makes no others
	return sound.CheckOnce(ctx, channel, once)
}

func (b broken) Run(ctx context.Context, h broker.Handler) error {
	if b.run != nil {
		return b.run(b.HistoryBroker, ctx, h)
	}
	return b.HistoryBroker.Run(ctx, h)
}

func (b broken) Subscribe(ctx context.Context, channels ...string) error {
	if b.subscribe != nil {
		return b.subscribe(b.HistoryBroker, ctx, channels)
	}
	return b.HistoryBroker.Subscribe(ctx, channels...)
}

func (b broken) Unsubscribe(ctx context.Context, channels ...string) error {
	if b.leave != nil {
		return b.leave(b.HistoryBroker, ctx, channels)
	}
	return b.HistoryBroker.Unsubscribe(ctx, channels...)
}

func (b broken) Publish(ctx context.Context, channel string, payload []byte) error {
	if b.publish != nil {
		return b.publish(b.HistoryBroker, ctx, channel, payload)
	}
	return b.HistoryBroker.Publish(ctx, channel, payload)
}

func (b broken) Store(ctx context.Context, channel string, payload []byte) (broker.Position, error) {
	if b.store != nil {
		return b.store(b.HistoryBroker, ctx, channel, payload)
	}
	return b.HistoryBroker.Store(ctx, channel, payload)
}

func (b broken) History(ctx context.Context, channel string, since broker.Position) (broker.Snapshot, error) {
	if b.history != nil {
		return b.history(b.HistoryBroker, ctx, channel)
	}
	return b.HistoryBroker.History(ctx, channel, since)
}

func (b broken) Positions(ctx context.Context, channels ...string) ([]broker.Position, error) {
	found, err := b.HistoryBroker.Positions(ctx, channels...)
	if b.positions != nil {
		found = b.positions(found)
	}
	return found, err
}

func (b broken) Forget(ctx context.Context, channel string) error {
	if b.forget != nil {
		return b.forget(b.HistoryBroker, ctx, channel)
	}
	return b.HistoryBroker.Forget(ctx, channel)
}

// interceptor is a Handler that passes on the results of fn for each message.
type interceptor struct {
	broker.Handler
	fn func(m broker.Message) []broker.Message
}

func (d interceptor) Receive(m broker.Message) {
	for _, made := range d.fn(m) {
		d.Handler.Receive(made)
	}
}

// intercepting returns a way to break Run: each node gets a fn of its own, which is called under the hub's lock.
func intercepting(fresh func() func(broker.Message) []broker.Message) func(*broken) {
	return func(b *broken) {
		b.run = func(k broker.HistoryBroker, ctx context.Context, h broker.Handler) error {
			return k.Run(ctx, interceptor{h, fresh()})
		}
	}
}

// changingHistory returns a way to break History.
func changingHistory(fn func(k *broker.Snapshot)) func(*broken) {
	return func(b *broken) {
		b.history = func(k broker.HistoryBroker, ctx context.Context, channel string) (broker.Snapshot, error) {
			snapshot, err := k.History(ctx, channel, broker.Position{})
			fn(&snapshot)
			return snapshot, err
		}
	}
}

// always makes an intercepting fn that does not depend on earlier messages.
func always(fn func(m broker.Message) []broker.Message) func() func(broker.Message) []broker.Message {
	return func() func(broker.Message) []broker.Message { return fn }
}

// TestSuite_NoticesBrokenBrokers breaks one promise after the other, and each time asks the clause that is about it.
func TestSuite_NoticesBrokenBrokers(t *testing.T) {
	for _, b := range breakages() {
		t.Run(b.name, func(t *testing.T) {
			if b.failure != leak { // goroutines are counted while nothing else runs
				t.Parallel()
			}
			failures := failuresOf(t, breaking(b.breaks), b.clause)
			fitting := func(failure string) bool { return strings.Contains(failures, failure) }
			if !slices.ContainsFunc(strings.Split(b.failure, "|"), fitting) || failures == "" {
				t.Errorf("the suite fails with %q, want %q", failures, b.failure)
			}
		})
	}
}

// breaking returns a configuration whose nodes break a promise.
func breaking(breaks func(*broken)) Config {
	const ttl = 100 * time.Millisecond
	nodes := func(opt broker.MemoryOptions) func(testing.TB) broker.HistoryBroker {
		hub := broker.NewMemory(opt)
		return func(testing.TB) broker.HistoryBroker {
			b := broken{HistoryBroker: hub.Node()}
			breaks(&b)
			return b
		}
	}
	return Config{
		Node:     nodes(broker.MemoryOptions{Messages: 16, TTL: time.Hour}),
		Expiring: nodes(broker.MemoryOptions{Messages: 16, TTL: ttl}),
		Messages: 16,
		TTL:      ttl,
		Patience: time.Second,
	}
}

// leak is the suite's failure about goroutines left behind.
const leak = "unexpected goroutines"

// breakage is a broken promise, the clause that is to notice it, and its expected failure: one of several,
// if there are bars between them.
type breakage struct {
	name    string
	clause  func(*suite)
	failure string
	breaks  func(*broken)
}

func breakages() []breakage {
	return slices.Concat(liveBreakages(), subscriptionBreakages(), historyBreakages(), keyBreakages(), lifecycleBreakages())
}

func liveBreakages() []breakage {
	tenthLost := intercepting(func() func(broker.Message) []broker.Message {
		count := 0
		return func(m broker.Message) []broker.Message {
			if count++; count%10 == 0 {
				return nil
			}
			return []broker.Message{m}
		}
	})
	swapped := intercepting(func() func(broker.Message) []broker.Message {
		held := map[string]broker.Message{}
		return func(m broker.Message) []broker.Message {
			first, waits := held[m.Channel]
			if !waits {
				held[m.Channel] = m
				return nil
			}
			delete(held, m.Channel)
			return []broker.Message{m, first}
		}
	})
	doubled := intercepting(always(func(m broker.Message) []broker.Message {
		again := m
		again.Payload = slices.Clone(m.Payload)
		return []broker.Message{m, again}
	}))
	change := func(fn func(m *broker.Message)) func(*broken) {
		return intercepting(always(func(m broker.Message) []broker.Message {
			fn(&m)
			return []broker.Message{m}
		}))
	}
	return []breakage{
		{"every tenth message lost", reachesSubscribers, "waiting for", tenthLost},
		{"every message twice", reachesSubscribers, "once", doubled},
		{"messages swapped", publisherOrder, "is next", swapped},
		{"stored messages lost", storedOrder, "waiting for", tenthLost},
		{"stored messages twice", storedOrder, "is next", doubled},
		{"previous always 0", storedOrder, "is before it", change(func(m *broker.Message) { m.Prev = 0 })},
		{"previous one too high", storedOrder, "is before it", change(func(m *broker.Message) { m.Prev++ })},
		{"offsets stand still", storedOrder, "want it above", change(func(m *broker.Message) { m.Offset = 1 })},
		{"another epoch", storedOrder, "is of epoch", change(func(m *broker.Message) { m.Epoch = "other" })},
		{"published messages have positions", reachesSubscribers, "want no position",
			change(func(m *broker.Message) { m.Offset++ })},
		{"payloads cut", payloadsUnchanged, "arrived changed",
			change(func(m *broker.Message) { m.Payload = m.Payload[:min(len(m.Payload), 60000)] })},
		{"payloads trimmed of spaces", payloadsUnchanged, "arrived changed",
			change(func(m *broker.Message) { m.Payload = append([]byte{}, strings.TrimSpace(string(m.Payload))...) })},
		{"overlapping calls", noOverlap, "while it was running", overlapping},
		{"payloads shared", payloadOwned, "that another receiver changed", sharing()},
		{"publishers' bytes stored", payloadOwned, "stored payloads were changed", borrowing},
		{"trace contexts lost", traceTravels, "trace context", change(func(m *broker.Message) { m.Trace = "" })},
		{"trace contexts in payloads", traceTravels, "came with", change(func(m *broker.Message) {
			m.Payload = append(m.Payload, m.Trace...)
		})},
	}
}

// overlapping hands each message on in a goroutine of its own. Run waits for them.
func overlapping(b *broken) {
	b.run = func(k broker.HistoryBroker, ctx context.Context, h broker.Handler) error {
		var running sync.WaitGroup
		defer running.Wait()
		return k.Run(ctx, interceptor{h, func(m broker.Message) []broker.Message {
			running.Go(func() { h.Receive(m) })
			return nil
		}})
	}
}

// sharing hands the same bytes to all nodes.
func sharing() func(*broken) {
	var mu sync.Mutex
	shared := map[string][]byte{}
	return intercepting(always(func(m broker.Message) []broker.Message {
		mu.Lock()
		defer mu.Unlock()
		key := fmt.Sprint(m.Channel, m.Offset, len(shared)/2)
		if bytes, ok := shared[m.Channel+key]; ok {
			m.Payload = bytes
		} else {
			shared[m.Channel+key] = m.Payload
		}
		return []broker.Message{m}
	}))
}

// borrowing keeps the publisher's bytes, not a copy.
func borrowing(b *broken) {
	var borrowed [][]byte
	b.store = func(k broker.HistoryBroker, ctx context.Context, channel string, payload []byte) (broker.Position, error) {
		borrowed = append(borrowed, payload)
		return k.Store(ctx, channel, payload)
	}
	changingHistory(func(k *broker.Snapshot) {
		for i := range k.Messages {
			k.Messages[i].Payload = borrowed[i]
		}
	})(b)
}

func subscriptionBreakages() []breakage {
	prefixed := func(b *broken) {
		b.subscribe = func(k broker.HistoryBroker, ctx context.Context, channels []string) error {
			return k.Subscribe(ctx, channels[0])
		}
	}
	folded := func(b *broken) {
		fold := strings.ToLower
		b.subscribe = func(k broker.HistoryBroker, ctx context.Context, channels []string) error {
			return k.Subscribe(ctx, each(channels, fold)...)
		}
		b.publish = func(k broker.HistoryBroker, ctx context.Context, channel string, payload []byte) error {
			return k.Publish(ctx, fold(channel), payload)
		}
	}
	oneHistory := func(b *broken) {
		cut := func(channel string) string { return channel[:min(len(channel), 255)] }
		b.store = func(k broker.HistoryBroker, ctx context.Context, channel string, payload []byte) (broker.Position, error) {
			pos, err := k.Store(ctx, channel, payload)
			if cut(channel) != channel {
				_, err = k.Store(ctx, "upload:"+strings.Repeat("x", 254), payload)
			}
			return pos, err
		}
	}
	return []breakage{
		{"subscribe returns early", subscribeEffective, "waiting for", func(b *broken) {
			b.subscribe = func(k broker.HistoryBroker, _ context.Context, channels []string) error {
				// A publisher that does not wait is faster than this.
				time.AfterFunc(10*time.Millisecond, func() { _ = k.Subscribe(context.Background(), channels...) })
				return nil
			}
		}},
		{"only the first of several subscribed", subscribeEffective, "waiting for", prefixed},
		{"unsubscribe comes late", resubscribe, "waiting for", late},
		{"unsubscribe does nothing", unsubscribeEnds, "still receives", func(b *broken) {
			b.leave = func(broker.HistoryBroker, context.Context, []string) error { return nil }
		}},
		{"unsubscribe takes others along", unsubscribeEnds, "waiting for", func(b *broken) {
			b.leave = func(k broker.HistoryBroker, ctx context.Context, channels []string) error {
				return k.Unsubscribe(ctx, append(each(channels, func(c string) string { return c + ".y" }), channels...)...)
			}
		}},
		{"names are confused", namesKeptApart, `on "upload:a", want`, folded},
		{"histories are confused", namesKeptApart, "want only its own", oneHistory},
		{"a cancelled call subscribes", cancelledCall, "context's error", func(b *broken) {
			b.subscribe = func(k broker.HistoryBroker, _ context.Context, channels []string) error {
				return k.Subscribe(context.Background(), channels...)
			}
		}},
		{"a cancelled call fails and subscribes", cancelledCall, "still receives", func(b *broken) {
			b.subscribe = func(k broker.HistoryBroker, ctx context.Context, channels []string) error {
				_ = k.Subscribe(context.Background(), channels...)
				return ctx.Err()
			}
		}},
	}
}

// each returns the results of fn for the names.
func each(names []string, fn func(string) string) []string {
	var made []string
	for _, name := range names {
		made = append(made, fn(name))
	}
	return made
}

func historyBreakages() []breakage {
	return []breakage{
		{"the floor is too low", historyAgrees, "is not stored any more", changingHistory(func(k *broker.Snapshot) { k.Floor = 0 })},
		{"the floor is too high", historyAgrees, "want it below", changingHistory(func(k *broker.Snapshot) { k.Floor = k.Offset })},
		{"one message is not stored", historyAgrees, "are stored, want", changingHistory(func(k *broker.Snapshot) {
			k.Messages = k.Messages[min(1, len(k.Messages)):]
		})},
		{"the newest comes first", historyAgrees, "is stored at offset", changingHistory(func(k *broker.Snapshot) {
			slices.Reverse(k.Messages)
		})},
		{"the offset lags", historyAgrees, "History is at", changingHistory(func(k *broker.Snapshot) { k.Offset -= min(1, k.Offset) })},
		{"the position is ignored", historySince, "the history since", changingHistory(func(*broker.Snapshot) {})},
		{"positions are in another order", positionsInOrder, "as History says", func(b *broken) {
			b.positions = func(found []broker.Position) []broker.Position {
				slices.Reverse(found)
				return found
			}
		}},
		{"repeated channels are left out", positionsInOrder, "positions of", func(b *broken) {
			b.positions = func(found []broker.Position) []broker.Position { return found[:min(len(found), 20)] }
		}},
		{"a subscriber's channel has no epoch", readOnly, "has no epoch", changingHistory(func(k *broker.Snapshot) {
			if k.Offset == 0 {
				k.Epoch = ""
			}
		})},
		{"stored by another clock", storedTimes, "is said to be of", changingHistory(func(k *broker.Snapshot) {
			for i := range k.Messages {
				k.Messages[i].At = k.Messages[i].At.Add(-11 * time.Minute)
			}
		})},
		{"no time", historyAgrees, "when it was stored", changingHistory(func(k *broker.Snapshot) {
			for i := range k.Messages {
				k.Messages[i].At = time.Time{}
			}
		})},
		{"published messages are stored", historyAgrees, "History is at", func(b *broken) {
			b.publish = func(k broker.HistoryBroker, ctx context.Context, channel string, payload []byte) error {
				_, err := k.Store(ctx, channel, payload)
				return err
			}
		}},
		{"an epoch for each node", emptyChannel, "of one epoch", func(b *broken) {
			own := fmt.Sprintf("%p", b)
			changingHistory(func(k *broker.Snapshot) { k.Epoch = own })(b)
		}},
		{"the history lags behind live messages", mergeLosesNothing, "waiting for|is missing before", changingHistory(func(k *broker.Snapshot) {
			if len(k.Messages) > 0 {
				k.Messages = k.Messages[:len(k.Messages)-1]
			}
		})},
		{"forget forgets nothing", forgetBegins, "after Forget is stored", func(b *broken) {
			b.forget = func(broker.HistoryBroker, context.Context, string) error { return nil }
		}},
		{"forget is not reported", forgetBegins, "want a report", intercepting(always(func(m broker.Message) []broker.Message {
			if m.Epoch = ""; m.Payload == nil {
				return nil
			}
			return []broker.Message{m}
		}))},
		{"messages never expire", messagesExpire, "should have expired", func(b *broken) {
			var all broker.Snapshot
			changingHistory(func(k *broker.Snapshot) {
				if len(k.Messages) > 0 {
					all = *k
				}
				*k = all
			})(b)
		}},
		{"a channel without messages moves", positionStays, "want it to stay", func(b *broken) {
			reads := 0
			changingHistory(func(k *broker.Snapshot) {
				if reads++; len(k.Messages) == 0 {
					k.Epoch += fmt.Sprint(reads)
				}
			})(b)
		}},
		{"a channel without messages has an offset", positionStays, "want offset 0", changingHistory(func(k *broker.Snapshot) {
			k.Offset++
		})},
		{"the floor stays when messages expire", messagesExpire, "has expired", changingHistory(func(k *broker.Snapshot) {
			k.Floor = 0
		})},
	}
}

func keyBreakages() []breakage {
	type call = func(k broker.IdempotentBroker, channel string, payload []byte, once broker.Once) (broker.Position, bool, error)
	breaks := func(storeOnce call) func(*broken) { return func(b *broken) { b.storeOnce = storeOnce } }
	ctx := context.Background()
	return []breakage{
		{"a repeated message is stored again", storedOnce, "when the key is repeated", breaks(
			func(k broker.IdempotentBroker, channel string, payload []byte, _ broker.Once) (broker.Position, bool, error) {
				at, err := k.Store(ctx, channel, payload)
				return at, false, err
			})},
		{"a repeated message is published again", storedOnce, "and its repetitions came", breaks(
			func(k broker.IdempotentBroker, channel string, payload []byte, once broker.Once) (broker.Position, bool, error) {
				at, replayed, err := k.StoreOnce(ctx, channel, payload, once)
				if replayed {
					err = k.Publish(ctx, channel, payload)
				}
				return at, replayed, err
			})},
		{"keys are confused", storedOnce, "another key returned", breaks(
			func(k broker.IdempotentBroker, channel string, payload []byte, once broker.Once) (broker.Position, bool, error) {
				once.Key = strings.ToLower(once.Key)
				return k.StoreOnce(ctx, channel, payload, once)
			})},
		{"channels share keys", storedOnce, "is that of another one", breaks(
			func(k broker.IdempotentBroker, channel string, payload []byte, once broker.Once) (broker.Position, bool, error) {
				return k.StoreOnce(ctx, strings.Replace(channel, "-other", "-x", 1), payload, once)
			})},
		{"any digest will do", keyReused, "want ErrKeyReused", breaks(
			func(k broker.IdempotentBroker, channel string, payload []byte, once broker.Once) (broker.Position, bool, error) {
				once.Digest = "one"
				return k.StoreOnce(ctx, channel, payload, once)
			})},
		{"concurrent calls store all", concurrentOnce, "concurrent calls stored", breaks(
			func(k broker.IdempotentBroker, channel string, payload []byte, once broker.Once) (broker.Position, bool, error) {
				if at, replayed, err := k.StoreOnce(ctx, channel, payload, once); !replayed {
					return at, false, err
				}
				at, err := k.Store(ctx, channel, payload)
				return at, false, err
			})},
		{"an expired key is refused", keysExpire, "want another position|returned broker", breaks(
			func(k broker.IdempotentBroker, channel string, payload []byte, once broker.Once) (broker.Position, bool, error) {
				if once.Digest == "another" {
					return broker.Position{}, false, broker.ErrKeyReused
				}
				return k.StoreOnce(ctx, channel, payload, once)
			})},
	}
}

func lifecycleBreakages() []breakage {
	return []breakage{
		{"run returns an error", runEnds, "want nil", func(b *broken) {
			b.run = func(k broker.HistoryBroker, ctx context.Context, h broker.Handler) error {
				return fmt.Errorf("%w: %w", k.Run(ctx, h), ctx.Err())
			}
		}},
		{"run does not return", runEnds, "has not returned", func(b *broken) {
			b.run = func(k broker.HistoryBroker, ctx context.Context, h broker.Handler) error {
				err := k.Run(ctx, h)
				<-time.After(1200 * time.Millisecond)
				return err
			}
		}},
		{"run leaves a goroutine", runEnds, leak, func(b *broken) {
			b.run = func(k broker.HistoryBroker, ctx context.Context, h broker.Handler) error {
				go func() { <-time.After(3 * time.Second) }()
				return k.Run(ctx, h)
			}
		}},
		{"another error when out of reach", notRunning, "ErrUnavailable", func(b *broken) {
			b.store = func(k broker.HistoryBroker, ctx context.Context, channel string, payload []byte) (broker.Position, error) {
				pos, err := k.Store(ctx, channel, payload)
				if err != nil {
					err = errors.New(err.Error())
				}
				return pos, err
			}
		}},
		{"a call that never returns", notRunning, "has not returned", func(b *broken) {
			b.publish = func(k broker.HistoryBroker, ctx context.Context, channel string, payload []byte) error {
				err := k.Publish(ctx, channel, payload)
				if err != nil {
					<-time.After(1200 * time.Millisecond)
				}
				return err
			}
		}},
		{"hardly any channels", thousands, "waiting for", func(b *broken) {
			count := 0
			var mu sync.Mutex
			b.subscribe = func(k broker.HistoryBroker, ctx context.Context, channels []string) error {
				mu.Lock()
				defer mu.Unlock()
				if count += len(channels); count > 3000 {
					return nil
				}
				return k.Subscribe(ctx, channels...)
			}
		}},
		{"subscribing twice delivers twice", subscribeTwice, "once", func(b *broken) {
			var mu sync.Mutex
			times := map[string]int{}
			b.subscribe = func(k broker.HistoryBroker, ctx context.Context, channels []string) error {
				mu.Lock()
				defer mu.Unlock()
				for _, channel := range channels {
					times[channel]++
				}
				return k.Subscribe(ctx, channels...)
			}
			intercepting(always(func(m broker.Message) []broker.Message {
				mu.Lock()
				defer mu.Unlock()
				return slices.Repeat([]broker.Message{m}, times[m.Channel])
			}))(b)
		}},
	}
}

// late unsubscribes from channels only after the next Subscribe.
func late(b *broken) {
	var mu sync.Mutex
	gone := make(map[string]bool)
	b.leave = func(_ broker.HistoryBroker, _ context.Context, channels []string) error {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range channels {
			gone[c] = true
		}
		return nil
	}
	b.subscribe = func(k broker.HistoryBroker, ctx context.Context, channels []string) error {
		if err := k.Subscribe(ctx, channels...); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, c := range channels {
			if gone[c] {
				delete(gone, c)
				return k.Unsubscribe(ctx, c)
			}
		}
		return nil
	}
}
