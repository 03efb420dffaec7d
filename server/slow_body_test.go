package server_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// slowBroker takes its time to store a message of an upload.
type slowBroker struct {
	*broker.MemoryNode
	delay time.Duration
}

func (b slowBroker) Store(ctx context.Context, channel string, payload []byte) (broker.Position, error) {
	if strings.Contains(channel, "slow-upload") {
		<-time.After(b.delay)
	}
	return b.MemoryNode.Store(ctx, channel, payload)
}

// TestAPI_AnswersAfterSlowBody: the time that a body takes is not taken from the answer, so that a publisher learns how
// much is published.
func TestAPI_AnswersAfterSlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		node := broker.NewMemory(broker.MemoryOptions{}).Node()
		n := startPiped(t, func(m *manager.Options, _ *server.Options) { m.Broker = slowBroker{node, 3 * time.Second} })
		if err := n.manager.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, target := range []struct{ path, line, answer string }{
			{"/v1/uploads/slow-upload/messages", `{"action":"note"}`, `"accepted":6`},
			{"/v1/messages", `{"upload_id":"slow-upload","message":{"action":"note"}}`, `"accepted":6`},
		} {
			conn, err := n.dial(t.Context(), "", "")
			if err != nil {
				t.Fatal(err)
			}
			const lines = 6
			_, err = fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer key\r\n"+
				"Content-Type: application/x-ndjson\r\nContent-Length: %d\r\n\r\n", target.path, lines*(len(target.line)+1))
			for range lines {
				<-time.After(4 * time.Second)
				if err == nil {
					_, err = fmt.Fprintln(conn, target.line)
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatalf("%s: %v", target.path, err)
			}
			body := make([]byte, resp.ContentLength)
			_, _ = resp.Body.Read(body)
			if resp.StatusCode != http.StatusAccepted || !strings.Contains(string(body), target.answer) {
				t.Errorf("%s: answered %d %s", target.path, resp.StatusCode, body)
			}
			_ = conn.Close()
		}
	})
}
