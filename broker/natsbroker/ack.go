package natsbroker

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Headers of JetStream, and one of ours.
const (
	streamHeader          = "Nats-Stream"
	sequenceHeader        = "Nats-Sequence"
	previousHeader        = "Nats-Last-Sequence"
	timeHeader            = "Nats-Time-Stamp"
	pendingHeader         = "Nats-Num-Pending"
	expectedHeader        = "Nats-Expected-Last-Subject-Sequence"
	expectedSubjectHeader = "Nats-Expected-Last-Subject-Sequence-Subject"
	rollupHeader          = "Nats-Rollup"
	rollupSubject         = "sub"
	statusHeader          = "Status"
	epochHeader           = "Shoal-Epoch"
)

// Codes of JetStream's errors, and statuses of its answers.
const (
	wrongSequence        = 10071
	wrongSequenceUnknown = 10164
	statusEnd            = "204"
	statusNotFound       = "404"
	statusNoResponders   = "503"
)

// neverReached is a sequence that no stream comes to.
const neverReached = 1 << 60

// errBusy says that the leader cannot tell what is newest, because something is on its way.
var errBusy = errors.New("the stream is busy with this channel")

// refusal is JetStream's error in place of an acknowledgement.
type refusal struct {
	code        int
	description string
}

func (r *refusal) Error() string { return fmt.Sprintf("the stream says %q", r.description) }

// sequence returns the one that a wrongSequence names.
func (r *refusal) sequence() (uint64, error) {
	_, number, _ := strings.Cut(r.description, ": ")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the stream's refusal names no sequence: %w", r)
	}
	return n, nil
}

// parseAck returns the sequence in JetStream's acknowledgement of a message, or a refusal. An acknowledgement
// comes with each message, and so is not decoded as JSON: it has always the same form.
func parseAck(data []byte) (uint64, error) {
	const name = `"seq":`
	if bytes.Contains(data, []byte(`"error"`)) {
		return 0, parseRefusal(data)
	}
	i := bytes.Index(data, []byte(name))
	if i < 0 {
		return 0, errors.New("the stream's acknowledgement names no sequence")
	}
	n, digits := uint64(0), bytes.TrimLeft(data[i+len(name):], " ")
	for _, c := range digits {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + uint64(c-'0')
	}
	if n == 0 {
		return 0, errors.New("the stream's acknowledgement names no sequence")
	}
	return n, nil
}

func parseRefusal(data []byte) error {
	var answer struct {
		Error struct {
			Code        int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return errors.New("the stream's answer cannot be read")
	}
	return &refusal{answer.Error.Code, answer.Error.Description}
}
