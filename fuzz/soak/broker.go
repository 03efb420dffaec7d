package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/natsbroker"
	"github.com/shoal-go/shoal/broker/natsbroker/embedded"
	"github.com/shoal-go/shoal/broker/redisbroker"
)

// hub is the server of the broker that joins the nodes. It keeps its address over restarts.
type hub struct {
	kind, address, folder string
	// start starts the server, and returns a function that ends it.
	start func() (stop func() error, err error)
	stop  func() error
}

// newHub starts a server of this kind: redis, or nats-embedded, which runs in this process.
func newHub(kind string) (*hub, error) {
	h := &hub{kind: kind}
	switch kind {
	case "redis":
		h.start = h.startRedis
	case "nats-embedded":
		h.start = h.startNATS
	default:
		return nil, fmt.Errorf("-broker is %q, want redis or nats-embedded", kind)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0") // a free port
	if err != nil {
		return nil, err
	}
	h.address = ln.Addr().String()
	if err := ln.Close(); err != nil {
		return nil, err
	}
	if h.folder, err = os.MkdirTemp("", "shoal-soak-"); err != nil {
		return nil, err
	}
	if h.stop, err = h.start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(h.folder))
	}
	return h, nil
}

// broker returns the broker of a node.
func (h *hub) broker() (broker.Broker, error) {
	if h.kind == "redis" {
		return redisbroker.New(redisbroker.Options{URL: "redis://" + h.address})
	}
	return natsbroker.New(natsbroker.Options{URL: "nats://" + h.address, File: true})
}

// restart ends the server and starts it again after a pause, with its data or, if forget is true, without.
func (h *hub) restart(ctx context.Context, outage time.Duration, forget bool) error {
	if err := h.stop(); err != nil {
		return err
	}
	pause(ctx, outage)
	if forget {
		if err := errors.Join(os.RemoveAll(h.folder), os.Mkdir(h.folder, 0o700)); err != nil {
			return err
		}
	}
	stop, err := h.start()
	if err == nil {
		h.stop = stop
	}
	return err
}

func (h *hub) close() error { return errors.Join(h.stop(), os.RemoveAll(h.folder)) }

func (h *hub) startRedis() (func() error, error) {
	host, port, err := net.SplitHostPort(h.address)
	if err != nil {
		return nil, err
	}
	// The arguments are an address and a folder of this process
	command := exec.Command("redis-server", "--bind", host, "--port", port, "--dir", h.folder, "--appendonly", "yes",
		"--save", "", "--logfile", filepath.Join(h.folder, "log"))
	endWithParent(command)
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("-broker redis needs Redis: install redis-server: %w", err)
	}
	return func() error {
		err := command.Process.Kill()
		_ = command.Wait() // it was killed
		return err
	}, nil
}

func (h *hub) startNATS() (func() error, error) {
	s, err := embedded.Start(embedded.Options{Name: "soak", Addr: h.address, StoreDir: h.folder})
	if err != nil {
		return nil, err
	}
	return s.Close, nil
}
