package demo

import (
	"encoding/json"
	"net/http"
)

// failure is the end of an upload that did not go well.
type failure struct {
	status int
	// text is for people: it is published, so it names no path and no address of the server.
	text string
	// cause is for the log; nil if it is not the server's fault.
	cause error
}

var errStopping = &failure{
	status: http.StatusServiceUnavailable, text: "The server stopped before the upload was done.",
}

// writeProblem answers with the failure as a problem of RFC 9457.
func (f *failure) writeProblem(w http.ResponseWriter) {
	if f.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, f.status, "application/problem+json", struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{http.StatusText(f.status), f.status, f.text})
}

// writeJSON answers with a value that can be encoded. It fails only if the client is gone.
func writeJSON(w http.ResponseWriter, status int, contentType string, v any) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
