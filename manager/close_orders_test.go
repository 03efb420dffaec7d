package manager

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/internal/membership"
)

// TestConnectSince_OrdersDuringTheCheck: a connection whose token was checked before an order and which is registered
// after the order was carried out is closed, on a node that is alone and on one of several.
func TestConnectSince_OrdersDuringTheCheck(t *testing.T) {
	check := func(t *testing.T, m *Manager) {
		t.Helper()
		byUser, byToken, since := &fakeConn{}, &holder{token: "stolen"}, m.Moment()
		_, err := m.DisconnectUser(t.Context(), "ann", NormalClosure)
		must(t, err)
		_, err = m.DisconnectToken(t.Context(), "stolen", InvalidToken)
		must(t, err)
		later := m.Moment()
		must(t, m.ConnectSince("ann", byUser, since))
		must(t, m.ConnectSince("bob", byToken, since))
		wantClosed(t, "the connection of the user", byUser, NormalClosure)
		wantClosed(t, "the connection of the token", &byToken.fakeConn, InvalidToken)
		if n := len(m.UserConnections("ann")) + len(m.UserConnections("bob")); n != 0 {
			t.Errorf("%d connections are registered after an order", n)
		}
		newer := &fakeConn{}
		must(t, m.ConnectSince("ann", newer, later))
		must(t, m.ConnectSince("ann", newer, since)) // which changes nothing
		wantClosed(t, "the connection that was checked after the order", newer, CloseReason{})
		wantClosed(t, "the connection that began after the order", connect(t, m, "ann"), CloseReason{})
	}
	t.Run("alone", func(t *testing.T) { check(t, open(t, Options{})) })
	t.Run("cluster", func(t *testing.T) {
		inCluster(t, 1, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) { check(t, nodes[0].Manager) })
	})
}

// TestConnectSince_OrdersOfOtherNodes: the same for an order of another node, which reaches this one during the check,
// or only when the connection has long been registered, because this node was cut off.
func TestConnectSince_OrdersOfOtherNodes(t *testing.T) {
	for name, cut := range map[string]bool{"at once": false, "late": true} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
				issuer, here := nodes[0], nodes[1]
				if cut {
					here.link.cut()
					<-time.After(10 * time.Second)
				}
				c, since := &fakeConn{}, here.Moment()
				<-time.After(time.Second)
				_, err := issuer.DisconnectUser(t.Context(), "ann", NormalClosure)
				must(t, err)
				<-time.After(time.Second)
				newer := connect(t, here.Manager, "ann")
				must(t, here.ConnectSince("ann", c, since))
				if cut {
					wantClosed(t, "the connection before its node knows the order", c, CloseReason{})
					here.link.mend()
					<-time.After(5 * time.Second)
				}
				wantClosed(t, "the connection that was being checked", c, NormalClosure)
				wantClosed(t, "the newer connection", newer, CloseReason{})
			})
		})
	}
}

// TestCloseIfRevoked_FurtherToken: a connection that shows a further token is closed by an order that was carried out
// while that was being checked, and by no older one.
func TestCloseIfRevoked_FurtherToken(t *testing.T) {
	m := open(t, Options{})
	c := &holder{token: "first"}
	must(t, m.Connect("ann", c))
	since := m.Moment()
	_, err := m.DisconnectToken(t.Context(), "second", InvalidToken)
	must(t, err)
	c.token = "second"
	if m.CloseIfRevoked("ann", c, m.Moment()) || m.CloseIfRevoked("ann", c, Moment{}) {
		t.Error("an order from before the check closed the connection")
	}
	if !m.CloseIfRevoked("ann", c, since) {
		t.Error("an order of the time of the check did not close the connection")
	}
	wantClosed(t, "the connection", &c.fakeConn, InvalidToken)
	if (&Manager{}).Moment() != (Moment{}) || (&Manager{}).CloseIfRevoked("ann", c, since) {
		t.Error("a manager that New has not made has a clock")
	}
}

// TestConnectSince_ForgottenOrders: a connection is sent away for a moment if the log has evicted orders since its token
// was checked: one of them may have concerned it.
func TestConnectSince_ForgottenOrders(t *testing.T) {
	m := open(t, Options{})
	before := m.Moment()
	issue := func() {
		_, err := m.DisconnectUser(t.Context(), "other", NormalClosure)
		must(t, err)
	}
	issue()
	after := m.Moment()
	for range maxOrders - 1 {
		issue()
	}
	held, evicted, spared := &fakeConn{}, &fakeConn{}, &fakeConn{}
	must(t, m.ConnectSince("ann", held, before))
	issue()
	must(t, m.ConnectSince("ann", evicted, before))
	must(t, m.ConnectSince("ann", spared, after))
	wantClosed(t, "the connection with all orders in the log", held, CloseReason{})
	wantClosed(t, "the connection with an order that is no longer in the log", evicted, TryAgainLater)
	wantClosed(t, "the connection that began after that order", spared, CloseReason{})
}

// testLog returns a log with a clock of its own.
func testLog(process string) *orderLog { return newOrderLog(process, new(ageClock)) }

