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
	"net/http/httptest"
	"slices"
	"strings"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
)

// Posts compares a publication by HTTP with Manager.Publish, on one node, one at a time. All times are medians.
type Posts struct {
	// Publish is a call of Manager.Publish, Handler one of the server's HTTP handler without a connection, Post a request
	// over a connection that is kept alive, and Minimal such a request to a handler that does nothing but Manager.Publish.
	Publish, Handler, Post, Minimal time.Duration
	// HandlerRatio is Handler and PostRatio Post as a multiple of Publish, and MinimalRatio Post as one of Minimal:
	// medians of the rounds.
	HandlerRatio, PostRatio, MinimalRatio float64
	// Reads and Stores are the calls to the broker that all posts made together, Messages their number.
	Reads, Stores int64
	Messages      int
}

// Post measures rounds of n messages each through both ways, alternating, with uploads that have Options.Stored messages.
func Post(ctx context.Context, o Options, rounds, n int) (p Posts, err error) {
	b, err := nodes.Connect(o.Broker, o.URL)
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
	ways := []func(channel string, body []byte) error{
		func(channel string, body []byte) error { return nodes.PublishJSON(ctx, m, channel, body) },
		func(channel string, body []byte) error { return poster.handle(ctx, channel, body) },
		func(channel string, body []byte) error { return poster.post(ctx, poster.url, channel, body) },
		func(channel string, body []byte) error {
			return poster.post(ctx, poster.minimal.URL+"/", channel, body)
		},
	}
	all := make([][]time.Duration, len(ways))
	var handled, posted, minimal []float64
	for round := range rounds + 1 {
		medians := make([]float64, len(ways))
		for i, way := range ways {
			before := seen.calls()
			times, err := timeEach(n, o, way)
			if err != nil {
				return p, err
			}
			medians[i] = float64(median(times))
			if round > 0 { // the first one warms up
				all[i] = append(all[i], times...)
			}
			if round > 0 && i == 2 {
				made := seen.calls().since(before)
				p.Reads, p.Stores, p.Messages = p.Reads+made.Histories+made.Newests, p.Stores+made.Stores, p.Messages+n
			}
		}
		if round > 0 {
			handled = append(handled, medians[1]/medians[0])
			posted = append(posted, medians[2]/medians[0])
			minimal = append(minimal, medians[2]/medians[3])
		}
	}
	p.Publish, p.Handler, p.Post, p.Minimal = median(all[0]), median(all[1]), median(all[2]), median(all[3])
	p.HandlerRatio, p.PostRatio, p.MinimalRatio = median(handled), median(posted), median(minimal)
	return p, nil
}

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
	server  *server.Server
	handler http.Handler
	minimal *httptest.Server
	url     string
	client  *http.Client
	served  chan error
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
		server: s, handler: s.Handler(), minimal: httptest.NewServer(minimal{m}), url: "http://" + listener.Addr().String() + "/v1/uploads/",
		client: &http.Client{Transport: &http.Transport{}}, served: make(chan error, 1),
	}
	go func() { p.served <- s.Serve(listener) }()
	return p, nil
}

// minimal is a handler that publishes the bodies of requests.
type minimal struct{ manager *manager.Manager }

func (h minimal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	channel, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	var e manager.Encoded
	if err == nil {
		e, err = manager.Parse(channel, body, time.Now())
	}
	var at manager.Position
	if err == nil {
		at, err = h.manager.Publish(r.Context(), channel, e)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = fmt.Fprintf(w, `{"accepted":1,"epoch":%q,"offset":%d}`, at.Epoch, at.Offset)
}

func newRequest(ctx context.Context, at, channel string, body []byte) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, at+channel+"/messages", bytes.NewReader(body))
	if err == nil {
		request.Header.Set("Authorization", "Bearer "+apiKey)
		request.Header.Set("Content-Type", "application/json")
	}
	return request, err
}

// handle publishes one message without a connection.
func (p *poster) handle(ctx context.Context, channel string, body []byte) error {
	request, err := newRequest(ctx, p.url, channel, body)
	if err != nil {
		return err
	}
	answer := httptest.NewRecorder()
	if p.handler.ServeHTTP(answer, request); answer.Code != http.StatusAccepted {
		return fmt.Errorf("recovery: the handler answered %d: %s", answer.Code, answer.Body)
	}
	return nil
}

// post publishes one message.
func (p *poster) post(ctx context.Context, at, channel string, body []byte) error {
	request, err := newRequest(ctx, at, channel, body)
	if err != nil {
		return err
	}
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
	p.minimal.Close()
	err := p.server.Close(ctx)
	if served := <-p.served; !errors.Is(served, http.ErrServerClosed) {
		err = errors.Join(err, served)
	}
	return err
}
