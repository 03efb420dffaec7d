package broker

import (
	"errors"
	"fmt"
	"testing"
)

// TestMemory_ReadsLeaveNothing: channels that are only read take no memory; a subscriber's channel has an epoch that the
// first message continues.
func TestMemory_ReadsLeaveNothing(t *testing.T) {
	hub := NewMemory(MemoryOptions{})
	n := hub.Node()
	n.set(discard{})
	ctx := t.Context()
	for i := range 1000 {
		channel := fmt.Sprint("channel-", i)
		history, err := n.History(ctx, channel, Position{})
		newest, err2 := n.Newest(ctx, channel)
		positions, err3 := n.Positions(ctx, channel)
		if err := errors.Join(err, err2, err3); err != nil || history.Offset+newest.Offset+positions[0].Offset > 0 {
			t.Fatalf("an unknown channel is at %+v, %+v, %+v, %v", history, newest, positions, err)
		}
	}
	if len(hub.channels) != 0 {
		t.Errorf("reading left %d channels", len(hub.channels))
	}
	if err := n.Subscribe(ctx, "followed"); err != nil {
		t.Fatal(err)
	}
	empty, err := n.Newest(ctx, "followed")
	if err != nil || empty.Epoch == "" {
		t.Errorf("a followed channel is at %+v, %v, want an epoch", empty, err)
	}
	first, err := n.Store(ctx, "followed", nil)
	if err != nil || first.Epoch != empty.Epoch {
		t.Errorf("the first message is at %+v, %v, want epoch %q", first, err, empty.Epoch)
	}
}

type discard struct{}

func (discard) Receive(Message)       {}
func (discard) Interrupted(...string) {}
func (discard) Health(error)          {}
