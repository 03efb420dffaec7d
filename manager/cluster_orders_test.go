package manager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// wantClosed fails unless the connection was closed once for a reason, or never if want is the zero value.
func wantClosed(t *testing.T, what string, c *fakeConn, want CloseReason) {
	t.Helper()
	switch got := c.closed(); {
	case want == CloseReason{} && len(got) > 0:
		t.Errorf("%s was closed with %v", what, got)
	case want != CloseReason{} && (len(got) != 1 || got[0] != want):
		t.Errorf("%s was closed with %v, want %v", what, got, want)
	}
}

// TestOrders_ReachNodesThatWereCutOff: a node that was cut off for so long that the others no longer know it closes the
// revoked connections when it is back, and none that is newer than the order.
func TestOrders_ReachNodesThatWereCutOff(t *testing.T) {
	inCluster(t, 3, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		away := nodes[2]
		before, stolen := connect(t, away.Manager, "ann"), &holder{token: "stolen"}
		must(t, away.Connect("bob", stolen))
		unrelated := connect(t, away.Manager, "carl")
		away.link.cut()
		<-time.After(10 * time.Second)
		signedOut, revoked := CloseReason{4000, "Signed out"}, CloseReason{4001, "Revoked"}
		_, err := nodes[0].DisconnectUser(t.Context(), "ann", signedOut)
		must(t, err)
		_, err = nodes[1].DisconnectToken(t.Context(), "stolen", revoked)
		must(t, err)
		<-time.After(10 * time.Second)
		after := connect(t, away.Manager, "ann")
		away.link.mend()
		<-time.After(5 * time.Second)
		wantClosed(t, "the older connection", before, signedOut)
		wantClosed(t, "the connection of the token", &stolen.fakeConn, revoked)
		wantClosed(t, "the newer connection", after, CloseReason{})
		wantClosed(t, "the connection of another user", unrelated, CloseReason{})
		away.link.cut()
		<-time.After(10 * time.Second)
		away.link.mend()
		<-time.After(5 * time.Second)
		wantClosed(t, "the newer connection", after, CloseReason{})
		if s := away.Stats().Broker; s.LateOrders != 2 {
			t.Errorf("%d orders came late, want 2", s.LateOrders)
		}
	})
}

// TestOrders_StepOfAWallClockSparesNoConnection: a node that was cut off closes a revoked connection, and spares a newer one
// of the same user, although the wall clock of the node that issued the order was set forward since. If its own clock was
// set forward, it closes the revoked connection too.
func TestOrders_StepOfAWallClockSparesNoConnection(t *testing.T) {
	for name, stepped := range map[string]int{"issuer": 0, "receiver": 1} {
		t.Run(name, func(t *testing.T) {
			inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
				issuer, away := nodes[0], nodes[1]
				stolen := connect(t, away.Manager, "ann")
				<-time.After(10 * time.Minute)
				away.link.cut()
				<-time.After(10 * time.Second)
				_, err := issuer.DisconnectUser(t.Context(), "ann", NormalClosure)
				must(t, err)
				<-time.After(time.Minute)
				newer := connect(t, away.Manager, "ann")
				nodes[stepped].ages.stepWallClock(time.Hour)
				away.link.mend()
				<-time.After(time.Minute)
				wantClosed(t, "the revoked connection", stolen, NormalClosure)
				if stepped == 0 {
					wantClosed(t, "the newer connection", newer, CloseReason{})
				}
			})
		})
	}
}

// TestOrders_OfANodeThatIsCutOffAreKept: an order that could be given to no other node is an error, and is carried out
// there once its issuer is back.
func TestOrders_OfANodeThatIsCutOffAreKept(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		here, there := connect(t, nodes[0].Manager, "ann"), connect(t, nodes[1].Manager, "ann")
		nodes[0].link.cut()
		n, err := nodes[0].DisconnectUser(t.Context(), "ann", NormalClosure)
		if n != 1 || !errors.Is(err, ErrUnavailable) {
			t.Errorf("%d were closed, %v; want the one of this node and ErrUnavailable", n, err)
		}
		wantClosed(t, "the connection of this node", here, NormalClosure)
		<-time.After(20 * time.Second)
		wantClosed(t, "the connection of the other node", there, CloseReason{})
		nodes[0].link.mend()
		<-time.After(5 * time.Second)
		wantClosed(t, "the connection of the other node", there, NormalClosure)
	})
}

