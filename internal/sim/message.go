package sim

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"github.com/shoal-go/shoal/manager"
)

// uploadPrefix is followed by an upload's number in its id.
const uploadPrefix = "up"

func uploadID(upload int) string { return uploadPrefix + strconv.Itoa(upload) }

// message returns a message whose text is the number of its body.
func message(upload, body int, c class) manager.Message {
	text := strconv.Itoa(body)
	switch c {
	case state:
		return manager.UploadProgress{
			UploadID: uploadID(upload), Status: manager.StatusAnalyzing, Stage: manager.StageIndexing, Message: text,
		}
	case terminal:
		return manager.UploadCompleted{UploadID: uploadID(upload), Description: text}
	default:
		return note(upload, text)
	}
}

// note returns an application's own message. Every other one leaves out the upload, which the server then adds for
// shoal.v1.
func note(upload int, text string) manager.Message {
	data := `{"action":"note","n":"` + text + `"}`
	if strings.HasSuffix(text, "0") {
		data = `{"action":"note","upload_id":"` + uploadID(upload) + `","n":"` + text + `"}`
	}
	m, err := manager.Parse(uploadID(upload), []byte(data), time.Now())
	if err != nil {
		panic("sim: own message refused: " + err.Error())
	}
	return m
}

// received is a text message as a client reads it.
type received struct {
	Action   string              `json:"action"`
	UploadID string              `json:"upload_id"`
	Epoch    string              `json:"epoch"`
	Offset   uint64              `json:"offset"`
	Skipped  int                 `json:"skipped"`
	Code     string              `json:"code"`
	Recovery bool                `json:"recovered"`
	Expired  bool                `json:"expired"`
	Text     string              `json:"n"`
	Describe string              `json:"description"`
	Payload  payload             `json:"payload"`
	Uploads  map[string]standing `json:"uploads"`
}

// standing is where an upload stands, in the answer to a resume.
type standing struct {
	Epoch     string `json:"epoch"`
	Offset    uint64 `json:"offset"`
	Recovered bool   `json:"recovered"`
	Expired   bool   `json:"expired"`
}

type payload struct {
	UploadID string `json:"upload_id"`
	Message  string `json:"message"`
}

// body returns the number of the body; 0 if the simulation has not published the message.
func (r received) body() int {
	text := r.Text
	switch r.Action {
	case "upload_progress":
		text = r.Payload.Message
	case "upload_completed":
		text = r.Describe
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}

// upload returns the upload that the message names; ok is false if it names none of the simulation's.
func (r received) upload() (upload int, ok bool) {
	id := r.UploadID
	if id == "" {
		id = r.Payload.UploadID
	}
	return uploadNumber(id)
}

func uploadNumber(id string) (upload int, ok bool) {
	digits, ok := strings.CutPrefix(id, uploadPrefix)
	if !ok {
		return 0, false
	}
	upload, err := strconv.Atoi(digits)
	return upload, err == nil
}

// bodyOf returns the number of a published payload's body: the only string of digits in the messages of the simulation,
// whose syntax the clients check.
func bodyOf(data []byte) int {
	for field := range bytes.SplitSeq(data, []byte{'"'}) {
		if len(field) == 0 || field[0] < '0' || field[0] > '9' {
			continue // without the cost of an error
		}
		if n, err := strconv.Atoi(string(field)); err == nil {
			return n
		}
	}
	return 0
}
