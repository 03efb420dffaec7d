package natsbroker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/natsbroker"
)

// Example stores a message on one node and receives it on another.
func Example() {
	b, err := natsbroker.New(natsbroker.Options{URL: "nats://127.0.0.1:4222"})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	go func() { _ = b.Run(ctx, brokertest.NewRecorder()) }() // a Manager does this, and is the Handler
	if err := b.Subscribe(ctx, "upload:4711"); errors.Is(err, broker.ErrUnavailable) {
		fmt.Println("not connected yet, try again")
	}
	if pos, err := b.Store(ctx, "upload:4711", []byte(`{"type":"upload_completed"}`)); err == nil {
		fmt.Println(pos.Epoch, pos.Offset)
	}
}

// TestBroker_ForgetBeginsEpochOnAllNodes: subscribers receive the marker between the messages, and the node that did
// not forget the channel returns the new epoch from Store.
func TestBroker_ForgetBeginsEpochOnAllNodes(t *testing.T) {
	s := serve(t)
	a, b := join(t, quick(s)), join(t, quick(s))
	b.subscribe(t, "upload:x")
	a.store(t, "upload:x", "1")
	before := b.history(t, "upload:x")
	if pos, err := b.Store(t.Context(), "upload:y", nil); err != nil || pos.Epoch != before.Epoch {
		t.Errorf("Store returned %+v, %v, want epoch %q", pos, err, before.Epoch)
	}
	a.forget(t, "upload:x")
	after := a.history(t, "upload:x")
	a.store(t, "upload:x", "2")
	received := b.awaitPayloads(t, "upload:x", "1", "", "2")
	if mark := received[1]; mark.Payload != nil || mark.Epoch != after.Epoch || mark.Epoch == before.Epoch {
		t.Errorf("in between came %+v, want epoch %q alone, which is not %q", mark, after.Epoch, before.Epoch)
	}
	if received[2].Prev != 0 {
		t.Errorf("the first message after Forget says that %d is before it, want 0", received[2].Prev)
	}
	if k := b.history(t, "upload:x"); k.Epoch != after.Epoch || len(k.Messages) != 1 || k.Floor != 0 {
		t.Errorf("kept is %+v, want one message above 0 of epoch %q", k, after.Epoch)
	}
	a.forget(t, "upload:y")
	fresh := a.history(t, "upload:y")
	brokertest.Eventually(t, "Store in the new epoch", func() error {
		pos, err := b.Store(t.Context(), "upload:y", nil)
		if err == nil && pos.Epoch != fresh.Epoch {
			err = errNotYet
		}
		return err
	})
}

// recreate deletes a node's stream and creates it again as another node would, without an epoch.
func recreate(t *testing.T, conn *nats.Conn) {
	t.Helper()
	js := jetStreamOn(t, conn)
	stream := streamOf(t, js)
	if err := js.DeleteStream(t.Context(), "SHOAL"); err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), stream.CachedInfo().Config); err != nil {
		t.Fatal(err)
	}
}

// TestBroker_StreamCreatedAgainHasAnotherEpoch: the messages of a stream that was deleted and created again carry
// another epoch from the first one on, long before the next check, and so does the result of Store.
func TestBroker_StreamCreatedAgainHasAnotherEpoch(t *testing.T) {
	s := serve(t)
	opt := quick(s)
	opt.ProbeInterval = time.Hour
	a, b := join(t, opt), join(t, opt)
	b.subscribe(t, "upload:cat")
	var payloads []string
	for i := range 20 {
		payloads = append(payloads, fmt.Sprint("old-", i))
		a.store(t, "upload:cat", payloads[i])
	}
	b.awaitPayloads(t, "upload:cat", payloads...)
	before := b.history(t, "upload:cat")
	recreate(t, client(t, s))
	for i := range 8 {
		payloads = append(payloads, fmt.Sprint("new-", i))
		pos, err := a.Store(t.Context(), "upload:cat", []byte(payloads[20+i]))
		if err != nil || pos.Epoch == before.Epoch || pos.Epoch == "" || pos.Offset > 20 {
			t.Fatalf("Store in the new stream returned %+v, %v, want a low offset of an epoch other than %q",
				pos, err, before.Epoch)
		}
	}
	received := b.awaitPayloads(t, "upload:cat", payloads...)
	after := b.history(t, "upload:cat")
	for _, m := range received[20:] {
		if m.Epoch != after.Epoch || m.Epoch == before.Epoch {
			t.Errorf("a message of the new stream has epoch %q, want %q", m.Epoch, after.Epoch)
		}
	}
	b.Await(t, "an interruption", func() bool { return len(b.Interruptions()) > 0 })
}

