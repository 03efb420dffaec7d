// Package natsbroker joins nodes through NATS: a broker.Keeper over core subjects for what is live and a JetStream
// stream for what is kept. A server that runs inside the process is in the folder embedded.
//
// # Subjects
//
// Channel upload:X is stored on upload.X, any other kind:X on shoal.kind.X. What a subject cannot hold is
// percent-encoded; see baseSubject. Foreign publishers publish on upload.X, with or without JetStream: the stream
// captures it either way. The stream republishes everything under live, so that nodes subscribe to live.upload.X
// and get the message's own sequence and that of the one before it on that subject as headers, without a second
// publish. What is only published, and not kept, goes to the live subject directly.
//
// # Positions
//
// An offset is a sequence of the stream. A channel's epoch is in a record of its own, on epoch.upload.X, in the same
// stream: made when the channel is first asked about, and written again while some node is subscribed, before it is
// too old. So it is the same on all nodes, and is lost with the history. The record is also what makes claims
// possible: as a stream drops what came first first, everything that was stored after a record that is still
// there is there too, unless it was more than are kept of one channel. See newHistory.
//
// Forget stores a mark in the channel itself, which makes the server drop what was before it in the same step, and
// which subscribers get in its place among the messages.
//
// # Guarantees
//
//   - Store returns when the stream has the message, on a majority of its replicas. Without an answer the error wraps
//     broker.ErrUnavailable, and whether it is stored is unknown. Nothing is buffered while the connection is lost.
//   - Kept has everything that any node's Store has returned for, also where a server that lags behind answers: its
//     answer is compared with the leader's.
//   - Subscribe returns when the server has the subscriptions, and, where servers form a cluster, also the one that
//     leads the stream, from which stored messages come: what is stored afterwards, by whomever and wherever, arrives.
//     What is only published on another server arrives as soon as that one has been told, which
//     it is at the time when Subscribe returns, but for the way between the two. When another server takes the lead
//     in just that moment the same holds for it.
//   - Messages are lost on the way to a node when the connection breaks, or when it does not keep up: then
//     Handler.Interrupted says so. A stored message that is missing shows in the next one's Previous as well.
//   - To read what is kept, the server goes through all that the stream holds from the channel's oldest message to its
//     newest: 2 ms where 32,000 others lie between, and in proportion. Live messages do not depend on it.
//   - A stream kept in memory by servers that all ended is made anew, and every channel begins a new epoch.
//   - Purging single subjects of the stream by hand, beside Forget, makes positions claim more than is true.
package natsbroker
