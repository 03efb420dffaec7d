package server

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/manager"
)

// terse is a broker that does not tell a message's epoch when it is stored.
type terse struct{ *broker.MemoryNode }

func (s terse) Store(ctx context.Context, channel string, payload []byte) (broker.Position, error) {
	pos, err := s.MemoryNode.Store(ctx, channel, payload)
	return broker.Position{Offset: pos.Offset}, err
}

// newBrokerAPI returns the API of a node of a cluster, within a synctest bubble.
func newBrokerAPI(t *testing.T, b broker.Broker) *apiTest {
	t.Helper()
	m, err := manager.New(manager.Options{Broker: b})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	return &apiTest{t, m, newAPI(m, apiOptions{Keys: []string{"second-key"}})}
}

func TestAPITellsTheEpochOfWhatItHasPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newBrokerAPI(t, terse{broker.NewMemory(broker.MemoryOptions{}).Node()})
		a.want(a.call("POST", "/v1/uploads/up-1/messages", "", note), 202, `{"accepted":1,"epoch":"EPOCH","offset":1}`)
		if body := a.call("POST", "/v1/uploads/up-1/messages", "", note).Body.String(); strings.Contains(body, `"epoch":""`) {
			t.Errorf("there is no epoch in %s", body)
		}
	})
}

// away is a broker that cannot be reached.
type away struct{ broker.HistoryBroker }

func (away) Run(ctx context.Context, _ broker.Handler) error { <-ctx.Done(); return nil }

func TestAPIWithoutItsBrokerAsksToTryAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newBrokerAPI(t, away{broker.NewMemory(broker.MemoryOptions{}).Node()})
		for _, call := range [][3]string{
			{"POST", "/v1/uploads/up-1/messages", note}, {"POST", "/v1/users/ann/messages", note},
			{"GET", "/v1/uploads/up-1", ""}, {"GET", "/v1/uploads/up-1/messages", ""}, {"DELETE", "/v1/uploads/up-1", ""},
			{"GET", "/v1/uploads/up-1/subscribers", ""}, {"GET", "/v1/nodes", ""},
			{"DELETE", "/v1/users/ann/connections", ""}, {"DELETE", "/v1/tokens/t-1/connections", ""},
		} {
			w := a.call(call[0], call[1], "", call[2])
			if w.Code != 503 || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "out of reach") {
				t.Errorf("%s %s: %d %s, Retry-After %q", call[0], call[1], w.Code, w.Body, w.Header().Get("Retry-After"))
			}
		}
	})
}
