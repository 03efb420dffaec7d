package redisbroker

import (
	"fmt"
	"strings"
	"testing"
)

// describe formats a parsed URL.
func describe(to target) string {
	return fmt.Sprintf("%d %v %s %d %s:%s %s:%s %v", to.mode, to.addrs, to.master, to.db, to.user, to.password,
		to.sentinelUser, to.sentinelPassword, to.tls != nil)
}

// Slots as CLUSTER KEYSLOT gives them.
func TestSlots(t *testing.T) {
	for key, want := range map[string]int{"123456789": 12739, "foo": 12182, "{foo}bar": 12182, "a{foo}{bar}": 12182} {
		if got := slotOf(key); got != want {
			t.Errorf("the slot of %q is %d, want %d", key, got, want)
		}
	}
	for _, whole := range []string{"{}foo", "foo{", "foo}{", "foo{}{bar}"} {
		if got := slotOf(whole); got != int(crc16(whole)%slots) {
			t.Errorf("the slot of %q is %d, want that of all of it", whole, got)
		}
	}
}

func TestAllNamesOfAChannelAreInOneSlot(t *testing.T) {
	n := newNaming(cluster)
	ids := []string{"a", "{a}", "{a}b", "{}", "}{", "{", "}", "a}b", "{{a}}", "{}{a}", "a b:c", "é", strings.Repeat("{", 255)}
	for i := range 1000 {
		ids = append(ids, fmt.Sprint(i))
	}
	for i := range ids {
		ids = append(ids, "upload:"+ids[i])
	}
	for _, channel := range ids {
		for _, name := range []string{n.key(channel), n.positionChannel(channel), n.once(channel, "key")} {
			if slotOf(name) != slotOf(channel) {
				t.Errorf("%q of %q is in slot %d, want %d", name, channel, slotOf(name), slotOf(channel))
			}
		}
		for _, n := range []naming{n, newNaming(single)} {
			if got, ok := n.parsePositionChannel(n.positionChannel(channel)); !ok || got != channel {
				t.Errorf("%q is told to be about %q, want %q", n.positionChannel(channel), got, channel)
			}
		}
		if _, ok := n.parsePositionChannel(channel); ok {
			t.Errorf("%q is taken for a position's channel", channel)
		}
	}
}