// TestOrders_LostOnTheWayAreReadAgain: an order that one node did not receive, although the broker never reported an
// interruption, reaches it with the next hello.
func TestOrders_LostOnTheWayAreReadAgain(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		c := connect(t, nodes[1].Manager, "ann")
		nodes[1].link.losing(func(m broker.Message) bool { return bytes.Contains(m.Payload, []byte(closeUser)) })
		var missing *MissingNodesError
		if _, err := nodes[0].DisconnectUser(t.Context(), "ann", NormalClosure); !errors.As(err, &missing) {
			t.Errorf("DisconnectUser: %v, want the name of the node that did not confirm", err)
		}
		nodes[1].link.losing(nil)
		<-time.After(3 * time.Second)
		wantClosed(t, "the connection", c, NormalClosure)
	})
}

// TestOrders_AreReadUntilEveryNodeHasAnswered: the question for missed orders is repeated while a node does not answer.
func TestOrders_AreReadUntilEveryNodeHasAnswered(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		c := connect(t, nodes[1].Manager, "ann")
		nodes[1].link.cut()
		<-time.After(10 * time.Second)
		_, err := nodes[0].DisconnectUser(t.Context(), "ann", NormalClosure)
		must(t, err)
		nodes[0].link.losing(func(m broker.Message) bool { return bytes.Contains(m.Payload, []byte(askOrders)) })
		nodes[1].link.mend()
		<-time.After(time.Minute)
		wantClosed(t, "the connection", c, CloseReason{})
		nodes[0].link.losing(nil)
		<-time.After(2 * maxOrderPause)
		wantClosed(t, "the connection", c, NormalClosure)
	})
}

// TestOrders_SpareNewerConnectionsAlthoughANodeDoesNotAnswer: the age of an order counts from the arrival of the answer that
// names it, not from the end of the question, which waits for the slowest node.
func TestOrders_SpareNewerConnectionsAlthoughANodeDoesNotAnswer(t *testing.T) {
	inCluster(t, 3, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		older := connect(t, nodes[1].Manager, "ann")
		nodes[1].link.cut()
		<-time.After(10 * time.Second)
		_, err := nodes[0].DisconnectUser(t.Context(), "ann", NormalClosure)
		must(t, err)
		<-time.After(500 * time.Millisecond)
		newer := connect(t, nodes[1].Manager, "ann")
		nodes[2].link.losing(func(m broker.Message) bool { return bytes.Contains(m.Payload, []byte(askOrders)) })
		nodes[1].link.mend()
		<-time.After(time.Minute)
		wantClosed(t, "the older connection", older, NormalClosure)
		wantClosed(t, "the newer connection", newer, CloseReason{})
	})
}

// TestOrders_InvalidOnesAreRefused: an order of another node is checked like one of a caller.
func TestOrders_InvalidOnesAreRefused(t *testing.T) {
	inCluster(t, 1, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		n := nodes[0]
		c := connect(t, n.Manager, "ann")
		for _, body := range []string{
			``, `{}`, `{"kind":"close-user","user":"ann"}`, `{"origin":"x","number":1,"kind":"other","user":"ann"}`,
			`{"origin":"x","number":1,"kind":"close-user"}`, `{"origin":"x","number":1,"kind":"close-token"}`,
			`{"origin":"x","number":1,"kind":"close-user","user":"ann","age":-1}`,
			`{"origin":"x","number":1,"kind":"close-user","user":"ann","reason":{"Code":7}}`,
			`{"origin":"` + strings.Repeat("x", 300) + `","number":1,"kind":"close-user","user":"ann"}`,
			`{"origin":"x","number":1,"kind":"close-user","user":"ann","reason":{"Text":"` + strings.Repeat("x", 124) + `"}}`,
		} {
			if _, err := n.cluster.closeHere([]byte(body)); err == nil {
				t.Errorf("%.100s was carried out", body)
			}
			var r orderReply
			if json.Unmarshal([]byte(`{"process":"p","orders":[`+body+`]}`), &r) == nil && body != "" {
				if fresh, err := n.orders.apply(r, 0); err == nil || len(fresh) > 0 {
					t.Errorf("%.100s was learned", body)
				}
			}
		}
		if _, err := n.cluster.answerOrders([]byte("x")); err == nil {
			t.Error("a question that is no JSON was answered")
		}
		wantClosed(t, "the connection", c, CloseReason{})
	})
}

