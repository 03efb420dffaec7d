package shoalprom

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// description is a metric that is read when Prometheus scrapes.
type description struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) description {
	return description{prometheus.NewDesc("shoal_"+name, help, labels, nil), prometheus.GaugeValue}
}

func counter(name, help string, labels ...string) description {
	return description{prometheus.NewDesc("shoal_"+name+"_total", help, labels, nil), prometheus.CounterValue}
}

// The metrics that are read when Prometheus scrapes.
var (
	ready           = gauge("ready", "1 if the server takes new connections, else 0: see /readyz for the reason.")
	connections     = gauge("connections", "Open client connections.", "subprotocol", "transport")
	connectionLimit = gauge("connections_limit", "Largest number of client connections, 0 if there is no bound.")
	registered      = gauge("registered_connections", "Connections that have authenticated.")
	httpConnections = gauge("http_connections", "Connections of the public listeners that are not WebSockets.")
	users           = gauge("users", "Users with a connection or a subscription.")
	pending         = gauge("pending_users", "Users with subscriptions and no connection.")
	uploads         = gauge("uploads", "Uploads that are known: followed, or with a history.")
	subscriptions   = gauge("subscriptions", "Subscriptions: pairs of a user and an upload.")

	messagesIn = counter("messages_in", "Accepted messages, by the way that they came in and by class.", "door", "class")
	deliveries = counter("deliveries", "Messages given to single connections, by outcome.", "outcome")
	framesOut  = counter("frames_out", "WebSocket frames written.")
	bytesOut   = counter("bytes_out", "Bytes written to WebSockets.")
	writes     = counter("writes", "System calls that wrote to WebSockets.")

	clientMessages = counter("client_messages", "Messages of clients, by outcome; all of them are received.", "outcome")

	queueMessages = gauge("queue_messages", "Messages that wait for their connections.")
	queueBytes    = gauge("queue_bytes", "Bytes that wait for their connections.")
	stalled       = gauge("stalled_connections", "Connections whose socket accepts no data now.")
	slow          = counter("slow_consumers", "Connections closed because their client was too slow.")

	closings = counter("closings", "Ended connections, by close code and reason; code 0: the client ended it.",
		"code", "reason")
	refusals = counter("refusals", "Refused upgrades, connections, messages and subscriptions, by the limit or check.",
		"limit")
	unauthenticated = counter("tokens_refused", "Tokens that were refused.")
	forbidden       = counter("subscriptions_forbidden", "Subscriptions that the authorizer forbade.")
	unavailable     = counter("decisions_unavailable", "Tokens and subscriptions that could not be decided.")

	historyUploads  = gauge("history_uploads", "Uploads with stored messages.")
	historyMessages = gauge("history_messages", "Stored messages.")
	historyBytes    = gauge("history_bytes", "Memory of stored messages.")
	historyLimit    = gauge("history_bytes_limit", "Bound of shoal_history_bytes, 0 if there is none.")
	historyEvicted  = counter("history_evicted_uploads", "Uploads that lost stored messages because of a total bound.")

	memory = gauge("memory_bytes", "Memory by part, of the parts that can be counted.", "part")

	panics       = counter("panics", "Recovered panics, by place.", "place")
	acceptErrors = counter("accept_errors", "Failures to accept a connection.")
	hijackErrors = counter("hijack_errors", "Upgrades that failed because a middleware hides the connection.")

	brokerHealthy     = gauge("broker_healthy", "1 if messages of other nodes come through, else 0.")
	brokerNodes       = gauge("broker_nodes", "Known nodes, this one among them.")
	brokerWaiting     = gauge("broker_waiting_messages", "Messages from the broker that have not been delivered: lag.")
	brokerCatchingUp  = gauge("broker_catching_up_uploads", "Uploads whose catch-up with stored messages is due.")
	brokerSubscribing = gauge("broker_subscribing_uploads", "Uploads whose subscription at the broker is to be checked.")
	brokerReceived    = counter("broker_received", "Messages of uploads that the broker brought.")
	brokerRefused     = counter("broker_refused", "Invalid messages received from the broker.")
	brokerCatchUps    = counter("broker_catch_ups", "Completed catch-ups of uploads with stored messages.")
	brokerResets      = counter("broker_resets", "Catch-ups that began a new epoch: clients learned of a gap.")
	brokerFailures    = counter("broker_failures", "Failed operations at the broker, by kind.", "operation")
	brokerConflated   = counter("broker_conflated", "State messages replaced by newer ones before they left this node.")
	brokerNodesLost   = counter("broker_nodes_lost",
		"Nodes that fell silent without leaving.")
	brokerOverflowed = counter("broker_overflowed",
		"Uploads that were read again because too many messages arrived at once.")
	brokerLateOrders = counter("broker_late_orders",
		"Orders to close connections that this node had missed and carried out late.")
	brokerDroppedOrders = counter("broker_dropped_orders",
		"Orders to close connections that are no longer kept for nodes that are cut off.")
)

