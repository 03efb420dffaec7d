package server

import (
	"errors"
	"net/http"
	"net/url"
	"time"
)

const (
	// maxServiceConnections bounds the connections to one service. Questions beyond that wait for one.
	maxServiceConnections = 64
	// idleServiceConnection is how long a connection to a service is kept for the next question.
	idleServiceConnection = 90 * time.Second
)

// checkServiceURL returns an error, which does not repeat the address, unless it is an absolute http or https
// URL.
func checkServiceURL(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("the address must begin with http:// or https:// and name a host")
	}
	return nil
}

// boundedClient returns a client for a service that the operator has named: redirects are not followed, and
// no more than maxBody bytes of a response are read. The rest is the given client's; nil: one of its own,
// with its own connections.
func boundedClient(given *http.Client, maxBody int64) *http.Client {
	var client http.Client
	if given != nil {
		client = *given
	}
	bounded := boundedTransport{RoundTripper: client.Transport, maxBody: maxBody}
	if client.Transport == nil {
		own := ownTransport()
		bounded.RoundTripper, bounded.closeIdle = own, own.CloseIdleConnections
	}
	client.Transport = bounded
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client
}

func ownTransport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		ForceAttemptHTTP2:   true,
		MaxConnsPerHost:     maxServiceConnections,
		MaxIdleConnsPerHost: maxServiceConnections,
		IdleConnTimeout:     idleServiceConnection,
	}
}

// boundedTransport fails the reading of a response's body after maxBody bytes.
type boundedTransport struct {
	http.RoundTripper
	maxBody   int64
	closeIdle func() // nil: the transport is another's, and so are its connections
}

func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.RoundTripper.RoundTrip(r)
	if err == nil {
		response.Body = http.MaxBytesReader(nil, response.Body, t.maxBody)
	}
	return response, err
}

// CloseIdleConnections is what [http.Client.CloseIdleConnections] looks for.
func (t boundedTransport) CloseIdleConnections() {
	if t.closeIdle != nil {
		t.closeIdle()
	}
}

// withoutURL takes the URL out of an error of a client: it may hold a password or a key.
func withoutURL(err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}
