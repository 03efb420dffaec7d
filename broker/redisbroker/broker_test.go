package redisbroker_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/redisbroker/internal/redistest"
)

// Among foreign messages on the same channel each stored one has its own position, and no other has any.
func TestBroker_PositionsMatchMessagesAmongForeignOnes(t *testing.T) {
	const storers, publishers, each = 4, 4, 200
	server := redistest.Start(t)
	a, b := join(t, options(server)), join(t, options(server))
	foreign := server.Client(t)
	x := "upload:x {y}: z"
	subscribe(t, a, x)
	var mu sync.Mutex
	want := make(map[string]broker.Position)
	var talking sync.WaitGroup
	for i := range storers {
		talking.Go(func() {
			for j := range each {
				payload := fmt.Sprintf("ours %d %d", i, j)
				at, err := []*node{a, b}[i%2].Store(t.Context(), x, []byte(payload))
				if err != nil {
					t.Errorf("Store: %v", err)
				}
				mu.Lock()
				want[payload] = at
				mu.Unlock()
			}
		})
	}
	for i := range publishers {
		talking.Go(func() {
			for j := range each {
				publish := foreign.B().Publish().Channel(x).Message(fmt.Sprintf("theirs %d %d", i, j)).Build()
				if err := foreign.Do(t.Context(), publish).Error(); err != nil {
					t.Errorf("PUBLISH: %v", err)
				}
			}
		})
	}
	talking.Wait()
	redistest.Eventually(t, "all messages have come", func() bool {
		return len(a.Messages(x)) == (storers+publishers)*each
	})
	var last uint64
	for _, m := range a.Messages(x) {
		if m.Position != want[string(m.Payload)] {
			t.Fatalf("%q came at %v, want %v", m.Payload, m.Position, want[string(m.Payload)])
		}
		if m.Offset > 0 && (m.Offset != last+1 || m.Prev != last) {
			t.Fatalf("offset %d came after %d and says it follows %d", m.Offset, last, m.Prev)
		}
		last = max(last, m.Offset)
	}
}

func TestBroker_PlainSubscriberReceivesPayloadUnchanged(t *testing.T) {
	server := redistest.Start(t)
	n := join(t, options(server))
	plain := server.Client(t)
	x, payload := "upload:x", "{\"message\":\"\x00\r\n ü\"}"
	ctx, cancel := context.WithCancel(t.Context())
	confirmed, received := make(chan struct{}), make(chan string, 8)
	var listening sync.WaitGroup
	listening.Go(func() {
		ctx := rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { close(confirmed) })
		_ = plain.Receive(ctx, plain.B().Subscribe().Channel(x).Build(), func(m rueidis.PubSubMessage) { received <- m.Message })
	})
	<-confirmed
	store(t, n, x, payload)
	if err := n.Publish(t.Context(), x, []byte(payload)); err != nil {
		t.Fatal(err)
	}
	traced := broker.WithTrace(t.Context(), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if _, err := n.Store(traced, x, []byte(payload)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if got := <-received; got != payload {
			t.Errorf("a plain subscriber received %q, want %q", got, payload)
		}
	}
	cancel()
	listening.Wait()
	if len(received) > 0 {
		t.Errorf("a plain subscriber received %q besides", <-received)
	}
}

func TestBroker_ConnectionsDoNotGrowWithChannels(t *testing.T) {
	server := redistest.Start(t)
	n := join(t, options(server))
	before := strings.Count(server.Do("CLIENT", "LIST"), "name=shoal")
	channels := make([]string, 5000)
	for i := range channels {
		channels[i] = fmt.Sprintf("upload:%d", i)
	}
	var asking sync.WaitGroup
	for i := 0; i < len(channels); i += 50 {
		asking.Go(func() { subscribe(t, n, channels[i:i+50]...) })
	}
	asking.Wait()
	if got := server.Do("CLIENT", "LIST", "TYPE", "pubsub"); !strings.Contains(got, "sub=10001") {
		t.Errorf("the subscriptions are not all on one connection: %s", got)
	}
	if after := strings.Count(server.Do("CLIENT", "LIST"), "name=shoal"); after > before || after > 3 {
		t.Errorf("there are %d connections with %d channels, and %d without", after, len(channels), before)
	}
	if err := n.Unsubscribe(t.Context(), channels...); err != nil {
		t.Fatal(err)
	}
	if got := server.Do("PUBSUB", "NUMSUB", channels[0], "shoal.at:"+channels[4999]); strings.Contains(got, " 1") {
		t.Errorf("after Unsubscribe Redis counts %s", got)
	}
}

func TestBroker_OversizedMessagesAreRefusedAndDropped(t *testing.T) {
	server := redistest.Start(t)
	opt := options(server)
	opt.MaxPayload = 10
	n := join(t, opt)
	x := "upload:x"
	subscribe(t, n, x)
	if _, err := n.Store(t.Context(), x, make([]byte, 11)); err == nil || errors.Is(err, broker.ErrUnavailable) ||
		!strings.Contains(err.Error(), "11 bytes") {
		t.Errorf("Store of too much returned %v", err)
	}
	if err := n.Publish(t.Context(), x, make([]byte, 11)); err == nil {
		t.Errorf("Publish of too much returned nil")
	}
	server.Do("PUBLISH", x, "12345678901")
	server.Do("PUBLISH", x, "1234567890")
	redistest.Eventually(t, "the small message has come", func() bool { return len(n.Messages(x)) == 1 })
	if got := n.Messages(x)[0]; string(got.Payload) != "1234567890" || n.Oversized() != 1 {
		t.Errorf("received %q and counted %d", got.Payload, n.Oversized())
	}
}

