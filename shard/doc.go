// Package shard is the registry: it stores which connections a user has and which connections receive the messages of
// an upload. It has no dependency on sockets, messages or clocks, and it never calls a method of a connection.
//
// # Layout
//
// Users and uploads are hashed to N = 2^k shards, each with one concurrent map of users and one of uploads. Every entry
// has its own mutex, so two operations contend only if they concern the same user or upload.
//
//	Registry ── Shard ─┬─ users   ── user ──── listing ──┐
//	                   └─ uploads ── Upload ── Receiver ─┴─ member
//
// An Upload holds its receivers as one dense slice with a slot for each connection; a broadcast iterates over that
// slice. A member knows its slot, so joining and leaving take constant time, independent of the number of subscribers.
// The first receiver of an upload, and the first connection and subscription of a user, are stored inside these
// objects, because the usual upload is followed by one user with one connection.
//
// Most of the registry's time is spent on memory access, so the number of cache lines per operation determines its
// cost.
//
// # Lock order
//
//	user.mu ──▶ Upload.mu ──▶ locks of the caller's callback
//
// Never the reverse, and never two locks of a kind at once. Subscriptions and their members change with both locks
// held, so either one suffices to read them; a member's slot is protected by Upload.mu alone.
//
// # Deferred messages
//
// A caller may defer messages to an upload's receivers and send several together. Config.Flush, the only hook for that,
// sends them before the receivers change.
//
// # Removal of entries
//
// An empty entry is marked dead and removed from its map while its lock is held. A caller that finds a dead entry
// therefore repeats the lookup, which returns a new entry or nothing.
package shard
