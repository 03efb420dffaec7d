package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// listener is a listener that knows its address as a URL.
type listener struct {
	net.Listener
	scheme string
}

func (l *listener) url() string { return l.scheme + "://" + l.Addr().String() }

// listen opens both listeners, before anything else, since an address in use is the likeliest failure.
func (n *node) listen() (err error) {
	if n.public, err = listen("addr", n.flags.Addr); err != nil {
		return err
	}
	if n.flags.TLSCert != "" {
		config, err := newTLSConfig(n.flags.TLSCert, n.flags.TLSKey, n.metrics.certificateExpires, n.log)
		if err != nil {
			return fmt.Errorf("cannot read the certificate: %w; see --tls-cert and --tls-key", err)
		}
		n.public = &listener{tls.NewListener(n.public.Listener, config), "https"}
	}
	n.admin, err = listen("admin-addr", n.flags.AdminAddr)
	return err
}

// quiet listens without TCP's keep-alive, which takes four system calls for each connection and a probe each 15 s:
// clients are pinged, and whoever is no WebSocket client has a deadline for whatever comes next.
var quiet = net.ListenConfig{KeepAlive: -1}

// listen opens a listener on the address that a flag has named.
func listen(flag, address string) (*listener, error) {
	opened, err := quiet.Listen(context.Background(), "tcp", address)
	if err == nil {
		return &listener{opened, "http"}, nil
	}
	reason := err.Error()
	if errors.Is(err, syscall.EADDRINUSE) {
		reason = "the address is in use"
	} else if _, after, ok := strings.Cut(reason, address+": "); ok {
		reason = after
	}
	return nil, fmt.Errorf("cannot listen on %s: %s; choose another address with --%s", address, reason, flag)
}
