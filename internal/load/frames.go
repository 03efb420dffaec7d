package load

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// The opcodes of RFC 6455.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

const (
	finBit, reservedBits, opcodeBits = 0x80, 0x70, 0x0F
	maskBit, lengthBits              = 0x80, 0x7F

	// shortHead is the header of a frame whose length is in its second byte; maxHead is the longest.
	shortHead, maxHead = 2, 10
	// maxControlBytes is what a control frame may carry.
	maxControlBytes = 125
	// maxKeptBuffer is the largest buffer that a connection keeps from one message to the next.
	maxKeptBuffer = 4 << 10
)

// message is a complete message or control frame of the server.
type message struct {
	// opcode is that of its first frame.
	opcode byte
	size   uint64
	// payload is nil if it has not been kept. It is valid until the next call of next.
	payload []byte
}

// frames takes a server's frames apart, however the bytes are cut. It belongs to one goroutine.
//
// Payloads that nobody is going to look at are passed over, not copied; one that is looked at is copied only if
// it did not come in one piece.
type frames struct {
	// Of a message, payloads of keepMin to keepMax bytes are kept.
	keepMin, keepMax uint64

	// head holds the bytes of a header that has come in part.
	head [maxHead]byte
	have int

	// The frame that has been begun, if inside is true.
	inside    bool
	final     bool
	opcode    byte
	left      uint64 // bytes of its payload that are still to come
	control   []byte // what has come of a control frame's payload
	fragments bool   // a message has been begun whose last frame has not

	// The message that has been begun.
	kind byte
	size uint64 // of the frames begun so far
	held []byte // what has come of its payload, where it is kept
}

// next takes bytes from data and returns how many. ok says that a message or control frame has been
// completed; otherwise all of data has been taken. An error means that the server breaks the protocol, and
// that the connection is of no more use.
func (f *frames) next(data []byte) (m message, ok bool, n int, err error) {
	for {
		if !f.inside {
			taken, err := f.readHead(data[n:])
			n += taken
			if err != nil || !f.inside {
				return message{}, false, n, err
			}
		}
		part := data[n:]
		if uint64(len(part)) > f.left {
			part = part[:f.left]
		}
		n += len(part)
		f.left -= uint64(len(part))
		if m, ok = f.take(part); ok || n == len(data) {
			return m, ok, n, nil
		}
	}
}

// pass counts the messages at the beginning of data that came whole, in one frame each, and whose payloads are
// not kept, and returns how many bytes they have. next would do the same, more slowly.
func (f *frames) pass(data []byte) (messages uint64, n int) {
	if f.inside || f.have > 0 || f.fragments {
		return 0, 0
	}
	for len(data)-n >= shortHead+2 {
		rest := data[n:]
		head, size := shortHead, int(rest[1])
		if size == 126 {
			head, size = shortHead+2, int(binary.BigEndian.Uint16(rest[shortHead:]))
		}
		whole := rest[0] == finBit|opText || rest[0] == finBit|opBinary
		if !whole || rest[1] > 126 || len(rest)-head < size || f.keeps(size) {
			break
		}
		messages++
		n += head + size
	}
	return messages, n
}

// keeps reports whether the payload of a message that has come whole is to be looked at.
func (f *frames) keeps(size int) bool {
	n := uint64(size) //nolint:gosec // a length is not negative
	return n >= f.keepMin && n <= f.keepMax
}

// readHead reads a header, or what there is of it.
func (f *frames) readHead(data []byte) (n int, err error) {
	src := data
	if f.have > 0 {
		src = f.head[:f.have+copy(f.head[f.have:], data)]
	}
	size := headSize(src)
	if len(src) < size {
		f.have = copy(f.head[:], src)
		return len(data), nil
	}
	n, f.have = size-f.have, 0
	return n, f.open(src[:size])
}

