package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

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

// layered returns the listener with the PROXY protocol for the peers that are trusted, and with TLS.
func (l *listener) layered(trusted func(net.Addr) bool) net.Listener {
	layered := l.Listener
	if trusted != nil {
		layered = proxyListener{layered, trusted}
	}
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
// clients are pinged, and whoever is no WebSocket client has a deadline for whatever comes next.
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
	if err := os.Chmod(path, mode); err != nil {
		_ = opened.Close()
		return nil, err
	}
	return opened, nil
}