// TestBroker_ConnectionClosedForGoodIsReplaced: when the server makes the client library close the connection, the
// node connects again, with its subscriptions.
func TestBroker_ConnectionClosedForGoodIsReplaced(t *testing.T) {
	s := serve(t, func(o *server.Options) { o.MaxControlLine = 512 })
	n := join(t, quick(s))
	n.subscribe(t, "upload:x")
	n.store(t, "upload:x", "1")
	n.awaitPayloads(t, "upload:x", "1")
	// Percent-encoded, this valid id exceeds the protocol line that the server accepts.
	_ = n.Publish(t.Context(), "upload:"+strings.Repeat(" ", 255), nil)
	n.Await(t, "an interruption", func() bool { return len(n.Interruptions()) > 0 })
	n.awaitHealth(t, true)
	n.store(t, "upload:x", "2")
	n.awaitPayloads(t, "upload:x", "1", "2")
}

// TestBroker_InvalidChannelsAreRefused: a name that is not a channel fails its call and nothing else.
func TestBroker_InvalidChannelsAreRefused(t *testing.T) {
	n := join(t, quick(serve(t)))
	for _, channel := range []string{"", "upload", "upload:", ":x", "upload:" + strings.Repeat("a", 5000)} {
		_, err := n.History(t.Context(), channel, broker.Position{})
		_, stored := n.Store(t.Context(), channel, nil)
		for _, err := range []error{
			err, stored, n.Publish(t.Context(), channel, nil), n.Subscribe(t.Context(), channel), n.Forget(t.Context(), channel),
		} {
			if err == nil || errors.Is(err, broker.ErrUnavailable) {
				t.Errorf("channel %.20q returned %v, want an error that is not ErrUnavailable", channel, err)
			}
		}
	}
	n.store(t, "upload:x", "1")
}

// TestBroker_RefusedSubscriptionFails: a subscription that the server refuses fails its call with the reason, and
// another channel's succeeds.
func TestBroker_RefusedSubscriptionFails(t *testing.T) {
	s := serve(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "limited", Password: "limited", Permissions: &server.Permissions{
			Subscribe: &server.SubjectPermission{Allow: []string{">"}, Deny: []string{"live.upload.secret"}},
		}}}
	})
	opt := quick(s)
	opt.URL = strings.Replace(opt.URL, "nats://", "nats://limited:limited@", 1)
	n := join(t, opt)
	for range 20 {
		err := n.Subscribe(t.Context(), "upload:secret")
		if !errors.Is(err, nats.ErrPermissionViolation) || errors.Is(err, broker.ErrUnavailable) {
			t.Fatalf("Subscribe returned %v, want the violation", err)
		}
		n.subscribe(t, "upload:x")
	}
}

// TestBroker_RefusedPublicationFails: a message that the server does not accept fails its call with the reason.
func TestBroker_RefusedPublicationFails(t *testing.T) {
	s := serve(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "limited", Password: "limited", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: []string{">"}, Deny: []string{"*.upload.secret", "upload.secret"}},
		}}}
	})
	opt := quick(s)
	opt.URL = strings.Replace(opt.URL, "nats://", "nats://limited:limited@", 1)
	opt.CallTimeout = 200 * time.Millisecond
	n := join(t, opt)
	for range 3 {
		if err := n.Publish(t.Context(), "upload:secret", nil); !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("Publish returned %v, want the violation", err)
		}
		if _, err := n.Store(t.Context(), "upload:secret", nil); !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("Store returned %v, want the violation", err)
		}
		if err := n.Publish(t.Context(), "upload:x", nil); err != nil {
			t.Errorf("Publish to another channel returned %v", err)
		}
	}
}

