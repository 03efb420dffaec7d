package broker_test

import (
	"context"
	"errors"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// ears records the messages that arrive at a node.
type ears struct{ heard []broker.Message }

func (e *ears) Receive(m broker.Message) { e.heard = append(e.heard, m) }
func (e *ears) Interrupted(...string)    {}
func (e *ears) Health(error)             {}

// connect runs a node until the test ends.
func connect(t *testing.T, hub *broker.Memory) (*broker.MemoryNode, *ears) {
	t.Helper()
	node, e := hub.Node(), new(ears)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := node.Run(ctx, e); err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	synctest.Wait()
	return node, e
}

func store(t *testing.T, n *broker.MemoryNode, channel, payload string) broker.Position {
	t.Helper()
	pos, err := n.Store(t.Context(), channel, []byte(payload))
	if err != nil {
		t.Fatalf("Store: %v", err)
	}
	return pos
}

func kept(t *testing.T, n *broker.MemoryNode, channel string) broker.Snapshot {
	t.Helper()
	k, err := n.History(t.Context(), channel, broker.Position{})
	if err != nil {
		t.Fatalf("Kept: %v", err)
	}
	return k
}

func TestMemory_UnhealthyBeforeRun(t *testing.T) {
	node := broker.NewMemory(broker.MemoryOptions{}).Node()
	if err := node.Subscribe(t.Context(), "upload:a"); !errors.Is(err, broker.ErrUnavailable) {
		t.Errorf("Subscribe before Run returned %v, want ErrUnavailable", err)
	}
}

// A Memory that was not made with NewMemory has the default of each option.
func TestMemory_ZeroValue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub broker.Memory
		node, e := connect(t, &hub)
		if err := node.Subscribe(t.Context(), "cat"); err != nil {
			t.Fatal(err)
		}
		for i := range 65 {
			store(t, node, "cat", strconv.Itoa(i))
		}
		_, replayed, err := node.StoreOnce(t.Context(), "cat", []byte("once"), broker.Once{Key: "k", Digest: "d"})
		if k := kept(t, node, "cat"); err != nil || replayed || len(k.Messages) != 64 || len(e.heard) != 66 {
			t.Errorf("%d messages are kept, %d came, %v", len(k.Messages), len(e.heard), err)
		}
	})
}

func TestMemory_KeepsWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := broker.NewMemory(broker.MemoryOptions{Messages: 2, TTL: time.Minute})
		node, _ := connect(t, hub)
		for _, payload := range []string{"1", "2", "3"} {
			store(t, node, "upload:a", payload)
		}
		if k := kept(t, node, "upload:a"); len(k.Messages) != 2 || k.Floor != 1 || k.Offset != 3 {
			t.Errorf("kept %d messages above %d up to %d, want 2 above 1 up to 3", len(k.Messages), k.Floor, k.Offset)
		}
		<-time.After(time.Minute)
		if k := kept(t, node, "upload:a"); len(k.Messages) != 0 || k.Floor != 3 || k.Offset != 3 {
			t.Errorf("after its time kept %d messages above %d up to %d, want none above 3 up to 3",
				len(k.Messages), k.Floor, k.Offset)
		}
	})
}

func TestMemory_ForgetsUnusedChannels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := broker.NewMemory(broker.MemoryOptions{TTL: time.Minute})
		node, _ := connect(t, hub)
		before := store(t, node, "upload:a", "1")
		<-time.After(time.Minute)
		store(t, node, "upload:b", "1") // looks at others in passing
		store(t, node, "upload:b", "2")
		if after := kept(t, node, "upload:a"); after.Epoch == before.Epoch || after.Offset != 0 {
			t.Errorf("the channel is at %v, want the beginning of another epoch than %q", after.Position, before.Epoch)
		}
	})
}

func TestMemory_NewEpoch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := broker.NewMemory(broker.MemoryOptions{})
		node, e := connect(t, hub)
		if err := node.Subscribe(t.Context(), "upload:a"); err != nil {
			t.Fatal(err)
		}
		before := store(t, node, "upload:a", "1")
		if err := node.Forget(t.Context(), "upload:a"); err != nil {
			t.Fatal(err)
		}
		if len(e.heard) != 2 || e.heard[1].Payload != nil || e.heard[1].Epoch == before.Epoch {
			t.Errorf("heard %v, want the message and then a new epoch without one", e.heard)
		}
	})
}

// Beyond the bound the oldest keys are forgotten, and each key when its time is over.
func TestKeys_AreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, ttl = 3, time.Minute
		keys := broker.NewKeys(ttl, most)
		once := func(i int) broker.Once { return broker.Once{Key: strconv.Itoa(i), Digest: "d"} }
		for i := range 5 {
			keys.Add("upload:a", once(i), broker.Position{Epoch: "e", Offset: uint64(i)})
			<-time.After(time.Second)
		}
		for i := range 5 {
			at, found, err := keys.Find("upload:a", once(i))
			if found != (i >= 2) || err != nil || found && at.Offset != uint64(i) {
				t.Errorf("key %d: %+v, %v, %v", i, at, found, err)
			}
		}
		if _, found, _ := keys.Find("upload:b", once(4)); found || keys.Len() != most {
			t.Errorf("found: %v, %d keys", found, keys.Len())
		}
		<-time.After(ttl - 3*time.Second)
		keys.Expire()
		if _, found, _ := keys.Find("upload:a", once(2)); found || keys.Len() != 2 {
			t.Errorf("found: %v, %d keys when one has expired", found, keys.Len())
		}
		if _, _, err := keys.Find("upload:a", broker.Once{Key: "4", Digest: "other"}); !errors.Is(err, broker.ErrKeyReused) {
			t.Errorf("another digest: %v", err)
		}
	})
}
