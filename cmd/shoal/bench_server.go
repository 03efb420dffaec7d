package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// serverCounts are the counts of GET /v1/stats, by name.
type serverCounts map[string]int64

// serverCounts asks the server for its counts, which also shows that the URL and the key are right.
func (b *bench) serverCounts(ctx context.Context) (serverCounts, error) {
	p := b.newPublisher()
	defer p.close()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(b.flags.URL, "/")+"/v1/stats", nil)
	if err != nil {
		return nil, errors.New("--url cannot be used; want the server's address, such as http://127.0.0.1:8080")
	}
	request.Header.Set("Authorization", "Bearer "+p.key)
	response, err := p.client.Do(request)
	if err != nil {
		return nil, p.unreachable(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes))
	if err != nil {
		return nil, fmt.Errorf("the server's answer broke off: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, refusal(response, body, 1)
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

// newPublisher returns a publisher with a connection of its own.
func (b *bench) newPublisher() *publisher {
	return newPublisher(b.flags.URL, b.flags.APIKey[0], b.uploadID(0))
}

// messagesURL is where the messages of an upload are published.
func (b *bench) messagesURL(upload int) string {
	return strings.TrimSuffix(b.flags.URL, "/") + "/v1/uploads/" + b.uploadID(upload) + "/messages"
}
