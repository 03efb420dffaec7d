package redisbroker_test

import (
	"testing"

	"github.com/shoal-go/shoal/broker/redisbroker/internal/redistest"
)

func TestAStoredMessageReachesSubscribersWithItsPosition(t *testing.T) {
	server := redistest.Start(t)
	a, b := join(t, options(server)), join(t, options(server))
	subscribe(t, a, "upload:x")
	empty := kept(t, a, "upload:x")
	first := store(t, b, "upload:x", "one")
	store(t, b, "upload:x", "two")
	redistest.Eventually(t, "both messages have come", func() bool { return len(a.messages("upload:x")) == 2 })
	if got := a.messages("upload:x"); got[0].Position != first || got[0].Previous != 0 || got[1].Previous != 1 ||
		first.Epoch != empty.Epoch || first.Offset != 1 || string(got[1].Payload) != "two" {
		t.Errorf("heard %+v after an empty channel at %+v", got, empty)
	}
	if got := show(kept(t, a, "upload:x")); got != "2 above 0: 1=one 2=two" {
		t.Errorf("kept is %s", got)
	}
}
