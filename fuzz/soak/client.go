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

// message is a message of the server.
type message struct {
	Action   string `json:"action"`
	UploadID string `json:"upload_id"`
	position
	Sent      int64 `json:"sent"`
	Recovered bool  `json:"recovered"`
	Uploads   map[string]struct {
		position
		Recovered bool `json:"recovered"`
	} `json:"uploads"`
}

// live is the life of one client: it comes back until its time is over. Its behaviour depends on its number.
func (w *world) live(ctx context.Context, number int, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	at := map[string]position{}
	for i := range 3 {
		at[fmt.Sprint("upload-", (number+i)%uploads)] = position{}
	}
	for ctx.Err() == nil {
		n := w.nodes[number%nodes]
		n.mu.RLock()
		address := n.address
		n.mu.RUnlock()
		w.visit(ctx, address, number, at)
		pause(ctx, 20*time.Millisecond)
	}
}

// visit is one connection of a client.
func (w *world) visit(ctx context.Context, address string, number int, at map[string]position) {
	var socket *net.TCPConn
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err == nil {
			socket = conn.(*net.TCPConn) //nolint:forcetypeassert // of the network "tcp"
		}
		return conn, err
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: dial}
	conn, _, err := websocket.Dial(ctx, "ws://"+address+"/ws/uploads", &websocket.DialOptions{
		HTTPClient: &http.Client{Transport: transport}, Subprotocols: []string{"shoal.v1"},
	})
	if err != nil {
		return // the node is being restarted
	}
	w.open.Add(1)
	defer w.open.Add(-1)
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(1 << 20)
	if w.greet(ctx, conn, number, at) != nil {
		return
	}
	const kinds = 8
	switch number % kinds {
	case 0: // reads nothing
		pause(ctx, 3*time.Second)
		return
	case 1: // resets the connection soon
		_ = socket.SetLinger(0)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
	}
	for {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if err := w.take(data, at); err != nil {
			w.fail(fmt.Errorf("client %d: %w", number, err))
			return
		}
		if number%kinds == 2 { // reads slowly
			pause(ctx, 5*time.Millisecond)
		}
	}
}

// greet authenticates and resumes.
func (w *world) greet(ctx context.Context, conn *websocket.Conn, number int, at map[string]position) error {
	resume, err := json.Marshal(map[string]any{"action": "resume", "uploads": at})
	return errors.Join(err,
		conn.Write(ctx, websocket.MessageText, fmt.Appendf(nil, `{"type":"auth","token":"user-%d"}`, number/2)),
		conn.Write(ctx, websocket.MessageText, resume))
}

// take checks that the offsets of an upload increase without a gap: all messages of this run are events. An upload that
// another connection of the user follows is left alone.
func (w *world) take(data []byte, at map[string]position) error {
	var m message
	if err := json.Unmarshal(data, &m); err != nil {
		return err
	}
	begin := func(id string, p position, recovered bool) {
		if _, follows := at[id]; follows && !recovered {
			at[id] = position{p.Epoch, max(p.Offset, 1) - 1} // the newest message follows
		}
	}
	switch m.Action {
	case "resumed":
		for id, u := range m.Uploads {
			begin(id, u.position, u.Recovered)
		}
	case "subscribed":
		begin(m.UploadID, m.position, m.Recovered)
	case "note":
		was, follows := at[m.UploadID]
		if !follows || was.Epoch == "" {
			return nil
		}
		if m.Offset != was.Offset+1 {
			return fmt.Errorf("of %s came offset %d after %d", m.UploadID, m.Offset, was.Offset)
		}
		at[m.UploadID] = position{was.Epoch, m.Offset}
		w.note(time.Duration(time.Now().UnixNano() - m.Sent))
	}
	return nil
}
