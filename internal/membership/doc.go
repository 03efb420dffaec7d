// Package peers lets the nodes of a cluster know of each other, and lets one tell or ask something of all.
//
// All nodes are subscribed to one channel, and each to an inbox of its own:
//
//	shoal:all          hello (each interval), bye, tell, ask
//	shoal:node-<name>  welcome (a hello in reply to a newcomer's), answer
//
// Nothing is stored, and nothing is repeated: what an engine loses is lost, and shows in a question as a node
// that did not reply.
//
// There is no clock that nodes would have to agree on, nor a timeout that a paused process could miss. A
// node's time is the echo of its own hellos: who was not heard during four of them is lost. A node that the
// engine does not reach hears no echo either, so it does not take the others for lost because it is deaf.
//
// A message is one line of JSON, the header, and after it the raw body. What is not well-formed, of another
// version, on the wrong channel, late, repeated or too large is counted and dropped.
package membership
