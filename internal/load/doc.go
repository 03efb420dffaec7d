// Package load is a load generator: many WebSocket clients on few goroutines, so that making load costs
// little beside the server that bears it on the same machine.
//
// On Linux a fleet's clients share a few pollers, each a goroutine around an epoll instance that reads into
// one large buffer. Elsewhere, and over TLS, every client has a goroutine. Either way frames are taken apart
// as they come, and payloads are looked at only where something in them is asked for.
package load
