package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/pires/go-proxyproto"

	"github.com/shoal-go/shoal/server"
)

// unixScheme begins the address of a Unix socket: unix:/run/shoal.sock.
const unixScheme = "unix:"

// listener is an open listener.
type listener struct {
	net.Listener
	// tls is nil for a listener without TLS.
	tls *tls.Config
}

// url returns the address of the listener as a URL.
func (l *listener) url() string {
	if l.Addr().Network() == "unix" {
		return unixScheme + l.Addr().String()
	}
	if l.tls != nil {
		return "https://" + l.Addr().String()
	}
	return "http://" + l.Addr().String()
}

// layered returns the listener with the PROXY protocol for the peers that are trusted, which a reload may change, and
// with TLS.
func (l *listener) layered(trusted func(net.Addr) bool) net.Listener {
	layered := net.Listener(proxyListener{l.Listener, trusted})
	if l.tls != nil {
		layered = server.TLSListener(layered, l.tls)
	}
	return layered
}

// listen opens all listeners, before anything else, since an address in use is the likeliest failure. TLS is for the
// public ones on TCP: a peer on a Unix socket is on this machine.
func (n *node) listen() error {
	var config *tls.Config
	if n.flags.TLSCert != "" {
		var err error
		if config, err = n.newTLSConfig(); err != nil {
			return err
		}
	}
	for _, address := range n.flags.Addr {
		l, err := n.flags.listen("addr", address)
		if err != nil {
			return err
		}
		if l.Addr().Network() != "unix" {
			l.tls = config
		}
		n.public = append(n.public, l)
	}
	var err error
	n.admin, err = n.flags.listen("admin-addr", n.flags.AdminAddr)
	return err
}

// urls returns the addresses of the public listeners.
func (n *node) urls() (urls []string) {
	for _, l := range n.public {
		url := l.url()
		if l.Addr().Network() != "unix" {
			url += n.flags.PathPrefix
		}
		urls = append(urls, url)
	}
	return urls
}

// quiet listens without TCP's keep-alive, which takes four system calls for each connection and a probe each 15 s:
// WebSocket clients are pinged, and requests of other clients have deadlines.
var quiet = net.ListenConfig{KeepAlive: -1}

// listen opens a listener on the address that a flag has named.
func (f *serveFlags) listen(flag, address string) (*listener, error) {
	if path, ok := strings.CutPrefix(address, unixScheme); ok {
		opened, err := listenUnix(path, f.socketMode())
		if err != nil {
			return nil, fmt.Errorf("cannot listen on %s: %w; choose another path with --%s", address, err, flag)
		}
		return &listener{Listener: opened}, nil
	}
	opened, err := quiet.Listen(context.Background(), "tcp", address)
	if err == nil {
		return &listener{Listener: opened}, nil
	}
	reason := err.Error()
	if errors.Is(err, syscall.EADDRINUSE) {
		reason = "the address is in use"
	} else if _, after, ok := strings.Cut(reason, address+": "); ok {
		reason = after
	}
	return nil, fmt.Errorf("cannot listen on %s: %s; choose another address with --%s", address, reason, flag)
}

// listenUnix listens on a socket in the file system, and replaces one that a process has left behind. Its mode decides
// who may connect.
func listenUnix(path string, mode os.FileMode) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil {
		if info.Mode()&os.ModeSocket == 0 {
			return nil, errors.New("the path exists and is not a socket")
		}
		if conn, err := net.Dial("unix", path); err == nil {
			_ = conn.Close()
			return nil, errors.New("another process listens there")
		} else if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, fmt.Errorf("cannot tell whether a process listens there: %w", errors.Unwrap(err))
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	opened, err := quiet.Listen(context.Background(), "unix", path)
	if err != nil {
		if _, after, ok := strings.Cut(err.Error(), path+": "); ok {
			err = errors.New(after)
		}
		return nil, err
	}
	opened.(*net.UnixListener).SetUnlinkOnClose(false) // listening on "unix"; unixListener removes it
	created, err := os.Lstat(path)
	if err == nil {
		err = os.Chmod(path, mode)
	}
	l := &unixListener{Listener: opened, path: path, created: created}
	if err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}

// unixListener is a listener on a socket in the file system. Close removes the socket, unless another one has taken its
// place, as a successor's has after somebody has moved or removed this one.
type unixListener struct {
	net.Listener
	path    string
	created os.FileInfo // nil if the socket has vanished at once
	once    sync.Once
}

// Close removes the socket and closes the listener. Further calls only return an error. A successor replaces no socket
// that is listened on, so the socket is removed before, and only once: another file may get its number afterwards.
func (l *unixListener) Close() error {
	l.once.Do(func() {
		if present, err := os.Lstat(l.path); err == nil && l.created != nil && os.SameFile(present, l.created) {
			_ = os.Remove(l.path) // a socket that is left behind is replaced
		}
	})
	return l.Listener.Close()
}

