// Package coalesce limits how often a node sends the state of a key, and guarantees that the newest state is always
// sent.
//
// A message of a key is either a state, which the next state of that key supersedes, or any other message. At most one
// state of a key is sent per interval; of the states that arrive in between, the newest waits and is sent at the end of
// the interval. Any other message is sent at once, after the waiting state of its key: messages are sent in the order
// of their arrival, with some states omitted.
//
// Keys have no timers. A key that has sent a state is appended to a queue in which every entry waits for one
// interval, so the queue is ordered by due time. Keys whose sending failed are in other queues, one for each length of
// the retry pause.
package coalesce
