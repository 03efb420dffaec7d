package sim

import (
	"context"
	"sync"
	"time"

	"github.com/shoal-go/shoal/manager"
)

// fragile is a connection of an embedder whose Send panics after some messages. It has to be closed then, and nobody
// else may notice.
type fragile struct {
	node *node
	user string

	mu sync.Mutex // protects the fields below
	// left is the number of messages until the panic.
	left            int
	panicked, ended bool
	reason          manager.CloseReason
}

var _ manager.Conn = (*fragile)(nil)

// Send counts down to a panic.
func (f *fragile) Send(*manager.Frame) manager.Outcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left--; f.left < 0 {
		f.panicked = true
		panic("sim: a connection that panics")
	}
	return manager.Queued
}

// Close ends the connection.
func (f *fragile) Close(reason manager.CloseReason) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.ended {
		f.ended, f.reason = true, reason
		go f.node.manager.Disconnect(f.user, f)
	}
}

// embed connects a fragile connection, which follows an upload.
func (w *World) embed(n *node, op Op) {
	f := &fragile{node: n, user: "embedder", left: op.N}
	w.fragile = append(w.fragile, f)
	if err := n.manager.Connect(f.user, f); err != nil {
		w.fail("Connect of an embedder's connection: %v", err)
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = n.manager.SubscribeConn(ctx, f.user, f, uploadID(op.Upload), manager.SubscribeOptions{}) // may be refused
	}()
}

// checkFragile checks that the connections that have panicked are closed.
func (w *World) checkFragile() {
	for _, f := range w.fragile {
		f.mu.Lock()
		if f.panicked && !f.ended {
			w.fail("an embedder's connection is open although its Send has panicked")
		}
		if f.ended && !f.panicked && f.reason == manager.InternalError {
			w.fail("an embedder's connection was closed with %v although it has not panicked", f.reason)
		}
		f.mu.Unlock()
	}
}

// endFragile ends the connections of the embedder.
func (w *World) endFragile() {
	for _, f := range w.fragile {
		f.Close(manager.NormalClosure)
	}
}
