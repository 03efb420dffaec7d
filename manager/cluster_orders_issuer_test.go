package manager

import (
	"bytes"
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// TestOrders_SurviveTheirIssuer: every node that carried out an order hands it on, so that it reaches a node that was cut
// off although the issuer has gone; also through a node that only learned of it later.
func TestOrders_SurviveTheirIssuer(t *testing.T) {
	inCluster(t, 1, Options{}, func(t *testing.T, hub *broker.Memory, nodes []member) {
		away := nodes[0]
		issuer, second := openMember(t, hub, Options{}), openMember(t, hub, Options{})
		<-time.After(5 * time.Second)
		c := connect(t, away.Manager, "ann")
		away.link.cut()
		<-time.After(10 * time.Second)
		_, err := issuer.DisconnectUser(t.Context(), "ann", NormalClosure)
		must(t, err)
		must(t, issuer.Close(t.Context()))
		third := openMember(t, hub, Options{})
		<-time.After(10 * time.Second)
		must(t, second.Close(t.Context()))
		<-time.After(10 * time.Second)
		away.link.mend()
		<-time.After(5 * time.Second)
		wantClosed(t, "the connection", c, NormalClosure)
		must(t, third.Close(t.Context()))
	})
}

// TestOrders_AreReadAgainFromANodeThatHandsThemOn: the question is repeated also if the issuer, whose hellos would remind
// the node, has gone.
func TestOrders_AreReadAgainFromANodeThatHandsThemOn(t *testing.T) {
	inCluster(t, 2, Options{}, func(t *testing.T, hub *broker.Memory, nodes []member) {
		away, second := nodes[0], nodes[1]
		issuer := openMember(t, hub, Options{})
		<-time.After(5 * time.Second)
		c := connect(t, away.Manager, "ann")
		away.link.cut()
		<-time.After(10 * time.Second)
		_, err := issuer.DisconnectUser(t.Context(), "ann", NormalClosure)
		must(t, err)
		must(t, issuer.Close(t.Context()))
		<-time.After(10 * time.Second)
		second.link.losing(func(m broker.Message) bool { return bytes.Contains(m.Payload, []byte(askOrders)) })
		away.link.mend()
		<-time.After(time.Minute)
		wantClosed(t, "the connection", c, CloseReason{})
		second.link.losing(nil)
		<-time.After(2 * maxOrderPause)
		wantClosed(t, "the connection", c, NormalClosure)
	})
}
