package client_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/client"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// states records the states of a connection.
type states struct {
	mu  sync.Mutex
	all []client.State
}

func (s *states) record(o *client.Options) {
	o.OnState = func(state client.State) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all = append(s.all, state)
	}
}

// waits returns the delays so far.
func (s *states) waits() (delays []time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, state := range s.all {
		if state.Status == client.Waiting {
			delays = append(delays, state.Retry)
		}
	}
	return delays
}

func (s *states) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, state := range s.all {
		names = append(names, state.Status.String())
	}
	return strings.Join(names, " ")
}

// The delays before the attempts double up to their bound, and a random part of each passes.
func TestConnection_BacksOffWithFullJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		p.drain()
		var seen states
		c := p.client(seen.record, func(o *client.Options) {
			o.MinBackoff, o.MaxBackoff, o.GiveUpAfter = time.Second, 8*time.Second, time.Hour
		})
		l := follow(t, c, "u")
		end := l.wantEnd(client.ErrUnreachable)
		if !errors.Is(end, errRefused) || !strings.Contains(end.Error(), "for 1h0m0s") {
			t.Errorf("the end is %v", end)
		}
		delays := seen.waits()
		longest, sum := time.Duration(0), time.Duration(0)
		for i, delay := range delays {
			if bound := min(8*time.Second, time.Second<<min(i, 10)); delay > bound {
				t.Errorf("delay %d is %v, more than %v", i, delay, bound)
			}
			longest, sum = max(longest, delay), sum+delay
		}
		if mean := sum / time.Duration(len(delays)); longest < 7*time.Second || mean < 3*time.Second || mean > 5*time.Second {
			t.Errorf("%d delays up to %v, on average %v", len(delays), longest, mean)
		}
		if s := seen.String(); !strings.HasPrefix(s, "connecting waiting connecting") || !strings.HasSuffix(s, "waiting connecting stopped") {
			t.Errorf("states: %.60s", s)
		}
	})
}

// A loop after the end of another one connects again.
func TestConnection_NextLoopTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		p.drain()
		c := p.client(func(o *client.Options) { o.GiveUpAfter = time.Second })
		_ = follow(t, c, "u").wantEnd(client.ErrUnreachable)
		p.start().publish(t, "u", 1)
		follow(t, c, "u").want(1)
	})
}

// A server that ends each connection at once is given up too.
func TestConnection_GivesUpFlappingServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, func(_ *manager.Options, o *server.Options) {
			o.OnConnect = func(c *server.Client) { c.Close(manager.TryAgainLater) }
		})
		l := follow(t, p.client(func(o *client.Options) { o.GiveUpAfter = time.Minute }), "u")
		if err := l.wantEnd(client.ErrUnreachable); !strings.Contains(err.Error(), "Try again later (close code 1013)") {
			t.Errorf("ended with %v", err)
		}
	})
}

// The delay that a draining server asks for is the delay.
func TestConnection_HonoursRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		var seen states
		l := follow(t, p.client(seen.record), "u")
		synctest.Wait()
		p.drain()
		synctest.Wait()
		delays := seen.waits()
		if len(delays) != 1 || delays[0] < 250*time.Millisecond || delays[0] > 5*time.Second {
			t.Errorf("delays are %v, want one of 250 ms to 5 s", delays)
		}
		p.start().publish(t, "u", 1)
		_ = l.wantGap()
		l.want(1)
	})
}

// A connection on which nothing comes, not even an answer to a ping, is replaced within the idle timeout. One whose
// server answers pings lives on.
func TestConnection_NoticesDeadServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		var frozen atomic.Bool
		p.wrap = func(c net.Conn) net.Conn {
			if p.dials > 1 {
				return c
			}
			return &freezer{Conn: c, frozen: &frozen}
		}
		var seen states
		l := follow(t, p.client(seen.record, func(o *client.Options) { o.IdleTimeout = 20 * time.Second }), "u")
		<-time.After(time.Hour)
		if n := p.attempts(); n != 1 {
			t.Fatalf("%d connections within an idle hour, want 1", n)
		}
		frozen.Store(true)
		began := time.Now()
		p.node.publish(t, "u", 1)
		l.want(1)
		if took := time.Since(began); took > 25*time.Second {
			t.Errorf("the dead server was noticed after %v", took)
		}
		if s := seen.String(); s != "connecting live waiting connecting live" {
			t.Errorf("states: %s", s)
		}
	})
}

// freezer is a connection whose data no longer arrives, without an error.
type freezer struct {
	net.Conn
	frozen *atomic.Bool
}

func (f *freezer) Read(p []byte) (int, error) {
	for {
		n, err := f.Conn.Read(p)
		if err != nil || !f.frozen.Load() {
			return n, err
		}
	}
}

