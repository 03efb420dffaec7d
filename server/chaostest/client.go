package chaostest

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/shoal-go/shoal/internal/wsframe"
)

// client is one attacker. It belongs to one goroutine, but for the counts.
type client struct {
	target   Target
	endpoint *url.URL
	ctx      context.Context // the time of the attack
	conn     net.Conn
	socket   *net.TCPConn
	reader   *bufio.Reader
	sent     *atomic.Int64
	received *atomic.Int64
	rounds   *atomic.Int64
}

// connect opens the TCP connection. All reads and writes end with the attack.
func (c *client) connect() (err error) {
	if c.conn, c.socket, err = dial(c.ctx, c.target, c.endpoint); err != nil {
		return err
	}
	end, _ := c.ctx.Deadline() // none: the zero time, which never comes
	c.reader = bufio.NewReader(counted{c})
	c.rounds.Add(1)
	return c.conn.SetDeadline(end)
}

// open opens the WebSocket and sends the first message.
func (c *client) open() error {
	if err := c.upgrade(); err != nil {
		return err
	}
	if c.target.First == nil {
		return nil
	}
	return c.write(frame(text, c.target.First))
}

// upgrade opens the WebSocket.
func (c *client) upgrade() error {
	if err := c.connect(); err != nil {
		return err
	}
	if err := c.write([]byte(handshake(c.target, c.endpoint))); err != nil {
		return err
	}
	return readAnswer(c.reader)
}

// write sends bytes. If the server has ended the connection, the error is the reason that it has sent, if any.
func (c *client) write(p []byte) error {
	n, err := c.conn.Write(p)
	c.sent.Add(int64(n))
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	if reason := c.drain(); errors.As(reason, new(*refusal)) {
		return reason
	}
	return err
}

// drain reads until the connection ends, and returns how.
func (c *client) drain() error {
	for {
		opcode, payload, err := c.next()
		if err != nil {
			return err
		}
		if opcode == 0x8 {
			return closed(payload)
		}
	}
}

// next reads a frame.
func (c *client) next() (opcode byte, payload []byte, err error) {
	const longest = 64 << 20
	f, err := wsframe.Read(c.reader, longest)
	if errors.Is(err, wsframe.ErrTooLong) {
		err = &refusal{fmt.Sprintf("a frame of more than %d bytes", longest)}
	}
	return f.Opcode(), f.Payload, err
}

// closed returns the reason of a close frame.
func closed(payload []byte) error {
	if len(payload) < 2 {
		return &refusal{"close frame without a code"}
	}
	return &refusal{fmt.Sprintf("close %d %s", binary.BigEndian.Uint16(payload), payload[2:])}
}

// pause waits, and reports false when the attack is over.
func (c *client) pause(d time.Duration) bool {
	select {
	case <-c.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// close ends the TCP connection with a reset, so that ports do not run out.
func (c *client) close() {
	if c.conn != nil {
		_ = c.socket.SetLinger(0)
		_ = c.socket.Close()
	}
}

// bound names the bound that has stopped a client; "" if none has.
func bound(err error) string {
	var answer *refusal
	switch {
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, context.Canceled):
		return ""
	case errors.As(err, &answer):
		return answer.text
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "end of stream"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	}
	return "error: " + err.Error()
}

// counted counts the bytes that are read.
type counted struct{ client *client }

func (r counted) Read(p []byte) (int, error) {
	n, err := r.client.conn.Read(p)
	r.client.received.Add(int64(n))
	return n, err
}

// The first bytes of frames.
const (
	text         = 0x81
	firstText    = 0x01
	continuation = 0x00
	ping         = 0x89
	pong         = 0x8A
)

// frame returns a masked frame.
func frame(first byte, payload []byte) []byte {
	return wsframe.AppendMasked(nil, first, [4]byte{}, payload)
}
