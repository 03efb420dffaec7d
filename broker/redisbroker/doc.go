// Package redisbroker shares messages through Redis or Valkey, from version 7.0 on: a single server, one that
// sentinels watch, or a cluster.
//
// A channel is a pub/sub channel of the same name, and a payload goes out on it as it is, so that publishers and
// subscribers in other languages do not depend on this package. The history of a channel is a stream under
// shoal.kept:<channel>. A script stores a message, tells its position on shoal.at:<channel> and publishes
// it, in one step; messages of other programs have no position. The trace context of a traced message follows its
// position. In a cluster, nodes use sharded pub/sub, and receive
// plain PUBLISH of others as well.
//
// However many channels are followed, there are two connections to each server: one for commands, one for
// subscriptions.
//
// A position's epoch ends with the term of the server that gave it: Redis may lose the last writes
// when it starts again or another server takes over. Messages it still has are then kept on in a new epoch.
package redisbroker
