package manager

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// faultyConn is a connection whose optional methods panic.
type faultyConn struct{ fakeConn }

func (c *faultyConn) TokenID() string          { panic("TokenID") }
func (c *faultyConn) SilentFor() time.Duration { panic("SilentFor") }
func (c *faultyConn) TracksPositions() bool    { panic("TracksPositions") }
func (c *faultyConn) Done() <-chan struct{}    { panic("Done") }
func (c *faultyConn) Abort()                   { panic("Abort") }

// A connection whose SilentFor panics does not give way, and the caller of Connect does not panic.
func TestGuard_SilentFor(t *testing.T) {
	m := open(t, Options{MaxConnectionsPerUser: 1})
	must(t, m.Connect("ann", &faultyConn{}))
	if err := m.Connect("ann", &fakeConn{}); !errors.Is(err, ErrTooManyConnections) {
		t.Errorf("Connect: %v, want ErrTooManyConnections", err)
	}
	connect(t, m, "bob")
	wantPanics(t, m, 1)
}

// A revocation closes the connections with the token although another one does not tell its own, and that one too: it
// may have the token.
func TestGuard_HasToken(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		revoked, other, faulty := &holder{token: "stolen"}, &holder{token: "own"}, &faultyConn{}
		must(t, nodes[0].Connect("ann", revoked))
		must(t, nodes[0].Connect("ann", other))
		must(t, nodes[0].Connect("bob", faulty))
		if n, err := nodes[1].DisconnectToken(t.Context(), "stolen", InvalidToken); n != 2 || err != nil {
			t.Errorf("%d were closed, %v, want 2", n, err)
		}
		if a, b, c := len(revoked.closed()), len(other.closed()), len(faulty.closed()); a != 1 || b != 0 || c != 1 {
			t.Errorf("closed %d, %d and %d times, want 1, 0 and 1", a, b, c)
		}
		wantPanics(t, nodes[0].Manager, 1)
	})
}

// A connection that panics when it is asked whether its client knows positions is closed like those whose clients do
// not: messages are missing.
func TestGuard_TracksPositions(t *testing.T) {
	inPlainCluster(t, 1, func(t *testing.T, nodes []member) {
		base, faulty := &baseConn{}, &faultyConn{}
		for user, c := range map[string]Conn{"ann": base, "bob": faulty} {
			must(t, nodes[0].Connect(user, c))
			must(t, nodes[0].SubscribeUpload(t.Context(), user, "cat"))
		}
		nodes[0].link.handler.Interrupted("upload:cat")
		synctest.Wait()
		if a, b := len(base.closed()), len(faulty.closed()); a != 1 || b != 1 {
			t.Errorf("closed %d and %d times, want once each", a, b)
		}
		wantPanics(t, nodes[0].Manager, 1)
	})
}

// abortFaulty is a connection that does not end, and whose Abort panics.
type abortFaulty struct{ faultyConn }

func (c *abortFaulty) Done() <-chan struct{} { return make(chan struct{}) }

// A connection that panics during a drain keeps no other one from being closed or cut off.
func TestGuard_Drain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{})
		conns := []*stuck{newStuck(true), newStuck(true)}
		must(t, m.Connect("ann", conns[0]))
		must(t, m.Connect("bob", &faultyConn{}))
		must(t, m.Connect("cid", &abortFaulty{}))
		must(t, m.Connect("dan", conns[1]))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := m.DisconnectAll(ctx); err == nil {
			t.Error("no error although connections were cut off")
		}
		for i, c := range conns {
			if len(c.closed()) != 1 || c.aborted != 1 {
				t.Errorf("connection %d was closed %d and cut off %d times, want once each", i, len(c.closed()), c.aborted)
			}
		}
	})
}

// panicTracer is a Tracer whose methods panic, Publish for the upload cat.
type panicTracer struct{ fakeTracer }

func (p *panicTracer) Publish(ctx context.Context, uploadID string) Span {
	if uploadID == "cat" {
		panic("Publish")
	}
	return p.fakeTracer.Publish(ctx, uploadID)
}
func (p *panicTracer) Broker(string, string) Span { panic("Broker") }
func (p *panicTracer) Delivered(TracedDelivery)   { panic("Delivered") }

// A Tracer that panics ends no publication.
func TestGuard_Tracer(t *testing.T) {
	inCluster(t, 1, Options{Tracer: &panicTracer{}}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		cat, dog := nodes[0].follower(t, "ann", "cat"), nodes[0].follower(t, "bob", "dog")
		publish(t, nodes[0].Manager, "cat", 1)
		publish(t, nodes[0].Manager, "dog", 1)
		synctest.Wait()
		if a, b := len(cat.offsets()), len(dog.offsets()); a != 1 || b != 1 {
			t.Errorf("%d and %d messages came, want one each", a, b)
		}
		wantPanics(t, nodes[0].Manager, 2)
	})
}

