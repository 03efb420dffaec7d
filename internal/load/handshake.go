package load

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6455 wants it
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode"
)

const (
	// maxAnswerBytes bounds the answer to an upgrade.
	maxAnswerBytes = 16 << 10
	// maxReasonBytes bounds what an error repeats of a server's words.
	maxReasonBytes = 200
	// keyBytes is the size of a Sec-WebSocket-Key.
	keyBytes = 16
	// acceptGUID is what RFC 6455 joins to the key.
	acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
)

// handshake is the upgrade as all clients of a fleet ask for it, never changed. That they share a key makes
// the request one piece of memory; what each of them gets is still checked.
type handshake struct {
	request     []byte
	accept      string
	subprotocol string
}

func newHandshake(host string, d Dialect) *handshake {
	raw := make([]byte, keyBytes)
	_, _ = rand.Read(raw) // never fails
	key := base64.StdEncoding.EncodeToString(raw)
	sum := sha1.Sum([]byte(key + acceptGUID)) //nolint:gosec // as above
	var b bytes.Buffer
	fmt.Fprintf(&b, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", d.Path, host)
	fmt.Fprintf(&b, "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n", key)
	if d.Subprotocol != "" {
		fmt.Fprintf(&b, "Sec-WebSocket-Protocol: %s\r\n", d.Subprotocol)
	}
	b.WriteString("\r\n")
	return &handshake{
		request:     b.Bytes(),
		accept:      base64.StdEncoding.EncodeToString(sum[:]),
		subprotocol: d.Subprotocol,
	}
}

// check looks at what has come of the server's answer. It returns how long the answer is, or 0 if more of it
// must come.
func (h *handshake) check(answer []byte) (int, error) {
	end := bytes.Index(answer, []byte("\r\n\r\n"))
	if end < 0 {
		if len(answer) > maxAnswerBytes {
			return 0, fmt.Errorf("the answer to the upgrade has more than %d bytes", maxAnswerBytes)
		}
		return 0, nil
	}
	n := end + len("\r\n\r\n")
	lines := strings.Split(string(answer[:end]), "\r\n")
	protocol, status, _ := strings.Cut(lines[0], " ")
	if !strings.HasPrefix(protocol, "HTTP/1.") || status != "101" && !strings.HasPrefix(status, "101 ") {
		return 0, refusedUpgrade(lines[0], answer[n:])
	}
	fields := map[string]string{}
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		fields[strings.ToLower(name)] = strings.TrimSpace(value)
	}
	switch {
	case fields["sec-websocket-accept"] != h.accept:
		return 0, errors.New("the answer to the upgrade has a wrong Sec-WebSocket-Accept: this is no WebSocket server")
	case fields["sec-websocket-extensions"] != "":
		return 0, errors.New("the server uses an extension that was not asked for")
	case fields["sec-websocket-protocol"] != h.subprotocol:
		return 0, fmt.Errorf("the server speaks the subprotocol %q, want %q",
			printable(fields["sec-websocket-protocol"]), h.subprotocol)
	}
	return n, nil
}

// refusedUpgrade is the error of an answer other than 101, with the server's words as far as they have come.
func refusedUpgrade(statusLine string, body []byte) error {
	text := "the server answered the upgrade with " + printable(statusLine)
	if reason := strings.TrimSpace(printable(string(body))); reason != "" {
		text += ": " + reason
	}
	return errors.New(text)
}

// printable keeps a server's text from breaking a line, steering a terminal or filling a screen.
func printable(text string) string {
	if len(text) > maxReasonBytes {
		text = text[:maxReasonBytes]
	}
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return ' '
	}, text)
}
