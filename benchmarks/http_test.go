package benchmarks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/shoal-go/shoal/server"
)

const progressText = `{"action":"upload_progress","payload":{"upload_id":"u","status":"analyzing","stage":"indexing",` +
	`"progress_percent":42,"message":"Looking","error_message":null,"description_audit_score":null},` +
	`"timestamp":"2026-01-02T03:04:05Z"}`

// BenchmarkHTTP publishes over one connection of the loopback interface. The handler "empty" only reads the body, so
// its difference from "api" is the cost of the API. ns/message is the figure; it includes the client.
func BenchmarkHTTP(b *testing.B) {
	for _, messages := range []int{1, 40} {
		kind, body := "application/json", progressText
		if messages > 1 {
			kind, body = "application/x-ndjson", strings.Repeat(progressText+"\n", messages)
		}
		request := fmt.Sprintf("POST /v1/uploads/u/messages HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer key\r\n"+
			"Content-Type: %s\r\nContent-Length: %d\r\n\r\n%s", kind, len(body), body)
		for _, handler := range []string{"empty", "api"} {
			b.Run(fmt.Sprintf("handler=%s/messages=%d", handler, messages), func(b *testing.B) {
				address, status := serveEmpty(b), http.StatusOK
				if handler == "api" {
					address, status = serveAPI(b), http.StatusAccepted
				}
				exchange := dial(b, address)
				b.ReportAllocs()
				for b.Loop() {
					if got := exchange(request); got != status {
						b.Fatal("status", got)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*messages), "ns/message")
			})
		}
	}
}

// dial returns a function that sends a request over a connection and returns the status of the response.
func dial(b *testing.B, address net.Addr) (exchange func(request string) int) {
	b.Helper()
	conn, err := net.Dial("tcp", address.String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	answers := bufio.NewReader(conn)
	return func(request string) int {
		if _, err := io.WriteString(conn, request); err != nil {
			b.Fatal(err)
		}
		response, err := http.ReadResponse(answers, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, response.Body); err != nil {
			b.Fatal(err)
		}
		return response.StatusCode
	}
}

// serve runs a server until the end of the benchmark.
func serve(b *testing.B, run func(net.Listener) error, stop func() error) net.Addr {
	b.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- run(listener) }()
	b.Cleanup(func() {
		if err := stop(); err != nil {
			b.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			b.Error(err)
		}
	})
	return listener.Addr()
}

func serveEmpty(b *testing.B) net.Addr {
	b.Helper()
	s := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
	})}
	return serve(b, s.Serve, s.Close)
}

func serveAPI(b *testing.B) net.Addr {
	b.Helper()
	s, err := server.New(server.Options{
		Manager: newManager(b), APIKeys: []string{"key"}, Authorize: server.AuthorizeOpen,
		Authenticate: func(context.Context, string) (server.Identity, error) {
			return server.Identity{}, &server.TokenError{Message: "nobody may connect"}
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	return serve(b, s.Serve, func() error { return s.Close(context.Background()) })
}
