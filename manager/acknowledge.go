package manager

import (
	"encoding/json"

	"github.com/shoal-go/shoal/internal/frame"
)

// subscribedFrame is the answer to a subscription on shoal.v1. It takes its turn behind what is queued
// already: what comes after it counts from its position.
func subscribedFrame(uploadID string, pos Position, recovered bool) *Frame {
	return answerFrame(struct {
		Action   string `json:"action"`
		UploadID string `json:"upload_id"`
		Position
		Recovered bool `json:"recovered"`
	}{"subscribed", uploadID, pos, recovered})
}

// resumedFrame is the answer to a resume.
func resumedFrame(answer []resumption) *Frame {
	type state struct {
		Position
		Recovered bool `json:"recovered"`
	}
	uploads := make(map[string]state, len(answer))
	for _, a := range answer {
		uploads[a.uploadID] = state{a.now, a.recovered}
	}
	return answerFrame(struct {
		Action  string           `json:"action"`
		Uploads map[string]state `json:"uploads"`
	}{"resumed", uploads})
}

func answerFrame(v any) *Frame {
	body, err := json.Marshal(v)
	if err != nil {
		panic("manager: " + err.Error()) // strings, numbers and booleans always encode
	}
	return frame.NewV1(frame.Event, body)
}
