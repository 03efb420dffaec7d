// Package service provides the HTTP client for services that the operator configures: an authorizer, a key set.
package service

import (
	"errors"
	"net/http"
	"net/url"
	"time"
)

const (
	// MaxConnections bounds the connections to one service. Further requests wait for one.
	MaxConnections = 64
	// idleConnection is how long an idle connection to a service is kept.
	idleConnection = 90 * time.Second
)

// CheckURL returns an error, which does not repeat the address, unless it is an absolute http or https URL.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("the address must begin with http:// or https:// and name a host")
	}
	return nil
}

// Client returns a client for a service that the operator has configured, which does not follow redirects, and
// a function that closes its idle connections. given is copied; nil: a client with its own connections. The
// connections of a given client stay open.
func Client(given *http.Client) (client *http.Client, closeIdle func()) {
	client, closeIdle = &http.Client{}, func() {}
	if given != nil {
		*client = *given
	}
	if client.Transport == nil {
		own := &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			ForceAttemptHTTP2:   true,
			MaxConnsPerHost:     MaxConnections,
			MaxIdleConnsPerHost: MaxConnections,
			IdleConnTimeout:     idleConnection,
		}
		client.Transport, closeIdle = own, own.CloseIdleConnections
	}
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return client, closeIdle
}

// Repeatable has the client send a request once more if the service closes an idle connection just when the request is
// sent on it. By itself net/http does this only where the method has no effects. The service sees no difference.
func Repeatable(request *http.Request) { request.Header["X-Idempotency-Key"] = nil } // without a value it is not sent

// WithoutURL removes the URL from an error of a client: it may contain a password or a key.
func WithoutURL(err error) error {
	var failed *url.Error
	if errors.As(err, &failed) {
		return failed.Err
	}
	return err
}
