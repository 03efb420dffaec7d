package frame

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// The bounds of an event stream: they keep the id of an event below 8 KiB, the limit that proxies have for a header
// field, and the positions of a stream small beside its queue.
const (
	// MaxEventUploads is the number of uploads in one stream.
	MaxEventUploads = 64
	// maxEpoch is the length of the longest epoch, escaped, that an id contains. A position of a longer one is left out.
	maxEpoch = 64
	// MaxEventID is the length of the longest id.
	MaxEventID = MaxEventUploads * (tagLen + len("=") + maxEpoch + len(":") + maxDigits + len(","))
)

// EventEncoder encodes the frames of one connection as Server-Sent Events: the payloads as on shoal.v1, each with an id
// from which the connection can be continued. It keeps the positions of the stream's uploads, so frames must be encoded
// in the order in which they are written. It belongs to the goroutine that writes to the connection.
//
// The id of a stream with one upload is `epoch:offset`, with several it is `tag=epoch:offset,tag=epoch:offset…`, where
// a tag is derived from the upload's id. In an epoch all bytes but A-Z a-z 0-9 - . _ ~ are percent-encoded.
type EventEncoder struct {
	// uploads are sorted by id.
	uploads []eventUpload
	// saved are the positions at the last call of Begin.
	saved []eventPosition
}

// eventUpload is an upload of a stream.
type eventUpload struct {
	id  string
	tag string // "" in a stream with one upload
	at  eventPosition
}

// eventPosition is a position as an id contains it.
type eventPosition struct {
	// epoch is the escaped epoch, "" while the position is unknown.
	epoch  string
	offset uint64
}

// NewEventEncoder returns the encoder of a stream with the uploads, which must be different. since are the positions
// from which the client continues.
func NewEventEncoder(uploadIDs []string, since map[string]Start) *EventEncoder {
	e := &EventEncoder{saved: make([]eventPosition, len(uploadIDs))}
	for _, id := range slices.Sorted(slices.Values(uploadIDs)) {
		u := eventUpload{id: id}
		if len(uploadIDs) > 1 {
			u.tag = tag(id)
		}
		if at, known := since[id]; known {
			u.at = positionOf(at)
		}
		e.uploads = append(e.uploads, u)
	}
	return e
}

func positionOf(at Start) eventPosition {
	epoch := strings.ReplaceAll(url.QueryEscape(at.Epoch), "+", "%20")
	if len(epoch) > maxEpoch {
		return eventPosition{}
	}
	return eventPosition{epoch, at.Offset}
}

// tagLen is the length of a tag: 48 bits in base64.
const tagLen = 8

// tag returns a short name of an upload, the same on all nodes.
func tag(uploadID string) string {
	sum := sha256.Sum256([]byte(uploadID))
	return base64.RawURLEncoding.EncodeToString(sum[:tagLen*6/8])
}

// Overhead returns an upper bound of the bytes of an event beyond Frame.Size, except those for line breaks in the
// payload.
func (e *EventEncoder) Overhead() int {
	n := len("id: \ndata: \n\n")
	for i := range e.uploads {
		u := &e.uploads[i]
		n += len(u.tag) + len("=") + max(len(u.at.epoch), usualEpoch) + len(":") + maxDigits + len(",")
	}
	return n
}

// usualEpoch is the length of an epoch while it is unknown.
const usualEpoch = 24

// Begin saves the positions before a batch of frames is encoded.
func (e *EventEncoder) Begin() {
	for i := range e.uploads {
		e.saved[i] = e.uploads[i].at
	}
}

// Rewind restores the positions that Begin saved.
func (e *EventEncoder) Rewind() {
	for i := range e.uploads {
		e.uploads[i].at = e.saved[i]
	}
}

// Append appends the event of a frame to dst and returns the extended slice. Binary messages and pongs have no event.
func (e *EventEncoder) Append(dst []byte, f *Frame, skipped uint32) []byte {
	switch f.opcode {
	case Raw:
		return append(dst, f.body...)
	case Ping:
		return append(dst, ":\n\n"...)
	case Text:
	default:
		return dst
	}
	if e.Advance(f) {
		dst = e.appendID(dst)
	}
	dst = append(dst, "data: "...)
	from := len(dst)
	dst = f.AppendPayload(dst, V1, skipped)
	if bytes.ContainsAny(dst[from:], "\r\n") {
		dst = appendLines(dst[:from], bytes.Clone(dst[from:]))
	}
	return append(dst, '\n', '\n')
}

