package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/shoal-go/shoal/internal/printable"
)

// phase is the state of a client.
type phase uint8

const (
	connecting phase = iota
	upgrading
	greeting
	receiving
	stalled
	ended
)

// ping is the message that does not count without Dialect.Data.
var ping = []byte(`{"action":"ping"}`)

// transport sends a client's bytes to the server. After an error the connection cannot be used any more.
type transport interface {
	// write sends data, or buffers the part that the socket does not accept. The caller may reuse data afterwards.
	write(data []byte) error
}

// client is the protocol state of one connection. It belongs to a goroutine of its engine, and before dial to Open.
type client struct {
	fleet     *Fleet
	index     int
	transport transport
	latency   *Times
	phase     phase
	began     time.Time
	response  []byte // the received part of the response to the upgrade
	frames    frameReader
	messages  uint64 // counted messages of the current read
}

// startUpgrade sends the upgrade request over the new connection.
func (c *client) startUpgrade(l transport) error {
	c.transport, c.phase = l, upgrading
	return l.write(c.fleet.handshake.request)
}

// receive handles the bytes of one read, which returned at now. After an error the engine closes the connection. It
// must stop reading once the phase is stalled.
func (c *client) receive(data []byte, now time.Time) error {
	if c.phase == upgrading {
		rest, err := c.upgrade(data, now)
		if err != nil || c.phase == upgrading {
			return err
		}
		data = rest
	}
	size := len(data)
	for len(data) > 0 && c.phase != stalled {
		ready := c.phase == receiving
		if ready {
			passed, n := c.frames.skipMessages(data)
			c.messages += passed
			data = data[n:]
		}
		m, ok, n, err := c.frames.next(data)
		data = data[n:]
		if err == nil && ok {
			err = c.handleFrame(m, now)
		}
		if err != nil {
			c.count(size-len(data), now)
			return err
		}
		if !ready && c.phase == receiving {
			size = len(data) // messages are counted from here on
		}
	}
	c.count(size, now)
	return nil
}

// count adds a read to the fleet's counters.
func (c *client) count(size int, now time.Time) {
	if c.phase == receiving && size > 0 {
		c.fleet.counts.add(c.messages, size, now)
	}
	c.messages = 0
}

// upgrade handles the response to the upgrade and returns the bytes after it.
func (c *client) upgrade(data []byte, now time.Time) ([]byte, error) {
	c.response = append(c.response, data...)
	n, err := c.fleet.handshake.check(c.response)
	if n == 0 || err != nil {
		return nil, err
	}
	rest := c.response[n:]
	c.response, c.phase = nil, greeting
	c.frames.keepMax = maxMessageBytes
	d := &c.fleet.opt.Dialect
	if d.Hello != nil {
		var hello []byte
		for _, text := range d.Hello(c.index) {
			hello = appendFrame(hello, opText, c.fleet.mask, text)
		}
		if err := c.transport.write(hello); err != nil {
			return nil, err
		}
	}
	if d.Ready == nil {
		c.becomeReady(now)
	}
	return rest, nil
}

// handleFrame handles a message or control frame.
func (c *client) handleFrame(m message, now time.Time) error {
	switch m.opcode {
	case opPing:
		return c.transport.write(appendFrame(nil, opPong, c.fleet.mask, m.payload))
	case opPong:
		return nil
	case opClose:
		// RFC 6455, 5.5.1: a close frame is answered. The error does not matter.
		_ = c.transport.write(appendFrame(nil, opClose, c.fleet.mask, m.payload))
		return closeError(m.payload)
	}
	if c.phase == greeting {
		return c.handleGreeting(m.payload, now)
	}
	return c.handleMessage(m.payload, now)
}

// handleGreeting handles a message before the client is ready.
func (c *client) handleGreeting(payload []byte, now time.Time) error {
	d := &c.fleet.opt.Dialect
	if d.Refused != nil {
		if why := d.Refused(payload); why != "" {
			return fmt.Errorf("the server refused: %s", printable.Beginning(why, maxQuotedBytes))
		}
	}
	if d.Ready(payload) {
		c.becomeReady(now)
		return nil
	}
	return c.reply(d.Pong, payload)
}

// becomeReady changes to the phase in which messages are counted, or in which the client stops reading.
func (c *client) becomeReady(now time.Time) {
	c.frames.keepMin, c.frames.keepMax = c.fleet.opt.payloadSizes()
	c.phase = receiving
	if c.index < c.fleet.opt.Stalled {
		c.phase = stalled
	}
	c.fleet.clientReady(now.Sub(c.began))
}

// payloadSizes returns the smallest and the largest payload that must be kept once a client is ready.
func (o *Options) payloadSizes() (least, most uint64) {
	if o.Dialect.Data == nil && o.Sent == nil {
		return uint64(len(ping)), uint64(len(ping))
	}
	return 0, maxMessageBytes
}

// countOf returns the number of application messages in a payload.
func (o *Options) countOf(payload []byte) int {
	switch {
	case o.Dialect.Data != nil:
		return o.Dialect.Data(payload)
	case bytes.Equal(payload, ping):
		return 0
	}
	return 1
}

// handleMessage handles a message of a ready client. payload is nil if its size is outside of payloadSizes.
func (c *client) handleMessage(payload []byte, now time.Time) error {
	o := &c.fleet.opt
	n := o.countOf(payload)
	if n == 0 {
		return c.reply(o.Dialect.Pong, payload)
	}
	c.messages += uint64(n) //nolint:gosec // a number is not negative
	if o.Sent != nil {
		if sent, ok := o.Sent(payload); ok {
			c.latency.Add(now.UnixNano() - sent)
		}
	}
	return nil
}

func (c *client) reply(pong func([]byte) []byte, payload []byte) error {
	if pong == nil {
		return nil
	}
	answer := pong(payload)
	if answer == nil {
		return nil
	}
	return c.transport.write(appendFrame(nil, opText, c.fleet.mask, answer))
}

// sendClose sends a close frame if the connection accepts it without waiting.
func (c *client) sendClose() {
	if c.phase == greeting || c.phase == receiving {
		const normalClosure = 1000
		_ = c.transport.write(appendFrame(nil, opClose, c.fleet.mask, binary.BigEndian.AppendUint16(nil, normalClosure)))
	}
}

// connectionEnded reports the end of the connection before Close.
func (c *client) connectionEnded(err error) {
	was := c.phase
	c.phase = ended
	if errors.Is(err, io.EOF) {
		err = errors.New("the server ended the connection without a close frame")
	}
	c.fleet.clientEnded(c.index, was, err)
}

// closeError returns the error for the server's close frame.
func closeError(payload []byte) error {
	const codeBytes = 2
	if len(payload) < codeBytes {
		return errors.New("the server closed the connection without a code")
	}
	code, reason := binary.BigEndian.Uint16(payload), printable.Beginning(string(payload[codeBytes:]), maxQuotedBytes)
	if reason == "" {
		return fmt.Errorf("the server closed the connection with %d", code)
	}
	return fmt.Errorf("the server closed the connection with %d, %s", code, reason)
}