// TestBroker_TooManySubscriptionsFail: every subscription that Subscribe confirms receives messages.
func TestBroker_TooManySubscriptionsFail(t *testing.T) {
	const most = 12
	s := serve(t, func(o *server.Options) { o.MaxSubs = most })
	n := join(t, quick(s))
	var confirmed []string
	for i := range 2 * most {
		channel := fmt.Sprint("upload:", i)
		if err := n.Subscribe(t.Context(), channel); err == nil {
			confirmed = append(confirmed, channel)
		} else if !errors.Is(err, nats.ErrMaxSubscriptionsExceeded) {
			t.Errorf("Subscribe returned %v, want the limit", err)
		}
	}
	if len(confirmed) == 0 || len(confirmed) >= most {
		t.Errorf("%d subscriptions were confirmed, want some, but fewer than %d", len(confirmed), most)
	}
	for _, channel := range confirmed {
		n.store(t, channel, "1")
		n.awaitPayloads(t, channel, "1")
	}
}

// TestBroker_FullStreamDropsOldest: a stream with a bound accepts messages when it is full.
func TestBroker_FullStreamDropsOldest(t *testing.T) {
	opt := quick(serve(t, func(o *server.Options) { o.JetStreamMaxMemory = 4 << 20 }))
	opt.MaxBytes = 3 << 20
	n := join(t, opt)
	payload := strings.Repeat("x", 60<<10)
	var last uint64
	for i := range 200 {
		last = n.store(t, fmt.Sprint("upload:", i%100), payload)
	}
	if k := n.history(t, "upload:99"); k.Offset != last || len(k.Messages) == 0 {
		t.Errorf("the history is at %d with %d messages, want %d", k.Offset, len(k.Messages), last)
	}
	n.subscribe(t, "upload:new")
}

// TestBroker_FullServerIsUnhealthy: when the server refuses to store, the operation's error and the health name it.
func TestBroker_FullServerIsUnhealthy(t *testing.T) {
	opt := quick(serve(t, func(o *server.Options) { o.JetStreamMaxMemory = 1 << 20 }))
	n := join(t, opt)
	payload := []byte(strings.Repeat("x", 1000))
	var err error
	for i := 0; err == nil && i < 2000; i++ {
		_, err = n.Store(t.Context(), fmt.Sprint("upload:", i), payload)
	}
	if err == nil || !strings.Contains(err.Error(), "refused") {
		t.Fatalf("Store returned %v, want the refusal", err)
	}
	n.Await(t, "bad health that names the reason", func() bool {
		newest := n.Fault()
		return newest != nil && strings.Contains(newest.Error(), "store")
	})
	late := start(t, opt, brokertest.NewRecorder())
	late.Await(t, "the health of a node that starts now", func() bool { return len(late.HealthReports()) > 0 })
	if first := late.HealthReports()[0]; first == nil || !strings.Contains(first.Error(), "store") {
		t.Errorf("a node that starts while the server is full reports %v first", first)
	}
}

// streamState returns how many messages the stream stores.
func streamState(t *testing.T, conn *nats.Conn) jetstream.StreamState {
	t.Helper()
	return streamInfo(t, jetStreamOn(t, conn)).State
}

