package brokertest_test

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker/brokertest"
)

// echo answers each line with itself, at the address that it returns, until the test ends.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		running.Wait()
	})
	return listener.Addr().String()
}

// dial connects through a link.
func dial(t *testing.T, l *brokertest.Link) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// ask sends a line and returns the answer.
func ask(conn net.Conn, line string) (string, error) {
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(answer), err
}

func TestLinkIsCutAndMended(t *testing.T) {
	l := brokertest.NewLink(t, echo(t))
	conn := dial(t, l)
	if answer, err := ask(conn, "hello"); answer != "hello" {
		t.Fatalf("a good link answered %q, %v", answer, err)
	}
	l.Cut()
	if answer, err := ask(conn, "hello"); err == nil {
		t.Errorf("a connection over a cut link answered %q", answer)
	}
	if refused, err := net.Dial("tcp", l.Addr()); err == nil {
		_ = refused.Close()
		t.Error("a cut link accepted a connection")
	}
	l.Mend()
	if answer, err := ask(dial(t, l), "hello"); answer != "hello" {
		t.Errorf("a mended link answered %q, %v", answer, err)
	}
}

func TestLinkIsSilencedAndMended(t *testing.T) {
	l := brokertest.NewLink(t, echo(t))
	conn := dial(t, l)
	if answer, err := ask(conn, "hello"); answer != "hello" {
		t.Fatalf("a good link answered %q, %v", answer, err)
	}
	l.Silence()
	_ = conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if answer, err := ask(conn, "hello"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a silent link answered %q, %v, want it to let the reader wait", answer, err)
	}
	l.Mend()
	if answer, err := ask(dial(t, l), "hello"); answer != "hello" {
		t.Errorf("a mended link answered %q, %v", answer, err)
	}
}

func TestLinkIsSlowed(t *testing.T) {
	const latency = 40 * time.Millisecond
	l := brokertest.NewLink(t, echo(t))
	conn := dial(t, l)
	l.Slow(latency, 0)
	l.Limit(1_000_000)
	began := time.Now()
	if answer, err := ask(conn, "hello"); answer != "hello" {
		t.Fatalf("a slow link answered %q, %v", answer, err)
	}
	if took := time.Since(began); took < 2*latency {
		t.Errorf("there and back took %v, want twice %v at least", took, latency)
	}
	l.Mend()
	if answer, err := ask(conn, "hello"); answer != "hello" {
		t.Errorf("a connection over a slow link answered %q, %v once that was mended", answer, err)
	}
}
