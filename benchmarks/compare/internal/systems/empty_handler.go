package systems

import (
	"errors"
	"io"
	"net/http"

	"github.com/shoal-go/shoal/internal/load"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
)

// emptyHandler is a yardstick for S12: a handler of net/http that reads the body of a request and answers with nothing.
// No API over net/http can take requests in for less.
type emptyHandler struct{}

func emptyHandlerEntry() Entry {
	return Entry{
		Name:       "net-http",
		Kind:       Yardstick,
		Module:     "net/http",
		About:      "a handler of net/http that reads the body and does nothing",
		Part:       IntakeOnly,
		New:        func() (System, error) { return emptyHandler{}, nil },
		Dialect:    func(Audience) load.Dialect { return load.Dialect{Path: path} },
		Publishing: shoalPublishing,
	}
}

func (emptyHandler) Handler() http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
}

func (emptyHandler) Publish([]message.Message) error {
	return errors.New("systems: net-http publishes nothing")
}

func (emptyHandler) Subscriptions() int { return 0 }

func (emptyHandler) Close() error { return nil }
