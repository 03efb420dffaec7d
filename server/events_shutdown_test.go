package server_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// Close ends the event streams that occupy requests of an HTTP server of the embedder's, so that its Shutdown has nothing
// to wait for. Until then new connections are refused for the time being.
func TestServer_CloseBeforeShutdownEndsEvents(t *testing.T) {
	for name, configure := range map[string]func(*httptest.Server){
		"HTTP/1.1":        func(srv *httptest.Server) { srv.Start() },
		"HTTP/2":          func(srv *httptest.Server) { srv.EnableHTTP2 = true; srv.StartTLS() },
		"hidden hijacker": func(srv *httptest.Server) { srv.Start() },
	} {
		t.Run(name, func(t *testing.T) {
			m := mount(t, func(h http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if name == "hidden hijacker" {
						w = flushing{hiding{w}}
					}
					h.ServeHTTP(w, r)
				})
			}, configure)
			s := m.events("ann", "/events/uploads/a")
			s.subscribed("a", false)
			closed := make(chan error, 1)
			go func() { closed <- m.server.Close(m.patienceContext()) }()
			s.wantClose(`{"code":1012,"reason":"Server reloading"}`)
			if err := <-closed; err != nil {
				t.Error(err)
			}
			late := m.events("ann", "/events/uploads/a")
			late.problem(http.StatusServiceUnavailable)
			if late.resp.Header.Get("Retry-After") == "" {
				t.Error("a new stream is refused without Retry-After")
			}
			if name == "HTTP/1.1" {
				m.host = m.http.Listener.Addr().String()
				_, resp, err := m.tryOpen(nil)
				if err == nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
					t.Errorf("a new WebSocket got %v, want 503 with Retry-After", err)
				}
			}
			if err := m.http.Config.Shutdown(m.patienceContext()); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
		})
	}
}
