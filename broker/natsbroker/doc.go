// Package natsbroker connects nodes through NATS. Its [Broker] is a broker.IdempotentBroker, with core subjects for
// live messages and a JetStream stream for stored ones. Package embedded runs a NATS server inside the process.
//
// # Subjects
//
// Messages of channel upload:X are stored on upload.X, those of any other kind:X on shoal.kind.X. Characters that a
// subject cannot hold are percent-encoded; see baseSubject. Foreign publishers publish on upload.X, with or without
// JetStream: the stream captures both. A Nats-Msg-Id that they set has to be unique in the whole stream, not only on
// its subject: the server drops another message with the same id within the TTL. The stream republishes everything
// under live, so that nodes subscribe to live.upload.X and receive each message with its sequence, and the previous
// one on the subject, as headers. Messages that are published without being stored go to the live subject directly.
// Permissions lists the subjects that a node needs; Run tries them.
//
// # Positions
//
// An offset is a sequence of the stream. The epoch is the stream's, on epoch.stream, or the one of the marker with
// which Forget replaced the channel's messages, whose name begins with the stream's. A stream that is created again
// gets another epoch, which nodes learn from the first message whose sequence does not increase: before it is
// delivered, and before Store returns. So does a stream that returns without its newest messages, from the first node
// that has seen more of it; see era. And so does a stream whose limit per subject has changed; see newStreamEpoch.
//
// While a node is subscribed, a record on epoch.upload.X keeps the channel's position before its first message and
// after its messages have expired. Reading another channel writes nothing. As the server drops the oldest messages of
// the stream first, everything stored after a record, or after the oldest message on epoch.stream, is still there if
// that message is, save for the limit per channel; see newHistory.
//
// # Guarantees
//
//   - Store returns when the stream has the message, on a majority of its replicas. Without a response the error wraps
//     broker.ErrUnavailable, and it is unknown whether the message is stored. Nothing is buffered while the
//     connection is lost.
//   - History includes every message that any node's Store has returned for, even if a replica that lags behind
//     responds: the response is compared with the leader's last sequence. A leader that was stopped or cut off
//     responds until it learns of the next one, for some seconds at most: a history that lacks a message which this
//     node has received, or the one at the given position, is read again unless a majority of the replicas confirms
//     it, and so are another epoch of the stream and a lower last sequence. Every read waits for a leader that has
//     the message with which this node has checked the stream last, as it does before Handler.Interrupted reports a
//     change of the leader.
//   - Subscribe returns when the server has accepted the subscriptions and, in a cluster, the stream's leader knows
//     them: messages stored afterwards arrive. Messages that are only published on another server arrive as
//     soon as that server has been notified. A subscription that the server refuses fails the call.
//   - Messages are lost on the way to a node when the connection breaks, when the node does not keep up, or when the
//     stream gets another leader: Handler.Interrupted reports that. A missing stored message also shows in the next
//     one's Prev. So it does if a connection between two servers of the cluster breaks, which the node does not
//     notice unless its server is in its process (Options.Server).
//   - Health is nil only while the stream can be read and stores messages: every fifth probe stores one.
//   - Reading a whole history costs the server a scan from the channel's oldest message to its newest: 2 ms if 32,000
//     messages of others lie between. History scans from the given position, Newest and Positions not at all.
//   - A stream that is full drops its oldest messages if it has a bound (Options.MaxBytes); without one, the server's
//     limit makes it refuse new messages. Records are refreshed in time, save that a stream which keeps messages for
//     less than a thirtieth of the TTL may drop that of a silent channel. An operator who purges the stream drops all
//     records. The next refresh, at most a quarter of the TTL later, then begins a new epoch of a silent channel, and
//     Handler.Interrupted names it on the nodes that are subscribed.
//   - Purging single subjects of the stream by hand makes histories claim more than is true.
package natsbroker
