package chaostest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// Attack is one kind of misbehaving client.
type Attack struct {
	// Name is a short slug, Does a sentence about the client.
	Name, Does string
	// run is the life of one client. It returns how the server has stopped it, or the error of its end of time.
	run func(c *client) error
	// Stops reports whether a server has to stop the client to be safe. It is false for clients that only reconnect, or
	// pause now and then.
	Stops bool
}

// Attacks returns all attacks.
func Attacks() []Attack {
	return []Attack{
		{"slow-handshake", "sends its request a byte a second", slowHandshake, true},
		{"endless-header", "sends headers without an end", endlessHeader, true},
		{"missing-body", "announces a body to a request and does not send it", missingBody, true},
		{"never-authenticates", "opens a WebSocket and sends nothing", neverAuthenticates, true},
		{"half-open", "authenticates, then neither sends, reads nor closes", halfOpen, true},
		{"half-closed", "closes its sending side after the upgrade", halfClosed, true},
		{"never-reads", "subscribes, sends pings and reads nothing", neverReads, true},
		{"byte-a-second", "subscribes, sends pings and reads a byte a second", byteASecond, true},
		{"freeze-and-thaw", "reads nothing for seconds, then everything, again and again", freezeAndThaw, false},
		{"reset-in-frame", "resets the connection in the middle of a frame, and comes back", resetInFrame, false},
		{"storm-back", "reconnects as soon as it is connected", stormBack, false},
		{"flood-messages", "sends messages as fast as it can", floodMessages, true},
		{"flood-fragments", "sends a message of endless empty fragments", floodFragments, true},
		{"flood-pings", "sends pings as fast as it can and reads the pongs", flood(func(int) []byte {
			return frame(ping, make([]byte, 125))
		}), true},
		{"flood-subscriptions", "subscribes to ever more ids", floodSubscriptions, true},
		{"flood-resumes", "recovers 100 unknown uploads again and again", floodResumes, true},
		{"flood-tokens", "renews its token again and again", floodTokens, true},
		{"huge-length", "announces a message of 2^62 bytes", announces(1 << 62), true},
		{"negative-length", "announces a message of 2^63 bytes", announces(1 << 63), true},
		{"unsent-length", "announces a message within the limit and sends its bytes a second apart", unsentLength, true},
		{"unfinished-message", "sends the first fragment of a message only", unfinishedMessage, true},
	}
}

// drip sends bytes a second apart.
func (c *client) drip(p []byte) error {
	for i := range p {
		if err := c.write(p[i : i+1]); err != nil {
			return err
		}
		if !c.pause(time.Second) {
			return c.ctx.Err()
		}
	}
	return nil
}

func slowHandshake(c *client) error {
	if err := c.connect(); err != nil {
		return err
	}
	return c.untilStopped(func() error { return c.drip([]byte(handshake(c.target, c.endpoint))) })
}

// untilStopped sends on a goroutine and reads until the server ends the connection.
func (c *client) untilStopped(send func() error) error {
	sent := make(chan error, 1)
	go func() { sent <- send() }()
	err := c.readHTTP()
	_ = c.socket.CloseRead()
	_ = c.socket.CloseWrite() // ends a write
	if failed := <-sent; bound(err) == "" {
		err = failed
	}
	return err
}

// readHTTP reads the answer to a request that is not complete.
func (c *client) readHTTP() error {
	err := readAnswer(c.reader)
	if err == nil {
		return c.drain()
	}
	return err
}

func endlessHeader(c *client) error {
	if err := c.connect(); err != nil {
		return err
	}
	return c.untilStopped(func() error {
		if err := c.write([]byte("GET / HTTP/1.1\r\nHost: chaos\r\n")); err != nil {
			return err
		}
		line := []byte("X-Chaos: " + string(bytes.Repeat([]byte("x"), 1000)) + "\r\n")
		for c.ctx.Err() == nil {
			if err := c.write(line); err != nil {
				return err
			}
		}
		return c.ctx.Err()
	})
}

func missingBody(c *client) error {
	if err := c.connect(); err != nil {
		return err
	}
	request := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: 1000000\r\n\r\n",
		c.endpoint.RequestURI(), c.endpoint.Host)
	if err := c.write([]byte(request)); err != nil {
		return err
	}
	return c.readHTTP()
}

func neverAuthenticates(c *client) error {
	if err := c.upgrade(); err != nil {
		return err
	}
	return c.drain()
}

func halfOpen(c *client) error {
	if err := c.open(); err != nil {
		return err
	}
	// A reader that answers nothing shows when the server gives up, as the machine of a client that has gone would not.
	return c.drain()
}

func halfClosed(c *client) error {
	if err := c.open(); err != nil {
		return err
	}
	if err := c.socket.CloseWrite(); err != nil {
		return err
	}
	return c.drain()
}

// follow opens the WebSocket and subscribes to the published messages, if there are any.
func (c *client) follow() error {
	if err := c.open(); err != nil || c.target.Publish == nil {
		return err
	}
	return c.write(frame(text, c.target.Subscribe(0)))
}

func neverReads(c *client) error {
	if err := c.follow(); err != nil {
		return err
	}
	return c.pingAtRate()
}

// pingAtRate sends pings at a rate that no server should take for a flood.
func (c *client) pingAtRate() error {
	full := frame(ping, make([]byte, 125))
	for c.pause(100 * time.Millisecond) {
		if err := c.write(full); err != nil {
			return err
		}
	}
	return c.ctx.Err()
}

