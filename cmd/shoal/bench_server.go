package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/shoal-go/shoal/client"
	"github.com/shoal-go/shoal/internal/printable"
)

// maxAnswerBytes bounds the part of an answer that is read.
const maxAnswerBytes = 64 << 10

// serverCounts are the counts of GET /v1/stats, by name.
type serverCounts map[string]int64

// serverCounts asks the server for its counts, which also shows that the URL and the key are right.
func (b *bench) serverCounts(ctx context.Context) (serverCounts, error) {
	p, err := b.newPublisher()
	if err != nil {
		return nil, err
	}
	defer p.close()
	body, err := b.get(ctx, "/v1/stats")
	if err != nil {
		return nil, p.explain(err)
	}
	var fields map[string]any
	if json.Unmarshal(body, &fields) != nil {
		return nil, errors.New("the answer is not that of a shoal server; check --url")
	}
	counts := make(serverCounts)
	for name, value := range fields {
		if number, ok := value.(float64); ok {
			counts[name] = int64(number)
		}
	}
	return counts, nil
}

// get makes a request to the HTTP API. Its errors are those of a publisher's client.
func (b *bench) get(ctx context.Context, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(b.flags.URL, "/")+path, nil)
	if err != nil {
		return nil, errors.New("--url cannot be used; want the server's address, such as http://127.0.0.1:8080")
	}
	request.Header.Set("Authorization", "Bearer "+b.flags.APIKey[0])
	// The key is for the server that was named, and no other.
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return nil, &client.UnreachableError{Err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes))
	if err != nil {
		return nil, fmt.Errorf("the server's answer broke off: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, refusal(response, body)
	}
	return body, nil
}

// refusal is the error of an answer that is not 200.
func refusal(response *http.Response, body []byte) error {
	var problem struct {
		Detail string `json:"detail"`
	}
	if json.Unmarshal(body, &problem) != nil || problem.Detail == "" {
		return fmt.Errorf("the server answered %s; check that --url is that of a shoal server",
			printable.Text(response.Status))
	}
	hint := ""
	if response.StatusCode == http.StatusUnauthorized {
		hint = "; check --api-key"
	}
	return errors.New("the server refused: " + printable.Text(problem.Detail) + hint)
}

// newPublisher returns a publisher with a connection of its own. Its requests are made once: a repetition would not be
// in the plan.
func (b *bench) newPublisher() (*publisher, error) {
	return newPublisher(publisherOptions{server: b.flags.URL, key: b.flags.APIKey[0], uploadID: b.uploadID(0)})
}
