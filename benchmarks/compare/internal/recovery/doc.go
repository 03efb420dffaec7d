// Package recovery measures the return of a node to its broker: a node that follows many uploads loses the broker for
// some seconds, during which a share of the uploads changes. One process holds both nodes; the link of the following
// one to the broker is a TCP connection that can be cut.
package recovery
