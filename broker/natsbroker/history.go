package natsbroker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shoal-go/shoal/broker"
)

// message is a stored message of a channel.
type message struct {
	sequence uint64
	at       time.Time
	payload  []byte
	// epoch is not empty in a marker, which Forget stores: the messages after it are of that epoch.
	epoch string
	// rolledUp means that a foreign publisher made the server drop everything before this message.
	rolledUp bool
}

// record is a message on a channel's epoch subject. It keeps the position of a channel whose messages have expired, or
// that has had none yet, and the epoch of one that was forgotten. It is written on the condition that last is the
// channel's newest message, so that nothing of the channel lies between last and the record, and as long as the record
// is there everything stored after it is there too, save for the limit per subject.
type record struct {
	epoch string
	// last is the offset of the newest message when the record was written, begin the sequence of the message that
	// began the epoch: the channel's marker, or the stream's epoch. Both are 0 if there was none.
	last, begin uint64

	sequence uint64
	at       time.Time
}

// offset returns the offset of the newest message of the epoch when the record was written.
func (r *record) offset() uint64 {
	if r.last <= r.begin {
		return 0
	}
	return r.last
}

func (r *record) String() string { return fmt.Sprintf("%s %d %d", r.epoch, r.last, r.begin) }

// parseRecord returns nil if the text is not a record.
func parseRecord(text string) *record {
	const fields = 3
	parts := strings.Split(text, " ")
	if len(parts) != fields || !validEpoch(parts[0]) {
		return nil
	}
	r := &record{epoch: parts[0]}
	for i, field := range []*uint64{&r.last, &r.begin} {
		n, err := strconv.ParseUint(parts[i+1], 10, 64)
		if err != nil {
			return nil
		}
		*field = n
	}
	return r
}

// history is a channel's history as far as the stream's messages, the channel's record and the stream's epoch tell.
type history struct {
	broker.Snapshot
	// begin is the sequence of the message that began the epoch, 0 if all of the stream belongs to it.
	begin uint64
	// last is the sequence of the channel's newest message or marker that is still there, else 0.
	last uint64
	// unrecorded means that the epoch began with a marker that no record names yet.
	unrecorded bool
	// keptAt is when the message or record was stored that keeps the position.
	keptAt time.Time
	// recorded is the sequence of the record that was written because the channel was unknown, else 0: everything of the
	// channel that was stored before is gone.
	recorded uint64
	// unknown means that the stream holds neither a message nor a marker nor a record of the channel.
	unknown bool
}

// newHistory derives the history from all messages that the stream holds of a channel, its record if there is one,
// and the stream's epoch. It returns at most limit messages; the stream holds one more, which shows whether
// older ones were dropped. The floor is never lower than is certain.
func newHistory(messages []message, r *record, stream streamEpoch, limit int) history {
	h := history{}
	h.Epoch, h.Offset, h.Floor = stream.name, stream.start(), stream.start()
	if r != nil && !stream.owns(r.epoch) {
		r = nil
	}
	if r != nil {
		h.Epoch, h.begin = r.epoch, r.begin
		h.Offset, h.Floor, h.keptAt = r.offset(), r.offset(), r.at
	}
	for _, m := range messages {
		if m.epoch != "" && stream.owns(m.epoch) && (r == nil || m.sequence > r.begin) {
			h.Epoch, h.begin, h.unrecorded = m.epoch, m.sequence, true
			h.Offset, h.Floor = 0, 0
		}
	}
	if len(messages) > 0 {
		newest := messages[len(messages)-1]
		h.last = newest.sequence
		if newest.at.After(h.keptAt) {
			h.keptAt = newest.at
		}
	}
	messages = after(messages, h.begin)
	if len(messages) == 0 {
		if r == nil && !h.unrecorded {
			h.beginUnknown(stream)
		}
		return h
	}
	h.Floor = floor(messages[0], h, r, stream)
	if more := len(messages) - limit; more > 0 {
		h.Floor = messages[more-1].sequence
		messages = messages[more:]
	}
	h.appendMessages(messages)
	return h
}

// beginUnknown makes it the history of a channel without stored messages. It is empty, and unless nothing was ever
// dropped, its epoch is one that nobody has had: messages of the stream's epoch may be missing.
func (h *history) beginUnknown(stream streamEpoch) {
	h.unknown, h.Offset, h.Floor, h.begin = true, 0, 0, stream.start()
	if h.begin > 0 {
		h.Epoch = stream.fork(strconv.FormatUint(h.begin, 36))
	}
}

func (h *history) appendMessages(messages []message) {
	for _, m := range messages {
		h.Offset = m.sequence
		h.Messages = append(h.Messages, broker.Stored{Offset: m.sequence, Payload: m.payload, At: m.at})
	}
}

// floor returns the offset after which no message is missing before the oldest one that is still there. The messages
// that are there are always the newest ones.
func floor(oldest message, h history, r *record, stream streamEpoch) uint64 {
	lowest := oldest.sequence - 1
	if oldest.rolledUp {
		return lowest
	}
	if h.unrecorded {
		return 0 // the marker is there, so nothing after it is missing
	}
	if r != nil && oldest.sequence > r.last {
		lowest = min(lowest, r.offset())
	}
	if oldest.sequence > stream.sequence {
		if start := stream.start(); start > h.begin {
			return min(lowest, start)
		}
		return 0
	}
	return lowest
}

