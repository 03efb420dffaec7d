// Package manager knows who is connected and who follows which upload, and brings each message to all of
// them. It is the domain of this module: no socket and no HTTP is known here, and a connection is anything
// that implements [Conn].
//
// # Invariants
//
// Each of them has a test that names it.
//
//  1. A message published to an upload after SubscribeUpload returned reaches every connection of that user,
//     in publish order, once (a state message possibly as the newer one that replaced it), or that
//     connection is closed with a code that says why.
//  2. A subscriber gets the snapshot, then all that follows: no gap, no duplicate, however the two race.
//  3. When a user's last connection is gone, so are the user's subscriptions; nothing is left in any map, on
//     any interleaving of connect, subscribe, send, disconnect and drain. Counts equal contents.
//  4. No lock is held during I/O, a broker call or a callback. Lock order: user → upload → outbox; never back.
//  5. Publishing never waits for a client, and a stalled client changes nobody else's latency.
//  6. Terminal messages are never conflated, dropped or overtaken.
//  7. DisconnectAll and Close return within their context's deadline even if every socket is stuck, after
//     which no goroutine of ours is left.
//  8. Memory is bounded: per connection, per upload, per history, by documented options.
//  9. A client that reads recovers everything that the history holds in one attempt, with any limits of its
//     queue. A recovery does not delay messages of other uploads.
//
// # Claims
//
// Subscriptions belong to users: every connection of a user gets the messages of all uploads that the user
// follows. What keeps a subscription alive are claims. SubscribeUpload makes one that belongs to the user as
// such, SubscribeConn one that belongs to a single connection. A subscription ends with its last claim, and
// all of them end with the user's last connection.
//
// A new claim is answered with the upload's newest message, if there is one. What the connection may have
// received before, because another connection of the same user held a claim, is not counted: a client that
// has only now opened its view must see the state at once.
//
// # Many nodes
//
// With a [broker.Broker] a message goes to the broker alone (outgoing.go), and is delivered when the broker
// brings it, on the node that published it as on all others, so that all agree on the order. The broker's
// callback never waits: the intake takes what comes, and its goroutines look at it (glance.go) and deliver it
// if nothing before it is missing (arrive.go).
//
// A node is subscribed to the uploads that are followed here, and for a second after the last follower
// (interest.go). Whoever subscribes waits until that is confirmed and what the broker keeps has been read.
//
// A message that does not continue the log, or the broker's word that some were lost, has the upload brought up
// to date: what comes waits, while what is kept is read and fills the gap (catchup.go). Where it cannot,
// subscribers on shoal.v1 are told a new position, as they are when a broker that keeps nothing was interrupted.
//
// Orders and questions between nodes are in nodes.go. No lock is held while the broker is called; the lists
// of work and the intake have locks that are taken last, below that of an upload.
package manager
