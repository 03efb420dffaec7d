// Package server is the edge: WebSockets that speak the protocol, the HTTP API and the health endpoints, on
// behalf of a [manager.Manager].
//
// # Embedding
//
// A [Server] is made with [New] from options that name the manager and the hooks: who a token belongs to
// ([Authenticate]), who may follow what ([Authorize]), and what happens when clients come, go and speak.
// Server.Handler is mounted in a mux of the embedder's, or Server.Serve runs a listener with limits that suit a
// public network.
//
// # A connection
//
//	upgrade ──▶ poller ──▶ a reader: gws parses ──▶ Client.receive ──▶ manager
//	manager ──▶ Client.Send ──▶ outbox ──▶ a writer ──▶ socket
//
// gws reads and checks what comes in. What goes out never passes through it: its own writes, which are close
// frames, are caught by a wrapped net.Conn and queued in the connection's outbox like everything else, so that
// frames keep their order, nobody waits for a client, and a close frame reaches its client.
//
// An idle connection has no goroutine, and nothing of gws. When something has come from its client, the poller
// has one of a few readers take it: a goroutine with a connection of gws, to which the messages of one client
// after the other are a single stream. A client that stops within a message keeps its reader until the rest has
// come, and so does one over TLS or on a system other than Linux for all its life. Pings come from one goroutine
// for all connections, writes from a few.
package server