// after returns the messages above a sequence, without markers.
func after(messages []message, begin uint64) []message {
	var newer []message
	for _, m := range messages {
		if m.sequence > begin && m.epoch == "" {
			newer = append(newer, m)
		}
	}
	return newer
}

// continuation returns the history after since from the messages that the stream holds from since.Offset on. It
// reports false if these do not show that nothing is missing. They do if the message at since.Offset is still
// there: the server always drops the oldest message of a channel first.
func continuation(messages []message, r *record, stream streamEpoch, since broker.Position) (history, bool) {
	if len(messages) == 0 || messages[0].sequence != since.Offset {
		return history{}, false
	}
	h := history{}
	h.Epoch = stream.name
	if r != nil && stream.owns(r.epoch) {
		h.Epoch, h.begin = r.epoch, r.begin
	}
	for _, m := range messages {
		if m.epoch != "" {
			return history{}, false
		}
	}
	if h.Epoch != since.Epoch || since.Offset <= h.begin {
		return history{}, false
	}
	newest := messages[len(messages)-1]
	h.Offset, h.Floor, h.last, h.keptAt = since.Offset, since.Offset, newest.sequence, newest.at
	h.appendMessages(messages[1:])
	return h, true
}

// bound drops the oldest messages beyond a number of bytes, and those without a payload (see dropPayloads), but never
// the newest one. 0 means no bound.
func (h *history) bound(bytes int) {
	if bytes <= 0 {
		return
	}
	for i := len(h.Messages) - 1; i >= 0; i-- {
		bytes -= len(h.Messages[i].Payload)
		if (bytes < 0 || h.Messages[i].Payload == nil) && i < len(h.Messages)-1 {
			h.Floor = h.Messages[i].Offset
			h.Messages = h.Messages[i+1:]
			return
		}
	}
}

// dropPayloads sets the payloads of the oldest messages beyond a number of bytes to nil, but never the newest one's, so
// that a read holds no more of a channel than History returns. 0 means no bound.
func dropPayloads(messages []message, bytes int) {
	if bytes <= 0 {
		return
	}
	for i := len(messages) - 1; i >= 0; i-- {
		if bytes -= len(messages[i].payload); bytes < 0 && i < len(messages)-1 {
			for older := range i + 1 {
				messages[older].payload = nil
			}
			return
		}
	}
}

// record returns the record of a history. sequence is the record's own, 0 before it is written.
func (h *history) record(sequence uint64) *record {
	return &record{epoch: h.Epoch, last: max(h.Offset, h.begin), begin: h.begin, sequence: sequence}
}

// positionsPerRead is how many channels one read of positions covers: two responses each.
const positionsPerRead = responsesPerRead/2 - 2

// positions returns the positions of channels, in their order, without reading a message.
func (s *session) positions(ctx context.Context, channels []string) ([]broker.Position, error) {
	all := make([]broker.Position, 0, len(channels))
	for len(channels) > 0 {
		count := fitting(channels, s.conn.MaxPayload())
		some, err := s.somePositions(ctx, channels[:count])
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
		channels = channels[count:]
	}
	return all, nil
}

// fitting returns how many of the first channels one read covers: as many as fit into a request of maxPayload bytes,
// but at least one and at most positionsPerRead.
func fitting(channels []string, maxPayload int64) int {
	const brackets, quotes = len(`{"multi_last":[]}`), len(`"",`)
	left := int(maxPayload) - brackets
	for i, channel := range channels[:min(len(channels), positionsPerRead)] {
		if left -= len(escapeJSON.Replace(epochPrefix+baseSubject(channel))) + quotes; left < 0 {
			return max(i, 1)
		}
	}
	return min(len(channels), positionsPerRead)
}

func (s *session) somePositions(ctx context.Context, channels []string) ([]broker.Position, error) {
	release, err := s.acquireRead(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	bases := make([]string, len(channels))
	for i, channel := range channels {
		bases[i] = baseSubject(channel)
	}
	sequences, err := s.lastSequences(ctx, bases)
	if err != nil {
		return nil, err
	}
	records, err := s.readRecords(ctx, bases)
	if err != nil {
		return nil, err
	}
	stream, err := s.loadEpoch(ctx)
	if err != nil {
		return nil, err
	}
	positions := make([]broker.Position, len(bases))
	for i, base := range bases {
		var messages []message
		if sequences[i] > 0 {
			messages = append(messages, message{sequence: sequences[i]})
		}
		positions[i] = newHistory(messages, records[base], stream, 1).Position
	}
	return positions, nil
}

// readRecords reads the records of channels, by base subject, in one request.
func (s *session) readRecords(ctx context.Context, bases []string) (map[string]*record, error) {
	quoted := make([]string, len(bases))
	for i, base := range bases {
		quoted[i] = `"` + escapeJSON.Replace(epochPrefix+base) + `"`
	}
	request := fmt.Appendf(nil, `{"multi_last":[%s]}`, strings.Join(quoted, ","))
	batch, err := s.calls.start(&nats.Msg{Subject: s.directGet(), Data: request}, true)
	if err != nil {
		return nil, err
	}
	responses, err := s.calls.await(ctx, batch)
	if err != nil {
		return nil, err
	}
	if status := header(responses[len(responses)-1], statusHeader); status != statusEnd && status != statusNotFound {
		return nil, errors.New("reading the records failed with status " + status)
	}
	records := make(map[string]*record)
	for _, m := range responses[:len(responses)-1] {
		if r := readRecord(m); r != nil {
			records[strings.TrimPrefix(header(m, subjectHeader), epochPrefix)] = r
		}
	}
	return records, nil
}
