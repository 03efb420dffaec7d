package manager

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/shoal-go/shoal/internal/frame"
	"github.com/shoal-go/shoal/internal/strictjson"
)

// Message is the interface of all messages that can be sent: UploadProgress, UploadCompleted, UploadFailed, or an
// Encoded of NewEvent, NewState, NewTerminal or Manager.Parse. A message is a value; it may be sent any number of
// times, from any number of goroutines.
//
// An empty upload id in a message defaults to the upload that it is sent to. If both are given they must be equal. A
// message that is sent to a user must name its own upload, if any.
type Message interface {
	// encode validates the message and returns its wire form. uploadID is the upload that it is sent to, which the
	// caller has validated, or "" if it is sent to a user; now is the timestamp of a message that has none.
	encode(v *vocabulary, uploadID string, now time.Time) (Encoded, error)
}

// The actions of the messages that this package knows by shape.
const (
	actionProgress  = "upload_progress"
	actionCompleted = "upload_completed"
	actionFailed    = "upload_failed"
)

// Status is the processing status of an upload: a word of the application, of 1 to 64 characters a-z 0-9 _ - .
// Options.Statuses restricts them to a list.
type Status string

// Common statuses.
const (
	StatusPending   Status = "pending"
	StatusAnalyzing Status = "analyzing"
	StatusEmbedding Status = "embedding"
	StatusCompleted Status = "completed"
	StatusFailed    Status = "failed"
)

// Stage is the current step of an upload's processing: a word of the application, like Status. Options.Stages restricts
// them to a list.
type Stage string

// Common stages.
const (
	StageQueued              Stage = "queued"
	StageExtractingFrames    Stage = "extracting_frames"
	StageVisionAnalysis      Stage = "vision_analysis"
	StageDescriptionAudit    Stage = "description_audit"
	StageEmbeddingGeneration Stage = "embedding_generation"
	StageIndexing            Stage = "indexing"
	StageCompleted           Stage = "completed"
	StageFailed              Stage = "failed"
)

// UploadProgress is the state of an upload. For a slow client, a newer one may replace one that is still queued.
type UploadProgress struct {
	UploadID string
	Status   Status
	Stage    Stage
	// Percent is how far the upload is, from 0 to 100.
	Percent float64
	// Message is a text for people. As in every text, invalid UTF-8 is replaced by U+FFFD.
	Message string
	// ErrorMessage describes the failure; nil if there was no failure.
	ErrorMessage *string
	// AuditScore is the score of the description, from 0 to 100; nil until there is one.
	AuditScore *float64
	// Timestamp is when this was so. Zero: when it is sent.
	Timestamp time.Time
}

// UploadCompleted is the end of an upload that went well.
type UploadCompleted struct {
	UploadID    string
	Description string
	// AuditScore is the score of the description, from 0 to 100.
	AuditScore float64
	// Timestamp is when this was so. Zero: when it is sent.
	Timestamp time.Time
}

// UploadFailed is the end of an upload that did not go well.
type UploadFailed struct {
	UploadID     string
	ErrorMessage string
	// Timestamp is when this was so. Zero: when it is sent.
	Timestamp time.Time
}

// Encoded is a validated message in its wire form. It is immutable and may be sent any number of times, from any number
// of goroutines. The zero value is invalid and is refused.
type Encoded struct {
	// payload is one JSON object without white space around it.
	payload []byte
	class   Class
	action  string
	// uploadID is the upload that the message belongs to by its own members, or "".
	uploadID string
	// names is the upload id that a client finds in the payload, or "".
	names string
	// stateKey distinguishes the states of one upload.
	stateKey string
	// general: the message has been parsed without the vocabulary of a manager. own: its maker has chosen the class.
	general, own bool
	// stamp is the index in payload of the timestamp that Parse has inserted, 0 if the message had one.
	stamp uint32
}

// Payload returns the JSON. The caller must not change it.
func (e Encoded) Payload() []byte { return e.payload }

// Action returns the message's action, or "" for the zero value.
func (e Encoded) Action() string { return e.action }

