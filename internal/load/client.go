package load

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// phase is how far a client has come.
type phase uint8

const (
	connecting phase = iota
	upgrading
	greeting
	receiving
	stalled
	ended
)

// ping is the message that is no data unless a dialect says so.
var ping = []byte(`{"action":"ping"}`)

// line is a client's way to its server. An error means that the connection is of no more use.
type line interface {
	// write sends all of data, at once or as soon as there is room. data may be changed afterwards.
	write(data []byte) error
}

// client is one connection as the protocol sees it. It belongs to the goroutine that its engine gives it, and
// before that to Open.
type client struct {
	fleet    *Fleet
	index    int
	line     line
	latency  *recorder
	phase    phase
	began    time.Time
	answer   []byte // what has come of the answer to the upgrade
	frames   frames
	messages uint64 // that count, of those in the current read
}

// connected begins the upgrade.
func (c *client) connected(l line) error {
	c.line, c.phase = l, upgrading
	return l.write(c.fleet.handshake.request)
}

// receive takes what has come in one read, which returned at now. An error ends the connection. The engine
// stops reading once the phase is stalled.
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
			passed, n := c.frames.pass(data)
			c.messages += passed
			data = data[n:]
		}
		m, ok, n, err := c.frames.next(data)
		data = data[n:]
		if err == nil && ok {
			err = c.take(m, now)
		}
		if err != nil {
			c.tell(size-len(data), now)
			return err
		}
		if !ready && c.phase == receiving {
			size = len(data) // counting begins here
		}
	}
	c.tell(size, now)
	return nil
}

// tell adds a read to the fleet's counts.
func (c *client) tell(size int, now time.Time) {
	if c.phase == receiving && size > 0 {
		c.fleet.counts.add(c.messages, size, now)
	}
	c.messages = 0
}

// upgrade takes the answer to the upgrade and returns what comes after it.
func (c *client) upgrade(data []byte, now time.Time) ([]byte, error) {
	c.answer = append(c.answer, data...)
	n, err := c.fleet.handshake.check(c.answer)
	if n == 0 || err != nil {
		return nil, err
	}
	rest := c.answer[n:]
	c.answer, c.phase = nil, greeting
	c.frames.keepMax = maxMessageBytes
	d := &c.fleet.opt.Dialect
	if d.Hello != nil {
		var hello []byte
		for _, text := range d.Hello(c.index) {
			hello = appendFrame(hello, opText, c.fleet.mask, text)
		}
		if err := c.line.write(hello); err != nil {
			return nil, err
		}
	}
	if d.Ready == nil {
		c.becomeReady(now)
	}
	return rest, nil
}

// take handles a message or control frame.
func (c *client) take(m message, now time.Time) error {
	switch m.opcode {
	case opPing:
		return c.line.write(appendFrame(nil, opPong, c.fleet.mask, m.payload))
	case opPong:
		return nil
	case opClose:
		_ = c.line.write(appendFrame(nil, opClose, c.fleet.mask, m.payload)) // out of courtesy
		return closeError(m.payload)
	}
	if c.phase == greeting {
		return c.greeted(m.payload, now)
	}
	return c.data(m.payload, now)
}

// greeted handles a message before the client is ready.
func (c *client) greeted(payload []byte, now time.Time) error {
	d := &c.fleet.opt.Dialect
	if d.Refused != nil {
		if why := d.Refused(payload); why != "" {
			return fmt.Errorf("the server refused: %s", printable(why))
		}
	}
	if d.Ready(payload) {
		c.becomeReady(now)
		return nil
	}
	return c.answerWith(d.Pong, payload)
}

// becomeReady begins the phase in which messages count, or in which nothing is read any more.
func (c *client) becomeReady(now time.Time) {
	c.frames.keepMin, c.frames.keepMax = c.fleet.opt.looksAt()
	c.phase = receiving
	if c.index < c.fleet.opt.Stalled {
		c.phase = stalled
	}
	c.fleet.isReady(now.Sub(c.began))
}

// looksAt returns the sizes of the payloads that have to be looked at once a client is ready.
func (o *Options) looksAt() (least, most uint64) {
	if o.Dialect.Data == nil && o.Sent == nil {
		return uint64(len(ping)), uint64(len(ping))
	}
	return 0, maxMessageBytes
}

// count returns for how many messages a payload counts.
func (o *Options) count(payload []byte) int {
	switch {
	case o.Dialect.Data != nil:
		return o.Dialect.Data(payload)
	case bytes.Equal(payload, ping):
		return 0
	}
	return 1
}

// data handles a message of a client that is ready. payload is nil if it need not be looked at.
func (c *client) data(payload []byte, now time.Time) error {
	o := &c.fleet.opt
	n := o.count(payload)
	if n == 0 {
		return c.answerWith(o.Dialect.Pong, payload)
	}
	c.messages += uint64(n) //nolint:gosec // a number is not negative
	if o.Sent != nil {
		if sent, ok := o.Sent(payload); ok {
			c.latency.record(now.UnixNano() - sent)
		}
	}
	return nil
}

func (c *client) answerWith(pong func([]byte) []byte, payload []byte) error {
	if pong == nil {
		return nil
	}
	answer := pong(payload)
	if answer == nil {
		return nil
	}
	return c.line.write(appendFrame(nil, opText, c.fleet.mask, answer))
}

// leave tells the server, as far as that goes without waiting, that the client is about to go.
func (c *client) leave() {
	if c.phase == greeting || c.phase == receiving {
		const normalClosure = 1000
		_ = c.line.write(appendFrame(nil, opClose, c.fleet.mask, binary.BigEndian.AppendUint16(nil, normalClosure)))
	}
}

// over notes that the connection has ended before Close.
func (c *client) over(err error) {
	was := c.phase
	c.phase = ended
	if errors.Is(err, io.EOF) {
		err = errors.New("the server ended the connection without a word")
	}
	c.fleet.hasEnded(c.index, was, err)
}

// closeError says how the server has closed the connection.
func closeError(payload []byte) error {
	const codeBytes = 2
	if len(payload) < codeBytes {
		return errors.New("the server closed the connection without a code")
	}
	code, reason := binary.BigEndian.Uint16(payload), printable(string(payload[codeBytes:]))
	if reason == "" {
		return fmt.Errorf("the server closed the connection with %d", code)
	}
	return fmt.Errorf("the server closed the connection with %d, %s", code, reason)
}