// Messages of another program or of a node with other options may be as large as Redis allows. Dropping it takes no
// other message's position, and fills no log.
func TestBroker_OversizedForeignMessagesAreDropped(t *testing.T) {
	const tooLarge = "secret-payload"
	server := redistest.Start(t)
	opt := options(server)
	generous := join(t, opt)
	var log bytes.Buffer
	opt.MaxPayload, opt.Logger = 10, slog.New(slog.NewTextHandler(&log, nil))
	n := join(t, opt)
	x := "upload:x"
	subscribe(t, n, x)
	store(t, generous, x, tooLarge)
	for range 100 {
		server.Do("PUBLISH", x, tooLarge)
	}
	server.Do("PUBLISH", x, "foreign")
	second := store(t, generous, x, "second")
	redistest.Eventually(t, "both small messages have come", func() bool { return len(n.Messages(x)) == 2 })
	foreign, stored := n.Messages(x)[0], n.Messages(x)[1]
	if string(foreign.Payload) != "foreign" || foreign.Position != (broker.Position{}) {
		t.Errorf("received %q at %v first, want the foreign message at none", foreign.Payload, foreign.Position)
	}
	if string(stored.Payload) != "second" || stored.Position != second || stored.Prev != 1 || second.Offset != 2 {
		t.Errorf("received %q at %v after %d, want it at %v after 1", stored.Payload, stored.Position, stored.Prev, second)
	}
	if n.Oversized() != 101 {
		t.Errorf("counted %d dropped messages, want 101", n.Oversized())
	}
	n.stop()
	if lines := strings.Count(log.String(), "too large"); lines == 0 || lines > 50 || strings.Contains(log.String(), tooLarge) {
		t.Errorf("the log has %d lines, want one a second and no payload: %s", lines, log.String())
	}
}

// A followed channel keeps its epoch and its offset while nothing happens: its stream is made to live on again and again.
// TestTouch_KeepsThePositionOfOldMessages has the rest.
func TestBroker_SubscribedChannelKeepsEpoch(t *testing.T) {
	server := redistest.Start(t)
	opt := options(server)
	opt.TTL = 6 * time.Second // a machine may stop for as long
	n := join(t, opt)
	x := "upload:x"
	subscribe(t, n, x)
	at := store(t, n, x, "one")
	lifetime := func() int {
		left, err := strconv.Atoi(server.Do("PTTL", "shoal.kept:"+x))
		if err != nil {
			t.Fatal(err)
		}
		return left
	}
	least := lifetime()
	redistest.Eventually(t, "the lifetime of the stream is extended", func() bool {
		now := lifetime()
		least = min(least, now)
		return now > least
	})
	if k := history(t, n, x); k.Position != at {
		t.Errorf("the history is at %v, want %v", k.Position, at)
	}
	if next := store(t, n, x, "two"); next.Epoch != at.Epoch || next.Offset != 2 {
		t.Errorf("the next message is at %v, want it right after %v", next, at)
	}
}

func TestBroker_ChannelWithoutSubscribersExpires(t *testing.T) {
	server := redistest.Start(t)
	opt := options(server)
	opt.TTL = 200 * time.Millisecond
	n := join(t, opt)
	store(t, n, "upload:x", "one")
	redistest.Eventually(t, "the stream is gone", func() bool {
		return server.Do("EXISTS", "shoal.kept:upload:x") == "0"
	})
}

func TestBroker_FullMemoryIsNamedByTheError(t *testing.T) {
	server := redistest.Start(t)
	n := join(t, options(server))
	server.Do("XADD", "shoal.kept:upload:old", "1700000000000000-7", token(server)+"1700000000000", "zero")
	server.Do("CONFIG", "SET", "maxmemory", "1")
	for _, x := range []string{"upload:x", "upload:old"} {
		_, err := n.Store(t.Context(), x, []byte("one"))
		if !errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "no memory left") {
			t.Errorf("Store to %s returned %v", x, err)
		}
	}
	once := broker.Once{Key: "key", Digest: "one"}
	if _, _, err := n.StoreOnce(t.Context(), "upload:x", []byte("one"), once); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("StoreOnce returned %v", err)
	}
	server.Do("CONFIG", "SET", "maxmemory", "0")
	if at, replayed, err := n.StoreOnce(t.Context(), "upload:x", []byte("one"), once); at.Offset != 1 || replayed || err != nil {
		t.Errorf("a refused StoreOnce, repeated, returned %+v, %v, %v", at, replayed, err)
	}
	if ttl := server.Do("PTTL", "shoal.once:upload:x:key"); strings.HasPrefix(ttl, "-") {
		t.Errorf("a key lives for %s ms", ttl)
	}
}
