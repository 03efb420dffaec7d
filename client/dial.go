package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-go/shoal/internal/service"
)

// subprotocol is the protocol with positions and acknowledgements.
const subprotocol = "shoal.v1"

// dial opens a connection that is not authenticated. The link is nil if that fails.
func (c *Client) dial(ctx context.Context) (*link, ending) {
	l := newLink(c)
	conn, response, err := websocket.Dial(ctx, c.url.JoinPath("/ws/uploads").String(), &websocket.DialOptions{
		HTTPClient:   c.opt.HTTPClient,
		Subprotocols: []string{subprotocol},
		OnPingReceived: func(context.Context, []byte) bool {
			l.noteRead()
			return true
		},
		OnPongReceived: func(context.Context, []byte) { l.noteRead() },
	})
	switch {
	case err != nil && response != nil && response.StatusCode == http.StatusSwitchingProtocols:
		why := quoted("the answer to the upgrade cannot be used: " + service.WithoutURL(err).Error())
		return nil, c.notShoal(response.StatusCode, why)
	case err != nil && response != nil:
		return nil, c.refused(response)
	case err != nil:
		return nil, c.unreached(err)
	case conn.Subprotocol() != subprotocol:
		_ = conn.CloseNow()
		return nil, c.notShoal(http.StatusSwitchingProtocols, "the server does not speak "+subprotocol)
	}
	conn.SetReadLimit(c.opt.MaxMessageBytes)
	l.conn = conn
	return l, ending{}
}

// notShoal is the ending for a server that is probably the wrong one. A load balancer may answer like one for a moment,
// so it is final only if no connection to the server has been live.
func (c *Client) notShoal(status int, message string) ending {
	return ending{
		err:   &RefusedError{Status: status, Message: message, kind: ErrNotShoal},
		final: !c.wasAttached(),
	}
}

func (c *Client) wasAttached() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.attached
}

// refused is the ending for an upgrade that was not accepted.
func (c *Client) refused(response *http.Response) ending {
	body, _ := io.ReadAll(io.LimitReader(response.Body, maxQuoted)) // a part explains as well as all of it
	message := quoted(string(body))
	e := &RefusedError{Status: response.StatusCode, Message: message}
	switch status := response.StatusCode; {
	case status == http.StatusUnauthorized:
		e.kind = ErrUnauthorized
		return ending{err: e, token: true}
	case status == http.StatusForbidden:
		e.kind = ErrForbidden
		return ending{err: e, final: true}
	case status == http.StatusTooManyRequests:
		e.kind = ErrLimit
		return ending{err: e, retryAfter: retryAfter(response)}
	case status >= http.StatusInternalServerError, status == http.StatusRequestTimeout, status == http.StatusTooEarly:
		e.kind = ErrUnreachable
		return ending{err: e, retryAfter: retryAfter(response)}
	}
	return c.notShoal(response.StatusCode, message)
}

// retryAfter returns the delay that an answer asks for, in seconds, or 0.
func retryAfter(response *http.Response) time.Duration {
	seconds, err := strconv.ParseUint(response.Header.Get("Retry-After"), 10, 32)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second // of 32 bits
}

// unreached is the ending for a server without an answer. An address, scheme or certificate that is wrong does not
// become right, unless it was right before: the error is final and names the remedy.
func (c *Client) unreached(err error) ending {
	err = service.WithoutURL(err)
	remedy := remedyOf(err)
	if remedy == "" {
		return ending{err: err}
	}
	return ending{err: fmt.Errorf("client: %w; %s", err, remedy), final: !c.wasReached()}
}

// wasReached reports whether the server has done at this address what it was asked for.
func (c *Client) wasReached() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.attached || c.accepted
}

// remedyOf returns what a user can do about an error that another attempt meets again, or "" for any other error.
func remedyOf(err error) string {
	var (
		invalid x509.CertificateInvalidError
		alert   *net.OpError // crypto/tls exports no type for it
	)
	switch {
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return "trust the authority of the server's certificate, on this machine or in Options.HTTPClient"
	case errors.As(err, new(x509.HostnameError)):
		return "use a host of the server's certificate in the URL"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the server's certificate, or correct the clock"
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return "replace the server's certificate"
	case errors.As(err, new(tls.RecordHeaderError)), errors.Is(err, http.ErrSchemeMismatch):
		return "the server does not use TLS on this port: use http:// in the URL, or another port"
	case strings.Contains(err.Error(), "malformed HTTP "): // net/http has no type for it
		return "the server does not speak HTTP on this port: use https:// in the URL, or another port"
	case errors.As(err, &alert) && alert.Op == "remote error" && !strings.Contains(err.Error(), "internal error"):
		return "the server refuses the TLS connection: it may need a client certificate or another version of TLS " +
			"in Options.HTTPClient, or another host in the URL"
	}
	return ""
}
