package natsbroker

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// TestRefresh_IsNearlyFull: a stream is nearly full by bytes or by messages, and never without a bound.
func TestRefresh_IsNearlyFull(t *testing.T) {
	for _, c := range []struct {
		maxBytes, maxMessages int64
		bytes, messages       uint64
		bounded, full         bool
	}{
		{-1, -1, 1 << 40, 1 << 40, false, false},
		{0, 0, 1 << 40, 1 << 40, false, false},
		{1000, -1, 700, 1 << 40, true, false},
		{1000, -1, 800, 1, true, true},
		{-1, 1000, 1 << 40, 700, true, false},
		{-1, 1000, 1, 800, true, true},
		{1000, 1000, 700, 800, true, true},
	} {
		info := &jetstream.StreamInfo{
			Config: jetstream.StreamConfig{MaxBytes: c.maxBytes, MaxMsgs: c.maxMessages},
			State:  jetstream.StreamState{Bytes: c.bytes, Msgs: c.messages},
		}
		if bounded, full := isBounded(info.Config), isNearlyFull(info); bounded != c.bounded || full != c.full {
			t.Errorf("%+v is bounded %v and nearly full %v", c, bounded, full)
		}
	}
}

// TestRefresh_FullStreamIsRefreshedInTime: a record is rewritten several times within the time that messages stay in a
// full stream, which may be much shorter than the TTL.
func TestRefresh_FullStreamIsRefreshedInTime(t *testing.T) {
	const ttl, stay = time.Hour, 40 * time.Second
	now := time.Now()
	info := &jetstream.StreamInfo{
		TimeStamp: now,
		Config:    jetstream.StreamConfig{MaxBytes: 1000},
		State:     jetstream.StreamState{Bytes: 1000, FirstTime: now.Add(-stay)},
	}
	if after := refreshInterval(info, ttl); after != stay/refreshes {
		t.Errorf("records of a full stream are rewritten after %v, want %v", after, stay/refreshes)
	}
	info.State.Bytes = 500
	if after := refreshInterval(info, ttl); after != ttl/refreshes {
		t.Errorf("records of another stream are rewritten after %v, want %v", after, ttl/refreshes)
	}
}
