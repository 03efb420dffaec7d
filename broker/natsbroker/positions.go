package natsbroker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/shoal-go/shoal/broker"
)

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

// fitting returns how many of the first channels one read covers: as many as fit into a request of maxPayload bytes, but
// at least one and at most positionsPerRead.
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

// lastSequences asks the leader for the last sequences on subjects, all at once.
func (s *session) lastSequences(ctx context.Context, bases []string) ([]uint64, error) {
	sequences := make([]uint64, len(bases))
	for {
		started := make([]*call, len(bases))
		var failed error
		for i := range bases {
			if sequences[i] == 0 && failed == nil {
				started[i], failed = s.calls.start(refusedPublish(bases[i]), false)
			}
		}
		busy := false
		for i, c := range started {
			if c == nil {
				continue
			}
			m, err := s.calls.awaitOne(ctx, c)
			if err == nil {
				sequences[i], err = refusedSequence(m)
			}
			if errors.Is(err, errBusy) {
				busy, err = true, nil
			}
			failed = errors.Join(failed, err)
		}
		if failed != nil || !busy {
			return sequences, failed
		}
		if err := pause(ctx); err != nil {
			return nil, err
		}
	}
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
