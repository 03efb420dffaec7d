package brokertest

import (
	"bytes"
	"slices"
	"strings"

	"github.com/shoal-go/shoal/broker"
)

// unusualChannels returns channels whose names mean something to some engine, are as long as they may be, or are easily
// taken for each other.
func unusualChannels() []string {
	ids := []string{
		"a", "A", "a.b", "a.*", "a.>", "*", ">", "*.*", ".", "..", ".a", "a.", "a..b", "?", "[a]", "[^b]", "{a}", "{a}b",
		"{}", "}{", "%", "%20", " ", "_20", "=20", "%2E", "%2e", "%252E", "a%2Eb", "a%2eb", "+", " a", "a ", "a b", "a  b",
		":", "a:b", "user:a", "upload:a", "a/b", "/", `\`, `a\.b`, `"`, "'", "a,b", "a;b", "#", "$SYS.a", "$JS.API.INFO",
		"_INBOX.a", "$", "-", "_", "=", "é", "e\u0301", "\u00a0", "\u2028", "\ufffd", "ﬀ", "ff", "日本語", "🐟", "🐟.🐠",
		strings.Repeat(" ", 255), strings.Repeat("%", 255), strings.Repeat(".", 255), strings.Repeat("é", 127) + "e",
		strings.Repeat("é", 127) + "f", strings.Repeat("x", 254), strings.Repeat("x", 255), strings.Repeat("\U0001f41f", 63),
	}
	channels := []string{"user:a", "u:pload", "user:*", "user:a.b"}
	for _, id := range ids {
		channels = append(channels, "upload:"+id)
	}
	return channels
}

// namesKeptApart: ids with any content have messages and a history of their own.
func namesKeptApart(s *suite) {
	a, b, few := s.join(), s.join(), s.join()
	all := unusualChannels()
	wild := []string{"upload:*", "upload:>", "upload:a.*", "upload:a.>", "upload:[a]", "upload:?", "user:*"}
	for _, channel := range all {
		s.forget(a, channel) // another run may have left something
	}
	s.subscribe(a, all...)
	s.subscribe(few, wild...)
	for _, channel := range all {
		s.publish(b, channel, channel)
		s.store(b, channel, channel+" stored")
	}
	for _, channel := range all {
		s.publish(b, channel, "end")
	}
	for _, channel := range all {
		want := []string{channel, channel + " stored", "end"}
		s.awaitAll(a, channel, want)
		if slices.Contains(wild, channel) {
			s.awaitAll(few, channel, want)
		} else if unexpected := few.Payloads(channel); len(unexpected) > 0 {
			s.Errorf("a node subscribed to %q received %q on %q", wild, unexpected, channel)
		}
		if k := s.history(a, channel); len(k.Messages) != 1 || string(k.Messages[0].Payload) != channel+" stored" {
			s.Errorf("of %q is stored %q, want only its own message", channel, texts(k.Messages))
		}
	}
	s.unsubscribe(a, all[1:]...)
	for _, channel := range all {
		s.publish(b, channel, "once more")
	}
	s.awaitLast(a, all[0], "once more")
}

// awaitAll fails the test unless exactly these payloads, in any order, are received on a channel.
func (s *suite) awaitAll(n *node, channel string, want []string) {
	s.Helper()
	s.awaitCount(n, channel, len(want))
	got := n.Payloads(channel)
	slices.Sort(got)
	if !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		s.Errorf("a node received %q on %q, want %q", got, channel, want)
	}
}

// texts returns the payloads of stored messages.
func texts(messages []broker.Stored) []string {
	var payloads []string
	for _, m := range messages {
		payloads = append(payloads, string(m.Payload))
	}
	return payloads
}

// payloadsUnchanged: any bytes arrive as they are, live and stored, up to 64 KiB.
func payloadsUnchanged(s *suite) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	payloads := []string{
		`{"action":"upload_progress","payload":{"message":"Größe: 1 °C \u2028 日本語 🐟"}}`,
		"{}", "0", " ", "\n", "\x00", "\r\n+OK\r\n", "null", "nil", string(every), strings.Repeat("*", 64<<10),
		string(bytes.Repeat(every, 64<<10/256)), `"` + strings.Repeat("é", 32<<10-1) + `"`,
	}
	a, b := s.join(), s.join()
	live, stored := s.channel("live"), s.channel("stored")
	s.subscribe(b, live, stored)
	for _, payload := range payloads {
		s.publish(a, live, payload)
		s.store(a, stored, payload)
	}
	for _, channel := range []string{live, stored} {
		s.awaitCount(b, channel, len(payloads))
		if !slices.Equal(b.Payloads(channel), payloads) {
			s.Errorf("payloads arrived changed on %s", channel)
		}
	}
	if k := s.history(b, stored); !slices.Equal(texts(k.Messages), payloads) {
		s.Errorf("payloads are stored changed")
	}
}

// payloadOwned: a receiver may change a payload, and so may the publisher when the call has returned.
func payloadOwned(s *suite) {
	scribble := func(payload []byte) { copy(payload, bytes.Repeat([]byte("#"), len(payload))) }
	mutating := NewRecorder()
	mutating.OnReceive = func(m broker.Message) { scribble(m.Payload) }
	a, b := s.connect(s.Node(s.TB), mutating), s.join()
	x, y := s.channel("x"), s.channel("y")
	s.subscribe(a, x, y)
	s.subscribe(b, x, y)
	var want []string
	for i := range 10 {
		payload := strings.Repeat(string(rune('a'+i)), 100)
		want = append(want, payload)
		s.publish(a, x, payload)
		s.store(b, y, payload)
	}
	for _, channel := range []string{x, y} {
		for _, n := range []*node{a, b} {
			s.awaitCount(n, channel, len(want))
			if got := n.Payloads(channel); !slices.Equal(got, want) {
				s.Errorf("a node received a payload that another receiver changed: %q", got)
			}
		}
	}
	if got := texts(s.history(b, y).Messages); !slices.Equal(got, want) {
		s.Errorf("stored payloads were changed by a receiver: %q", got)
	}
}
