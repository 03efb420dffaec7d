// Package embedded runs a NATS server in the process, alone or in a cluster, so that nodes need no other service.
// Importing natsbroker alone does not compile the server.
//
// # A single server
//
// The zero Options suffice: the server has no listener, and its broker reaches it through memory. Stored messages are
// lost when the process ends.
//
// # A cluster of nodes
//
// Each node runs a server with ClusterAddr and the ClusterRoutes to the others. They elect leaders by majority:
//
//   - With natsbroker.Options.Replicas of 3, one of three or two of five servers may fail without loss.
//   - Two servers are worse than one: both are needed for a majority. If one fails, the other can neither store nor
//     read, and Health says so until it is back. Run one or three.
//   - A server that restarts has lost its messages in memory and copies them from the others.
//   - A member is its address in ClusterRoutes. A server that starts there again, under another Name and with an
//     empty directory, is the same member. Ready names the members that are missing.
//
// Messages to subscribers do not depend on a majority.
package embedded
