// Package linearizability checks that concurrent calls of the registry have an order in which each call has the result
// that the reference semantics give it. It is a module of its own, because the checker is needed by nothing else.
package linearizability
