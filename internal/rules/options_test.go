package rules

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/client"
	"github.com/shoal-go/shoal/internal/optiontest"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/manager/outqueue"
	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/jwtauth"
)

// deaf is a broker.Handler that ignores everything.
type deaf struct{}

func (deaf) Receive(broker.Message) {}
func (deaf) Interrupted(...string)  {}
func (deaf) Health(error)           {}

// 0 and negative values mean the same in all options of the library.
func TestOptions_FollowOneRule(t *testing.T) {
	t.Run("manager", func(t *testing.T) {
		base := func() manager.Options { return manager.Options{} }
		optiontest.Check(t, "../../manager/options.go", base, func(o manager.Options) error {
			m, err := manager.New(o)
			if err == nil {
				err = m.Close(context.Background())
			}
			return err
		})
	})
	t.Run("server", func(t *testing.T) {
		m, err := manager.New(manager.Options{})
		if err != nil {
			t.Fatal(err)
		}
		base := func() server.Options {
			return server.Options{
				Manager: m, Authorize: server.AuthorizeOpen,
				Authenticate: func(context.Context, string) (server.Identity, error) { return server.Identity{}, nil },
			}
		}
		optiontest.Check(t, "../../server/options.go", base, func(o server.Options) error {
			s, err := server.New(o)
			if err == nil {
				err = s.Close(context.Background())
			}
			return err
		})
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Run("outqueue", func(t *testing.T) {
		base := func() outqueue.Options { return outqueue.Options{} }
		optiontest.Check(t, "../../manager/outqueue/queue.go", base, func(o outqueue.Options) error {
			outqueue.New(o)
			return nil
		})
	})
	t.Run("jwtauth", func(t *testing.T) {
		base := func() jwtauth.Options { return jwtauth.Options{Secret: []byte("secret")} }
		optiontest.Check(t, "../../server/jwtauth/jwtauth.go", base, func(o jwtauth.Options) error {
			_, err := jwtauth.New(o)
			return err
		})
	})
	t.Run("client", func(t *testing.T) {
		base := func() client.Options { return client.Options{APIKey: "key"} }
		optiontest.Check(t, "../../client/options.go", base, func(o client.Options) error {
			c, err := client.New("http://127.0.0.1:1", o)
			if err == nil {
				err = c.Close()
			}
			return err
		})
	})
	t.Run("memory", func(t *testing.T) {
		base := func() broker.MemoryOptions { return broker.MemoryOptions{} }
		optiontest.Check(t, "../../broker/memory.go", base, func(o broker.MemoryOptions) error {
			synctest.Test(t, func(t *testing.T) {
				node := broker.NewMemory(o).Node()
				ctx, cancel := context.WithCancel(t.Context())
				var running sync.WaitGroup
				running.Go(func() { _ = node.Run(ctx, deaf{}) })
				synctest.Wait()
				for range 3 {
					if _, err := node.Store(ctx, "channel", []byte("payload")); err != nil {
						t.Error(err)
					}
				}
				cancel()
				running.Wait()
			})
			return nil
		})
	})
}
