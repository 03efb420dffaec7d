package sim

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/shoal-go/shoal/internal/wsframe"
)

// session is one connection of a client. Its goroutines read and write; the world checks their records while
// the bubble is idle.
type session struct {
	node *node
	raw  *end
	conn net.Conn
	v1   bool
	out  chan []byte
	// observed is the connection as its node sees it; id is its name in tokens.
	observed *observed
	id       string
	// pace is the pause after each read message.
	pace time.Duration

	mu sync.Mutex // protects the fields below
	// inbox holds the messages that have not been checked.
	inbox []received
	// code is the code of the close frame that came, 0 if none did. refused is the status of a refused upgrade.
	code, refused int
	text          string
	ended         bool
	// malformed describes bytes that are no frame of a server.
	malformed string

	// The fields below belong to the world.

	// excused: the history has ended the connection, so it may end without a close frame.
	excused bool
	// slow: the client has not read all the time.
	slow bool
	// gap describes messages that are missing on the base protocol: the connection has to end.
	gap string
	// begun is when the client began to connect, admitted when the world saw that its token was accepted.
	begun, admitted time.Time
	entered         bool
	toldToReconnect bool
	// panics: the client has sent a message for which the application panics.
	panics bool
	// reached holds the number of the newest message of each upload that came, by any subscription of the user.
	reached map[int]int
	expires time.Time
	// renewals are the rights of the tokens that were sent and not confirmed, oldest first.
	renewals []grant
	// shown is the newest token that was sent.
	shown grant
	views map[int]*view
	// claims counts the subscriptions to each upload.
	claims map[int]int
	// repeats are the repeats that ended subscriptions of a base connection have left.
	repeats map[int]int
	asked   ledger
	// unsure holds the uploads for which one of several requests was refused: it is unknown which one.
	unsure map[int]bool
	// narrowed holds the number of an upload's messages from which on this connection must not get any.
	narrowed map[int]int
	handled  bool // the end was checked
}

// grant is the content of a token. rights has a bit for each upload that it allows.
type grant struct {
	expires time.Time
	rights  uint
}

func (g grant) allows(upload int) bool { return g.rights&(1<<upload) != 0 }

// dial connects to a node, for a connection that o observes.
func dial(n *node, seed uint64, overTLS, v1 bool, o *observed) *session {
	near, far := connect(seed)
	s := &session{
		node: n, raw: near, conn: near, v1: v1, out: make(chan []byte, 256),
		observed: o, id: n.register(o), begun: time.Now(),
		views: map[int]*view{}, narrowed: map[int]int{}, claims: map[int]int{}, repeats: map[int]int{},
		asked: ledger{uploads: map[int][]*request{}}, unsure: map[int]bool{},
		reached: map[int]int{},
	}
	if overTLS {
		s.conn = tls.Client(near, &tls.Config{
			InsecureSkipVerify: true, CurvePreferences: cheapestCurve, //nolint:gosec // of this process
		})
	}
	go func() {
		if !n.listener.offer(far) {
			near.resetAll()
		}
		err := s.converse()
		close(s.stopWriting())
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended = true
		if err != nil && s.malformed == "" && !errors.Is(err, io.EOF) && errors.Is(err, errMalformed) {
			s.malformed = err.Error()
		}
		near.resetAll()
	}()
	return s
}

// stopWriting takes the channel of outgoing frames away from the world.
func (s *session) stopWriting() chan []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.out
	s.out = nil
	return out
}

// send queues a message; it is lost if the connection has ended or the client has sent far too much.
func (s *session) send(message any) {
	text, err := json.Marshal(message)
	if err != nil {
		panic("sim: " + err.Error())
	}
	s.queue(clientFrame(0x81, text))
}

func (s *session) queue(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out == nil {
		return
	}
	select {
	case s.out <- frame:
	default:
	}
}

const upgradeRequest = "GET /ws/uploads HTTP/1.1\r\nHost: sim\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

var errMalformed = errors.New("malformed")

// converse opens the WebSocket, writes queued frames and reads until the connection ends.
func (s *session) converse() error {
	request := upgradeRequest
	if s.v1 {
		request += "Sec-WebSocket-Protocol: shoal.v1\r\n"
	}
	if _, err := io.WriteString(s.conn, request+"\r\n"); err != nil {
		return err
	}
	reader := bufio.NewReader(s.conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		return err
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusSwitchingProtocols {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.refused = response.StatusCode
		return io.EOF
	}
	out := s.out
	go func() {
		for frame := range out {
			if _, err := s.conn.Write(frame); err != nil {
				break
			}
		}
		for range out { // until the reader has ended
		}
	}()
	for {
		if err := s.read(reader); err != nil {
			return err
		}
	}
}

// read reads one frame and records it.
func (s *session) read(reader *bufio.Reader) error {
	opcode, data, err := serverFrame(reader)
	if err != nil {
		return err
	}
	switch opcode {
	case 0x8:
		s.mu.Lock()
		s.code = 1005
		if len(data) >= 2 {
			s.code, s.text = int(binary.BigEndian.Uint16(data)), string(data[2:])
		}
		s.mu.Unlock()
		s.queue(clientFrame(0x88, data[:min(2, len(data))]))
		return nil // until the server has closed its side
	case 0x9:
		s.queue(clientFrame(0x8A, data))
		return nil
	case 0x1:
	default:
		return fmt.Errorf("%w: opcode %d", errMalformed, opcode)
	}
	var r received
	if err := json.Unmarshal(data, &r); err != nil || r.Action == "" {
		return fmt.Errorf("%w: a text message that is no object with an action", errMalformed)
	}
	if r.Action == "ping" {
		s.send(map[string]string{"action": "pong"})
		return nil
	}
	s.mu.Lock()
	s.inbox = append(s.inbox, r)
	closed, pace := s.code, s.pace
	s.mu.Unlock()
	if closed != 0 {
		return fmt.Errorf("%w: %s after the close frame", errMalformed, r.Action)
	}
	if pace > 0 {
		<-time.After(pace)
	}
	return nil
}

// serverFrame reads one unfragmented frame of a server.
func serverFrame(r io.Reader) (opcode byte, payload []byte, err error) {
	f, err := wsframe.Read(r, 1<<20)
	if errors.Is(err, wsframe.ErrTooLong) || err == nil && (f.First&0xf0 != 0x80 || f.Masked) {
		return 0, nil, fmt.Errorf("%w: a frame that begins with %x, masked: %v", errMalformed, f.First, f.Masked)
	}
	return f.Opcode(), f.Payload, err
}

// clientFrame returns a frame of a client, masked with zeros.
func clientFrame(first byte, payload []byte) []byte {
	return wsframe.AppendMasked(nil, first, [4]byte{}, payload)
}

// take removes the messages that have come since the last call.
func (s *session) take() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	inbox := s.inbox
	s.inbox = nil
	return inbox
}

// status reports whether the connection has ended and how, and describes malformed bytes.
func (s *session) status() (ended bool, code, refused int, text, malformed string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended, s.code, s.refused, s.text, s.malformed
}

// open reports whether messages can come.
func (s *session) open() bool {
	ended, code, refused, _, _ := s.status()
	return !ended && code == 0 && refused == 0
}
