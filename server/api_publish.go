package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"time"

	"github.com/shoal-go/shoal/internal/logs"
	"github.com/shoal-go/shoal/internal/strictjson"
	"github.com/shoal-go/shoal/manager"
)

const (
	// batchYield is the number of messages of a batch after which the goroutine yields to the writers, so that on a
	// busy machine a batch does not fill the queue of a client that reads.
	batchYield = 64
	// publishTimeout is the time after which the rest of a batch is not published, so that there is time to answer
	// within writeTimeout. Both begin when the body has come.
	publishTimeout = 20 * time.Second
)

// checkTime returns an error if a batch that came at a time is to be published no further.
func checkTime(came time.Time) error {
	if time.Since(came) >= publishTimeout {
		return unavailable(fmt.Sprintf("publishing took longer than %v", publishTimeout))
	}
	return nil
}

// publish publishes the messages of the body in order to one upload, and none of them unless all are valid.
func (a *api) publish(w http.ResponseWriter, r *http.Request, id string, _ url.Values) error {
	share := a.bodies.share()
	defer share.release()
	messages, once, err := a.messages(w, r, id, share)
	if err != nil {
		return err
	}
	positions, err := a.publishAll(w, r, messages, once, time.Now())
	if err != nil {
		n := len(positions)
		return messages[n].refused(err, &published{Accepted: n})
	}
	last := len(positions) - 1
	a.addEpochs(r.Context(), messages[last:], positions[last:])
	writeJSON(w, http.StatusAccepted, struct {
		Accepted int `json:"accepted"`
		manager.Position
	}{len(messages), positions[last]})
	return nil
}

// publishAll publishes messages that came at a time to their uploads, one after the other, until there is an error. It
// returns the positions of the published ones. If the request has a key, messages that were published with it before
// are skipped.
func (a *api) publishAll(
	w http.ResponseWriter, r *http.Request, messages []bodyMessage, once manager.Once, came time.Time,
) (positions []manager.Position, err error) {
	repeated := 0
	var parts map[string]int // messages of each upload so far
	if once.Key != "" {
		parts = make(map[string]int)
	}
	positions = make([]manager.Position, 0, len(messages))
	for i := range messages {
		m := &messages[i] // as a pointer, its conversion to manager.Message does not allocate
		if err := checkTime(came); err != nil {
			return positions, err
		}
		var at manager.Position
		if once.Key == "" {
			at, err = a.manager.Publish(r.Context(), m.uploadID, &m.Encoded)
		} else {
			var replayed bool
			once.Part = parts[m.uploadID]
			parts[m.uploadID]++
			if at, replayed, err = a.manager.PublishOnce(r.Context(), m.uploadID, &m.Encoded, once); replayed {
				repeated++
			}
		}
		if err != nil {
			return positions, err
		}
		positions = append(positions, at)
		if i%batchYield == batchYield-1 {
			runtime.Gosched()
		}
	}
	if repeated == len(messages) {
		w.Header().Set(replayedHeader, "true")
	}
	return positions, nil
}

// addEpochs adds the epochs of published messages, which some brokers do not return, to their positions. It asks once
// for each upload, and no more once the broker is out of reach: the answer must not wait for that again and again.
func (a *api) addEpochs(ctx context.Context, messages []bodyMessage, positions []manager.Position) {
	known := map[string]string{}
	for i := range positions {
		if positions[i].Epoch != "" {
			continue
		}
		id := messages[i].uploadID
		epoch, asked := known[id]
		if !asked {
			_, newest, err := a.manager.Newest(ctx, id)
			if errors.Is(err, manager.ErrUnavailable) {
				return
			}
			epoch = newest.Epoch
			known[id] = epoch
		}
		positions[i].Epoch = epoch
	}
}

// Bounds of a body of several messages beside that of its bytes. A message of a few bytes takes many times as much
// memory; and a line of POST /v1/messages may name many uploads, and each gets its own copy of the message.
const (
	maxManyMessages = 10_000
	maxManyBytes    = 4 * minBodyBytes
)

// publishMany publishes the messages of the body, each of which names its uploads, in order. It publishes none of them
// unless all are valid.
func (a *api) publishMany(w http.ResponseWriter, r *http.Request, _ string, _ url.Values) error {
	if _, err := contentType(r, ndjsonType); err != nil {
		return err
	}
	share := a.bodies.share()
	defer share.release()
	body, err := a.body(w, r, share)
	if err != nil {
		return err
	}
	came := time.Now()
	once, err := onceOf(r, body)
	if err != nil {
		return err
	}
	messages, err := a.manyMessages(body, share)
	if err != nil {
		return err
	}
	if once.Key != "" {
		if err := a.checkOnce(r, messages, once, came); err != nil {
			return err
		}
	}
	positions, err := a.publishAll(w, r, messages, once, came)
	a.addEpochs(r.Context(), messages, positions)
	done := published{Positions: make([]uploadPosition, len(positions))}
	for i, at := range positions {
		done.Positions[i] = uploadPosition{messages[i].uploadID, at}
		if i+1 == len(messages) || messages[i+1].line != messages[i].line {
			done.Accepted++
		}
	}
	if err != nil {
		return messages[len(positions)].refused(err, &done)
	}
	writeJSON(w, http.StatusAccepted, done)
	return nil
}

