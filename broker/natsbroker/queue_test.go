package natsbroker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/natsbroker"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/manager/managertest"
)

// startHeld runs a node whose handler holds the message "first", and with it the queue behind, until release. reached
// is closed when it does.
func startHeld(t *testing.T, opt natsbroker.Options) (n *node, reached <-chan struct{}, release func()) {
	t.Helper()
	r, has, gate := brokertest.NewRecorder(), make(chan struct{}), make(chan struct{})
	r.OnReceive = func(m broker.Message) {
		if string(m.Payload) == "first" {
			close(has)
			<-gate
		}
	}
	n = start(t, opt, r)
	n.awaitHealth(t, true)
	release = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(release)
	return n, has, release
}

// TestBroker_QueuedBeforeForgetIsNotOfTheNewEpoch: messages that Forget has dropped, and that are queued in a node when
// it reads the new epoch, do not belong to it.
func TestBroker_QueuedBeforeForgetIsNotOfTheNewEpoch(t *testing.T) {
	s := serve(t)
	n, reached, release := startHeld(t, quick(s))
	n.subscribe(t, "upload:x")
	before := n.history(t, "upload:x")
	writer := join(t, quick(s))
	writer.store(t, "upload:x", "first")
	<-reached
	writer.store(t, "upload:x", "forgotten")
	writer.forget(t, "upload:x")
	after := n.history(t, "upload:x") // as for a client that subscribes
	release()
	writer.store(t, "upload:x", "new")
	all := n.awaitPayloads(t, "upload:x", "first", "", "new")
	for i, want := range []string{before.Epoch, after.Epoch, after.Epoch} {
		if all[i].Epoch != want {
			t.Errorf("%q is of epoch %q, want %q", all[i].Payload, all[i].Epoch, want)
		}
	}
}

