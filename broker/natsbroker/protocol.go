package natsbroker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/nats-io/nats.go"

	"github.com/shoal-go/shoal/broker"
)

// Subjects. A message is stored on the channel's base subject; the stream republishes it on the live subject, to
// which nodes subscribe. The first tokens never hold a channel's kind where another token could be.
const (
	livePrefix  = "live."
	epochPrefix = "epoch."
	// othersPrefix precedes the kind of every channel except uploads, whose subjects foreign publishers know.
	othersPrefix = "shoal."
	uploadKind   = "upload"
	probePrefix  = "shoal-probe."
	// streamEpochSubject holds the epoch of the stream itself; see streamEpoch.
	streamEpochSubject = epochPrefix + "stream"
	// storeProbeSubject holds the newest message of the probe that stores.
	storeProbeSubject = epochPrefix + "probe"
	// fenceSubject belongs to the stream, but nothing is ever stored there.
	fenceSubject = epochPrefix + "fence"
	// forgottenSubject announces Forget to nodes that are not subscribed to the channel, and the first record of a
	// channel to all nodes. No live subject of a channel has as few tokens.
	forgottenSubject = livePrefix + "forgotten"
)

// Permissions returns the subjects that the NATS user of a node must be allowed to publish to and subscribe to, for a
// stream of this name (Options.Stream). Run tries each of them, except the ones to create and enlarge the stream,
// and its error names the missing ones. STREAM.CREATE and STREAM.UPDATE are not needed if an operator creates
// the stream.
func Permissions(stream string) (publish, subscribe []string) {
	return []string{
		uploadKind + ".>", othersPrefix + ">", epochPrefix + ">", livePrefix + ">", probePrefix + ">", "_INBOX.>",
		"$JS.API.STREAM.INFO." + stream, "$JS.API.STREAM.CREATE." + stream, "$JS.API.STREAM.UPDATE." + stream,
		"$JS.API.DIRECT.GET." + stream, "$JS.API.DIRECT.GET." + stream + ".>",
	}, []string{livePrefix + ">", probePrefix + ">", "_INBOX.>"}
}

// errChannel means that a name is not a channel. Such a name could exceed the server's limit of a protocol line,
// whereupon the server closes the connection.
var errChannel = errors.New("a channel is kind:id with an id of 1 to 255 bytes")

// checkChannel returns an error that wraps errChannel unless the name has the form of a channel.
func checkChannel(channel string) error {
	const longestKind, longestID = 64, 255
	kind, id, _ := strings.Cut(channel, ":")
	if kind == "" || len(kind) > longestKind || id == "" || len(id) > longestID {
		return fmt.Errorf("natsbroker: channel %.40q: %w", channel, errChannel)
	}
	return nil
}

// baseSubject returns the subject that a channel's messages are stored on. It is unique to the channel.
func baseSubject(channel string) string {
	kind, id, _ := strings.Cut(channel, ":")
	var b strings.Builder
	if kind != uploadKind {
		b.WriteString(othersPrefix)
	}
	appendToken(&b, kind)
	b.WriteByte('.')
	appendToken(&b, id)
	return b.String()
}

// appendToken appends an id, percent-encoding the bytes that a subject cannot hold: white space, control characters,
// wildcards, the percent sign, invalid UTF-8, and dots that would make an empty token. Plain ids stay readable,
// and foreign publishers need no rule for them. The result is at most three times as long as the id.
func appendToken(b *strings.Builder, id string) {
	for i := 0; i < len(id); {
		c, size := id[i], 1
		encode := c <= ' ' || c == 0x7f || c == '*' || c == '>' || c == '%'
		switch {
		case c == '.':
			encode = i == 0 || i == len(id)-1 || id[i-1] == '.'
		case c >= utf8.RuneSelf:
			var r rune
			r, size = utf8.DecodeRuneInString(id[i:])
			encode = r == utf8.RuneError && size == 1
		}
		if encode {
			const hex = "0123456789ABCDEF"
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		} else {
			b.WriteString(id[i : i+size])
		}
		i += size
	}
}

// Headers of JetStream, the header that distinguishes a Forget marker from a message, the header with the record of an
// announcement, and the header of a trace context.
const (
	streamHeader          = "Nats-Stream"
	subjectHeader         = "Nats-Subject"
	sequenceHeader        = "Nats-Sequence"
	previousHeader        = "Nats-Last-Sequence"
	timeHeader            = "Nats-Time-Stamp"
	pendingHeader         = "Nats-Num-Pending"
	expectedHeader        = "Nats-Expected-Last-Subject-Sequence"
	expectedSubjectHeader = "Nats-Expected-Last-Subject-Sequence-Subject"
	rollupHeader          = "Nats-Rollup"
	rollupSubject         = "sub"
	idHeader              = "Nats-Msg-Id"
	statusHeader          = "Status"
	epochHeader           = "Shoal-Epoch"
	recordHeader          = "Shoal-Record"
	traceHeader           = "traceparent"
)