func userOrder(user string) closeOrder { return closeOrder{Kind: closeUser, UserID: user} }

// transfer lets a log read another one, and returns what is new to it.
func transfer(t *testing.T, from, to *orderLog) []closeOrder {
	t.Helper()
	fresh, err := to.apply(from.reply(to.request()), 0)
	must(t, err)
	return fresh
}

// TestOrderLog_HandsOverEachOrderOnce: a log reads only what it has not read, and finds each order new once.
func TestOrderLog_HandsOverEachOrderOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, c := testLog("a"), testLog("b"), testLog("c")
		for i := range 5 {
			a.issue(userOrder(fmt.Sprint("user-", i)))
		}
		for i, want := range []int{5, 0} {
			if got := len(transfer(t, a, b)); got != want {
				t.Errorf("transfer %d brought %d orders, want %d", i, got, want)
			}
		}
		<-time.After(time.Hour)
		if got := transfer(t, b, c); len(got) != 5 || got[0].issued.most > -time.Hour+time.Second {
			t.Errorf("the third log got %+v, want 5 orders of an hour ago", got)
		}
		if got := len(transfer(t, a, c)); got != 0 {
			t.Errorf("%d orders came twice", got)
		}
		if r := a.reply(b.request()); len(r.Orders) != 0 {
			t.Errorf("%d orders were sent although they had been read", len(r.Orders))
		}
		if b.missed("a", 5) || !b.missed("a", 6) || !b.missed("d", 1) {
			t.Error("what a process has announced is not compared with what was learned of it")
		}
	})
}

// TestOrderLog_GapIsMissed: an order that was lost on the way counts as missed although a later one of its process arrived.
func TestOrderLog_GapIsMissed(t *testing.T) {
	a, b := testLog("a"), testLog("b")
	a.issue(userOrder("ann"))
	if _, fresh := b.learn(a.issue(userOrder("bob"))); !fresh {
		t.Fatal("the second order is not new")
	}
	if !b.missed("a", 2) {
		t.Error("the first order is not missed")
	}
	if got := transfer(t, a, b); len(got) != 1 || got[0].UserID != "ann" || b.missed("a", 2) {
		t.Errorf("the transfer brought %+v, want the first order; still missed: %v", got, b.missed("a", 2))
	}
}

// TestOrderLog_IsBounded: a log holds the newest orders of 24 hours, and an older one does not come back.
func TestOrderLog_IsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := testLog("a"), testLog("b")
		for i := range maxOrders + 100 {
			a.issue(userOrder(fmt.Sprint("user-", i)))
		}
		if got := transfer(t, a, b); len(got) != maxOrders || got[0].UserID != "user-100" {
			t.Errorf("%d orders came, the first for %s", len(got), got[0].UserID)
		}
		if got := a.dropped.Load(); got != 100 {
			t.Errorf("%d orders were dropped, want 100", got)
		}
		old := userOrder("old")
		old.Origin, old.Number, old.Age = "c", 1, time.Hour
		if b.learn(old); len(b.orders) != maxOrders {
			t.Errorf("%d orders are held, want %d", len(b.orders), maxOrders)
		}
		<-time.After(maxOrderAge)
		if r := a.reply(orderRequest{}); len(r.Orders) != 0 {
			t.Errorf("%d orders are held after a day", len(r.Orders))
		}
		old.Number, old.Age = 2, maxOrderAge
		if _, fresh := b.learn(old); fresh {
			t.Error("an order of a day ago is new")
		}
		for i := range 3 * maxOrderOrigins {
			_, _ = b.apply(orderReply{Process: fmt.Sprint("process-", i), Issued: 1}, 0)
		}
		if len(b.complete) > maxOrderOrigins || len(b.read) > maxOrderOrigins {
			t.Errorf("%d and %d processes are remembered", len(b.complete), len(b.read))
		}
	})
}

// TestOrderLog_ExpiresEachOrder: each order is held for a day, in whatever order the log learned of them.
func TestOrderLog_ExpiresEachOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := testLog("a")
		l.issue(userOrder("second"))
		first := userOrder("first")
		first.Origin, first.Number, first.Age = "c", 1, maxOrderAge/2
		l.learn(first)
		<-time.After(maxOrderAge / 3)
		l.issue(userOrder("third"))
		for _, want := range [][]string{{"second", "third"}, {"third"}, nil} {
			<-time.After(maxOrderAge / 3)
			var held []string
			for _, o := range l.reply(orderRequest{}).Orders {
				held = append(held, o.UserID)
			}
			if !slices.Equal(held, want) {
				t.Errorf("%v are held, want %v", held, want)
			}
		}
	})
}

