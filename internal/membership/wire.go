package membership

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

const (
	// AllChannel is the channel to which every node subscribes.
	AllChannel = "shoal:all"
	// inboxPrefix comes before a node's name in the channel that only that node is subscribed to.
	inboxPrefix = "shoal:node-"
)

const (
	version = 1
	// maxHeaderBytes is the length of the longest header, its end of line included. The longest that a node
	// makes has about half of that.
	maxHeaderBytes = 1 << 10
	// maxNameBytes is the length of the longest name of a node, a run or a kind.
	maxNameBytes = 128
	// partBytes is the size of the largest part of an answer; with its header it stays below 256 KiB.
	partBytes = 255 << 10
	// MaxBodyBytes is the size of the largest body of a question. With its header it stays below 1 MiB, which engines
	// accept.
	MaxBodyBytes = 960 << 10
)

// The types of messages.
const (
	typeHello   = "hello"
	typeWelcome = "welcome"
	typeBye     = "bye"
	typeAsk     = "ask"
	typeAnswer  = "answer"
)

// header is the first line of a message.
type header struct {
	Version int    `json:"v"`
	Type    string `json:"t"`
	// From is the name of the sending node, Run identifies its process.
	From string `json:"from"`
	Run  string `json:"run"`
	// Kind is the kind of a question.
	Kind string `json:"kind,omitempty"`
	// N is the number of a hello, or of a question and its answers, among those of a run.
	N uint64 `json:"n,omitempty"`
	// To is the run that an answer is for. Part counts an answer's parts from 0, and More says that another
	// one follows. Refused stands for an answer that could not be made.
	To      string `json:"to,omitempty"`
	Part    int    `json:"part,omitempty"`
	More    bool   `json:"more,omitempty"`
	Refused bool   `json:"refused,omitempty"`
	// Announced is the number of the newest command that the sender of a hello or a welcome has issued.
	Announced uint64 `json:"announced,omitempty"`
	// Settings is Config.Settings of the sender of a hello or a welcome.
	Settings string `json:"settings,omitempty"`
}

// Reasons for which a message is invalid, as they appear in the log.
var (
	errHeader  = errors.New("header is not a short line of JSON")
	errVersion = errors.New("version is not 1")
	errChannel = errors.New("type not allowed on this channel")
	errField   = errors.New("invalid header field")
	errSize    = errors.New("invalid size")
)

// encode returns the wire form of a message.
func encode(h header, body []byte) []byte {
	h.Version = version
	line, _ := json.Marshal(h) // cannot fail: strings, numbers and truth values
	out := make([]byte, 0, len(line)+1+len(body))
	out = append(out, line...)
	out = append(out, '\n')
	return append(out, body...)
}

// decode parses a message from the common channel or the inbox. The body is a subslice of the payload.
func decode(inbox bool, payload []byte) (h header, body []byte, err error) {
	line, _, found := bytes.Cut(payload[:min(len(payload), maxHeaderBytes)], []byte{'\n'})
	if !found || json.Unmarshal(line, &h) != nil {
		return h, nil, errHeader
	}
	body = payload[len(line)+1:]
	if h.Version != version {
		return h, nil, errVersion
	}
	return h, body, h.check(inbox, len(body))
}

// check returns the first problem of a header with a body of that size, or nil.
func (h header) check(inbox bool, size int) error {
	if inbox != (h.Type == typeWelcome || h.Type == typeAnswer) {
		return errChannel
	}
	if !validName(h.From) || !validName(h.Run) || h.Settings != "" && !validName(h.Settings) {
		return errField
	}
	switch h.Type {
	case typeHello, typeWelcome, typeBye:
		if size != 0 {
			return errSize
		}
	case typeAsk:
		if !validName(h.Kind) {
			return errField
		}
		if size > MaxBodyBytes {
			return errSize
		}
	case typeAnswer:
		if h.Part < 0 || h.Refused && h.More {
			return errField
		}
		if size > partBytes || size == 0 && h.More {
			return errSize
		}
	default:
		return errChannel
	}
	return nil
}

// CheckName returns an error that describes the valid form unless a node can have the name.
func CheckName(name string) error {
	if validName(name) {
		return nil
	}
	return fmt.Errorf("is %.200q, want 1 to %d letters, digits, or characters of \"-_.:\"", name, maxNameBytes)
}

// validName reports whether a name can stand in a channel of any engine, and in a log as it is.
func validName(name string) bool {
	return name != "" && len(name) <= maxNameBytes && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.:", r)
	})
}
