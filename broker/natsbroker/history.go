package natsbroker

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// entry is one message that the stream holds of a channel.
type entry struct {
	sequence uint64
	at       time.Time
	payload  []byte
	// epoch is not empty in a mark, which Forget leaves: what follows it is of that epoch.
	epoch string
	// rolled says that a foreign publisher had the server drop everything before this message.
	rolled bool
}

// record is what the stream holds of a channel's epoch, in a message of its own beside those of the channel. That
// it is still there is what tells that nothing stored after it has been dropped for its age, or for the
// stream's size: the server drops what came first first.
type record struct {
	// epoch is the channel's. The newest entry when the record was written had the sequence upto.
	epoch string
	upto  uint64
	// begin is the sequence of the mark that began the epoch, 0 if there was none.
	begin uint64
	// first is the oldest kept message when the record was written, and floor the floor below that one.
	first, floor uint64

	sequence uint64
	at       time.Time
}

// offset returns the offset of the newest message when the record was written.
func (r *record) offset() uint64 {
	if r.upto <= r.begin {
		return 0
	}
	return r.upto
}

func (r *record) String() string {
	return fmt.Sprintf("%s %d %d %d %d", r.epoch, r.upto, r.begin, r.first, r.floor)
}

// parseRecord returns nil for what is no record: then there is none, and a new one is made.
func parseRecord(text string) *record {
	const fields = 5
	parts := strings.Split(text, " ")
	if len(parts) != fields || !validEpoch(parts[0]) {
		return nil
	}
	r := &record{epoch: parts[0]}
	for i, field := range []*uint64{&r.upto, &r.begin, &r.first, &r.floor} {
		n, err := strconv.ParseUint(parts[i+1], 10, 64)
		if err != nil {
			return nil
		}
		*field = n
	}
	return r
}

// validEpoch reports whether a name can be an epoch's. Anybody may write to the stream.
func validEpoch(name string) bool {
	const longest = 64
	return name != "" && len(name) <= longest && !strings.ContainsFunc(name, badInStream)
}

// history is what is known of a channel from its entries and its record. The epoch is empty if there was no
// record, nor a mark: then it has to be begun.
type history struct {
	broker.Snapshot
	begin, upto uint64
	// last is the sequence of the newest entry still there, 0 if there is none.
	last uint64
	// stale says that the record does not tell the truth that it could.
	stale bool
}

// newHistory finds out what can be said of a channel, keeping at most limit messages. The stream keeps at least
// one more, so that it is seen whether there were more. A floor is never lower than is certain.
func newHistory(entries []entry, r *record, limit int) history {
	h := history{stale: r == nil}
	if r != nil {
		h.Epoch, h.begin, h.upto = r.epoch, r.begin, r.upto
		h.Offset, h.Floor = r.offset(), r.offset()
	}
	for _, e := range entries {
		if e.epoch != "" && (r == nil || e.sequence > r.upto) {
			h.Epoch, h.begin, h.stale = e.epoch, e.sequence, true
			h.Offset, h.Floor = 0, 0
		}
	}
	messages := after(entries, h.begin)
	if len(entries) > 0 {
		h.last = entries[len(entries)-1].sequence
		h.upto = h.last
	}
	if len(messages) == 0 {
		return h
	}
	h.Floor = floor(messages[0], h, r)
	if more := len(messages) - limit; more > 0 {
		h.Floor = messages[more-1].sequence
		messages = messages[more:]
	}
	for _, e := range messages {
		h.Offset = e.sequence
		h.Messages = append(h.Messages, broker.Stored{Offset: e.sequence, Payload: e.payload, At: e.at})
		// The record was written without knowledge of a message that is older than it.
		h.stale = h.stale || e.sequence > r.upto && e.sequence < r.sequence
	}
	return h
}

// floor returns the offset above which nothing is missing before the oldest message that is still there. What is
// there is always the end of what there was.
func floor(oldest entry, h history, r *record) uint64 {
	switch {
	case oldest.rolled:
	case r == nil || h.begin > r.upto:
		if h.begin > 0 {
			return 0 // the mark is there, so that nothing after it can be missing
		}
	case oldest.sequence > r.upto:
		return r.offset() // the newest one when the record was written is the one before
	case oldest.sequence == r.first:
		return r.floor
	}
	return oldest.sequence - 1
}

// after returns the messages above a sequence, without marks.
func after(entries []entry, begin uint64) []entry {
	var messages []entry
	for _, e := range entries {
		if e.sequence > begin && e.epoch == "" {
			messages = append(messages, e)
		}
	}
	return messages
}

// record returns what to write down of a history.
func (h *history) record() *record {
	r := &record{epoch: h.Epoch, upto: h.upto, begin: h.begin, floor: h.Floor}
	if len(h.Messages) > 0 {
		r.first = h.Messages[0].Offset
	}
	return r
}
