// Package embedded runs a NATS server within the process, alone or as one of a cluster, so that nodes need no other
// service. Importing natsbroker alone does not bring the server along.
//
// # Alone
//
// The zero Options are enough: the server listens nowhere, and its broker reaches it through memory. What is kept
// ends with the process.
//
// # A cluster of nodes
//
// Each node runs a server with ClusterAddr, and is told of at least one other by ClusterRoutes; the servers then find
// each other. They elect leaders by majority:
//
//   - One of three may fail, two of five: whoever is left goes on, and nothing that was kept is lost, given
//     natsbroker.Options.Replicas of 3.
//   - Two are worse than one. Both are needed for a majority, so that when one fails the other cannot store or read
//     what is kept either: Health says so, until it comes back. Run one or three.
//   - A server that comes back has lost what it held in memory, and gets it from the others.
//
// Messages to subscribers do not depend on a majority.
package embedded
