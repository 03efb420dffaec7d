// Package brokertest is the suite that every broker.Keeper passes: Run tries the clauses of its contract, Faults
// the fate of messages while the engine is killed, paused, cut off and slowed.
//
// Follower is how a node uses a Keeper so that it misses nothing, or knows that it did. It is written to be read.
package brokertest
