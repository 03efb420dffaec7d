package embedded

import (
	"errors"
	"net/http"
	"net/url"
)

// ErrBehind is what Ready returns while the server does not have all that it is to keep for the others.
var ErrBehind = errors.New("embedded: the NATS server has not caught up with the others of the cluster yet")

// Ready returns nil if the server has all that it is to keep, else ErrBehind. In a cluster no other server should be
// ended on purpose before: a majority that only looks like one keeps nothing. It does not block on other servers.
func (s *Server) Ready() error {
	v := verdict{header: make(http.Header)}
	s.server.HandleHealthz(&v, &http.Request{Method: http.MethodGet, URL: new(url.URL)})
	if v.status != http.StatusOK {
		return ErrBehind
	}
	return nil
}

// verdict takes the answer of the server to whether it is well. It is not safe for concurrent use.
type verdict struct {
	header http.Header
	status int
}

func (v *verdict) Header() http.Header { return v.header }

func (v *verdict) WriteHeader(status int) { v.status = status }

func (v *verdict) Write(p []byte) (int, error) {
	if v.status == 0 {
		v.status = http.StatusOK
	}
	return len(p), nil
}
