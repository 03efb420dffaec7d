// Package load is a load generator: many WebSocket clients on few goroutines, so that it needs little CPU time beside
// the server under test on the same machine.
//
// On Linux the clients of a fleet share a few pollers, each a goroutine with an epoll instance that reads into one
// large buffer. On other systems, and over TLS, each client has a goroutine. Frames are parsed as they arrive, and
// payloads are kept only if the dialect needs them.
package load