// TestOrders_InvalidReplyIsBounded: the error of a reply does not grow with its invalid orders, and no more orders are
// decoded than a log holds.
func TestOrders_InvalidReplyIsBounded(t *testing.T) {
	list := func(n int) string { return `{"process":"p","orders":[` + strings.Repeat(`{},`, n-1) + `{}]}` }
	var r orderReply
	must(t, json.Unmarshal([]byte(list(maxOrders)), &r))
	log := newOrderLog("this", &ageClock{})
	if fresh, err := log.apply(r, 0); len(fresh) > 0 || err == nil || len(err.Error()) > 200 {
		t.Errorf("%d orders were learned, the error is %.300v", len(fresh), err)
	}
	for _, text := range []string{list(maxOrders + 1), `{"orders":{}}`, `{"orders":7}`, `{"orders":[7]}`} {
		if err := json.Unmarshal([]byte(text), new(orderReply)); err == nil {
			t.Errorf("%.40s was decoded", text)
		}
	}
}

// TestCluster_NodesOfOneNameAreNotReady: the error names the nodes and the remedy.
func TestCluster_NodesOfOneNameAreNotReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := broker.NewMemory(broker.MemoryOptions{})
		logs := new(bytes.Buffer)
		third := openMember(t, hub, Options{NodeName: "third"})
		one := openMember(t, hub, Options{NodeName: "twin", Logger: slog.New(slog.NewTextHandler(logs, nil))})
		must(t, one.Ready())
		two := openMember(t, hub, Options{NodeName: "twin"})
		<-time.After(5 * time.Second)
		for _, n := range []member{one, two, third} {
			err := n.Ready()
			if err == nil || !strings.Contains(err.Error(), "twin") || !strings.Contains(err.Error(), "NodeName") {
				t.Errorf("ready is %v, want the name and the option", err)
			}
		}
		s, err := third.Subscribers(t.Context(), "cat")
		if err != nil || len(s.Missing) != 1 || s.Missing[0] != "twin" {
			t.Errorf("Subscribers: %+v, %v; want twin among the missing", s, err)
		}
		must(t, two.Close(context.Background()))
		<-time.After(6 * time.Second)
		must(t, one.Ready())
		must(t, third.Ready())
	})
}

// TestSendToUser_CountsWhatWasDelivered: with a node missing, the error names it, and the outcomes are those of the others.
func TestSendToUser_CountsWhatWasDelivered(t *testing.T) {
	inCluster(t, 3, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		for _, n := range nodes {
			connect(t, n.Manager, "ann")
		}
		nodes[2].link.cut()
		d, err := nodes[0].SendToUser(t.Context(), "ann", note(t, 1))
		var missing *MissingNodesError
		if d.Queued != 2 || !errors.As(err, &missing) || len(missing.Nodes) != 1 {
			t.Errorf("%+v, %v; want two deliveries and the name of the missing node", d, err)
		}
	})
}

// TestSendToUser_EndsWithItsContext: a broker that does not answer delays a caller no longer than its context, and this
// node's connections get the message.
func TestSendToUser_EndsWithItsContext(t *testing.T) {
	inCluster(t, 1, Options{}, func(t *testing.T, _ *broker.Memory, nodes []member) {
		c := connect(t, nodes[0].Manager, "ann")
		defer nodes[0].link.stop("Publish")()
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		begin := time.Now()
		d, err := nodes[0].SendToUser(ctx, "ann", note(t, 1))
		if took := time.Since(begin); took != 300*time.Millisecond {
			t.Errorf("returned after %v", took)
		}
		if d.Queued != 1 || len(c.received(t)) != 1 || !errors.Is(err, ErrUnavailable) {
			t.Errorf("%+v, %v; want a delivery on this node and ErrUnavailable", d, err)
		}
	})
}

// TestSendToUser_StateReplacesNoPublishedOne: a message to a user, which has no offset, must not take the place of a
// published state of the same upload in a queue.
func TestSendToUser_StateReplacesNoPublishedOne(t *testing.T) {
	m := open(t, Options{})
	c := connect(t, m, "ann")
	must(t, m.SubscribeUpload(t.Context(), "ann", "cat"))
	state := UploadProgress{Status: StatusAnalyzing, Stage: StageIndexing, Percent: 1}
	_, err := m.Publish(t.Context(), "cat", state)
	must(t, err)
	state.UploadID = "cat"
	for range 2 {
		_, err = m.SendToUser(t.Context(), "ann", state)
		must(t, err)
	}
	published, first, second := c.frames[0], c.frames[1], c.frames[2]
	if published.StateKey() == first.StateKey() || first.StateKey() != second.StateKey() || first.UploadID() != "cat" {
		t.Errorf("the keys are %q, %q and %q", published.StateKey(), first.StateKey(), second.StateKey())
	}
}