// TestOrderLog_FitsInAnAnswer: a log of the longest token ids, which JSON makes six times as long, can be read by another
// node in one answer, and then holds the newest orders. One that JSON cannot represent is no exception.
func TestOrderLog_FitsInAnAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		token  string
		issued uint64 // more than fit
	}{"escaped": {"\x01", 45}, "not UTF-8": {"\xff", 200}} {
		t.Run(name, func(t *testing.T) {
			a, b := testLog("a"), testLog("b")
			token, issued := strings.Repeat(test.token, maxTokenIDBytes), test.issued
			for range issued {
				a.issue(closeOrder{Kind: closeToken, TokenID: token})
			}
			body, err := json.Marshal(a.reply(orderRequest{}))
			if err != nil || len(body) > membership.MaxAnswerBytes/2 {
				t.Fatalf("the answer has %d bytes, %v; want half of the %d that fit at most", len(body), err,
					membership.MaxAnswerBytes)
			}
			got := transfer(t, a, b)
			if n := len(got); n < 10 || got[n-1].Number != issued || got[n-1].TokenID != token {
				t.Fatalf("%d orders came, want the newest ones", n)
			}
			if dropped := a.dropped.Load(); dropped == 0 || dropped != issued-uint64(len(got)) {
				t.Errorf("%d orders were dropped, and %d of %d are held", dropped, len(got), issued)
			}
			old := closeOrder{Kind: closeToken, TokenID: token, Origin: "c", Number: 1, Age: time.Hour}
			if b.learn(old); len(b.orders) != len(got) || b.orders[0].Origin != "a" {
				t.Error("an order that is older than all others took the place of one")
			}
		})
	}
}

// TestAgeClock_BoundsWhatTwoClocksTell: the upper bound grows with the clock that advances more, and by something with each
// reading, so that no two moments are equal; the lower bound with the one that advances less. Neither goes back.
func TestAgeClock_BoundsWhatTwoClocksTell(t *testing.T) {
	for _, test := range []struct{ monotonic, wall, most, least time.Duration }{
		{time.Second, time.Second, time.Second, time.Second},
		{time.Second, time.Hour, time.Hour, time.Second}, // suspended, or the wall clock was set forward
		{time.Second, -time.Hour, time.Second, 0},        // the wall clock was set back
		{0, 0, 1, 0},
	} {
		var got instant
		got.advance(test.monotonic, test.wall)
		if want := (instant{test.most, test.least}); got != want {
			t.Errorf("after %v and %v by the wall clock %+v have passed, want %+v", test.monotonic, test.wall, got, want)
		}
	}
	var c ageClock
	first, second := c.now(), c.now()
	if first <= 0 || second <= first {
		t.Errorf("the clock shows %d and then %d", first, second)
	}
}

// stepWallClock makes a clock behave as if the wall clock had been set forward.
func (c *ageClock) stepWallClock(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at.advance(0, by)
}

// TestOrderLog_SurvivesAStepOfTheWallClock: orders are not dropped because the wall clock is set forward by a day, and
// their age is not the time that it has skipped, also on a node that hands them on.
func TestOrderLog_SurvivesAStepOfTheWallClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := testLog("a"), testLog("b")
		a.issue(userOrder("ann"))
		for name, l := range map[string]*orderLog{"issuer": a, "node that hands it on": b} {
			transfer(t, a, b)
			<-time.After(time.Minute)
			l.clock.stepWallClock(maxOrderAge)
			r := l.reply(orderRequest{})
			if len(r.Orders) != 1 || r.Orders[0].Age > 3*time.Minute {
				t.Errorf("%s: the answer is %+v, want the order with an age of some minutes", name, r)
			}
		}
	})
}

// TestConnectSince_RegisteredAgain: a connection that is registered again begins again: its age counts from there, and
// an order of the time before spares it. Connecting one that is registered changes nothing.
func TestConnectSince_RegisteredAgain(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		issuer, here := nodes[0], nodes[1]
		here.link.cut()
		<-time.After(10 * time.Second)
		back, stays := &fakeConn{}, &fakeConn{}
		must(t, here.Connect("ann", back))
		must(t, here.Connect("ann", stays))
		here.Disconnect("ann", back)
		<-time.After(time.Minute)
		_, err := issuer.DisconnectUser(t.Context(), "ann", NormalClosure)
		must(t, err)
		<-time.After(time.Minute)
		must(t, here.Connect("ann", back))
		must(t, here.Connect("ann", stays))
		<-time.After(time.Second)
		if again, first := here.ConnAge(back).Round(time.Second), here.ConnAge(stays).Round(time.Second); again != time.Second ||
			first != 2*time.Minute+time.Second {
			t.Errorf("the connections are %v and %v old", again, first)
		}
		here.link.mend()
		<-time.After(5 * time.Second)
		wantClosed(t, "the connection that was registered again", back, CloseReason{})
		wantClosed(t, "the connection that has stayed", stays, NormalClosure)
	})
}

// TestConnectSince_RegisteredAgainWithAnEarlierCheck: its token was checked before an order, so the order closes it,
// although it has been registered since the check for a while.
func TestConnectSince_RegisteredAgainWithAnEarlierCheck(t *testing.T) {
	m, c := open(t, Options{}), &fakeConn{}
	since := m.Moment()
	_, err := m.DisconnectUser(t.Context(), "ann", NormalClosure)
	must(t, err)
	must(t, m.Connect("ann", c))
	m.Disconnect("ann", c)
	must(t, m.ConnectSince("ann", c, since))
	wantClosed(t, "the connection", c, NormalClosure)
}
