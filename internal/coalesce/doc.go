// Package throttle bounds how often the state of something leaves a node, such that its newest state always
// does.
//
// A message of a key is either a state, which the next state of that key makes superfluous, or any other. At
// most one state of a key leaves per interval; of those that come in between, the newest waits and then leaves.
// Any other message leaves at once, and so does the state that waits for its key, before it: what leaves is
// in the order in which it came, with some states left out.
//
// There is no timer per key. A key that has sent a state stands in a line of which each place takes one
// interval, so that the line is in order by itself; keys whose sending failed stand in other lines, one for
// each length of the pause before the next attempt.
package coalesce
