package manager

import (
	"errors"
	"slices"
	"testing"
)

// tokenSet is a connection that has shown several tokens.
type tokenSet struct {
	fakeConn
	tokens []string
}

func (s *tokenSet) HasToken(id string) bool { return slices.Contains(s.tokens, id) }

func newManager(t *testing.T, opt Options) *Manager {
	t.Helper()
	m, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, m.Close(t.Context())) })
	return m
}

// DisconnectToken finds a connection by each of the tokens that it has shown.
func TestManager_DisconnectTokenFindsEachTokenOfAConnection(t *testing.T) {
	m := newManager(t, Options{})
	for _, token := range []string{"first", "second"} {
		c := &tokenSet{tokens: []string{"first", "second"}}
		must(t, m.Connect("ann", c))
		if n, err := m.DisconnectToken(t.Context(), token, NormalClosure); n != 1 || err != nil || len(c.closed()) != 1 {
			t.Errorf("%s: %d closed, %v", token, n, err)
		}
	}
}

// Claims are the uploads that the connection itself follows, and Admissible respects the limit of the user.
func TestManager_ClaimsAndAdmissible(t *testing.T) {
	m := newManager(t, Options{MaxSubscriptionsPerUser: 3})
	one, other := &fakeConn{}, &fakeConn{}
	must(t, m.Connect("ann", one))
	must(t, m.Connect("ann", other))
	for _, id := range []string{"a", "b"} {
		must(t, m.SubscribeConn(t.Context(), "ann", one, id, SubscribeOptions{}))
	}
	must(t, m.SubscribeConn(t.Context(), "ann", other, "b", SubscribeOptions{}))
	got := m.Claims("ann", one)
	slices.Sort(got)
	if !slices.Equal(got, []string{"a", "b"}) || !slices.Equal(m.Claims("ann", other), []string{"b"}) || m.Claims("bob", one) != nil {
		t.Errorf("claims are %q, %q", got, m.Claims("ann", other))
	}
	admitted, err := m.Admissible("ann", one, "a", "x", "y", "b")
	if err != nil || !slices.Equal(admitted, []string{"a", "x", "b"}) {
		t.Errorf("admitted %q, %v", admitted, err)
	}
	if _, err := m.Admissible("bob", one, "a"); !errors.Is(err, ErrNotConnected) {
		t.Errorf("a stranger: %v, want ErrNotConnected", err)
	}
	if l := m.Limits(); l.MaxSubscriptionsPerUser != 3 || l.MaxMessageBytes != 64<<10 {
		t.Errorf("limits are %+v", l)
	}
}
