package embedded_test

import (
	"testing"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/brokertest"
	"github.com/shoal-go/shoal/broker/natsbroker"
	"github.com/shoal-go/shoal/broker/natsbroker/embedded"
)

// TestServer_BrokenRouteIsInterruption: messages that are lost because the connection between two servers breaks are
// reported on the node that does not get them, although its own connection is whole and the stream's leader the same.
func TestServer_BrokenRouteIsInterruption(t *testing.T) {
	addrs := freeAddrs(t, 2)
	link := brokertest.NewLink(t, addrs[0])
	servers := []*embedded.Server{
		start(t, embedded.Options{ClusterAddr: addrs[0], ClusterRoutes: addrs[:1]}),
		start(t, embedded.Options{ClusterAddr: addrs[1], ClusterRoutes: []string{link.Addr()}}),
	}
	opt := natsbroker.Options{ProbeInterval: 2 * time.Second} // a check of the stream is five intervals away
	var nodes []*node
	for _, s := range servers {
		opt.Server = s
		nodes = append(nodes, join(t, opt))
		nodes[len(nodes)-1].awaitHealthy(t)
	}
	writer, reader := nodes[0], nodes[1]
	if !embedded.Leads(servers[0], "SHOAL") {
		writer, reader = reader, writer
	}
	if err := reader.Subscribe(t.Context(), "upload:x"); err != nil {
		t.Fatal(err)
	}
	store(t, writer, "upload:x", "1")
	reader.Await(t, "the message", func() bool { return len(reader.Payloads("upload:x")) == 1 })
	interruptions := len(reader.Interruptions())
	link.Cut()
	if _, err := writer.Store(t.Context(), "upload:x", []byte("lost")); err != nil {
		t.Fatal(err)
	}
	link.Mend()
	reader.Await(t, "an interruption", func() bool { return len(reader.Interruptions()) > interruptions })
	if k, err := reader.History(t.Context(), "upload:x", broker.Position{}); err != nil || len(k.Messages) != 2 {
		t.Errorf("the history is %+v, %v, want both messages", k, err)
	}
}