// descriptions are all of the above.
var descriptions = []description{
	ready, connections, connectionLimit, registered, httpConnections, users, pending, uploads, subscriptions,
	messagesIn, deliveries, framesOut, bytesOut, writes, clientMessages,
	queueMessages, queueBytes, stalled, slow, closings, refusals, unauthenticated, forbidden, unavailable,
	historyUploads, historyMessages, historyBytes, historyLimit, historyEvicted, memory,
	panics, acceptErrors, hijackErrors,
	brokerHealthy, brokerNodes, brokerWaiting, brokerCatchingUp, brokerSubscribing, brokerReceived, brokerRefused,
	brokerCatchUps, brokerResets, brokerFailures, brokerConflated,
	brokerNodesLost, brokerOverflowed, brokerLateOrders, brokerDroppedOrders,
}

// scrape writes the metrics of one scrape.
type scrape struct{ out chan<- prometheus.Metric }

func newScrape(out chan<- prometheus.Metric) scrape { return scrape{out} }

func (s scrape) value(d description, value float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(d.desc, d.kind, value, labels...)
}

func (s scrape) count(d description, n uint64, labels ...string) { s.value(d, float64(n), labels...) }

func (s scrape) number(d description, n int, labels ...string) { s.value(d, float64(n), labels...) }

func (s scrape) flag(d description, is bool) {
	if is {
		s.value(d, 1)
	} else {
		s.value(d, 0)
	}
}

func (s scrape) all(from *server.Server) {
	stats, in := from.Stats(), from.Inspect()
	s.clients(from, &stats, &in)
	s.messages(&stats, &in)
	s.ends(&stats, &in)
	s.histories(&stats, &in)
	if stats.Broker == nil { // a node that is alone lacks nothing
		stats.Broker = &manager.BrokerStats{Healthy: true, Nodes: 1}
	}
	s.broker(stats.Broker)
}

func (s scrape) clients(from *server.Server, stats *server.Stats, in *server.Inspection) {
	s.flag(ready, from.Ready() == nil)
	s.number(connections, in.Base, "base", "websocket")
	s.number(connections, in.V1, "shoal.v1", "websocket")
	s.number(connections, in.Events, "", "sse")
	s.number(connectionLimit, in.ConnectionLimit)
	s.number(registered, stats.Connections)
	s.number(httpConnections, in.Sockets)
	s.number(users, stats.Users)
	s.number(pending, stats.Pending)
	s.number(uploads, stats.Uploads)
	s.number(subscriptions, stats.Subscriptions)
}

