package redisbroker

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/shoal-go/shoal/broker"
)

// readKept decodes the script's answer and leaves out expired messages.
func readKept(result rueidis.RedisResult, ttl time.Duration) (broker.Snapshot, error) {
	malformed := errors.New("it is not what this package has written")
	parts, err := result.ToArray()
	switch {
	case err == nil && len(parts) == 0: // nothing is stored, and this node is not subscribed
		return broker.Snapshot{}, nil
	case err != nil || len(parts) != 3:
		return broker.Snapshot{}, malformed
	}
	received := time.Now()
	id, _ := parts[0].ToString()
	at, ok := parsePosition(id)
	text, _ := parts[1].ToString()
	now, notNumber := strconv.ParseInt(text, 10, 64)
	entries, notArray := parts[2].AsXRangeSlices()
	if !ok || notNumber != nil || notArray != nil {
		return broker.Snapshot{}, malformed
	}
	kept := broker.Snapshot{Position: at, Floor: at.Offset, Messages: make([]broker.Stored, 0, len(entries))}
	for _, entry := range entries { // the newest first
		at, ok := parsePosition(entry.ID)
		if !ok || len(entry.FieldValues) != 1 || len(entry.FieldValues[0].Field) < tokenLength {
			return broker.Snapshot{}, malformed
		}
		stamp := entry.FieldValues[0].Field[tokenLength:]
		stored, err := strconv.ParseInt(stamp, 10, 64)
		if stamp == "" || now-stored >= ttl.Milliseconds() {
			break // those before it are older still
		}
		if err != nil {
			return broker.Snapshot{}, malformed
		}
		kept.Floor = at.Offset - 1
		kept.Messages = append(kept.Messages, broker.Stored{
			Offset: at.Offset, Payload: []byte(entry.FieldValues[0].Value),
			At: received.Add(-time.Duration(max(now-stored, 0)) * time.Millisecond),
		})
	}
	slices.Reverse(kept.Messages)
	return kept, nil
}
