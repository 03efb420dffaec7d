package fuzz_test

import (
	"io"
	"runtime"
	"strings"
	"testing"
)

// hostileFrames are inputs that ended a process, a connection or a check at some time, here or elsewhere.
var hostileFrames = []string{
	"\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00abcd",     // a 64-bit length with its top bit set
	"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xffabcd",     // the largest length
	"\x81\xfe\x00\x05abcd\x00\x00\x00\x00\x00",         // a length not in its shortest form
	"\x01\x80abcd\x00\x80abcd\x00\x80abcd\x80\x80abcd", // empty fragments
	"\x89\xfe\x00\x7eabcd",                             // a ping that is too long
	"\x09\x80abcd",                                     // a fragmented ping
	"\xc1\x80abcd",                                     // a reserved bit
	"\x83\x80abcd",                                     // a reserved opcode
	"\x81\x05hello",                                    // no mask
	"\x88\x82\x00\x00\x00\x00\x03\xe8",                 // a close frame
	"\x88\x81\x00\x00\x00\x00\x03",                     // a close code of one byte
	"\x81\x84\x00\x00\x00\x00\xed\xa0\x80x",            // a surrogate in UTF-8
	"\x82\x81\x00\x00\x00\x00x",                        // binary before authentication
	"\x80\x80abcd",                                     // a continuation of nothing
	string(text(`{"type":"auth","token":"user-ann"}`)) + "\x88\x80abcd",
	string(text(`{"type":"auth","token":"user-ann"}`)) + strings.Repeat("\x89\x80abcd", 40),
	string(text(`{"type":"auth","token":"user-ann","token":"user-bob"}`)),
}

// FuzzConnection sends arbitrary bytes through an upgraded connection, plain or over TLS, in two pieces, while a second
// connection on the same readers sends messages. The process survives, the second client gets its own answers and no byte of the first
// one's, and nothing of either connection is left.
func FuzzConnection(f *testing.F) {
	for _, seed := range hostileFrames {
		f.Add([]byte(seed), uint16(len(seed)/2), false)
		f.Add([]byte(seed), uint16(1), true)
	}
	plain, secure := start(f), startTLS(f)
	f.Fuzz(func(t *testing.T, data []byte, at uint16, overTLS bool) {
		s := plain
		if overTLS {
			s = secure
		}
		hostile, healthy := s.upgrade(t, ""), s.upgrade(t, "shoal.v1")
		defer func() { _ = healthy.Close() }()
		half := min(int(at), len(data))
		for i, piece := range [][]byte{data[:half], data[half:]} {
			if _, err := hostile.Write(piece); err != nil {
				break // the server has closed the connection
			}
			message := []string{`{"type":"auth","token":"user-zoe"}`, `{"action":"subscribe_upload","upload_id":"open"}`}[i]
			if _, err := healthy.Write(text(message)); err != nil {
				t.Fatal(err)
			}
			runtime.Gosched() // mostly lets the server read each piece by itself
		}
		_ = hostile.CloseWrite()
		expectAnswer(t, healthy, `"auth_success"`)
		_, _ = io.Copy(io.Discard, hostile)
		_ = hostile.Close()
		_ = healthy.Close()
		s.nothingLeft(t)
	})
}