func (s scrape) messages(stats *server.Stats, in *server.Inspection) {
	for _, door := range []struct {
		name  string
		count manager.ClassCounts
	}{
		{"publish", stats.Messages.Publish}, {"local", stats.Messages.Local},
		{"user", stats.Messages.User}, {"broker", stats.Messages.Broker},
	} {
		s.count(messagesIn, door.count.Event, door.name, "event")
		s.count(messagesIn, door.count.State, door.name, "state")
		s.count(messagesIn, door.count.Terminal, door.name, "terminal")
	}
	s.count(deliveries, stats.Queued, "queued")
	s.count(deliveries, stats.Conflated, "conflated")
	s.count(deliveries, stats.Dropped, "dropped")
	s.count(framesOut, stats.SentFrames)
	s.count(bytesOut, stats.SentBytes)
	s.count(writes, stats.Writes)
	s.count(clientMessages, stats.Received, "received")
	s.count(clientMessages, stats.Ignored, "ignored")
	s.count(clientMessages, stats.Failed, "refused")
	s.number(queueMessages, in.QueuedMessages)
	s.number(queueBytes, in.QueuedBytes)
	s.value(stalled, float64(stats.Stalled))
	s.count(slow, stats.SlowConsumers)
}

func (s scrape) ends(stats *server.Stats, in *server.Inspection) {
	ended := map[string]uint64{}
	for _, c := range in.Closings {
		ended[c.Reason] += c.Count
		s.count(closings, c.Count, strconv.Itoa(int(c.Code)), c.Reason)
	}
	r := stats.Refused
	for limit, n := range map[string]uint64{
		"origin": r.Origin, "handshake": r.Handshake, "identity": r.Identity, "draining": r.Draining,
		"max_connections": r.Full, "max_sockets": r.Sockets, "max_connections_per_ip": r.PerIP, "connect_rate": r.Rate,
		"max_connections_per_user":   ended[manager.TooManyConnections.Text],
		"client_message_rate":        ended[manager.TooManyMessages.Text],
		"max_client_message_bytes":   ended[manager.MessageTooBig.Text],
		"max_subscriptions_per_user": stats.SubscriptionsRefused,
		"queue":                      stats.SlowConsumers,
		"auth_timeout":               ended[manager.AuthTimeout.Text],
		"idle_timeout":               ended[manager.IdleTimeout.Text],
	} {
		s.count(refusals, n, limit)
	}
	s.count(unauthenticated, stats.Unauthenticated)
	s.count(forbidden, stats.Forbidden)
	s.count(unavailable, stats.Unavailable)
	s.count(panics, stats.Panics, "server")
	s.count(panics, stats.Stats.Panics, "connection")
	s.count(acceptErrors, stats.AcceptErrors)
	s.count(hijackErrors, stats.HijackFailed)
}

func (s scrape) histories(stats *server.Stats, in *server.Inspection) {
	s.value(historyUploads, float64(stats.HistoryUploads))
	s.value(historyMessages, float64(stats.HistoryMessages))
	s.value(historyBytes, float64(stats.HistoryBytes))
	s.number(historyLimit, in.HistoryLimit)
	s.count(historyEvicted, stats.HistoryEvicted)
	s.value(memory, float64(stats.HistoryBytes), "history")
	s.number(memory, in.QueuedBytes-in.RecoveryBytes, "queues")
	s.number(memory, in.RecoveryBytes, "recoveries")
}

func (s scrape) broker(b *manager.BrokerStats) {
	s.flag(brokerHealthy, b.Healthy)
	s.number(brokerNodes, b.Nodes)
	s.number(brokerWaiting, b.Waiting)
	s.number(brokerCatchingUp, b.CatchingUp)
	s.number(brokerSubscribing, b.Subscribing)
	s.count(brokerReceived, b.Received)
	s.count(brokerRefused, b.Refused)
	s.count(brokerCatchUps, b.Recoveries)
	s.count(brokerResets, b.Resets)
	s.count(brokerFailures, b.SubscribeFailures, "subscribe")
	s.count(brokerFailures, b.ReadFailures, "read")
	s.count(brokerFailures, b.PublishFailures, "publish")
	s.count(brokerConflated, b.Conflated)
	s.count(brokerNodesLost, b.NodesLost)
	s.count(brokerOverflowed, b.Overflowed)
	s.count(brokerLateOrders, b.LateOrders)
	s.count(brokerDroppedOrders, b.DroppedOrders)
}