// JetStream error codes and response statuses.
const (
	wrongSequence        = 10071
	wrongSequenceUnknown = 10164
	duplicateInFlight    = 10158
	tooLarge             = 10054
	accountFull          = 10002
	serverFull           = 10023
	memoryFull           = 10028
	diskFull             = 10047
	storeFailed          = 10077 // such as for a stream that refuses new messages when it is full
	statusEnd            = "204"
	statusNotFound       = "404"
	statusNoResponders   = "503"
)

// unreachable is a sequence that no stream reaches.
const unreachable = 1 << 60

// errBusy means that the leader cannot name the last sequence because another message is being stored.
var errBusy = errors.New("the stream leader has a message in flight on this subject")

// storeError is JetStream's refusal to store a message.
type storeError struct {
	code        int
	description string
}

func (e *storeError) Error() string {
	return fmt.Sprintf("JetStream refused the message: %q", e.description)
}

// isFull reports whether JetStream refused a message because a stream, an account or a server has no room for it.
func isFull(err error) bool {
	var refused *storeError
	return errors.As(err, &refused) && slices.Contains(
		[]int{accountFull, serverFull, memoryFull, diskFull, storeFailed}, refused.code)
}

// Unwrap returns nats.ErrMaxPayload for a message that is larger than the stream accepts.
func (e *storeError) Unwrap() error {
	if e.code == tooLarge {
		return nats.ErrMaxPayload
	}
	return nil
}

// sequence returns the last sequence that a wrongSequence error names.
func (e *storeError) sequence() (uint64, error) {
	_, number, _ := strings.Cut(e.description, ": ")
	n, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the refusal names no sequence: %w", e)
	}
	return n, nil
}

var errNoSequence = errors.New("the acknowledgement names no sequence")

// parseAck returns the sequence in JetStream's acknowledgement of a message, or a storeError. Every stored message
// is acknowledged, so the fixed form is scanned instead of decoded as JSON.
func parseAck(data []byte) (uint64, error) {
	const name = `"seq":`
	if bytes.Contains(data, []byte(`"error"`)) {
		return 0, parseStoreError(data)
	}
	i := bytes.Index(data, []byte(name))
	if i < 0 {
		return 0, errNoSequence
	}
	n, digits := uint64(0), bytes.TrimLeft(data[i+len(name):], " ")
	for _, c := range digits {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + uint64(c-'0')
	}
	if n == 0 {
		return 0, errNoSequence
	}
	return n, nil
}

// isDuplicate reports whether an acknowledgement belongs to an earlier message with the same id.
func isDuplicate(ack []byte) bool {
	var parsed struct {
		Duplicate bool `json:"duplicate"`
	}
	return json.Unmarshal(ack, &parsed) == nil && parsed.Duplicate
}

func parseStoreError(data []byte) error {
	var response struct {
		Error struct {
			Code        int    `json:"err_code"`
			Description string `json:"description"`
		} `json:"error"`
	}
	if err := json.Unmarshal(data, &response); err != nil {
		return errors.New("the acknowledgement is not valid JSON")
	}
	return &storeError{response.Error.Code, response.Error.Description}
}

// refusedPublish returns a message that the stream always refuses, naming the last sequence of the subject in the
// refusal. It costs neither a payload nor a scan, and only the stream leader responds.
func refusedPublish(subject string) *nats.Msg {
	return &nats.Msg{Subject: subject, Header: nats.Header{expectedHeader: {strconv.FormatUint(unreachable, 10)}}}
}

// refusedSequence returns the last sequence of a subject from the response to refusedPublish.
func refusedSequence(m *nats.Msg) (uint64, error) {
	_, err := parseAck(m.Data)
	var refused *storeError
	switch {
	case !errors.As(err, &refused):
		return 0, errors.New("the stream stored a message that it had to refuse")
	case refused.code == wrongSequenceUnknown:
		return 0, errBusy
	case refused.code != wrongSequence:
		return 0, refused
	}
	return refused.sequence()
}

// withTrace sets the header of the trace context that ctx carries, if any, and returns the message.
func withTrace(ctx context.Context, m *nats.Msg) *nats.Msg {
	if trace := broker.TraceOf(ctx); trace != "" {
		if m.Header == nil {
			m.Header = make(nats.Header, 1)
		}
		m.Header[traceHeader] = []string{trace}
	}
	return m
}

// header returns the last value of a header: the server's, if a foreign publisher set the same header.
func header(m *nats.Msg, name string) string {
	values := m.Header[name]
	if len(values) == 0 {
		return ""
	}
	return values[len(values)-1]
}

// number returns a header as a number, 0 if it is missing or malformed.
func number(m *nats.Msg, name string) uint64 {
	n, err := strconv.ParseUint(header(m, name), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