// headSize returns how long the header is that begins so.
func headSize(src []byte) int {
	if len(src) < shortHead {
		return shortHead
	}
	switch src[1] & lengthBits {
	case 126:
		return shortHead + 2
	case 127:
		return shortHead + 8
	}
	return shortHead
}

// open begins the frame with this header.
func (f *frames) open(head []byte) error {
	length := uint64(head[1] & lengthBits)
	switch len(head) {
	case shortHead + 2:
		length = uint64(binary.BigEndian.Uint16(head[shortHead:]))
	case shortHead + 8:
		length = binary.BigEndian.Uint64(head[shortHead:])
	}
	f.final, f.opcode = head[0]&finBit != 0, head[0]&opcodeBits
	switch {
	case head[0]&reservedBits != 0:
		return errors.New("the server sent a frame with reserved bits")
	case head[1]&maskBit != 0:
		return errors.New("the server sent a masked frame")
	case f.opcode >= opClose:
		if err := f.openControl(length); err != nil {
			return err
		}
	default:
		if err := f.openData(length); err != nil {
			return err
		}
	}
	f.inside, f.left = true, length
	return nil
}

func (f *frames) openControl(length uint64) error {
	switch {
	case f.opcode > opPong:
		return fmt.Errorf("the server sent a frame of the unknown opcode %d", f.opcode)
	case !f.final || length > maxControlBytes:
		return errors.New("the server sent a control frame that is fragmented or too long")
	}
	f.control = f.control[:0]
	return nil
}

func (f *frames) openData(length uint64) error {
	switch {
	case f.opcode > opBinary:
		return fmt.Errorf("the server sent a frame of the unknown opcode %d", f.opcode)
	case (f.opcode == opContinuation) != f.fragments:
		return errors.New("the server sent the frames of a message out of order")
	case length > maxMessageBytes || f.size+length > maxMessageBytes && f.fragments:
		return fmt.Errorf("the server sent a message of more than %d bytes", maxMessageBytes)
	}
	if !f.fragments {
		f.kind, f.size = f.opcode, 0
		f.held = f.held[:0]
		if cap(f.held) > maxKeptBuffer {
			f.held = nil
		}
	}
	f.size += length
	f.fragments = !f.final
	return nil
}

// take takes the next part of the current frame's payload, and completes what ends with it.
func (f *frames) take(part []byte) (m message, ok bool) {
	if f.opcode >= opClose {
		return f.takeControl(part)
	}
	keep := f.size <= f.keepMax && (f.size >= f.keepMin || !f.final)
	if f.left == 0 {
		f.inside = false
		if f.final {
			m = message{opcode: f.kind, size: f.size}
			if keep {
				m.payload = joined(&f.held, part)
			}
			return m, true
		}
	}
	if keep {
		f.held = append(f.held, part...)
	}
	return message{}, false
}

func (f *frames) takeControl(part []byte) (message, bool) {
	if f.left > 0 {
		f.control = append(f.control, part...)
		return message{}, false
	}
	f.inside = false
	payload := joined(&f.control, part)
	return message{opcode: f.opcode, size: uint64(len(payload)), payload: payload}, true
}

// joined returns what has been held with the last part after it: that part itself if nothing has been held.
func joined(held *[]byte, last []byte) []byte {
	if len(*held) == 0 {
		return last
	}
	*held = append(*held, last...)
	return *held
}

// appendFrame appends a client's frame, which RFC 6455 wants to be masked.
func appendFrame(dst []byte, opcode byte, mask [4]byte, payload []byte) []byte {
	dst = append(dst, finBit|opcode)
	switch n := len(payload); {
	case n <= maxControlBytes:
		dst = append(dst, maskBit|byte(n))
	case n <= 0xFFFF:
		dst = binary.BigEndian.AppendUint16(append(dst, maskBit|126), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, maskBit|127), uint64(n))
	}
	dst = append(dst, mask[:]...)
	for i, b := range payload {
		dst = append(dst, b^mask[i&3])
	}
	return dst
}
