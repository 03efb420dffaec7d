package recovery

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
)

// Posts compares a publication by HTTP with Manager.Publish, on one node, one at a time.
type Posts struct {
	// Publish and Post are the median times of a call. Ratio is the median of those of each round.
	Publish, Post time.Duration
	Ratio         float64
	// PostCalls are the calls to the broker that all posts made together, Messages their number.
	PostCalls Calls
	Messages  int
}

// Post measures rounds of n messages each through both ways, alternating, with uploads that have Options.Stored messages.
func Post(ctx context.Context, o Options, rounds, n int) (p Posts, err error) {
	b, err := newBroker(o.Broker, o.URL)
	if err != nil {
		return p, err
	}
	seen := &observed{HistoryBroker: b}
	m, err := manager.New(manager.Options{Broker: seen})
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, m.Close(context.WithoutCancel(ctx))) }()
	if err := m.WaitReady(ctx); err != nil {
		return p, err
	}
	poster, err := newPoster(ctx, m)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, poster.close(context.WithoutCancel(ctx))) }()
	byLibrary := func(channel string, body []byte) error {
		e, err := manager.Parse(channel, body, time.Now())
		if err == nil {
			_, err = m.Publish(ctx, channel, e)
		}
		return err
	}
	byPost := func(channel string, body []byte) error { return poster.post(ctx, channel, body) }
	var ratios []float64
	var library, posts []time.Duration
	for round := range rounds + 1 {
		one, err := timeEach(n, o, byLibrary)
		if err != nil {
			return p, err
		}
		before := seen.calls()
		other, err := timeEach(n, o, byPost)
		if err != nil {
			return p, err
		}
		if round == 0 { // warms up
			continue
		}
		p.PostCalls, p.Messages = p.PostCalls.plus(seen.calls().since(before)), p.Messages+n
		ratios = append(ratios, float64(median(other))/float64(median(one)))
		library, posts = append(library, one...), append(posts, other...)
	}
	p.Publish, p.Post, p.Ratio = median(library), median(posts), median(ratios)
	return p, nil
}

// plus adds the calls of another period.
func (c Calls) plus(d Calls) Calls { return c.since(Calls{}.since(d)) }

// timeEach returns the times of n calls, each to the next upload.
func timeEach(n int, o Options, call func(channel string, body []byte) error) (times []time.Duration, err error) {
	const uploads = 100
	for i := range n {
		channel := message.Channel(i % uploads)
		body := message.Message{Channel: channel, Sent: time.Now().UnixNano(), Number: uint64(i + 1), Size: o.Bytes}
		payload := body.AppendEvent(make([]byte, 0, o.Bytes))
		began := time.Now()
		if err := call(channel, payload); err != nil {
			return nil, err
		}
		times = append(times, time.Since(began))
	}
	return times, nil
}

func median[T cmp.Ordered](values []T) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// poster is a server and a client with one connection to it.
type poster struct {
	server *server.Server
	url    string
	client *http.Client
	served chan error
}

const apiKey = "a-key-for-the-comparison"

func newPoster(ctx context.Context, m *manager.Manager) (*poster, error) {
	s, err := server.New(server.Options{
		Manager: m, APIKeys: []string{apiKey}, Authorize: server.AuthorizeOpen,
		Authenticate: func(context.Context, string) (server.Identity, error) { return server.Identity{}, nil },
	})
	if err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, s.Close(ctx))
	}
	p := &poster{
		server: s, url: "http://" + listener.Addr().String() + "/v1/uploads/",
		client: &http.Client{Transport: &http.Transport{}}, served: make(chan error, 1),
	}
	go func() { p.served <- s.Serve(listener) }()
	return p, nil
}

// post publishes one message.
func (p *poster) post(ctx context.Context, channel string, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+channel+"/messages", bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+apiKey)
	request.Header.Set("Content-Type", "application/json")
	response, err := p.client.Do(request)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err == nil && response.StatusCode != http.StatusAccepted {
		err = fmt.Errorf("recovery: POST was answered with %s: %s", response.Status, answer)
	}
	return err
}

func (p *poster) close(ctx context.Context) error {
	p.client.CloseIdleConnections()
	err := p.server.Close(ctx)
	if served := <-p.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