func (f *freezer) Write(p []byte) (int, error) {
	if f.frozen.Load() {
		return len(p), nil
	}
	return f.Conn.Write(p)
}

// A server that answers the upgrade and then says nothing does not hold up the client.
func TestConnection_AuthenticationIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, func(_ *manager.Options, o *server.Options) {
			o.Authenticate = func(ctx context.Context, _ string) (server.Identity, error) {
				<-ctx.Done()
				return server.Identity{}, ctx.Err()
			}
			o.HookTimeout = time.Hour
		})
		c := p.client(func(o *client.Options) { o.GiveUpAfter = time.Minute; o.ConnectTimeout = 2 * time.Second })
		if err := follow(t, c, "u").wantEnd(client.ErrUnreachable); !strings.Contains(err.Error(), "did not answer within 2s") {
			t.Errorf("ended with %v", err)
		}
	})
}

// A server that identifies its clients by the request knows no auth message: the loop ends at once and says so.
func TestConnection_ServerWithoutTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, func(_ *manager.Options, o *server.Options) {
			o.Authenticate = nil
			o.Identify = func(*http.Request) (server.Identity, error) { return server.Identity{UserID: "ann"}, nil }
		})
		l := follow(t, p.client(), "u")
		err := l.wantEnd(client.ErrNotShoal)
		if text := err.Error(); !strings.Contains(text, "takes no token") || p.attempts() != 1 {
			t.Errorf("the error is %q, after %d attempts", text, p.attempts())
		}
	})
}

// A refused token is replaced once; a refused fresh one is final.
func TestConnection_TokenRefusedTwiceIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		asked := 0
		c := p.client(func(o *client.Options) {
			o.Token = func(context.Context) (string, error) {
				asked++
				return "bad", nil
			}
		})
		err := follow(t, c, "u").wantEnd(client.ErrUnauthorized)
		var refused *client.RefusedError
		if !errors.As(err, &refused) || refused.CloseCode != 4003 || refused.Code != "invalid" ||
			!strings.Contains(err.Error(), "Invalid signature") || asked != 2 {
			t.Errorf("after %d tokens: %v, %+v", asked, err, refused)
		}
	})
}

func TestConnection_RefusedTokenIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		tokens := []string{"bad", "ann"}
		c := p.client(func(o *client.Options) {
			o.Token = func(context.Context) (token string, err error) {
				token, tokens = tokens[0], tokens[1:]
				return token, nil
			}
		})
		p.node.publish(t, "u", 1)
		follow(t, c, "u").want(1)
	})
}

// Errors of the token function are tried again, unless they are marked as permanent.
func TestConnection_TokenFunctionFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		calls, loggedOut := 0, errors.New("logged out")
		c := p.client(func(o *client.Options) {
			o.Token = func(context.Context) (string, error) {
				switch calls++; {
				case calls == 1:
					return "", errors.New("the network is away")
				case calls == 2:
					return "", nil
				case calls == 3:
					return "ann", nil
				}
				return "", client.Permanent(loggedOut)
			}
		})
		p.node.publish(t, "u", 1)
		l := follow(t, c, "u")
		l.want(1)
		p.cut()
		p.node.publish(t, "u", 2)
		l.want(2) // with the token that is not known to expire
		if _, err := p.node.manager.DisconnectUser(t.Context(), "ann", manager.InvalidToken); err != nil {
			t.Fatal(err)
		}
		_ = l.wantEnd(loggedOut)
	})
}

// A forbidden upload ends its loops alone.
func TestConnection_ForbiddenUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		c := p.client()
		good := follow(t, c, "u")
		bad := follow(t, c, "secret")
		err := bad.wantEnd(client.ErrForbidden)
		var refused *client.RefusedError
		if !errors.As(err, &refused) || refused.UploadID != "secret" || refused.Code != "forbidden" {
			t.Errorf("refused with %+v", refused)
		}
		p.node.publish(t, "u", 1)
		good.want(1)
	})
}

// An authorizer that is away is asked again after the delay that the server names.
func TestConnection_UnavailableAuthorizer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fine atomic.Bool
		p := newPlace(t, func(_ *manager.Options, o *server.Options) {
			o.Authorize = func(context.Context, server.Identity, string) error {
				if fine.Load() {
					return nil
				}
				return errors.New("away")
			}
		})
		p.node.publish(t, "u", 1)
		l := follow(t, p.client(), "u")
		<-time.After(time.Minute)
		fine.Store(true)
		l.want(1)
		if n := p.attempts(); n != 1 {
			t.Errorf("%d connections, want 1", n)
		}
	})
}