const (
	// proxyHeaderTimeout bounds the wait for a PROXY header.
	proxyHeaderTimeout = 10 * time.Second
	// minProxyHeader, maxProxyV1 and maxProxyV2 are the sizes of PROXY headers. No HTTP request and no TLS handshake
	// is as short as the shortest, so as many bytes can be read of any connection.
	minProxyHeader, maxProxyV1, maxProxyV2 = 15, 107, 2048
)

var (
	proxyV1 = []byte("PROXY ")
	proxyV2 = []byte("\r\n\r\n\x00\r\nQUIT\n")
)

// proxyListener accepts the PROXY protocol, versions 1 and 2, from trusted peers. Connections of others are passed on
// as they are, and so are those of trusted peers that send none, such as health checks or HTTP proxies.
type proxyListener struct {
	net.Listener
	trusted func(net.Addr) bool
}

// Accept returns the next connection. The header is read by the goroutine that serves it.
func (l proxyListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil || !l.trusted(conn.RemoteAddr()) {
		return conn, err
	}
	return &proxyConn{Conn: conn}, nil
}

// proxyConn is the connection of a trusted peer. The first call of Read or RemoteAddr reads the header.
type proxyConn struct {
	net.Conn
	once sync.Once

	mu     sync.Mutex // protects early; nothing blocks under it
	early  []byte     // bytes that turned out not to be a header and have not been read
	remote net.Addr   // set by once
	err    error      // set by once
}

var _ server.Transparent = (*proxyConn)(nil)

// Read reads the bytes after the header.
func (c *proxyConn) Read(p []byte) (int, error) {
	c.once.Do(c.readHeader)
	c.mu.Lock()
	if len(c.early) > 0 {
		n := copy(p, c.early)
		c.early = c.early[n:]
		c.mu.Unlock()
		return n, nil
	}
	c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(p)
}

// RemoteAddr returns the address that the header names, or the peer's own.
func (c *proxyConn) RemoteAddr() net.Addr {
	c.once.Do(c.readHeader)
	return c.remote
}

// Underlying returns the connection itself once the header and all bytes that were read with it have been passed on.
func (c *proxyConn) Underlying() net.Conn {
	c.once.Do(c.readHeader)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.early) > 0 || c.err != nil {
		return nil
	}
	return c.Conn
}

// readHeader reads exactly the header, if there is one.
func (c *proxyConn) readHeader() {
	c.remote = c.Conn.RemoteAddr()
	if c.err = c.Conn.SetReadDeadline(time.Now().Add(proxyHeaderTimeout)); c.err != nil {
		return
	}
	header, err := readProxyHeader(c.Conn)
	if err == nil {
		err = c.Conn.SetReadDeadline(time.Time{})
	}
	switch {
	case err != nil && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
		c.early, c.err = header, io.EOF
		return
	case err != nil:
		c.err = err
		return
	case !isProxyHeader(header):
		c.early = header
		return
	}
	parsed, err := proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(header), maxProxyV2+16))
	if err != nil {
		c.err = fmt.Errorf("invalid PROXY header: %w", err)
		return
	}
	if source, _, ok := parsed.TCPAddrs(); ok && parsed.Command == proxyproto.PROXY {
		c.remote = source
	}
}

func isProxyHeader(begin []byte) bool {
	return bytes.HasPrefix(begin, proxyV1) || bytes.HasPrefix(begin, proxyV2)
}

// readProxyHeader reads a whole header and no byte more, or the first bytes of something else.
func readProxyHeader(r io.Reader) ([]byte, error) {
	header := make([]byte, minProxyHeader, maxProxyV1)
	if n, err := io.ReadFull(r, header); err != nil {
		return header[:n], err
	}
	switch {
	case bytes.HasPrefix(header, proxyV1):
		for !bytes.HasSuffix(header, []byte("\n")) {
			if len(header) == maxProxyV1 {
				return nil, errors.New("invalid PROXY header: no end of the line")
			}
			header = header[:len(header)+1]
			if _, err := io.ReadFull(r, header[len(header)-1:]); err != nil {
				return nil, err
			}
		}
	case bytes.HasPrefix(header, proxyV2):
		header = append(header, 0)
		if _, err := io.ReadFull(r, header[minProxyHeader:]); err != nil {
			return nil, err
		}
		rest := int(binary.BigEndian.Uint16(header[14:16]))
		if rest > maxProxyV2 {
			return nil, fmt.Errorf("invalid PROXY header: %d bytes, at most %d are allowed", rest, maxProxyV2)
		}
		all := slices.Concat(header, make([]byte, rest))
		if _, err := io.ReadFull(r, all[len(header):]); err != nil {
			return nil, err
		}
		return all, nil
	}
	return header, nil
}
