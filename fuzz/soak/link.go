package main

import (
	"net"
	"time"
)

// slowLink is a connection with a small bandwidth towards the client. What the client has not read yet waits in the
// socket buffers, and then at the server.
type slowLink struct {
	net.Conn
	bytesPerSecond int
}

// newSlowLink limits a connection. Its receive buffer is made small, because it hides the bandwidth from the server.
func newSlowLink(conn *net.TCPConn, bytesPerSecond int) (net.Conn, error) {
	return slowLink{conn, bytesPerSecond}, conn.SetReadBuffer(4 << 10)
}

func (l slowLink) Read(p []byte) (int, error) {
	const piece = 1 << 10
	n, err := l.Conn.Read(p[:min(len(p), piece)])
	time.Sleep(time.Duration(n) * time.Second / time.Duration(l.bytesPerSecond))
	return n, err
}