// More uploads than the user may follow are refused one by one.
func TestConnection_LimitOfUploads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, func(o *manager.Options, _ *server.Options) { o.MaxSubscriptionsPerUser = 40 })
		c := p.client()
		var refused, followed atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		var loops sync.WaitGroup
		for i := range 100 {
			loops.Go(func() {
				for _, err := range c.Follow(ctx, fmt.Sprint(i)) {
					switch {
					case errors.Is(err, client.ErrLimit):
						refused.Add(1)
					case errors.Is(err, context.Canceled):
						followed.Add(1)
					}
				}
			})
		}
		<-time.After(time.Minute)
		cancel()
		loops.Wait()
		if refused.Load() != 60 || followed.Load() != 40 {
			t.Errorf("%d followed, %d refused", followed.Load(), refused.Load())
		}
	})
}

// A user who follows as many uploads as the server allows may follow others in their place, and one that is followed after
// many were left does not wait for all of these.
func TestConnection_UploadsTakeThePlaceOfOthers(t *testing.T) {
	const most = 400
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, func(o *manager.Options, _ *server.Options) { o.MaxSubscriptionsPerUser = most })
		c := p.client()
		begin := func(name string, n int) (got *atomic.Int32, end func()) {
			ctx, cancel := context.WithCancel(t.Context())
			var loops sync.WaitGroup
			got = new(atomic.Int32)
			for i := range n {
				id := fmt.Sprint(name, i)
				p.node.publish(t, id, 1)
				loops.Go(func() {
					for _, err := range c.Follow(ctx, id) {
						switch {
						case err == nil:
							got.Add(1)
						case !errors.Is(err, context.Canceled):
							t.Errorf("%s: %v", id, err)
						}
					}
				})
			}
			return got, func() { cancel(); loops.Wait() }
		}
		_, leave := begin("a", most)
		<-time.After(time.Minute)
		leave()
		_, leaveOthers := begin("b", most)
		<-time.After(time.Minute)
		leaveOthers()
		got, end := begin("late", 1)
		<-time.After(time.Second)
		if got.Load() != 1 {
			t.Errorf("no message has come within a second")
		}
		end()
	})
}

// A thousand uploads are followed without exceeding the server's limit of messages.
func TestConnection_FollowsThousandUploads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		c := p.client()
		var got atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		var loops sync.WaitGroup
		for i := range 1000 {
			loops.Go(func() {
				for _, err := range c.Follow(ctx, fmt.Sprint(i)) {
					if err != nil {
						return
					}
					got.Add(1)
				}
			})
		}
		<-time.After(time.Minute)
		for i := range 1000 {
			p.node.publish(t, fmt.Sprint(i), 1)
		}
		p.cut()
		<-time.After(time.Minute)
		for i := range 1000 {
			p.node.publish(t, fmt.Sprint(i), 2)
		}
		<-time.After(time.Minute)
		cancel()
		loops.Wait()
		if got.Load() != 2000 || p.attempts() != 2 {
			t.Errorf("%d of 2000 messages over %d connections", got.Load(), p.attempts())
		}
	})
}

// The close codes that ask the client to stop are final, the others are not.
func TestConnection_CloseCodes(t *testing.T) {
	for code, want := range map[uint16]error{
		1000: client.ErrStopped, 1008: client.ErrLimit, 4004: client.ErrStopped, 4002: client.ErrUnauthorized,
		1012: nil, 1013: nil, 1011: nil, 4003: nil, 4999: nil,
	} {
		synctest.Test(t, func(t *testing.T) {
			p := newPlace(t)
			l := follow(t, p.client(), "u")
			synctest.Wait()
			reason := manager.CloseReason{Code: code, Text: "so it is"}
			if _, err := p.node.manager.DisconnectUser(t.Context(), "ann", reason); err != nil {
				t.Fatal(err)
			}
			if want != nil {
				if err := l.wantEnd(want); !strings.Contains(err.Error(), "so it is") {
					t.Errorf("%d ends with %v", code, err)
				}
				return
			}
			p.node.publish(t, "u", 1)
			l.want(1)
		})
	}
}

// Messages to the user that belong to no upload have a callback of their own.
func TestConnection_MessagesToUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		got := make(chan client.Message, 1)
		follow(t, p.client(func(o *client.Options) { o.OnMessage = func(m client.Message) { got <- m } }), "u")
		synctest.Wait()
		e, err := manager.Parse("", []byte(`{"action":"hello","Offset":7,"Upload_ID":"u"}`), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.node.manager.SendToUser(t.Context(), "ann", e); err != nil {
			t.Fatal(err)
		}
		if m := <-got; m.Action != "hello" || m.UploadID != "" || m.Offset != 0 {
			t.Errorf("got %+v", m)
		}
	})
}
