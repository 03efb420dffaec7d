package natsbroker_test

import (
	"testing"
)

func TestForgetAcrossNodes(t *testing.T) {
	s := serve(t)
	a, b := join(t, quick(s)), join(t, quick(s))
	b.subscribe(t, "upload:x")
	a.store(t, "upload:x", "1")
	before := b.kept(t, "upload:x")
	a.forget(t, "upload:x")
	after := a.kept(t, "upload:x")
	a.store(t, "upload:x", "2")
	heard := b.awaitPayloads(t, "upload:x", "1", "", "2")
	if mark := heard[1]; mark.Payload != nil || mark.Epoch != after.Epoch || mark.Epoch == before.Epoch {
		t.Errorf("in between came %+v, want epoch %q alone, which is not %q", mark, after.Epoch, before.Epoch)
	}
	if heard[2].Prev != 0 {
		t.Errorf("the first message after Forget says that %d is before it, want 0", heard[2].Prev)
	}
	if k := b.kept(t, "upload:x"); k.Epoch != after.Epoch || len(k.Messages) != 1 || k.Floor != 0 {
		t.Errorf("kept is %+v, want one message above 0 of epoch %q", k, after.Epoch)
	}
}
