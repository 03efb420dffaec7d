package main

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/examples/internal/try"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A message reaches all users in the room, and they are notified of users who join and leave.
func TestChat(t *testing.T) {
	ln := try.Listen(t)
	try.Run(t, func(ctx context.Context) error { return run(ctx, ln) })
	ann := try.Dial(t, ln.Addr().String()+"/ws/uploads", try.As("ann"))
	ann.Subscribe("kitchen")
	if m := ann.Want("joined"); m["user"] != "ann" {
		t.Errorf("ann received %v", m)
	}
	bob := try.Dial(t, ln.Addr().String()+"/ws/uploads", try.As("bob"))
	bob.Subscribe("kitchen")
	if m := ann.Want("joined"); m["user"] != "bob" {
		t.Errorf("ann received %v", m)
	}
	bob.Send(`{"action":"say","room":"kitchen","text":"Hello"}`)
	if m := ann.Want("said"); m["from"] != "bob" || m["text"] != "Hello" {
		t.Errorf("ann received %v", m)
	}
	bob.Send(`{"action":"shout"}`)
	if m := bob.Want("error"); m["code"] != "unknown_action" {
		t.Errorf("bob received %v", m)
	}
	bob.Close()
	if m := ann.Want("left"); m["user"] != "bob" {
		t.Errorf("ann received %v", m)
	}
}

// A user leaves a room with the last connection, also where the one that entered the room has ended before, and its claim
// has passed to the user.
func TestChat_LeavesWithTheLastConnection(t *testing.T) {
	ln := try.Listen(t)
	try.Run(t, func(ctx context.Context) error { return run(ctx, ln) })
	ann := try.Dial(t, ln.Addr().String()+"/ws/uploads", try.As("ann"))
	ann.Subscribe("kitchen")
	first := try.Dial(t, ln.Addr().String()+"/ws/uploads", try.As("bob"))
	second := try.Dial(t, ln.Addr().String()+"/ws/uploads", try.As("bob"))
	first.Subscribe("kitchen")
	for m := ann.Want("joined"); m["user"] != "bob"; m = ann.Want("joined") {
	}
	first.Close()
	second.Send(`{"action":"say","room":"kitchen","text":"I am still here"}`)
	for m := ann.Next(); m["action"] != "said"; m = ann.Next() {
		if m["action"] == "left" {
			t.Errorf("bob left with the first of two connections")
		}
	}
	second.Close()
	if m := ann.Want("left"); m["user"] != "bob" {
		t.Errorf("ann received %v", m)
	}
}
