package server

import (
	"crypto/sha256"
	"errors"
	"net/http"

	"github.com/shoal-go/shoal/manager"
)

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
func (a *api) checkOnce(r *http.Request, messages []bodyMessage, once manager.Once) error {
	checked := map[string]struct{}{}
	for _, m := range messages {
		if _, done := checked[m.uploadID]; done {
			continue
		}
		if err := a.manager.CheckOnce(r.Context(), m.uploadID, once); err != nil {
			return m.refused(err, nil)
		}
		checked[m.uploadID] = struct{}{}
	}
	return nil
}