// frame returns the frame of the message for an upload, at a position of it; a message without offset has the zero
// position.
func (e Encoded) frame(uploadID string, at Position) *Frame {
	return frame.ForUpload(frame.Message{
		UploadID: uploadID, Class: e.class, StateKey: e.stateKey, Epoch: at.Epoch, Offset: at.Offset, Body: e.payload,
		NamesUpload: e.names == uploadID,
	})
}

// NewEvent returns a message of an application's own action and of ClassEvent. v is marshalled by encoding/json and
// must become an object, or null; its members stand beside "action". The value is marshalled once and not parsed again.
//
// The error is that of json.Marshal, or an *InvalidError: for an action of the protocol, for members named action,
// offset or skipped, and for text that is not UTF-8. With a Broker each node, also the one that publishes, classifies
// messages by Options.Classes instead, and a message without the key that they require is refused when it is sent.
func NewEvent(action string, v any) (Encoded, error) { return newOwn(action, ClassEvent, "", v) }

// NewState is like NewEvent for ClassState, and fails as it does. key has at most 255 bytes: a newer state replaces a
// queued one of the same action, upload and key.
func NewState(action, key string, v any) (Encoded, error) { return newOwn(action, ClassState, key, v) }

// NewTerminal is like NewEvent for ClassTerminal, and fails as it does.
func NewTerminal(action string, v any) (Encoded, error) { return newOwn(action, ClassTerminal, "", v) }

func newOwn(action string, class Class, key string, v any) (Encoded, error) {
	switch {
	case action == "":
		return Encoded{}, &InvalidError{"action", "must not be empty"}
	case !utf8.ValidString(action):
		return Encoded{}, &InvalidError{"action", "must be valid UTF-8"}
	case known(action) || reserved(action):
		return Encoded{}, &InvalidError{"action", fmt.Sprintf("is %q, which the protocol defines", action)}
	case len(key) > maxKey:
		return Encoded{}, &InvalidError{"key", fmt.Sprintf("has %d bytes, at most %d are allowed", len(key), maxKey)}
	}
	members, err := json.Marshal(v)
	if err != nil {
		return Encoded{}, err
	}
	if isNull(members) {
		members = []byte("{}")
	}
	if members[0] != '{' {
		return Encoded{}, &InvalidError{"", fmt.Sprintf("must become a JSON object, but %T does not", v)}
	}
	top, payload := object{data: members}, object{path: "payload.", data: members}
	if !strictjson.Walk(members, "payload", &top.Members, &payload.Members) {
		return Encoded{}, notJSON(members) // a json.RawMessage in v may have text that is not UTF-8
	}
	top.unique()
	for _, name := range []string{"action", "offset", "skipped"} {
		if top.value(name) != nil {
			top.refuse(name, "is a field of the protocol; the value must not have it")
		}
	}
	e := Encoded{class: class, action: action, own: true}
	if class == ClassState {
		e.stateKey = stateKey(action, []byte(key))
	}
	if id, ok := payload.string("upload_id"); ok {
		e.names = string(id)
	}
	if id := top.id("upload_id", ""); id != "" {
		e.uploadID, e.names = id, id
	}
	if top.err != nil {
		return Encoded{}, top.err
	}
	e.payload = make([]byte, 0, len(`{"action":"",`)+len(action)+len(members))
	e.payload = appendString(append(e.payload, `{"action":`...), action)
	if top.Len() > 0 {
		e.payload = append(e.payload, ',')
	}
	e.payload = append(e.payload, members[1:]...)
	return e, nil
}

// known reports whether an action is one of the protocol's own messages.
func known(action string) bool {
	return action == actionProgress || action == actionCompleted || action == actionFailed
}

// reserved reports whether an action is one that the server or a client of the protocol sends: a published
// message must not be mistaken for one.
func reserved(action string) bool {
	switch action {
	case "auth", "auth_success", "auth_error",
		"ping", "pong",
		"subscribe_upload", "subscribed", "unsubscribe_upload", "unsubscribed",
		"resume", "resumed", "reconnect", "error":
		return true
	}
	return false
}
