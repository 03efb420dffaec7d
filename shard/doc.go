// Package shard is the registry: which connections a user has, and which connections get the messages of an
// upload. It knows no socket, no message and no clock, and it never calls a method of a connection.
//
// # Layout
//
// Users and uploads are hashed to N = 2^k shards, each with a concurrent map of either. An entry of such a
// map has a mutex of its own, so two operations meet only if they are about the same user or upload.
//
//	Registry ── Shard ─┬─ users   ── user ──── listing ──┐
//	                   └─ uploads ── Upload ── Receiver ─┴─ member
//
// An Upload holds its receivers as one dense slice with a slot for each connection, which is what a
// broadcast walks. A member knows its slot, so joining and leaving take the same time for one subscriber as
// for a million. The first receiver of an upload, and the first connection and subscription of a user, lie within
// these objects themselves, because the usual upload is followed by one user with one connection.
//
// Most of the time that the registry takes is spent waiting for memory, so what counts is how many cache lines an
// operation has to fetch.
//
// # Lock order
//
//	user.mu ──▶ Upload.mu ──▶ whatever the caller's callback locks
//
// Never back, and never two of a kind at once. Subscriptions and their members change with both locks held,
// so either one suffices to read them; a member's slot belongs to Upload.mu alone.
//
// # What is put off
//
// A caller may put off what is to be done with an upload's receivers, and have it done by whoever locks the upload
// next: nobody sees a difference, except that a caller who puts off much in succession has it all done at once.
//
// # Entries that go
//
// An entry that holds nothing any more is marked dead and taken out of its map while its lock is held. Who
// finds a dead entry therefore looks again, and meets either a new one or none.
package shard
