// Package replay holds the stored messages that the client of a connection has requested, until they are written. The
// owner of a [Queue] is the queue of a connection: one of internal/outbox for a socket, of manager/outqueue for the
// connection of an embedder.
//
// Each upload has a [Backlog]: its stored messages, then its live ones, so that its order is kept. The messages that
// exceed the queue's limit remain in the history, and are read when there is room. Live messages that come until then
// are in the history as well; frames without an offset are not, and wait in the backlog.
//
// A Queue has no lock and no clock: all calls are made with its owner's mutex held, also from [Source], which locks
// uploads. Uploads are locked before that mutex, so [Queue.Read] unlocks it while it calls a source.
package replay