// appendLines appends a payload with line breaks, each line but the first in a field of its own.
func appendLines(dst, payload []byte) []byte {
	for i := 0; i < len(payload); i++ {
		switch b := payload[i]; {
		case b == '\r' && i+1 < len(payload) && payload[i+1] == '\n':
		case b == '\r' || b == '\n':
			dst = append(dst, "\ndata: "...)
		default:
			dst = append(dst, b)
		}
	}
	return dst
}

// Advance takes the position of a frame into account, and reports whether the frame has one.
func (e *EventEncoder) Advance(f *Frame) bool {
	if f.offset == 0 && !f.acknowledges {
		return false
	}
	i, found := slices.BinarySearchFunc(e.uploads, f.uploadID, func(u eventUpload, id string) int {
		return strings.Compare(u.id, id)
	})
	if !found {
		return false
	}
	u := &e.uploads[i]
	if at, ok := f.Start(); ok {
		u.at = positionOf(at)
	} else {
		u.at.offset = f.offset
	}
	return u.at.epoch != ""
}

// appendID appends the id of the current positions.
func (e *EventEncoder) appendID(dst []byte) []byte {
	dst = append(dst, "id: "...)
	separate := false
	for i := range e.uploads {
		u := &e.uploads[i]
		if u.at.epoch == "" {
			continue
		}
		if separate {
			dst = append(dst, ',')
		}
		separate = true
		if u.tag != "" {
			dst = append(append(dst, u.tag...), '=')
		}
		dst = append(append(dst, u.at.epoch...), ':')
		dst = strconv.AppendUint(dst, u.at.offset, 10)
	}
	return append(dst, '\n')
}

// ParseEventID returns the positions of an id for the uploads of a stream. An upload that the id does not contain has
// none. The error describes the problem without repeating the id.
func ParseEventID(id string, uploadIDs []string) (map[string]Start, error) {
	if len(id) > MaxEventID {
		return nil, fmt.Errorf("has %d bytes, at most %d are allowed", len(id), MaxEventID)
	}
	since := make(map[string]Start)
	if !strings.Contains(id, "=") {
		at, err := parsePosition(id)
		if err == nil && len(uploadIDs) == 1 {
			since[uploadIDs[0]] = at
		}
		return since, err
	}
	// A tag that stands for two uploads, which is improbable, or occurs twice names none of them: they are not recovered.
	byTag := make(map[string]string, len(uploadIDs))
	for _, uploadID := range uploadIDs {
		name := tag(uploadID)
		if _, ambiguous := byTag[name]; ambiguous {
			uploadID = ""
		}
		byTag[name] = uploadID
	}
	for part := range strings.SplitSeq(id, ",") {
		name, position, found := strings.Cut(part, "=")
		if !found || len(name) != tagLen {
			return nil, errEventID
		}
		at, err := parsePosition(position)
		if err != nil {
			return nil, err
		}
		uploadID := byTag[name]
		if _, twice := since[uploadID]; twice {
			delete(since, uploadID)
			byTag[name] = ""
		} else if uploadID != "" {
			since[uploadID] = at
		}
	}
	return since, nil
}

var errEventID = errors.New("must be the id of an event that this endpoint sent: epoch:offset, " +
	"or tag=epoch:offset,… for several uploads")

// parsePosition parses `epoch:offset`.
func parsePosition(s string) (Start, error) {
	epoch, offset, found := strings.Cut(s, ":")
	if !found || epoch == "" || len(epoch) > maxEpoch || strings.ContainsFunc(epoch, notInEpoch) {
		return Start{}, errEventID
	}
	name, err := url.QueryUnescape(epoch)
	if err != nil {
		return Start{}, errEventID
	}
	n, err := strconv.ParseUint(offset, 10, 64)
	if err != nil {
		return Start{}, errEventID
	}
	return Start{name, n}, nil
}

// notInEpoch reports whether an escaped epoch cannot contain a character.
func notInEpoch(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._~%", r)
}
