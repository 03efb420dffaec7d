package main

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// plan says which message is published when, and to which upload. It is made before the first message, so
// that a server that stalls does not slow down its own load. It is never changed.
type plan struct {
	start    time.Time
	rate     float64 // messages in a second
	messages int
	burst    int
	uploads  int
}

// upload returns which upload a message is for: a burst goes to one upload, the next burst to the next.
func (p *plan) upload(message int) int { return message / p.burst % p.uploads }

// at returns when a message is meant to be sent: those of a burst at once.
func (p *plan) at(message int) time.Time {
	first := message / p.burst * p.burst
	return p.start.Add(time.Duration(float64(first) / p.rate * float64(time.Second)))
}

// end returns when the last message is meant to be sent.
func (p *plan) end() time.Time { return p.at(p.messages - 1) }

// A message of the benchmark is {"action":"bench","sent":<nanoseconds of Unix time>,"pad":"…"}.
var (
	benchAction = []byte(`{"action":"bench",`)
	benchSent   = []byte(`"sent":`)
	benchPad    = []byte(`,"pad":"`)
	benchEnd    = []byte(`"}`)
)

// appendBenchMessage appends a message with the given size, or a larger one if its fields need more.
func appendBenchMessage(dst []byte, sent time.Time, size int) []byte {
	begin := len(dst)
	dst = append(append(dst, benchAction...), benchSent...)
	dst = strconv.AppendInt(dst, sent.UnixNano(), 10)
	dst = append(dst, benchPad...)
	dst = append(dst, strings.Repeat("x", max(begin+size-len(benchEnd)-len(dst), 0))...)
	return append(dst, benchEnd...)
}

// benchSentAt reads out of a message when it was meant to be sent, without a copy.
func benchSentAt(payload []byte) (unixNano int64, ok bool) {
	rest, ok := bytes.CutPrefix(payload, benchAction)
	if !ok {
		return 0, false
	}
	if rest, ok = bytes.CutPrefix(rest, benchSent); !ok {
		return 0, false
	}
	const digits = 19 // until the year 2286
	if len(rest) < digits {
		return 0, false
	}
	for _, digit := range rest[:digits] {
		if digit < '0' || digit > '9' {
			return 0, false
		}
		unixNano = unixNano*10 + int64(digit-'0')
	}
	return unixNano, unixNano > 0
}
