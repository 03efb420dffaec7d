package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// healthCommand asks a server for its health, for health checks of containers, which have no curl.
type healthCommand struct {
	AdminAddr string        `default:"127.0.0.1:9090" placeholder:"HOST:PORT|unix:PATH" help:"The server's --admin-addr."`
	Ready     bool          `help:"Ask whether it takes new connections, rather than whether it runs."`
	Timeout   time.Duration `default:"5s" min:"100ms" max:"1m" help:"Time for the answer."`
}

func (c *healthCommand) check(s *settings) {
	(&serveFlags{}).checkListener(s, "admin-addr", c.AdminAddr)
}

// Run prints the answer. The error, and with it the exit status, says that the server is not healthy.
func (c *healthCommand) Run(ctx context.Context, std streams) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	network, address := "tcp", c.AdminAddr
	if path, ok := strings.CutPrefix(address, unixScheme); ok {
		network, address = "unix", path
	} else {
		address = reachable(address)
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
		DisableKeepAlives: true,
	}
	path := "/healthz"
	if c.Ready {
		path = "/readyz"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://shoal"+path, nil)
	if err != nil {
		return err
	}
	response, err := (&http.Client{Transport: transport}).Do(request)
	if err != nil {
		return fmt.Errorf("no answer from %s: %w; is --admin-addr that of the server?", c.AdminAddr, errors.Unwrap(err))
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes))
	if err != nil {
		return fmt.Errorf("the answer of %s broke off: %w", c.AdminAddr, err)
	}
	answer := printable(strings.TrimSpace(string(text)))
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d: %s", path, response.StatusCode, answer)
	}
	return printLine(std.out, answer)
}

// reachable returns the address to connect to for an address to listen on: the loopback address for any address.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address // check has refused it
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip != nil && ip.To4() == nil {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}