// A Tracer that panics on the goroutine of reports does not end the process.
func TestGuard_TracerDelivered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{Tracer: &panicTracer{}})
		connect(t, m, "ann")
		must(t, m.SubscribeUpload(t.Context(), "ann", "dog"))
		publish(t, m, "dog", 1)
		<-time.After(2 * tracedPatience) // by the bubble's clock: the message that nobody writes is reported
		synctest.Wait()
		wantPanics(t, m, 1)
	})
}

// hangingTracer is a Tracer whose Delivered hangs.
type hangingTracer struct {
	fakeTracer
	release chan struct{}
}

func (h *hangingTracer) Delivered(TracedDelivery) { <-h.release }

// Invariant 7: Close returns when its context ends although a hook hangs, and names it: the Tracer, or the Close of a
// connection that has panicked.
func TestInvariant7_CloseNamesTheHookThatHangs(t *testing.T) {
	release := make(chan struct{})
	closes := 0
	for want, prepare := range map[string]func(m *Manager){
		"Tracer": func(m *Manager) {
			writer(t, m, "ann", 0)
			publish(t, m, "cat", 1)
		},
		"Conn.Close": func(m *Manager) {
			must(t, m.Connect("ann", &fakeConn{
				onSend: func(*Frame) Outcome { panic("Send") },
				onClose: func(CloseReason) {
					if closes++; closes == 1 {
						<-release
					}
				},
			}))
			must(t, second(m.SendToUser(t.Context(), "ann", note(t, 1))))
		},
	} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release = make(chan struct{})
				m, err := New(Options{Tracer: &hangingTracer{release: release}})
				must(t, err)
				prepare(m)
				synctest.Wait()
				time.AfterFunc(time.Minute, func() { close(release) })
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				begin := time.Now()
				err = m.Close(ctx)
				if took := time.Since(begin); took != time.Second || !errors.Is(err, context.DeadlineExceeded) ||
					!strings.Contains(err.Error(), want) {
					t.Errorf("Close returned %v after %v, want the name of %s after a second", err, took, want)
				}
				<-release
			})
		})
	}
}

// A connection that may have lost a message by a panic is closed, so that its client recovers: alone or among many
// receivers, by one message or by several that were published in quick succession.
func TestGuard_LostMessageCloses(t *testing.T) {
	for _, audience := range []int{1, maxDeferred + 2, 2 * fanOutAlone} {
		t.Run(fmt.Sprint(audience), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { lostMessageCloses(t, audience) })
		})
	}
}

func lostMessageCloses(t *testing.T, audience int) {
	m := open(t, Options{})
	sends := 0
	faulty := &fakeConn{onSend: func(*Frame) Outcome {
		if sends++; sends == 2 {
			panic("once")
		}
		return Queued
	}}
	must(t, m.Connect("ann", faulty))
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	var others []*fakeConn
	for i := 1; i < audience; i++ {
		user := fmt.Sprint("user ", i)
		others = append(others, connect(t, m, user))
		must(t, m.SubscribeUpload(t.Context(), user, "cat"))
	}
	publish(t, m, "cat", 5)
	flushAll(m)
	synctest.Wait()
	if got := faulty.closed(); len(got) != 1 || got[0] != InternalError {
		t.Errorf("the connection is closed with %v, want %v", got, InternalError)
	}
	for _, c := range others {
		wantConsecutive(t, c.offsets(), 1, 5)
	}
	if s := m.Stats(); s.Dropped == 0 || s.Queued+s.Dropped != uint64(5*audience) {
		t.Errorf("%d delivered and %d dropped, want %d in all", s.Queued, s.Dropped, 5*audience)
	}
}

// A connection whose Send has panicked gets no further message before it is closed: its client would take that for the
// next one and never recover the lost one.
func TestGuard_NothingFollowsLostMessage(t *testing.T) {
	for _, audience := range []int{1, maxDeferred + 2, 2 * fanOutAlone} {
		t.Run(fmt.Sprint(audience), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { nothingFollowsLostMessage(t, audience) })
		})
	}
}

