package load

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // required by RFC 6455
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/shoal-go/shoal/internal/printable"
)

const (
	// maxAnswerBytes limits the response to an upgrade.
	maxAnswerBytes = 16 << 10
	// maxQuotedBytes limits the part of a server's text that an error quotes.
	maxQuotedBytes = 200
	// keyBytes is the size of a Sec-WebSocket-Key.
	keyBytes = 16
	// acceptGUID is appended to the key to compute Sec-WebSocket-Accept (RFC 6455, 4.2.2).
	acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
)

// handshake is the upgrade request of all clients of a fleet. It is immutable. The clients share one key, so that the
// request is in memory once; each response is checked.
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

// check checks a response that may be incomplete. It returns the length of the response, or 0 if it is incomplete.
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
			printable.Beginning(fields["sec-websocket-protocol"], maxQuotedBytes), h.subprotocol)
	}
	return n, nil
}

// refusedUpgrade returns the error for a response other than 101, with the part of the body that has arrived.
func refusedUpgrade(statusLine string, body []byte) error {
	text := "the server answered the upgrade with " + printable.Beginning(statusLine, maxQuotedBytes)
	if reason := strings.TrimSpace(printable.Beginning(string(body), maxQuotedBytes)); reason != "" {
		text += ": " + reason
	}
	return errors.New(text)
}
