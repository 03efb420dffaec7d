package redisbroker

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/redisbroker/internal/redistest"
)

// joinFollowing runs a Broker that is subscribed to a channel until the test ends, and returns it with the server that
// the channel belongs to.
func joinFollowing(t *testing.T, opt Options, channel string) (*Broker, *server) {
	t.Helper()
	opt.Logger = slog.New(slog.DiscardHandler)
	b, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	r, ended := brokertest.NewRecorder(), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- b.Run(ctx, r) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
	})
	r.Await(t, "the connection", r.Healthy)
	if err := b.Subscribe(t.Context(), channel); err != nil {
		t.Fatal(err)
	}
	s, err := b.topology.Load().of(channel)
	if err != nil {
		t.Fatal(err)
	}
	return b, s
}

// storeLongAgo stores a message on a channel, and makes the server hold it as one that is older than the TTL.
func storeLongAgo(t *testing.T, b *Broker, s *server, at func(...string) string, channel string) broker.Position {
	t.Helper()
	pos, err := b.Store(t.Context(), channel, []byte("old"))
	if err != nil {
		t.Fatal(err)
	}
	key, old := b.naming.key(channel), time.Now().Add(-2*b.opt.TTL).UnixMilli()
	at("DEL", key)
	at("XADD", key, fmt.Sprintf("%s-%d", pos.Epoch, pos.Offset), s.conn.Load().term+strconv.FormatInt(old, 10), "old")
	return pos
}

// TestTouch_KeepsThePositionOfOldMessages: touching drops messages that are too old, and keeps the position. The messages
// stay while the slot moves, since the server could not store the position after it has deleted them.
func TestTouch_KeepsThePositionOfOldMessages(t *testing.T) {
	const x = "upload:x"
	single := redistest.Start(t)
	servers := redistest.Cluster(t, 3, 0)
	for name, c := range map[string]struct {
		url    string
		moving bool
	}{
		"single server": {"redis://" + single.Addr, false},
		"cluster":       {"redis+cluster://" + servers[0].Addr, false},
		"moving slot":   {"redis+cluster://" + servers[0].Addr, true},
	} {
		t.Run(name, func(t *testing.T) {
			channel := x + strings.ReplaceAll(name, " ", "-")
			b, s := joinFollowing(t, Options{URL: c.url}, channel)
			owner, other := single, single
			for _, one := range servers {
				switch {
				case one.Addr == s.addr:
					owner = one
				default:
					other = one
				}
			}
			pos := storeLongAgo(t, b, s, owner.Do, channel)
			key := b.naming.key(channel)
			if c.moving {
				slot := owner.Do("CLUSTER", "KEYSLOT", key)
				owner.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", other.Do("CLUSTER", "MYID"))
				defer owner.Do("CLUSTER", "SETSLOT", slot, "STABLE")
			}
			s.touchAll(t.Context(), []string{channel})
			h, err := b.History(t.Context(), channel, broker.Position{})
			if err != nil || h.Position != pos || len(h.Messages) > 0 {
				t.Errorf("the history is %+v, %v, want nothing at %+v", h, err, pos)
			}
			if kept := strings.Contains(owner.Do("XRANGE", key, "-", "+"), "old"); kept != c.moving {
				t.Errorf("the old message is stored: %v, want %v", kept, c.moving)
			}
		})
	}
}
