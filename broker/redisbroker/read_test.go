package redisbroker_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/redisbroker/internal/redistest"
)

// TestBroker_ReadsLeaveNothing: channels that are only read leave no key, and reading a stream does not make it live
// longer; a followed one gets an epoch that lasts.
func TestBroker_ReadsLeaveNothing(t *testing.T) {
	server := redistest.Start(t)
	n := join(t, options(server))
	before := server.Do("DBSIZE")
	for i := range 100 {
		channel := fmt.Sprint("upload:", i)
		if k := history(t, n, channel); k.Offset > 0 || len(k.Messages) > 0 {
			t.Fatalf("an unknown channel is at %+v", k)
		}
		if _, err := n.Newest(t.Context(), channel); err != nil {
			t.Fatal(err)
		}
		if _, err := n.Positions(t.Context(), channel); err != nil {
			t.Fatal(err)
		}
	}
	if after := server.Do("DBSIZE"); after != before {
		t.Errorf("reading left keys: %s, before %s", after, before)
	}
	store(t, n, "upload:stored", "one")
	server.Do("PEXPIRE", "shoal.kept:upload:stored", "60000")
	history(t, n, "upload:stored")
	if left := server.Do("PTTL", "shoal.kept:upload:stored"); len(left) > len("60000") {
		t.Errorf("reading made the stream live for %s ms", left)
	}
	subscribe(t, n, "upload:followed")
	if k := history(t, n, "upload:followed"); k.Epoch == "" {
		t.Error("a followed channel has no epoch")
	}
}

// TestBroker_AgesAreOfTheServersClock: a message whose server's clock is far behind or ahead is as old as that clock
// says.
func TestBroker_AgesAreOfTheServersClock(t *testing.T) {
	server := redistest.Start(t)
	n := join(t, options(server)) // messages are kept for ten minutes
	now := server.Do("EVAL", "return redis.call('TIME')[1] .. '000'", "0")
	for name, age := range map[string]time.Duration{"a minute": time.Minute, "of the future": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			channel := "upload:" + name
			stamp := server.Do("EVAL", "return string.format('%.0f', ARGV[1] - ARGV[2])", "0", now, fmt.Sprint(age.Milliseconds()))
			server.Do("XADD", "shoal.kept:"+channel, "1700000000000000-7", token(server)+stamp, "one")
			k := history(t, n, channel)
			if len(k.Messages) != 1 {
				t.Fatalf("kept are %+v", k)
			}
			want := max(age, 0)
			if got := time.Since(k.Messages[0].At); got < want-2*time.Second || got > want+time.Minute/2 {
				t.Errorf("the message is %v old, want %v", got, want)
			}
		})
	}
}

// TestPositions_UnreadableKeyIsARefusal: a key of another program is a refusal, which names no outage; one channel that
// cannot be read does not affect the answer for others.
func TestPositions_UnreadableKeyIsARefusal(t *testing.T) {
	server := redistest.Start(t)
	n := join(t, options(server))
	want := store(t, n, "upload:good", "one")
	server.Do("SET", "shoal.kept:upload:bad", "of another program")
	_, err := n.Positions(t.Context(), "upload:good", "upload:bad")
	if err == nil || errors.Is(err, broker.ErrUnavailable) || !strings.Contains(err.Error(), "delete the keys shoal.kept:upload:bad") {
		t.Errorf("positions that cannot all be read: %v, want a refusal with the remedy", err)
	}
	if got, err := n.Positions(t.Context(), "upload:good"); err != nil || got[0] != want {
		t.Errorf("the position is %v, %v; want %v", got, err, want)
	}
}
