// Package server serves WebSockets and event streams that speak the protocol, the HTTP API and the health endpoints,
// for a [manager.Manager].
//
// # Embedding
//
// [New] returns a [Server] from [Options] that name the manager and the hooks: [Authenticate] returns the user of a
// token (package jwtauth has one for JSON Web Tokens) or Identify that of a request, [Authorize] decides which uploads
// a user may follow, and OnConnect, OnMessage, OnSubscribe, OnUnsubscribe and OnDisconnect are called as connections
// are opened, send messages of the application, follow uploads, and end. Server.Handler is mounted in a mux, or
// Server.Serve serves a listener with limits for a public network.
//
// End a process in this order: Server.Close, http.Server.Shutdown of an own HTTP server, manager.Manager.Close.
// Shutdown alone does not close WebSockets, and waits for event streams over HTTP/2. New connections that come between
// Close and Shutdown are refused with 503.
//
// # Hooks
//
// For one connection the hooks are called one after the other, in this order: Identify or Authenticate, OnConnect, then
// OnMessage, Authorize, OnSubscribe, OnUnsubscribe and, for a further token, Authenticate; at the end OnUnsubscribe for
// each claim that is left, and OnDisconnect. Exceptions: a resume authorizes several uploads at a time, and
// OnSubscribe and OnUnsubscribe for claims that the application changes are called by the goroutine that changes them.
// Hooks of different connections run concurrently. A panic is logged and counted, and closes its connection with 1011.
// So is a hook that ends its goroutine (runtime.Goexit), as a failing test does.
//
// No lock is held during a hook: it may call any method of the client, the server and the manager. Each has a context
// that ends with the connection or, for Identify and AuthorizeAPI, with the request (Client.Context for hooks without
// one), with the server and, where a client waits for the answer, after Options.HookTimeout. Ready has none.
// Server.Close waits for running hooks until its own context ends, then names them in its error; called from a hook it
// therefore lasts until its context ends. A request that a hook allows after the end of the server is refused with 503.
//
// # Map
//
//	server                 this package: HTTP, authentication, the protocol's messages
//	├─ manager             subscriptions, publishing, history, other nodes
//	├─ internal/outbox     queue of each connection, writers, conflation
//	│  └─ internal/replay  recovery: the missed messages of each connection
//	├─ internal/frame      encoded messages, shared by all receivers; the encoder of event streams
//	├─ internal/strictjson decoder of client messages: exact names, no duplicates, valid Unicode
//	├─ internal/service    HTTP client of the authorizer
//	└─ internal/logs       rate-limited log lines
//
// The path of a client's message:
//
//	GET /ws/uploads
//	  │ upgrade.go    origin, handshake, Identify, limits; 101
//	  ▼
//	poller            poller_linux.go: one epoll instance, reports readable sockets
//	  │ readable      input.go: parked → reading
//	  ▼
//	readerPool        reader.go: queue of readable clients, a few goroutines
//	  │ next
//	  ▼
//	reader            reads into its buffer
//	  │ track         frame_tracker.go: message boundaries, lengths, limits
//	  ▼
//	gws.Conn          parses, unmasks, joins fragments, checks UTF-8
//	  │ OnMessage
//	  ▼
//	Client.receive    receive.go: rate limit
//	  ├─ onAuth       auth.go: first message, Authenticate, manager.ConnectSince
//	  ├─ onRequest    receive.go, subscribe.go: Authorize, manager.SubscribeConn
//	  └─ OnMessage    messages of the application
//
// An event stream (Server-Sent Events, events_stream.go) is a Client too: the same outbox writes it, with
// frame.EventEncoder in place of WebSocket framing. All that can refuse it happens while its outbox is corked, so that
// the answer is a status; nothing is read from it afterwards, and the poller reports its end. With HTTP/1.1 its
// connection is hijacked. With HTTP/2, or where middleware hides the hijacker, responseConn writes to the response,
// which takes the goroutine of the handler, and one of the outbox while messages are queued.
//
// A message to a client goes from manager to Client.Send to its outbox, and a writer of internal/outbox writes it to
// the socket; for a small audience the publisher itself does, with Client.SendDeferred and Client.Flush. It never
// passes through gws: the close frames of gws are intercepted by gwsConn and queued in the outbox too, so that frames
// keep their order and no goroutine waits for a client.
//
// An idle connection has no goroutine and no gws connection. A client that stops within a message keeps its reader
// until the rest arrives. A connection of TLSListener is read like any other, through a connection below the TLS one
// that need not wait (tls.go). A connection of another TLS listener, of a net.Conn type other than *net.TCPConn and
// *net.UnixConn, or on a system other than Linux has a dedicated reader. One goroutine pings all connections
// (keepalive.go).
package server
