package fuzz_test

import (
	"bufio"
	"context"
	"crypto/sha1" // required by RFC 6455
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode"

	"github.com/shoal-go/shoal/client"
	"github.com/shoal-go/shoal/internal/wsframe"
)

// FuzzServerMessage sends a Go client arbitrary text messages, one for each line, between a valid login and the end of
// the connection. The client neither panics nor hangs. Its loop gets offsets that increase within an epoch, unless a gap
// is reported between them, and ends with an error that is printable and short.
func FuzzServerMessage(f *testing.F) {
	for _, seed := range []string{
		`{"action":"resumed","uploads":{"u":{"epoch":"e","offset":3,"recovered":false}}}` + "\n" +
			`{"action":"upload_progress","payload":{"upload_id":"u"},"offset":3}` + "\n" +
			`{"action":"upload_progress","payload":{"upload_id":"u"},"offset":2}`,
		`{"action":"resumed","uploads":{"u":{"epoch":"e","offset":0,"recovered":true}}}`,
		`{"action":"resumed","uploads":{"u":{"epoch":"e","offset":1,"recovered":false}}}` + "\n" +
			`{"action":"a","upload_id":"u","offset":1}` + "\n" +
			`{"action":"subscribed","upload_id":"u","epoch":"f","offset":18446744073709551615,"recovered":false}` + "\n" +
			`{"action":"a","upload_id":"u","offset":18446744073709551615,"skipped":18446744073709551615}`,
		`{"action":"error","code":"forbidden","upload_id":"u","message":"\u001b[2J"}`,
		`{"action":"error","code":"internal","upload_ids":["u","u"],"retry_after_ms":1e300}`,
		`{"action":"unsubscribed","upload_id":"u"}`, `{"action":"reconnect","retry_after_ms":-1}`,
		`{"action":"auth_error","code":"expired","message":"x"}`, `{"action":"ping"}`, `[]`, "\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sent string) {
		synctest.Test(t, func(t *testing.T) {
			// The transport may still dial when the client has ended. The bubble ends after all its servers.
			transport := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
				here, there := net.Pipe()
				go serveLines(there, strings.Split(sent, "\n"))
				return here, nil
			}}
			c, err := client.New("http://fuzz", client.Options{
				Token:         func(context.Context) (string, error) { return "token", nil },
				HTTPClient:    &http.Client{Transport: transport},
				GiveUpAfter:   time.Minute,
				QueueMessages: 4,
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			checkLoop(t, ctx, c)
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			transport.CloseIdleConnections()
		})
	})
}

// checkLoop runs a loop until its end.
func checkLoop(t *testing.T, ctx context.Context, c *client.Client) {
	t.Helper()
	var last client.Position
	for m, err := range c.Follow(ctx, "u") {
		var gap *client.GapError
		switch {
		case errors.As(err, &gap):
			last = client.Position{}
		case err != nil:
			text := err.Error()
			if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil || len(text) > 1000 ||
				strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("ended with %q", text)
			}
		case m.Offset > 0:
			if m.Epoch == last.Epoch && m.Offset <= last.Offset {
				t.Errorf("offset %d of epoch %q after %d", m.Offset, m.Epoch, last.Offset)
			}
			last = m.Position
		}
	}
}

// serveLines accepts an upgrade and the token, and sends text messages and a close frame.
func serveLines(conn net.Conn, lines []string) {
	defer conn.Close()
	frames := bufio.NewReader(conn)
	request, err := http.ReadRequest(frames)
	if err != nil {
		return
	}
	sum := sha1.Sum([]byte(request.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Protocol: shoal.v1\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	var reading sync.WaitGroup
	defer reading.Wait()
	asked := make(chan struct{}, 2)
	reading.Go(func() {
		for range 2 { // the token and the subscription
			if _, err := wsframe.Read(frames, 1<<16); err != nil {
				break
			}
			asked <- struct{}{}
		}
		close(asked)
		_, _ = io.Copy(io.Discard, frames)
	})
	<-asked
	_, _ = conn.Write(serverFrame(0x81, `{"action":"auth_success","user_id":"ann"}`))
	<-asked
	for _, line := range lines {
		if _, err := conn.Write(serverFrame(0x81, line)); err != nil {
			return
		}
	}
	_, _ = conn.Write(serverFrame(0x88, "\x03\xe8")) // 1000, after which a client stops
}

// serverFrame returns a frame of a server, which is not masked.
func serverFrame(first byte, payload string) []byte {
	return wsframe.Append(nil, first, []byte(payload))
}
