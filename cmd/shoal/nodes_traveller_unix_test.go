//go:build unix

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// stay is how many messages a traveller takes from one node before it moves to the next.
const stay = 100

// traveller follows an upload on shoal.v1 and moves from node to node: when it has been somewhere for long enough,
// and when it loses its connection.
type traveller struct {
	nodes    []*process
	token    string
	upload   string
	position position // the traveller's goroutine's own, like the rest above

	mu       sync.Mutex
	log      []event
	follows  bool // it was subscribed at least once
	problems []string
}

type position struct {
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
}

// event is a message that has come, or word that some may be missing.
type event struct {
	n    int
	told bool
}

// said is a message of a node to a traveller.
type said struct {
	position
	Action    string `json:"action"`
	Recovered bool   `json:"recovered"`
	N         int    `json:"n"`
}

// travel goes from node to node, beginning with the one at index, until ctx ends.
func (r *traveller) travel(ctx context.Context, index int) {
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for ctx.Err() == nil {
		node := r.nodes[index%len(r.nodes)]
		index++
		if address := node.address(); address != "" {
			_ = r.visit(ctx, address) // on any error the next node is tried
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
	}
}

// visit stays with one node until it has been long enough, or the connection is lost.
func (r *traveller) visit(ctx context.Context, address string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, address+"/ws/uploads", &websocket.DialOptions{Subprotocols: []string{"shoal.v1"}})
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }()
	subscribe := map[string]any{"action": "subscribe_upload", "upload_id": r.upload}
	if r.position.Epoch != "" {
		subscribe["since"] = r.position
	}
	for _, m := range []any{map[string]string{"type": "auth", "token": r.token}, subscribe} {
		text, err := json.Marshal(m)
		if err != nil {
			return err
		}
		if err := conn.Write(ctx, websocket.MessageText, text); err != nil {
			return err
		}
	}
	for taken := 0; taken < stay; {
		_, data, err := conn.Read(ctx)
		if err != nil {
			return err
		}
		var s said
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
		switch s.Action {
		case "tick":
			taken++
			r.take(s)
		case "subscribed":
			r.subscribed(s)
		case "error":
			return errors.New("the node cannot do it now")
		}
	}
	return nil
}

func (r *traveller) subscribed(s said) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.position.Epoch == "" || !s.Recovered {
		r.log = append(r.log, event{told: r.follows})
		r.position = position{Epoch: s.Epoch}
	}
	r.follows = true
}

func (r *traveller) take(s said) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.Offset <= r.position.Offset {
		r.problems = append(r.problems, fmt.Sprintf("offset %d came after %d", s.Offset, r.position.Offset))
	}
	r.position.Offset = s.Offset
	r.log = append(r.log, event{n: s.N})
}

// newest returns the newest message that has come, 0 before the first.
func (r *traveller) newest() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.log) == 0 {
		return 0
	}
	return r.log[len(r.log)-1].n
}

func (r *traveller) isFollowing() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.follows
}

// account checks all received messages and returns how often a gap was announced. After an announced gap the position
// may be behind that of the node before it, so former messages may come again until a new one arrives. All others must
// arrive in order, and once unless the publisher could not know whether its message was accepted.
func (r *traveller) account(t *testing.T, last int, unsure map[int]bool) (told int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, problem := range r.problems {
		t.Error(problem)
	}
	next, excused := 1, false
	for _, e := range r.log {
		switch {
		case e.told:
			told++
			excused = true
			continue
		case e.n == 0: // the first subscription
			continue
		case e.n > next && !excused:
			t.Errorf("after %d comes %d, and nobody said that anything is missing", next-1, e.n)
		case e.n < next && !excused && !unsure[e.n]:
			t.Errorf("%d came again after %d", e.n, next-1)
		}
		excused = excused && e.n < next
		next = max(next, e.n+1)
	}
	if next <= last {
		t.Errorf("the last message is %d, want %d", next-1, last)
	}
	return told
}

// teller publishes numbered messages to an upload through all nodes in turn. A message that is not accepted is
// published again, so that each number is accepted in its turn.
type teller struct {
	nodes  []*process
	upload string
	client http.Client

	mu       sync.Mutex
	accepted int
	unsure   map[int]bool // messages that may have been published twice
}

// tell publishes until ctx ends.
func (p *teller) tell(ctx context.Context) {
	defer p.client.CloseIdleConnections()
	beat := time.NewTicker(2 * time.Millisecond)
	defer beat.Stop()
	next := 1
	for turn := 0; ; turn++ {
		select {
		case <-beat.C:
		case <-ctx.Done():
			return
		}
		if address := p.nodes[turn%len(p.nodes)].address(); address != "" && p.publish(ctx, address, next) {
			next++
		}
	}
}

func (p *teller) publish(ctx context.Context, address string, n int) bool {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	body := strings.NewReader(fmt.Sprintf(`{"action":"tick","n":%d}`, n))
	request, err := http.NewRequestWithContext(ctx, "POST", address+"/v1/uploads/"+p.upload+"/messages", body)
	if err != nil {
		return false
	}
	request.Header.Set("Authorization", "Bearer "+devSecret)
	response, err := p.client.Do(request)
	status := 0
	if err == nil {
		status = response.StatusCode
		_ = response.Body.Close()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if status != http.StatusAccepted {
		p.unsure[n] = true
		return false
	}
	p.accepted = n
	return true
}

func (p *teller) last() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// journey is traffic: a publisher, and travellers that follow its uploads.
type journey struct {
	t          *testing.T
	teller     *teller
	travellers []*traveller
	end        func()
}

// setOut starts traffic on nodes, and returns when all travellers follow the upload.
func setOut(t *testing.T, nodes []*process) *journey {
	t.Helper()
	const upload = "journey"
	j := &journey{t: t, teller: &teller{nodes: nodes, upload: upload, unsure: make(map[int]bool)}}
	telling, stopTelling := context.WithCancel(context.Background())
	travelling, stopTravelling := context.WithCancel(context.Background())
	var told, travelled sync.WaitGroup
	for i := range 6 {
		r := &traveller{nodes: nodes, upload: upload, token: tokenOf(t, fmt.Sprintf("user-%d", i), "")}
		j.travellers = append(j.travellers, r)
		travelled.Go(func() { r.travel(travelling, i) })
	}
	j.end = sync.OnceFunc(func() {
		stopTelling()
		told.Wait()
		if !t.Failed() {
			j.catchUp()
		}
		stopTravelling()
		travelled.Wait()
	})
	t.Cleanup(func() {
		stopTelling()
		stopTravelling()
		told.Wait()
		travelled.Wait()
	})
	for _, r := range j.travellers {
		eventually(t, "the traveller is subscribed", r.isFollowing)
	}
	told.Go(func() { j.teller.tell(telling) })
	return j
}

// catchUp returns when all travellers have received every message accepted so far, and some later ones.
func (j *journey) catchUp() {
	j.t.Helper()
	last := j.teller.last()
	for _, r := range j.travellers {
		eventually(j.t, "the traveller has caught up", func() bool { return r.newest() >= last })
	}
}

// goOn returns when all travellers have received the given number of further messages.
func (j *journey) goOn(more int) {
	j.t.Helper()
	last := j.teller.last() + more
	for _, r := range j.travellers {
		eventually(j.t, "the traveller has got more", func() bool { return r.newest() >= last })
	}
}