// TestBroker_ReadingWritesNothing: reading unknown channels leaves the stream as it is, and they are at offset 0.
func TestBroker_ReadingWritesNothing(t *testing.T) {
	s := serve(t)
	opt := quick(s)
	opt.ProbeInterval = time.Hour
	n := join(t, opt)
	conn := client(t, s)
	before := streamState(t, conn)
	for i := range 50 {
		channel := fmt.Sprint("upload:", i)
		newest, err := n.Newest(t.Context(), channel)
		if err != nil {
			t.Fatal(err)
		}
		positions, err := n.Positions(t.Context(), channel, "upload:other")
		if err != nil {
			t.Fatal(err)
		}
		k := n.history(t, channel)
		if k.Position != newest.Position || k.Position != positions[0] || k.Offset != 0 || k.Epoch == "" {
			t.Errorf("an unknown channel is at %+v, %+v and %+v, want offset 0 of one epoch",
				k.Position, newest.Position, positions[0])
		}
	}
	if after := streamState(t, conn); after.LastSeq != before.LastSeq {
		t.Errorf("reading stored %d messages", after.LastSeq-before.LastSeq)
	}
}

// TestBroker_PositionsAndNewestAgreeWithHistory compares the three ways to read a position, also of forgotten channels
// and of more channels than one request covers.
func TestBroker_PositionsAndNewestAgreeWithHistory(t *testing.T) {
	n := join(t, quick(serve(t)))
	const channels = 300
	var all []string
	for i := range channels {
		channel := fmt.Sprint("upload:", i)
		all = append(all, channel)
		for range i % 4 {
			n.store(t, channel, channel)
		}
		if i%7 == 0 {
			n.forget(t, channel)
		}
		if i%14 == 0 {
			n.store(t, channel, channel)
		}
	}
	positions, err := n.Positions(t.Context(), all...)
	if err != nil || len(positions) != channels {
		t.Fatalf("Positions returned %d, %v", len(positions), err)
	}
	for i, channel := range all {
		k := n.history(t, channel)
		newest, err := n.Newest(t.Context(), channel)
		if err != nil || newest.Position != k.Position || positions[i] != k.Position {
			t.Errorf("%s is at %+v, %+v and %+v (%v), want one position",
				channel, k.Position, newest.Position, positions[i], err)
		}
		if want := min(1, len(k.Messages)); len(newest.Messages) != want ||
			want > 0 && string(newest.Messages[0].Payload) != channel {
			t.Errorf("Newest of %s returned %+v, want %d message", channel, newest, want)
		}
	}
}

// TestBroker_HistorySinceReadsOnlyNewer: from a position whose message is stored, only newer messages are returned;
// from a position of another epoch, or of a dropped message, all of them.
func TestBroker_HistorySinceReadsOnlyNewer(t *testing.T) {
	opt := quick(serve(t))
	opt.Messages = 8
	n := join(t, opt)
	var offsets []uint64
	for i := range 20 {
		offsets = append(offsets, n.store(t, "upload:x", fmt.Sprint(i)))
		n.store(t, "upload:y", "between")
	}
	epoch := n.history(t, "upload:x").Epoch
	for _, c := range []struct {
		since broker.Position
		want  int
		floor uint64
	}{
		{broker.Position{}, 8, offsets[11]},
		{broker.Position{Epoch: "other", Offset: offsets[17]}, 8, offsets[11]},
		{broker.Position{Epoch: epoch, Offset: offsets[2]}, 8, offsets[11]},
		{broker.Position{Epoch: epoch, Offset: 1 << 40}, 8, offsets[11]},
		{broker.Position{Epoch: epoch, Offset: offsets[11]}, 8, offsets[11]},
		{broker.Position{Epoch: epoch, Offset: offsets[17]}, 2, offsets[17]},
		{broker.Position{Epoch: epoch, Offset: offsets[19]}, 0, offsets[19]},
	} {
		k, err := n.History(t.Context(), "upload:x", c.since)
		if err != nil || len(k.Messages) != c.want || k.Floor != c.floor || k.Offset != offsets[19] || k.Epoch != epoch {
			t.Errorf("since %+v: %d messages above %d at %+v, %v; want %d above %d", c.since, len(k.Messages), k.Floor,
				k.Position, err, c.want, c.floor)
		}
	}
}
