package recovery

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/shoal-go/shoal/benchmarks/compare/internal/message"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/nodes"
	"github.com/shoal-go/shoal/benchmarks/compare/internal/systems"
	"github.com/shoal-go/shoal/internal/plot"
	"github.com/shoal-go/shoal/manager"
)

// Post compares a publication by HTTP with Manager.Publish, on one node, one at a time: rounds of n messages each through all
// ways, alternating, with uploads that have Options.Stored messages. The summary has the medians of all times and, for the ratios,
// of the rounds, and the calls to the broker that all requests to the API made together.
func Post(ctx context.Context, o Options, rounds, n int) (summary string, err error) {
	b, err := nodes.Connect(o.URL)
	if err != nil {
		return "", err
	}
	seen := &watched{HistoryBroker: b}
	node, err := systems.NewShoal(seen)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, node.Close()) }()
	if err := node.Manager.WaitReady(ctx); err != nil {
		return "", err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() { _ = node.Serve(listener) }() // until node is closed
	served, minimal := node.Handler(), httptest.NewServer(minimal{node.Manager})
	defer minimal.Close()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	withoutConnection := func(request *http.Request) (*http.Response, error) {
		answer := httptest.NewRecorder()
		served.ServeHTTP(answer, request)
		return answer.Result(), nil
	}
	ways := []way{
		func(channel string, body []byte) error {
			_, err := nodes.PublishJSON(ctx, node.Manager, channel, body)
			return err
		},
		post(ctx, withoutConnection, minimal.URL),
		post(ctx, client.Do, minimal.URL),
		post(ctx, client.Do, "http://"+listener.Addr().String()),
	}
	const publish, handler, least, api = 0, 1, 2, 3
	all, medians := make([][]float64, len(ways)), make([][]float64, len(ways)) // of each way: times, and medians of the rounds
	var made Calls                                                             // for the API
	for round := range rounds + 1 {
		for i, call := range ways {
			_ = seen.calls() // of another way
			times, err := timeEach(n, o, call)
			if err != nil {
				return "", err
			}
			if round == 0 { // it warms up
				continue
			}
			all[i], medians[i] = append(all[i], times...), append(medians[i], median(times))
			if c := seen.calls(); i == api {
				made.Histories, made.Newests, made.Stores = made.Histories+c.Histories, made.Newests+c.Newests, made.Stores+c.Stores
			}
		}
	}
	took := func(way int) time.Duration { return time.Duration(median(all[way])) }
	return fmt.Sprintf("Publish %v; the API's handler %v, %.2f of it; a POST %v, %.2f of it, and %.2f of a POST to a minimal "+
		"handler, %v; %d posts made %d stores and %d reads", took(publish), took(handler), ratio(medians[handler], medians[publish]),
		took(api), ratio(medians[api], medians[publish]), ratio(medians[api], medians[least]), took(least),
		rounds*n, made.Stores, made.Histories+made.Newests), nil
}

// ratio divides round by round and returns the median.
func ratio(of, against []float64) float64 {
	quotients := make([]float64, len(of))
	for i := range of {
		quotients[i] = of[i] / against[i]
	}
	return median(quotients)
}

// timeEach returns the times of n calls, each to the next upload.
func timeEach(n int, o Options, call way) (nanoseconds []float64, err error) {
	const uploads = 100
	for i := range n {
		channel := message.Channel(i % uploads)
		body := message.Message{Channel: channel, Sent: time.Now().UnixNano(), Number: uint64(i + 1), Size: o.Bytes}
		payload := body.AppendEvent(make([]byte, 0, o.Bytes))
		began := time.Now()
		if err := call(channel, payload); err != nil {
			return nil, err
		}
		nanoseconds = append(nanoseconds, float64(time.Since(began)))
	}
	return nanoseconds, nil
}

func median(values []float64) float64 { return plot.SpreadOf(values).Median }

// minimal is a handler that publishes the bodies of requests.
type minimal struct{ manager *manager.Manager }

func (h minimal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var at manager.Position
	body, err := io.ReadAll(r.Body)
	if err == nil {
		at, err = nodes.PublishJSON(r.Context(), h.manager, strings.Split(r.URL.Path, "/")[3], body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_, _ = fmt.Fprintf(w, `{"accepted":1,"epoch":%q,"offset":%d}`, at.Epoch, at.Offset)
}

// way is a way of publishing one message.
type way func(channel string, body []byte) error

// post returns a way by a request to an address.
func post(ctx context.Context, do func(*http.Request) (*http.Response, error), at string) way {
	return func(channel string, body []byte) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, at+"/v1/uploads/"+channel+"/messages", bytes.NewReader(body))
		if err != nil {
			return err
		}
		request.Header.Set("Authorization", "Bearer "+systems.APIKey)
		request.Header.Set("Content-Type", "application/json")
		response, err := do(request)
		if err != nil {
			return err
		}
		answer, err := io.ReadAll(response.Body)
		if err = errors.Join(err, response.Body.Close()); err == nil && response.StatusCode != http.StatusAccepted {
			err = fmt.Errorf("recovery: POST was answered with %s: %s", response.Status, answer)
		}
		return err
	}
}