func byteASecond(c *client) error {
	if err := c.follow(); err != nil {
		return err
	}
	_ = c.socket.SetReadBuffer(1)
	slow := &slowConn{Conn: c.conn, ctx: c.ctx}
	c.conn = slow
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		full := frame(ping, make([]byte, 125))
		for c.pause(100 * time.Millisecond) {
			n, err := c.conn.Write(full)
			c.sent.Add(int64(n))
			if err != nil {
				break
			}
		}
		slow.fast.Store(true) // the reason may be among the bytes that are left
	}()
	err := c.drain()
	_ = c.socket.CloseWrite()
	<-sent
	return err
}

// slowConn reads a byte a second until fast is set.
type slowConn struct {
	net.Conn
	ctx  context.Context // the time of the attack
	fast atomic.Bool
}

// Read reads one byte, or all that is there.
func (s *slowConn) Read(p []byte) (int, error) {
	if s.fast.Load() || len(p) == 0 {
		return s.Conn.Read(p)
	}
	select {
	case <-time.After(time.Second):
	case <-s.ctx.Done():
	}
	return s.Conn.Read(p[:1])
}

func freezeAndThaw(c *client) error {
	if err := c.follow(); err != nil {
		return err
	}
	full := frame(ping, make([]byte, 125))
	for {
		const pings = 20
		for range pings {
			if err := c.write(full); err != nil {
				return err
			}
		}
		if !c.pause(3 * time.Second) {
			return c.ctx.Err()
		}
		for pongs := 0; pongs < pings; {
			opcode, payload, err := c.next()
			switch {
			case err != nil:
				return err
			case opcode == 0x8:
				return closed(payload)
			case opcode == 0xA:
				pongs++
			}
			if c.reader.Buffered() == 0 && pongs >= pings/2 {
				break // a server may answer the newest ping only
			}
		}
	}
}

func resetInFrame(c *client) error {
	for c.ctx.Err() == nil {
		if err := c.open(); err != nil {
			return err
		}
		half := frame(text, bytes.Repeat([]byte("x"), 1000))
		if err := c.write(half[:500]); err != nil {
			return err
		}
		c.close()
		c.pause(10 * time.Millisecond)
	}
	return c.ctx.Err()
}

func stormBack(c *client) error {
	for c.ctx.Err() == nil {
		if err := c.open(); err != nil {
			return err
		}
		c.close()
	}
	return c.ctx.Err()
}

// flood returns the life of a client that sends and reads as fast as it can.
func flood(message func(n int) []byte) func(c *client) error {
	return func(c *client) error {
		if err := c.open(); err != nil {
			return err
		}
		read := make(chan error, 1)
		go func() {
			read <- c.drain()
			_ = c.socket.CloseWrite() // ends a write
		}()
		for n := 0; ; n++ {
			written, err := c.conn.Write(message(n))
			c.sent.Add(int64(written))
			if err != nil {
				return <-read
			}
		}
	}
}

func floodFragments(c *client) error {
	begun := false
	return flood(func(int) []byte {
		if !begun {
			begun = true
			return frame(firstText, nil)
		}
		return bytes.Repeat(frame(continuation, nil), 100)
	})(c)
}

func floodMessages(c *client) error {
	return flood(func(n int) []byte { return frame(text, c.target.Message(n)) })(c)
}

func floodSubscriptions(c *client) error {
	return flood(func(n int) []byte { return frame(text, c.target.Subscribe(n)) })(c)
}

func floodResumes(c *client) error {
	return flood(func(n int) []byte { return frame(text, c.target.Resume(n)) })(c)
}

func floodTokens(c *client) error {
	return flood(func(n int) []byte { return frame(text, c.target.Token(n)) })(c)
}

// announces returns the life of a client that announces a length and sends as many bytes as the server takes.
func announces(length uint64) func(c *client) error {
	return func(c *client) error {
		header := []byte{text, 0x80 | 127}
		for shift := 56; shift >= 0; shift -= 8 {
			header = append(header, byte(length>>shift)) //nolint:gosec // the byte of this place
		}
		header = append(header, 0, 0, 0, 0)
		begun := false
		return flood(func(int) []byte {
			if !begun {
				begun = true
				return header
			}
			return make([]byte, 1<<10)
		})(c)
	}
}

func unsentLength(c *client) error {
	if err := c.open(); err != nil {
		return err
	}
	const announced = 10_000
	whole := frame(text, make([]byte, announced))
	const header = 8
	if err := c.write(whole[:header]); err != nil {
		return err
	}
	return c.untilClosed(func() error { return c.drip(whole[header:]) })
}

func unfinishedMessage(c *client) error {
	if err := c.open(); err != nil {
		return err
	}
	if err := c.write(frame(firstText, []byte(`{"action":`))); err != nil {
		return err
	}
	return c.drain()
}

// untilClosed sends on a goroutine and reads until the server ends the WebSocket.
func (c *client) untilClosed(send func() error) error {
	sent := make(chan error, 1)
	go func() { sent <- send() }()
	err := c.drain()
	_ = c.socket.CloseWrite()
	if failed := <-sent; bound(err) == "" && !errors.Is(failed, io.EOF) {
		err = failed
	}
	return err
}
