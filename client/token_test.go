package client_test

import (
	"bufio"
	"context"
	"encoding/base64"
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

// jwt is a token with an expiry, which the server of these tests takes for the user ann.
func jwt(number int, expires time.Time) string {
	claims := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"exp":%d}`, expires.Unix()))
	return fmt.Sprintf("ann/%d.%s.x", number, claims)
}

// A token is renewed before it expires, on the same connection.
func TestConnection_RenewsToken(t *testing.T) {
	for _, life := range []time.Duration{10 * time.Second, 5 * time.Minute, 3 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			issued := 0
			p := newPlace(t, func(_ *manager.Options, o *server.Options) {
				o.Authenticate = func(_ context.Context, token string) (server.Identity, error) {
					claims, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
					var seconds int64
					_, err := fmt.Sscanf(string(claims), `{"exp":%d}`, &seconds)
					return server.Identity{UserID: "ann", Expires: time.Unix(seconds, 0)}, err
				}
			})
			l := follow(t, p.client(func(o *client.Options) {
				o.Token = func(context.Context) (string, error) {
					issued++
					return jwt(issued, time.Now().Add(life)), nil
				}
			}), "u")
			<-time.After(10 * life)
			p.node.publish(t, "u", 1)
			l.want(1)
			if n := p.attempts(); n != 1 || issued < 10 || issued > 16 {
				t.Errorf("%d connections and %d tokens within ten lives of %v", n, issued, life)
			}
		})
	}
}

// A token that the server cannot check now is sent again before the accepted one expires, and is not the reason for which
// the connection ends later.
func TestConnection_UncheckedRenewalIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{t: t}
		var mu sync.Mutex
		var times []time.Duration // of the tokens
		begun := time.Now()
		p.serve(func(w http.ResponseWriter, r *http.Request) {
			upgrade(w, r, func(conn net.Conn, frames *bufio.Reader) {
				for {
					message, err := readFrame(frames)
					if err != nil {
						return
					}
					if !strings.Contains(message, `"auth"`) {
						continue
					}
					mu.Lock()
					times = append(times, time.Since(begun))
					number := len(times)
					mu.Unlock()
					answer := text(`{"action":"auth_success","user_id":"ann"}`)
					switch number {
					case 2, 3:
						answer = text(`{"action":"auth_error","code":"unavailable","message":"no keys"}`)
					case 5:
						answer = []byte{0x88, 2, 0x03, 0xf0} // 1008
					}
					_, _ = conn.Write(answer)
				}
			})
		})
		calls := 0
		c := p.client(func(o *client.Options) {
			o.IdleTimeout = 24 * time.Hour
			o.Token = func(context.Context) (string, error) {
				calls++
				if calls < 4 {
					return jwt(calls, begun.Add(10*time.Minute)), nil
				}
				return jwt(calls, begun.Add(20*time.Minute)), nil
			}
		})
		err := follow(t, c, "u").wantEnd(client.ErrLimit)
		var refused *client.RefusedError
		if !errors.As(err, &refused) || refused.Code != "" {
			t.Errorf("ended with %v, want a refusal without the code of an earlier renewal", err)
		}
		if len(times) != 5 || times[3] >= 10*time.Minute {
			t.Errorf("tokens at %v, want three renewals before the first token expires", times)
		}
	})
}

// A permanent error of Options.Token ends the loops at a renewal too.
func TestConnection_PermanentErrorAtRenewalIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, func(_ *manager.Options, o *server.Options) {
			o.Authenticate = func(context.Context, string) (server.Identity, error) {
				return server.Identity{UserID: "ann"}, nil
			}
		})
		loggedOut, calls := errors.New("logged out"), 0
		c := p.client(func(o *client.Options) {
			o.Token = func(context.Context) (string, error) {
				calls++
				if calls > 1 {
					return "", client.Permanent(loggedOut)
				}
				return jwt(calls, time.Now().Add(10*time.Minute)), nil
			}
		})
		_ = follow(t, c, "u").wantEnd(loggedOut)
		if calls != 2 || p.attempts() != 1 {
			t.Errorf("%d calls of Token and %d connections, want 2 and 1", calls, p.attempts())
		}
	})
}

// A token that cannot be renewed ends the connection, and a fresh one continues it later.
func TestConnection_ExpiresAndReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, func(_ *manager.Options, o *server.Options) {
			o.Authenticate = func(_ context.Context, token string) (server.Identity, error) {
				return server.Identity{UserID: "ann", Expires: time.Now().Add(time.Minute)}, nil
			}
		})
		issued := 0
		var away atomic.Bool
		l := follow(t, p.client(func(o *client.Options) {
			o.Token = func(context.Context) (string, error) {
				if away.Load() {
					return "", errors.New("the network is away")
				}
				issued++
				return jwt(issued, time.Now().Add(time.Minute)), nil
			}
		}), "u")
		synctest.Wait()
		p.node.publish(t, "u", 1)
		l.want(1)
		away.Store(true)
		<-time.After(5 * time.Minute)
		p.node.publish(t, "u", 2)
		away.Store(false)
		l.want(2)
	})
}
