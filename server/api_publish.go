package server

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"runtime"
	"time"

	"github.com/shoal-go/shoal/manager"
)

const (
	// batchYield is the number of messages of a batch after which the goroutine yields to the writers, so that on a
	// busy machine a batch does not fill the queue of a client that reads.
	batchYield = 64
	// publishTimeout is the time after which the rest of a batch is not published, so that there is time to answer
	// within writeTimeout.
	publishTimeout = 20 * time.Second
)

// publish publishes the messages of the body in order to one upload, and none of them unless all are valid.
func (a *api) publish(w http.ResponseWriter, r *http.Request, _ url.Values) error {
	id, err := pathID(r, "upload_id")
	if err != nil {
		return err
	}
	messages, once, err := a.messages(w, r, id)
	if err != nil {
		return err
	}
	positions, err := a.publishAll(w, r, messages, once)
	if err != nil {
		n := len(positions)
		return messages[n].refused(err, &published{Accepted: n})
	}
	writeJSON(w, http.StatusAccepted, struct {
		Accepted int `json:"accepted"`
		manager.Position
	}{len(messages), a.withEpoch(r.Context(), id, positions[len(positions)-1])})
	return nil
}

// publishAll publishes messages to their uploads, one after the other, until there is an error. It returns the
// positions of the published ones. If the request has a key, messages that were published with it before are skipped.
func (a *api) publishAll(
	w http.ResponseWriter, r *http.Request, messages []bodyMessage, once manager.Once,
) (positions []manager.Position, err error) {
	begin, parts, repeated := time.Now(), map[string]int{}, 0
	positions = make([]manager.Position, 0, len(messages))
	for i, m := range messages {
		if time.Since(begin) >= publishTimeout {
			return positions, unavailable(fmt.Sprintf("publishing took longer than %v", publishTimeout))
		}
		var at manager.Position
		if once.Key == "" {
			at, err = a.manager.Publish(r.Context(), m.uploadID, m.Encoded)
		} else {
			var replayed bool
			once.Part = parts[m.uploadID]
			parts[m.uploadID]++
			if at, replayed, err = a.manager.PublishOnce(r.Context(), m.uploadID, m.Encoded, once); replayed {
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

// withEpoch returns the position of a published message with its epoch, which some brokers do not return.
func (a *api) withEpoch(ctx context.Context, uploadID string, at manager.Position) manager.Position {
	if at.Epoch == "" {
		if _, newest, err := a.manager.Newest(ctx, uploadID); err == nil {
			at.Epoch = newest.Epoch
		}
	}
	return at
}
