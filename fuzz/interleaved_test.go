package fuzz_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
)

// speaker is a client that sends messages of its own. The server returns each of them.
type speaker struct {
	*socket
	stream, want []byte
}

// newSpeaker returns a client that will send messages of these lengths.
func newSpeaker(t *testing.T, s *target, number int, lengths []byte) *speaker {
	t.Helper()
	p := &speaker{socket: s.upgrade(t, "")}
	name := fmt.Sprint("speaker-", number)
	p.stream = text(`{"type":"auth","token":"user-` + name + `"}`)
	p.want = []byte(`{"action":"auth_success","user_id":"` + name + `"}`)
	for i, length := range lengths {
		message := fmt.Sprintf("%s %d %s", name, i, strings.Repeat(string(rune('a'+number)), 3*int(length)))
		p.stream = append(p.stream, text(message)...)
		p.want = append(p.want, message...)
	}
	return p
}

// FuzzInterleaved sends the messages of three connections in arbitrary pieces that alternate arbitrarily, beside
// arbitrary bytes on a fourth, plain or over TLS. Each connection gets exactly its own messages back: no byte of one
// reaches another, although they share readers.
func FuzzInterleaved(f *testing.F) {
	for i, seed := range append(hostileFrames, "\x00\x01\x02\x03\x04\x05", strings.Repeat("\x11\x22\x33", 30)) {
		f.Add([]byte(seed), []byte{1, 50, 200, 3, 255, 0, 9}, i%2 == 0)
	}
	plain, secure := start(f), startTLS(f)
	f.Fuzz(func(t *testing.T, schedule, lengths []byte, overTLS bool) {
		s := plain
		if overTLS {
			s = secure
		}
		const speakers, most = 3, 12
		lengths = lengths[:min(len(lengths), most)]
		hostile := s.upgrade(t, "")
		var all []*speaker
		for number := range speakers {
			part := len(lengths) / speakers
			all = append(all, newSpeaker(t, s, number, lengths[number*part:(number+1)*part]))
		}
		var readers sync.WaitGroup
		for _, p := range all {
			readers.Go(func() { p.expectAll(t) })
		}
		for i := 0; i < len(schedule); i++ {
			_, _ = hostile.Write(schedule[i : i+1]) // the server may have ended it
			p := all[int(schedule[i])%speakers]
			n := min(len(p.stream), 1+int(schedule[i])/speakers)
			if _, err := p.Write(p.stream[:n]); err != nil {
				t.Error(err)
			}
			p.stream = p.stream[n:]
		}
		for _, p := range all {
			if _, err := p.Write(p.stream); err != nil {
				t.Error(err)
			}
		}
		readers.Wait()
		for _, p := range all {
			_ = p.Close()
		}
		_ = hostile.Close()
		s.nothingLeft(t)
	})
}

// expectAll reads until everything that the server must return has come.
func (p *speaker) expectAll(t *testing.T) {
	var got []byte
	for len(got) < len(p.want) {
		opcode, payload, err := p.next()
		switch {
		case err != nil:
			t.Errorf("after %q: %v", got, err)
			return
		case opcode == 0x8:
			t.Errorf("after %q: closed with %q", got, payload)
			return
		case opcode == 0x1 && string(payload) != `{"action":"ping"}`:
			got = append(got, payload...)
		}
	}
	if !bytes.Equal(got, p.want) {
		t.Errorf("got %q\nwant %q", got, p.want)
	}
}

// tlsConn is the client's side of a TLS connection.
type tlsConn struct {
	*tls.Conn
	raw *net.UnixConn
}

// Close closes the socket without a TLS alert, which could block.
func (c tlsConn) Close() error { return c.raw.Close() }
