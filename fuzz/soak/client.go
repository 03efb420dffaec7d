package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// position is where a client stands in an upload.
type position struct {
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
}

// place is a client's position in an upload that it follows.
type place struct {
	position
	// begun: the server has answered the request for the upload on this connection. Before, messages may come because a
	// former connection of the user, whose end the server has not noticed, follows the upload.
	begun bool
	// newest is the number of the newest message, or 0 if any may come next: after the first subscription, or after the
	// server has announced that messages are missing.
	newest int
}

// message is a message of the server. Stored is the newest number that was certainly stored before it.
type message struct {
	Action   string `json:"action"`
	UploadID string `json:"upload_id"`
	position
	Sent      int64 `json:"sent"`
	N         int   `json:"n"`
	Stored    int   `json:"stored"`
	Recovered bool  `json:"recovered"`
	Uploads   map[string]struct {
		position
		Recovered bool `json:"recovered"`
	} `json:"uploads"`
}

// behaviour is how a client behaves, by its number.
type behaviour int

const (
	readsNothing behaviour = iota
	resets
	readsSlowly
	hasSlowLink
	behaves   // and further ones
	kinds     = 8
	linkSpeed = 8 << 10 // bytes a second, fewer than some clients are sent
)

// live is the life of one client: it comes back until its time is over.
func (w *world) live(ctx context.Context, number int, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	at := map[string]*place{}
	for i := range 3 {
		at[fmt.Sprint("upload-", (number+i)%uploads)] = new(place)
	}
	for ctx.Err() == nil {
		n := w.nodes[(number+number/kinds)%nodes]
		n.mu.RLock()
		address := n.address
		n.mu.RUnlock()
		w.visit(ctx, address, number, at)
		pause(ctx, 100*time.Millisecond)
	}
}

// visit is one connection of a client.
func (w *world) visit(ctx context.Context, address string, number int, at map[string]*place) {
	kind := behaviour(number % kinds)
	var socket *net.TCPConn
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, err
		}
		socket = conn.(*net.TCPConn) // of the network "tcp"
		if kind == hasSlowLink {
			return newSlowLink(socket, linkSpeed)
		}
		return conn, nil
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: dial}
	conn, _, err := websocket.Dial(ctx, "ws://"+address+"/ws/uploads", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{"shoal.v1"},
	})
	if err != nil {
		return // the node is being restarted, or refuses connections
	}
	w.open.Add(1)
	defer w.open.Add(-1)
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(1 << 20)
	for _, here := range at {
		here.begun = false
	}
	if greet(ctx, conn, number, at) != nil {
		return
	}
	switch kind {
	case readsNothing:
		pause(ctx, 5*time.Second)
		return
	case resets:
		_ = socket.SetLinger(0)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Second)
		defer cancel()
	}
	w.read(ctx, conn, number, at)
}

// read takes the messages of a connection until it ends.
func (w *world) read(ctx context.Context, conn *websocket.Conn, number int, at map[string]*place) {
	kind, began := behaviour(number%kinds), time.Now()
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return
		}
		var m message
		if err := json.Unmarshal(data, &m); err != nil {
			// The library returns the received part of a message if the connection ends before the rest, and the error
			// next.
			if _, _, ended := conn.Read(ctx); ended == nil {
				w.fail(fmt.Errorf("client %d: %w", number, err))
			}
			return
		}
		if m.Action == "error" { // the node cannot subscribe now
			return
		}
		if err := take(m, at); err != nil {
			w.fail(fmt.Errorf("client %d: %w", number, err))
			return
		}
		if m.Action == "note" {
			w.delivered.Add(1)
			if sent := time.Unix(0, m.Sent); kind >= behaves && sent.After(began) { // not recovered
				w.note(time.Since(sent))
			}
		}
		if kind == readsSlowly {
			pause(ctx, 5*time.Millisecond)
		}
	}
}

// greet authenticates and resumes.
func greet(ctx context.Context, conn *websocket.Conn, number int, at map[string]*place) error {
	known := map[string]position{}
	for id, p := range at {
		known[id] = p.position
	}
	resume, err := json.Marshal(map[string]any{"action": "resume", "uploads": known})
	return errors.Join(err,
		conn.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"type":"auth","token":"user-%d"}`, number/2)),
		conn.Write(ctx, websocket.MessageText, resume))
}

// take checks that no message of an upload comes twice or out of order, and that none is missing without an
// announcement: all messages of this run are events. Uploads that only other connections of the
// user follow are left alone.
func take(m message, at map[string]*place) error {
	begin := func(here *place, p position, recovered bool) {
		if !recovered {
			*here = place{position: position{Epoch: p.Epoch}} // the newest message follows
		}
		here.begun = true
	}
	switch m.Action {
	case "resumed":
		for id, u := range m.Uploads {
			if here, follows := at[id]; follows {
				begin(here, u.position, u.Recovered)
			}
		}
	case "subscribed": // unasked
		if here, follows := at[m.UploadID]; follows && here.begun {
			begin(here, m.position, m.Recovered)
		}
	case "note":
		here, follows := at[m.UploadID]
		if !follows || !here.begun {
			return nil
		}
		switch {
		case m.Offset <= here.Offset:
			return fmt.Errorf("of %s came offset %d after %d", m.UploadID, m.Offset, here.Offset)
		case here.newest != 0 && m.N <= here.newest:
			return fmt.Errorf("of %s came message %d again or late, after %d", m.UploadID, m.N, here.newest)
		case here.newest != 0 && m.Stored > here.newest:
			return fmt.Errorf("of %s came message %d after %d, and %d is missing", m.UploadID, m.N, here.newest, m.Stored)
		}
		here.Offset, here.newest = m.Offset, m.N
	}
	return nil
}

// slowLink is a connection with a small bandwidth towards the client. Bytes that the client has not read wait in the
// socket buffers, and then at the server.
type slowLink struct {
	net.Conn
	bytesPerSecond int
}

// newSlowLink limits a connection. Its receive buffer is made small, because it hides the bandwidth from the server.
func newSlowLink(conn *net.TCPConn, bytesPerSecond int) (net.Conn, error) {
	return slowLink{conn, bytesPerSecond}, conn.SetReadBuffer(4 << 10)
}

func (l slowLink) Read(p []byte) (int, error) {
	const piece = 1 << 10
	n, err := l.Conn.Read(p[:min(len(p), piece)])
	time.Sleep(time.Duration(n) * time.Second / time.Duration(l.bytesPerSecond))
	return n, err
}
