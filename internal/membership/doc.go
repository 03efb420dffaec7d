// Package membership discovers the nodes of a cluster, asks them questions and collects their answers. A command is a
// question too, so that each node confirms it.
//
// All nodes subscribe to one channel, and each to its own inbox:
//
//	shoal:all          hello (each interval), bye, ask
//	shoal:node-<name>  welcome (a hello in reply to a newcomer's), answer
//
// Messages are neither stored nor repeated. If the engine loses one, it is lost; a question then reports the node as
// missing.
//
// Nodes need no synchronized clocks, and no timeout that a paused process could miss. A node measures time by the echo
// of its own hellos: a node from which no hello arrived during four of them is considered lost. A node that is cut off
// from the engine does not receive its own echo either, so it does not consider the others lost.
//
// A message is a header (one line of JSON) followed by the raw body. A message that is malformed, of another version,
// on the wrong channel, late, repeated or too large is counted and dropped.
package membership