// TestBroker_QueuedBeforePurgeIsNotOfTheNewEpoch: the same of messages that an operator has purged.
func TestBroker_QueuedBeforePurgeIsNotOfTheNewEpoch(t *testing.T) {
	s := serve(t)
	n, reached, release := startHeld(t, quick(s))
	purge(t, s) // so that the stream does not begin with its epoch
	writer := join(t, quick(s))
	writer.store(t, "upload:x", "0")
	n.subscribe(t, "upload:x")
	before := n.history(t, "upload:x")
	writer.store(t, "upload:x", "first")
	<-reached
	writer.store(t, "upload:x", "purged")
	stream, err := jetStream(t, s).Stream(t.Context(), "SHOAL")
	for _, subject := range []string{"upload.x", "epoch.upload.x"} {
		if err == nil {
			err = stream.Purge(t.Context(), jetstream.WithPurgeSubject(subject))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	after := n.history(t, "upload:x")
	if after.Epoch == before.Epoch || after.Offset != 0 {
		t.Fatalf("the purged channel is at %+v, want offset 0 of an epoch other than %q", after.Position, before.Epoch)
	}
	release()
	writer.store(t, "upload:x", "new")
	// A node whose probe has seen the first purge knows no epoch, and delivers what the operator has purged without one.
	n.Await(t, "the last message", func() bool { return slices.Contains(n.Payloads("upload:x"), "new") })
	for _, m := range n.Messages("upload:x") {
		if isNew := string(m.Payload) == "new"; isNew != (m.Epoch == after.Epoch) {
			t.Errorf("%q is of epoch %q, the new one is %q", m.Payload, m.Epoch, after.Epoch)
		}
	}
}

// TestBroker_QueueIsBoundedInBytes: other programs may publish messages as large as the server accepts. A node holds no
// more of them than PendingBytes while its handler is busy, and reports the others as lost. A message that alone exceeds
// the bound is delivered.
func TestBroker_QueueIsBoundedInBytes(t *testing.T) {
	s := serve(t)
	const size, fitting = 16 << 10, 4
	opt := quick(s)
	opt.PendingBytes = fitting * size
	n, reached, release := startHeld(t, opt)
	n.subscribe(t, "upload:x", "upload:large")
	conn := client(t, s)
	publish := func(payloads ...string) {
		t.Helper()
		for _, payload := range payloads {
			subject := "upload.large"
			if payload == "first" {
				subject = "upload.x"
			}
			if err := conn.Publish(subject, []byte(payload)); err != nil {
				t.Fatal(err)
			}
		}
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	huge, large := strings.Repeat("h", 2*opt.PendingBytes), strings.Repeat("l", size)
	publish(huge)
	n.awaitPayloads(t, "upload:large", huge)
	publish("first")
	<-reached
	publish(slices.Repeat([]string{large}, 5*fitting)...)
	brokertest.Eventually(t, "dropped messages", func() error {
		if n.Overflows() < 4*fitting {
			return errNotYet
		}
		return nil
	})
	release()
	n.Await(t, "an interruption of the channel", func() bool {
		return slices.ContainsFunc(n.Interruptions(), func(channels []string) bool {
			return slices.Equal(channels, []string{"upload:large"})
		})
	})
	got := 0
	for _, payload := range n.Payloads("upload:large") {
		if payload == large {
			got++
		}
	}
	if got == 0 || got > fitting {
		t.Errorf("%d messages of %d bytes were queued, want at most %d bytes", got, size, opt.PendingBytes)
	}
}

// TestHistory_OfLargeMessagesIsBounded: messages of other programs that exceed HistoryBytes together are read in parts,
// and the newest ones that fit are returned.
func TestHistory_OfLargeMessagesIsBounded(t *testing.T) {
	const size, stored, fitting = 512 << 10, 30, 2
	s := serve(t)
	opt := quick(s)
	opt.HistoryBytes = fitting*size + 1
	n := join(t, opt)
	var offsets []uint64
	for i := range stored {
		payload := strings.Repeat(fmt.Sprint(i%10), size)
		offsets = append(offsets, n.store(t, "upload:x", payload))
	}
	for _, since := range []broker.Position{{}, {Epoch: n.history(t, "upload:x").Epoch, Offset: offsets[3]}} {
		h, err := n.History(t.Context(), "upload:x", since)
		if err != nil || len(h.Messages) != fitting || h.Floor != offsets[stored-fitting-1] || h.Offset != offsets[stored-1] {
			t.Fatalf("History since %d returned %d messages above %d at %d, %v; want %d above %d at %d", since.Offset,
				len(h.Messages), h.Floor, h.Offset, err, fitting, offsets[stored-fitting-1], offsets[stored-1])
		}
		for i, m := range h.Messages {
			if want := fmt.Sprint((stored - fitting + i) % 10); len(m.Payload) != size || string(m.Payload[:1]) != want {
				t.Errorf("message %d has %d bytes, the first %q, want %d of %q", i, len(m.Payload), m.Payload[:1], size, want)
			}
		}
	}
}

// TestStore_ReturnsTheEpochAfterItHasBegun: once Forget has returned, or another node has begun an epoch of the stream,
// Store on a node whose queue is long returns the new epoch.
func TestStore_ReturnsTheEpochAfterItHasBegun(t *testing.T) {
	s := serve(t)
	opt := quick(s)
	opt.Messages = 4
	n, reached, release := startHeld(t, opt)
	other := join(t, opt)
	n.subscribe(t, "upload:busy")
	n.store(t, "upload:x", "0")
	other.store(t, "upload:busy", "first")
	<-reached
	want := func() {
		t.Helper()
		at, err := n.Store(t.Context(), "upload:x", []byte("1"))
		if is := other.history(t, "upload:x").Epoch; err != nil || at.Epoch != is {
			t.Errorf("Store returned %+v, %v, want epoch %q", at, err, is)
		}
	}
	other.forget(t, "upload:x")
	want()
	opt.Messages = 64
	other = join(t, opt)
	want()
	release()
}

// held is a broker whose messages of uploads wait at a gate, which is open while it holds a token.
type held struct {
	*natsbroker.Broker
	gate chan struct{}
}

type heldHandler struct {
	broker.Handler
	gate chan struct{}
}

func (h heldHandler) Receive(m broker.Message) {
	if strings.HasPrefix(m.Channel, "upload:") {
		<-h.gate
		h.gate <- struct{}{}
	}
	h.Handler.Receive(m)
}

func (b held) Run(ctx context.Context, h broker.Handler) error {
	return b.Broker.Run(ctx, heldHandler{h, b.gate})
}

// startManager runs a manager until the test ends, and returns when it is ready.
func startManager(t *testing.T, b broker.Broker) *manager.Manager {
	t.Helper()
	m, err := manager.New(manager.Options{Broker: b})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(func() {
		defer cancel()
		if err := m.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	if err := m.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return m
}

func numbered(t *testing.T, action string, n int) manager.Message {
	t.Helper()
	m, err := manager.Parse("x", fmt.Appendf(nil, `{"action":%q,"n":%d}`, action, n), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestManager_BacklogOfLostStreamDoesNotMovePositions: messages of a stream that was deleted are queued in a node when
// it learns the epoch of the next stream. Their offsets are not the next stream's: its messages, whose offsets are
// lower, are delivered where they were published.
func TestManager_BacklogOfLostStreamDoesNotMovePositions(t *testing.T) {
	s := serve(t)
	gate := make(chan struct{}, 1)
	gate <- struct{}{}
	m := startManager(t, held{newBroker(t, quick(s)), gate})
	conn := managertest.NewConn()
	err := m.Connect("u", conn)
	if err == nil {
		err = m.SubscribeConn(t.Context(), "u", conn, "x", manager.SubscribeOptions{Acknowledge: true})
	}
	if err != nil {
		t.Fatal(err)
	}
	foreign, js := client(t, s), jetStream(t, s)
	<-gate
	open := sync.OnceFunc(func() { gate <- struct{}{} })
	t.Cleanup(open)
	const backlog = 50
	for i := range backlog {
		if err := foreign.Publish("upload.x", fmt.Appendf(nil, `{"action":"app.old","n":%d}`, i)); err != nil {
			t.Fatal(err)
		}
	}
	brokertest.Eventually(t, "the messages", func() error {
		if streamInfo(t, js).State.LastSeq < backlog {
			return errNotYet
		}
		return nil
	})
	_, before, err := m.Newest(t.Context(), "x")
	if err == nil {
		err = js.DeleteStream(t.Context(), "SHOAL")
	}
	if err != nil {
		t.Fatal(err)
	}
	brokertest.Eventually(t, "another epoch", func() error {
		switch _, now, err := m.Newest(t.Context(), "x"); {
		case errors.Is(err, manager.ErrUnavailable):
			return err
		case err == nil && now.Epoch == before.Epoch:
			return errNotYet
		}
		return nil
	})
	brokertest.Eventually(t, "a new position", func() error {
		for _, one := range conn.Messages() {
			if one.Action() == "subscribed" && !strings.Contains(one.JSON, before.Epoch) {
				return nil
			}
		}
		return errNotYet
	})
	open()
	var want []manager.Position
	for i := range 4 {
		brokertest.Eventually(t, "a publication", func() error {
			at, err := m.Publish(t.Context(), "x", numbered(t, "app.new", i))
			if err == nil {
				want = append(want, at)
			} else if !errors.Is(err, manager.ErrUnavailable) {
				t.Fatal(err)
			}
			return err
		})
		var got []manager.Position
		brokertest.Eventually(t, "the message", func() error {
			got = nil
			for _, one := range conn.Messages() {
				if one.Action() == "app.new" {
					got = append(got, one.Position)
				}
			}
			if len(got) < len(want) {
				return errNotYet
			}
			return nil
		})
		if !slices.Equal(got, want) {
			t.Fatalf("the messages are at %+v, want %+v", got, want)
		}
	}
	for _, one := range conn.Messages() {
		if one.Action() == "app.old" && one.Position.Offset > 0 {
			t.Fatalf("%s, of the stream before, is at %+v", one.JSON, one.Position)
		}
	}
}