// FuzzTLSRecords sends arbitrary bytes to a TLS listener, either in place of a handshake or below an upgraded connection.
// The server closes that connection; a healthy one gets its answer, and nothing of either is left.
func FuzzTLSRecords(f *testing.F) {
	for _, seed := range []string{
		"",
		upgradeRequest + "\r\n",                    // plain HTTP
		"\x16\x03\x01\xff\xff",                     // a handshake record that is too long
		"\x16\x03\x01\x00\x04\x01\x00\x00\x00",     // an empty ClientHello
		"\x15\x03\x03\x00\x02\x02\x28",             // a fatal alert in plain text
		"\x15\x03\x03\x00\x02\x01\x00",             // the end of the stream in plain text
		"\x17\x03\x03\x00\x05hello",                // a record that no key has sealed
		"\x17\x03\x03\x00\x00\x17\x03\x03\x00\x00", // empty records
		"\x14\x03\x03\x00\x01\x01",                 // a change of ciphers
		"\x17\x03\x03\x40\x00",                     // the beginning of a record
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	s := startTLS(f)
	f.Fuzz(func(t *testing.T, data []byte, upgraded bool) {
		healthy := s.upgrade(t, "")
		defer func() { _ = healthy.Close() }()
		raw := s.dial(t)
		if upgraded {
			_ = raw.Close()
			raw = s.upgrade(t, "").clientConn.(tlsConn).raw // startTLS
		}
		_, _ = raw.Write(data) // the server may have closed the connection
		_ = raw.CloseWrite()
		if _, err := healthy.Write(text(`{"type":"auth","token":"user-zoe"}`)); err != nil {
			t.Fatal(err)
		}
		expectAnswer(t, healthy, `"auth_success"`)
		_, _ = io.Copy(io.Discard, raw)
		_ = raw.Close()
		_ = healthy.Close()
		s.nothingLeft(t)
	})
}

// expectAnswer reads text messages until one contains the words. Any but zoe's own answers fail the test.
func expectAnswer(t *testing.T, s *socket, words string) {
	t.Helper()
	for {
		opcode, payload, err := s.next()
		switch {
		case err != nil:
			t.Fatalf("waiting for %s: %v", words, err)
		case opcode == 0x9:
		case opcode != 0x1:
			t.Fatalf("waiting for %s: a frame with opcode %d: %q", words, opcode, payload)
		case strings.Contains(string(payload), words):
			if strings.Contains(words, "auth_success") && !strings.Contains(string(payload), `"zoe"`) {
				t.Fatalf("another client's answer: %s", payload)
			}
			return
		}
	}
}

// FuzzHandshake sends arbitrary bytes as an HTTP request, optionally followed by a WebSocket frame. The server answers
// with a complete response or closes; it never reads the body of a request as frames; and nothing is left.
func FuzzHandshake(f *testing.F) {
	auth := string(text(`{"type":"auth","token":"user-ann"}`))
	for _, seed := range []string{
		upgradeRequest + "\r\n",
		upgradeRequest + "Content-Length: 41\r\n\r\n" + auth,
		upgradeRequest + "Transfer-Encoding: chunked\r\n\r\n29\r\n" + auth + "\r\n0\r\n\r\n",
		upgradeRequest + "Sec-WebSocket-Key: BBBBBBBBBBBBBBBBBBBBBA==\r\n\r\n",
		upgradeRequest + "Sec-WebSocket-Version: 8\r\n\r\n",
		strings.Replace(upgradeRequest, "HTTP/1.1", "HTTP/1.0", 1) + "\r\n",
		upgradeRequest + "Origin: https://elsewhere.example\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: s\r\nContent-Length: 1000\r\n\r\n",
		"GET /v1/stats HTTP/1.1\r\nHost: s\r\nAuthorization: Bearer " + apiKey + "\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	s := start(f)
	f.Fuzz(func(t *testing.T, request []byte) {
		conn := s.dial(t)
		_, _ = conn.Write(request)
		_ = conn.CloseWrite()
		answer, _ := io.ReadAll(conn)
		_ = conn.Close()
		if strings.Contains(string(answer), "auth_success") && hasBody(string(request)) {
			t.Errorf("a request's body was read as WebSocket frames: %q", request)
		}
		s.nothingLeft(t)
	})
}

// hasBody reports whether a request announces a body.
func hasBody(request string) bool {
	head, _, _ := strings.Cut(strings.ToLower(request), "\r\n\r\n")
	return strings.Contains(head, "content-length:") && !strings.Contains(head, "content-length: 0") ||
		strings.Contains(head, "transfer-encoding:")
}
