// Package manager is the domain of this module: it tracks connections and subscriptions and delivers each message to
// all subscribers of its upload. It is independent of sockets and HTTP; a connection is any implementation of [Conn].
//
// # Invariants
//
// Each of them has a test that names it.
//
//  1. A message published to an upload after SubscribeUpload returned reaches every connection of that user,
//     in publish order, once (a state message possibly as the newer one that replaced it), or that
//     connection is closed with a code that gives the reason.
//  2. A subscriber receives the snapshot, then all later messages: no gap, no duplicate, however the two race.
//  3. When a user's last connection ends, the user's subscriptions end with it, and nothing of them remains in
//     memory, on any interleaving of connect, subscribe, send, disconnect and drain. Counts equal contents.
//  4. No lock is held during I/O, a broker call or a callback, except the methods of a [Conn] that are documented to be
//     called with a lock held and only queue. Lock order: user → upload → outbox, never the reverse.
//  5. Publishing never waits for a client, and a stalled client does not change the latency of any other client.
//  6. Terminal messages are never conflated, dropped or overtaken.
//  7. DisconnectAll and Close return within their context's deadline even if every socket is stuck, after
//     which no goroutine of ours is left.
//  8. Memory is bounded: per connection, per upload, per history, and for all histories together, by documented
//     options.
//  9. A client that reads recovers everything that the history holds in one attempt, with any limits of its
//     queue. A recovery does not delay messages of other uploads.
//  10. The cost of a reconnection, of a client to a node or of a node to its broker, depends on the changes, not on the
//     number of followed uploads.
//
// # Map
//
//	manager                 this package
//	├─ shard                the registry: users, connections, uploads, subscribers
//	├─ internal/frame       encoded messages, shared by all receivers
//	├─ internal/history     the newest messages of an upload, and its position
//	├─ internal/strictjson  one walk over a message: valid, and where its members are
//	└─ broker               messages between nodes, and with it
//	   ├─ internal/membership  the nodes, and questions to them
//	   ├─ internal/dispatch    queues between the broker's callback and the fan-out
//	   ├─ internal/workqueue   subscriptions and catch-ups, with retries
//	   └─ internal/coalesce    Options.StateRate
//
// The path of a published message:
//
//	Publish             publish.go: id, JSON, size, class; encoded once
//	  │  with a broker  cluster_store.go: Broker.Store; then on each node that follows the upload
//	  │                 cluster.go: Receive → dispatch queue; cluster_receive.go: epoch, order, gaps
//	  ▼
//	record, keep        history: offset and newest message     ┐
//	bursts.send         burst.go: large audiences, in batches  │ with the upload's lock held
//	fanOut.send         fanout.go: parts of the receiver list  ┘
//	  ▼
//	Conn.Send           server.Client → internal/outbox, or package outqueue; both keep the messages that a client
//	                    has missed with internal/replay
//
// Users and uploads are hashed to shards, each with two concurrent maps. A fan-out runs in parallel over parts of an
// upload's receiver list and not over shards: the list is dense, so that a broadcast reads it once and in order.
//
// # Claims
//
// Subscriptions belong to users: every connection of a user receives the messages of all uploads that the user follows.
// Claims keep a subscription alive. SubscribeUpload makes a claim that belongs to the user itself, SubscribeConn one
// that belongs to a single connection. A subscription ends with its last claim, and all of them end with the user's
// last connection.
//
// The answer to a new claim is the upload's newest message, if there is one. It is sent even if the connection already
// received that message through a claim of another connection of the user: a client that has just opened its view must
// see the state at once.
//
// # Many nodes
//
// With a [broker.Broker] a message is sent to the broker only (cluster_store.go). Every node, including the publishing
// one, delivers it when it arrives from the broker, so that all nodes agree on the order. The broker's callback never
// blocks: it adds messages to the dispatch queues, whose goroutines validate them (message_parse.go) and deliver them
// if no earlier message is missing (cluster_receive.go).
//
// A node is subscribed to the uploads that have followers here, and for a second after the last follower left
// (cluster_follow.go, cluster_subscribe.go). A subscriber waits until the broker has confirmed the subscription and the
// stored messages have been read.
//
// A message that does not continue the log, or a broker's notice of lost messages, starts a catch-up of the upload:
// arriving messages are held while the stored messages are read and fill the gap (cluster_catchup.go). If they cannot,
// shoal.v1 subscribers receive a new position and base connections are closed with TryAgainLater, and likewise after an
// interruption of a broker that stores no messages.
//
// Orders to close connections are in close_orders.go, commands and questions between nodes in cluster_questions.go. No
// lock is held during a call of the broker; the locks of the work queues and the dispatch queues are taken last, after
// an upload's.
package manager