func nothingFollowsLostMessage(t *testing.T, audience int) {
	m := open(t, Options{})
	sends, closing := 0, make(chan struct{})
	faulty := &fakeConn{
		onSend: func(*Frame) Outcome {
			if sends++; sends == 2 {
				panic("once")
			}
			return Queued
		},
		onClose: func(CloseReason) { <-closing },
	}
	must(t, m.Connect("ann", faulty))
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	for i := 1; i < audience; i++ {
		user := fmt.Sprint("user ", i)
		connect(t, m, user)
		must(t, m.SubscribeUpload(t.Context(), user, "cat"))
	}
	for range 3 {
		publish(t, m, "cat", 1)
		flushAll(m)
	}
	_, err := m.SendToUser(t.Context(), "ann", note(t, 1))
	must(t, err)
	must(t, m.SubscribeConn(t.Context(), "ann", faulty, "cat", SubscribeOptions{Since: &Position{}}))
	synctest.Wait()
	close(closing)
	if sends != 2 {
		t.Errorf("%d messages came, want none after the second, which was lost", sends)
	}
	if s := m.Stats(); s.Queued+s.Dropped != uint64(3*audience+1) {
		t.Errorf("%d delivered and %d dropped, want %d in all", s.Queued, s.Dropped, 3*audience+1)
	}
}

// A connection whose Close panics too gets nothing further until it is unregistered.
func TestGuard_NothingFollowsFailedClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{})
		sends := 0
		faulty := &fakeConn{
			onSend: func(*Frame) Outcome {
				if sends++; sends == 1 {
					panic("once")
				}
				return Queued
			},
			onClose: func(CloseReason) { panic("again") },
		}
		must(t, m.Connect("ann", faulty))
		must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
		for range 3 {
			publish(t, m, "cat", 1)
			synctest.Wait()
			m.Disconnect("bob", faulty) // which it does not belong to
		}
		if sends != 1 {
			t.Errorf("%d messages came, want none after the first, which was lost", sends)
		}
		m.Disconnect("ann", faulty)
		if n := m.guard.failing.Load(); n != 0 || len(m.guard.failed) != 0 {
			t.Errorf("%d connections are refused, want none", n)
		}
		faulty.onClose = nil
	})
}

// lateFlusher is a connection that has been unregistered when its Flush panics.
type lateFlusher struct {
	fakeConn
	manager *Manager
}

func (c *lateFlusher) SendDeferred(f *Frame) (Outcome, bool) { return c.Send(f), true }

func (c *lateFlusher) Flush() {
	c.manager.Disconnect("ann", c)
	panic("after its end")
}

// A connection that is unregistered before it panics, and whose Close panics too, is forgotten: while one is refused,
// each delivery to others looks for it.
func TestGuard_ForgetsUnregisteredConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := open(t, Options{})
		c := &lateFlusher{manager: m}
		c.onClose = func(CloseReason) { panic("again") }
		must(t, m.Connect("ann", c))
		must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
		registered := &fakeConn{onSend: func(*Frame) Outcome { panic("once") }, onClose: c.onClose}
		must(t, m.Connect("bob", registered))
		publish(t, m, "cat", 1)
		_, err := m.SendToUser(t.Context(), "bob", note(t, 1))
		must(t, err)
		<-time.After(m.sweepInterval())
		synctest.Wait()
		if m.guard.refuses(c) || !m.guard.refuses(registered) || m.Stats().Panics != 4 {
			t.Errorf("refused: %v, a registered one: %v, after %d panics", m.guard.refuses(c), m.guard.refuses(registered), m.Stats().Panics)
		}
		registered.onClose = nil
	})
}

// tokenAsker is a connection that looks at the orders of its node when it is asked for its token.
type tokenAsker struct {
	fakeConn
	manager *Manager
}

func (c *tokenAsker) HasToken(string) bool {
	c.manager.orders.announce()
	return false
}

// Invariant 4: a connection is asked for its tokens without a lock, also when it returns after an order.
func TestInvariant4_TokensAreAskedForWithoutLocks(t *testing.T) {
	inCluster(t, 1, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		c := &tokenAsker{manager: nodes[0].Manager}
		must(t, nodes[0].Connect("ann", c))
		nodes[0].Disconnect("ann", c)
		if _, err := nodes[0].DisconnectToken(t.Context(), "stolen", InvalidToken); err != nil {
			t.Error(err)
		}
		must(t, nodes[0].Connect("ann", c))
		if len(c.closed()) != 0 {
			t.Error("a connection without the token was closed")
		}
	})
}

// wantPanics checks that a manager has counted at least some panics.
func wantPanics(t *testing.T, m *Manager, least uint64) {
	t.Helper()
	if n := m.Stats().Panics; n < least {
		t.Errorf("%d panics are counted, want at least %d", n, least)
	}
}
