package natsbroker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
)

// TestBroker_FullStreamKeepsEpoch: a stream that is full drops the message with its own epoch too. It is stored again,
// so a node that follows a channel gets each of its messages once and is told of no loss, while the others' messages
// turn the stream over many times.
func TestBroker_FullStreamKeepsEpoch(t *testing.T) {
	const turns, large = 10, 8 << 10
	opt := quick(serve(t))
	opt.MaxBytes = 1 << 20
	writer, f := join(t, opt), brokertest.NewFollower(newBroker(t, opt))
	follow(t, f, "upload:x")
	before := writer.history(t, "upload:x")
	payload, others := strings.Repeat("x", large), int(opt.MaxBytes)/large/4
	var want []string
	for i := range 4 * turns {
		want = append(want, fmt.Sprint(i))
		pos, err := writer.Store(t.Context(), "upload:x", []byte(want[i]))
		if err != nil || pos.Epoch != before.Epoch {
			t.Fatalf("Store returned %+v, %v, want epoch %q", pos, err, before.Epoch)
		}
		if i%turns == 0 {
			f.Interrupted()
		}
		brokertest.Eventually(t, "the message", func() error {
			if !slices.Contains(observed(f, "upload:x"), want[i]) {
				return errNotYet
			}
			return nil
		})
		for j := range others {
			writer.store(t, fmt.Sprint("upload:other-", j), payload)
		}
	}
	if got := observed(f, "upload:x"); !slices.Equal(got, want) {
		t.Errorf("the follower has seen %q, want %q", got, want)
	}
}

// TestStoreOnce_FullStreamKeepsKeys: a message is stored once although a full stream has dropped all that it stored of
// the key.
func TestStoreOnce_FullStreamKeepsKeys(t *testing.T) {
	opt := quick(serve(t))
	opt.MaxBytes = 1 << 20
	n := join(t, opt)
	n.subscribe(t, "upload:x")
	once := broker.Once{Key: "key", Digest: "one"}
	first, replayed, err := n.StoreOnce(t.Context(), "upload:x", []byte("1"), once)
	if err != nil || replayed {
		t.Fatalf("StoreOnce returned %v, replayed %v", err, replayed)
	}
	payload := strings.Repeat("x", 8<<10)
	for i := range 200 {
		n.store(t, fmt.Sprint("upload:other-", i), payload)
	}
	again, replayed, err := n.StoreOnce(t.Context(), "upload:x", []byte("1"), once)
	if err != nil || !replayed || again.Offset != first.Offset {
		t.Errorf("again StoreOnce returned %+v, replayed %v, %v, want %+v", again, replayed, err, first)
	}
	n.store(t, "upload:x", "2")
	n.awaitPayloads(t, "upload:x", "1", "2")
}

// observed returns the payloads that a follower has seen, and what it says of losses.
func observed(f *brokertest.Follower, channel string) (all []string) {
	for _, one := range f.Seen(channel) {
		all = append(all, one.Lost+string(one.Payload))
	}
	return all
}

// follow runs a follower until the test ends, and returns when it follows a channel.
func follow(t *testing.T, f *brokertest.Follower, channel string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := f.Run(ctx); err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	brokertest.Eventually(t, "the subscription", func() error {
		err := f.Follow(t.Context(), channel)
		if err != nil && !errors.Is(err, broker.ErrUnavailable) {
			t.Fatal(err)
		}
		return err
	})
}

// TestBroker_BoundBeyondServerIsExplained: a new stream that the server has no room for is an error that names the option.
func TestBroker_BoundBeyondServerIsExplained(t *testing.T) {
	opt := quick(serve(t, func(o *server.Options) { o.JetStreamMaxMemory = 4 << 20 }))
	opt.MaxBytes = 5 << 20
	opt.OptionName = func(option string) string { return "--the-" + option }
	n := start(t, opt, brokertest.NewRecorder())
	n.Await(t, "bad health that names the option", func() bool {
		fault := n.Fault()
		return fault != nil && strings.Contains(fault.Error(), "lower --the-MaxBytes, which is 5242880")
	})
}

// TestBroker_EnlargesStreamAsFarAsThereIsRoom: a node that wants a larger stream than the server has room for works with
// the others', and has its other limits raised.
func TestBroker_EnlargesStreamAsFarAsThereIsRoom(t *testing.T) {
	s := serve(t, func(o *server.Options) { o.JetStreamMaxMemory = 4 << 20 })
	opt := quick(s)
	opt.MaxBytes, opt.Messages = 1<<20, 1
	join(t, opt)
	config := func() jetstream.StreamConfig { return streamInfo(t, jetStream(t, s)).Config }
	for _, c := range []struct{ wanted, got int64 }{{2 << 20, 2 << 20}, {8 << 20, 2 << 20}} {
		opt.MaxBytes, opt.Messages = c.wanted, opt.Messages+1
		join(t, opt)
		if got := config(); got.MaxBytes != c.got || got.MaxMsgsPerSubject != int64(opt.Messages)+1 {
			t.Errorf("the stream has %d bytes and %d messages, want %d and %d", got.MaxBytes, got.MaxMsgsPerSubject,
				c.got, opt.Messages+1)
		}
	}
}