// manyMessages validates all lines of a body and returns a message for each upload of each line.
func (a *api) manyMessages(body []byte, share *bodyShare) (all []bodyMessage, err error) {
	now, bytes := time.Now(), 0
	for line, data := range nonBlankLines(body) {
		at := bodyMessage{line: line}
		ids, message, err := decodeManyLine(data)
		if err != nil {
			return nil, at.refused(err, nil)
		}
		if len(all)+len(ids) > maxManyMessages {
			return nil, at.refused(tooLarge(
				"the body names more than %d uploads, counting those of every line; send several requests",
				maxManyMessages), nil)
		}
		for _, id := range ids {
			m, err := a.parse(id, message, now)
			m.line = line
			if err != nil {
				return nil, m.refused(inMessage(err), nil)
			}
			if bytes += len(m.Payload()); bytes > maxManyBytes {
				return nil, m.refused(tooLarge(
					"the messages for all uploads together have more than %d bytes; send several requests",
					maxManyBytes), nil)
			}
			if err := share.takeMessage(m); err != nil {
				return nil, m.refused(err, nil)
			}
			all = append(all, m)
		}
	}
	return all, nil
}

// inMessage returns the error of a line's message with the path of the field in the line.
func inMessage(err error) error {
	var invalid *manager.InvalidError
	switch {
	case !errors.As(err, &invalid):
		return err
	case invalid.Field == "":
		return invalidField("message", invalid.Problem)
	}
	return invalidField("message."+invalid.Field, invalid.Problem)
}

// decodeManyLine decodes a line of POST /v1/messages: its valid and different upload ids, at least one, and the
// message, which is not validated.
func decodeManyLine(data []byte) (ids []string, message []byte, err error) {
	const usual, members = 64 << 10, 3
	if len(data) > usual && strictjson.Len(data) > members { // they would take many times the bytes of the line
		return nil, nil, newProblem(http.StatusBadRequest,
			"the line has a member that is unknown or given twice; known are upload_id, upload_ids, message")
	}
	o, err := strictjson.Decode(data)
	if err != nil {
		return nil, nil, invalidLine(err)
	}
	if err := o.Only("upload_id", "upload_ids", "message"); err != nil {
		return nil, nil, invalidLine(err)
	}
	one, given := o.Get("upload_id")
	several, givenSeveral := o.Get("upload_ids")
	switch {
	case given == givenSeveral:
		return nil, nil, invalidField("upload_id", "or upload_ids must be given, and not both")
	case given:
		ids, err = decodeID("upload_id", one)
	default:
		ids, err = decodeIDs("upload_ids", several)
	}
	if err != nil {
		return nil, nil, err
	}
	if message, given = o.Get("message"); !given {
		return nil, nil, invalidField("message", "is missing")
	}
	return ids, message, nil
}

// decodeID decodes the one id of a field.
func decodeID(field string, value []byte) ([]string, error) {
	id, err := strictjson.String(value)
	if err != nil {
		return nil, invalidField(field, err.Error())
	}
	return []string{id}, manager.CheckID(field, id)
}

// decodeIDs decodes an array of different ids, at least one.
func decodeIDs(field string, value []byte) ([]string, error) {
	if n := strictjson.Len(value); n > maxManyMessages {
		return nil, invalidField(field, fmt.Sprintf("has %d ids, at most %d are allowed", n, maxManyMessages))
	}
	ids, err := strictjson.Strings(value)
	switch {
	case err != nil:
		return nil, invalidField(field, err.Error())
	case len(ids) == 0:
		return nil, invalidField(field, "must not be empty")
	}
	seen := make(map[string]struct{}, len(ids))
	for _, id := range ids {
		if err := manager.CheckID(field, id); err != nil {
			return nil, err
		}
		if _, twice := seen[id]; twice {
			return nil, invalidField(field, "must not name an upload twice")
		}
		seen[id] = struct{}{}
	}
	return ids, nil
}

// invalidLine is the problem of a line that is not an object of the expected members.
func invalidLine(err error) error {
	var at *strictjson.MemberError
	if errors.As(err, &at) {
		return invalidField(logs.Truncate(at.Name), at.Problem)
	}
	return newProblem(http.StatusBadRequest, "the line "+err.Error())
}

// The header fields of idempotent publishing.
const (
	keyHeader      = "Idempotency-Key"
	replayedHeader = "Idempotency-Replayed"
)

// onceOf returns the idempotency key of a request with the digest of its body, the zero value without a key.
func onceOf(r *http.Request, body []byte) (manager.Once, error) {
	given := r.Header.Values(keyHeader)
	switch len(given) {
	case 0:
		return manager.Once{}, nil
	case 1:
	default:
		return manager.Once{}, invalidField(keyHeader, "must not be given twice")
	}
	if err := manager.CheckKey(given[0]); err != nil {
		var invalid *manager.InvalidError
		if errors.As(err, &invalid) {
			err = invalidField(keyHeader, invalid.Problem)
		}
		return manager.Once{}, err
	}
	digest := sha256.Sum256(body)
	return manager.Once{Key: given[0], Content: string(digest[:])}, nil
}

// checkOnce returns an error if the key was used for something else on one of several uploads, so that nothing is
// published to the others.
func (a *api) checkOnce(r *http.Request, messages []bodyMessage, once manager.Once, came time.Time) error {
	checked := map[string]struct{}{}
	for _, m := range messages {
		if _, done := checked[m.uploadID]; done {
			continue
		}
		if err := checkTime(came); err != nil {
			return err
		}
		if err := a.manager.CheckOnce(r.Context(), m.uploadID, once); err != nil {
			return m.refused(err, nil)
		}
		checked[m.uploadID] = struct{}{}
	}
	return nil
}
