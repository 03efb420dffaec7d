package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"
	"unicode"
)

const (
	// publishTimeout bounds one request.
	publishTimeout = 30 * time.Second
	// maxAnswerBytes bounds the part of an answer that is read.
	maxAnswerBytes = 64 << 10
)

// publisher sends batches of messages to one upload and counts the accepted ones.
type publisher struct {
	client *http.Client
	server string
	key    string
	url    string
	total  int
	last   accepted
}

// accepted is a server's answer to a publication.
type accepted struct {
	Accepted int    `json:"accepted"`
	Epoch    string `json:"epoch"`
	Offset   uint64 `json:"offset"`
}

func newPublisher(server, key, uploadID string) *publisher {
	return &publisher{
		client: &http.Client{
			Transport: &http.Transport{Proxy: http.ProxyFromEnvironment},
			Timeout:   publishTimeout,
			// The messages and the key are for the server that was named, and no other.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		server: server,
		key:    key,
		url:    strings.TrimSuffix(server, "/") + "/v1/uploads/" + url.PathEscape(uploadID) + "/messages",
	}
}

func (p *publisher) close() { p.client.CloseIdleConnections() }

// send publishes a batch, unless it holds no message.
func (p *publisher) send(ctx context.Context, b *batch) error {
	if b.messages == 0 {
		return nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, &b.body)
	if err != nil {
		return errors.New("--url cannot be used; want the server's address, such as http://127.0.0.1:8080")
	}
	request.Header.Set("Authorization", "Bearer "+p.key)
	request.Header.Set("Content-Type", "application/x-ndjson")
	response, err := p.client.Do(request)
	if err != nil {
		return p.unreachable(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes))
	if err != nil {
		return fmt.Errorf("the server's answer broke off: %w", err)
	}
	if response.StatusCode != http.StatusAccepted {
		return refusal(response, body, b.first)
	}
	if err := json.Unmarshal(body, &p.last); err != nil {
		return errors.New("the answer is not that of a shoal server; check --url")
	}
	p.total += p.last.Accepted
	return nil
}

// explain adds the position of the last published message to an error.
func (p *publisher) explain(err error) error {
	if p.total == 0 {
		return err
	}
	return fmt.Errorf("%w; %d messages before that are published, up to offset %d", err, p.total, p.last.Offset)
}

// unreachable returns the error for a request without an answer. It omits the URL's password.
func (p *publisher) unreachable(err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		err = failed.Err
	}
	address := p.server
	if u, notURL := url.Parse(p.server); notURL == nil {
		address = u.Redacted()
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("nothing answers at %s; start the server with shoal serve, or name its address with --url",
			address)
	}
	return fmt.Errorf("cannot reach the server at %s: %w", address, err)
}

// refusal is the error of an answer that is not 202. first is the number of the batch's first line.
func refusal(response *http.Response, body []byte, first int) error {
	var problem struct {
		Detail string `json:"detail"`
		Line   int    `json:"line"`
	}
	if json.Unmarshal(body, &problem) != nil || problem.Detail == "" {
		return fmt.Errorf("the server answered %s; check that --url is that of a shoal server",
			printable(response.Status))
	}
	detail := printable(problem.Detail)
	if problem.Line > 0 && first > 1 {
		detail = fmt.Sprintf("%s, counted from line %d on", detail, first)
	}
	hint := ""
	if response.StatusCode == http.StatusUnauthorized {
		hint = "; check --api-key"
	}
	return fmt.Errorf("the server refused: %s%s", detail, hint)
}

// printable keeps a server's text from breaking a line or steering a terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
}
