//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/jwtauth"
)

// follower follows an upload on shoal.v1 and moves from node to node: after some messages, and when it loses its
// connection.
type follower struct {
	name      string
	publisher *publisher
	nodes     []*node
	at        position // of the follower's goroutine

	mu  sync.Mutex // protects the fields below
	log []event
	// follows: it was subscribed at least once.
	follows bool
	broken  []error
}

type position struct {
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
}

// event is a received message, or the announcement that some may be missing.
type event struct {
	n         int
	announced bool
}

// message is a message of a node.
type message struct {
	position
	Action    string `json:"action"`
	Recovered bool   `json:"recovered"`
	N         int    `json:"n"`
}

// run goes from node to node until ctx ends.
func (f *follower) run(ctx context.Context, index int) {
	for ; ctx.Err() == nil; index++ {
		_ = f.visit(ctx, f.nodes[index%len(f.nodes)]) // on any error the next node is tried
		_ = wait(ctx, 50*time.Millisecond)
	}
}

// visit follows through one node for some messages, or until the connection is lost.
func (f *follower) visit(ctx context.Context, n *node) error {
	const stay, silence = 300, 7 * time.Second
	dialling, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	url := "ws" + strings.TrimPrefix(n.url(), "http") + "/ws/uploads"
	conn, _, err := websocket.Dial(dialling, url, &websocket.DialOptions{Subprotocols: []string{"shoal.v1"}})
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }()
	token, err := jwtauth.SignHS256([]byte(secret), server.Identity{UserID: f.name, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		return err
	}
	subscribe := map[string]any{"action": "subscribe_upload", "upload_id": f.publisher.upload}
	if f.at.Epoch != "" {
		subscribe["since"] = f.at
	}
	for _, m := range []any{map[string]string{"type": "auth", "token": token}, subscribe} {
		text, err := json.Marshal(m)
		if err != nil {
			return err
		}
		if err := conn.Write(dialling, websocket.MessageText, text); err != nil {
			return err
		}
	}
	for received := 0; received < stay; {
		var m message
		reading, cancel := context.WithTimeout(ctx, silence)
		_, data, err := conn.Read(reading)
		cancel()
		if err == nil {
			err = json.Unmarshal(data, &m)
		}
		if err != nil {
			return err
		}
		switch m.Action {
		case "tick":
			received++
			f.receive(m)
		case "subscribed":
			f.subscribed(m)
		case "error":
			return errors.New("the node cannot subscribe now")
		}
	}
	return nil
}

func (f *follower) subscribed(m message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at.Epoch == "" || !m.Recovered {
		f.log = append(f.log, event{announced: f.follows})
		f.at = position{Epoch: m.Epoch}
	}
	f.follows = true
}

func (f *follower) receive(m message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if m.Offset <= f.at.Offset {
		f.broken = append(f.broken, fmt.Errorf("%s: offset %d came after %d", f.name, m.Offset, f.at.Offset))
	}
	f.at.Offset = m.Offset
	f.log = append(f.log, event{n: m.N})
}

// newest returns the number of the newest received message, 0 before the first.
func (f *follower) newest() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.log) == 0 {
		return 0
	}
	return f.log[len(f.log)-1].n
}

// addTo checks everything that the follower has received. After an announced gap messages may be missing, and until a
// new one arrives former ones may come again. All others must arrive in order and once.
func (f *follower) addTo(a *account) {
	const most = 5 // problems of one follower that are listed
	problems := f.broken
	next, excused, started := 1, false, false
	for _, e := range f.log {
		switch {
		case e.announced:
			a.announced++
			excused = true
			continue
		case e.n == 0: // the first subscription
			continue
		case !started:
			next, started = e.n, true
		case e.n > next && !excused:
			problems = append(problems, fmt.Errorf("%s: %d came after %d, and no gap was announced", f.name, e.n, next-1))
		case e.n < next && !excused:
			a.repeated++
			problems = append(problems, fmt.Errorf("%s: %d came again after %d", f.name, e.n, next-1))
		}
		a.delivered++
		excused = excused && e.n < next
		next = max(next, e.n+1)
	}
	a.problems = append(a.problems, problems[:min(len(problems), most)]...)
}
