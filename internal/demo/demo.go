// Package demo shows the main job on a development server: a page on which a person picks a file, the server
// that receives it and reports its real progress, and the page that follows it over the WebSocket.
//
// Its statuses and stages are words of its own, as those of any application may be.
package demo

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"

	"github.com/shoal-go/shoal/manager"
)

// The statuses and stages of the demo's uploads.
const (
	statusReceiving manager.Status = "receiving"
	statusWorking   manager.Status = "working"

	stageReceiving  manager.Stage = "receiving"  // and hashing the file
	stageInspecting manager.Stage = "inspecting" // finding out its type
	stageDecoding   manager.Stage = "decoding"   // a picture
	stageThumbnail  manager.Stage = "making-thumbnail"
	stageVerifying  manager.Stage = "verifying" // comparing the hash of the stored copy
)

const (
	standardMaxBytes = 1 << 30
	// maxUploads bounds the uploads that are received or worked on at the same time.
	maxUploads = 16
)

// Options configure a Demo.
type Options struct {
	// Manager publishes the progress. Required.
	Manager *manager.Manager
	// Logger gets failures on the server's side, never a file's name or content. nil: nothing is logged.
	Logger *slog.Logger
	// MaxBytes is the size of the largest file, in bytes. 0: 1 GiB.
	MaxBytes int64
	// Dir is the directory for temporary files. "": the system's.
	Dir string
}

// Demo is the page and the uploads behind it, to be mounted at "/". It is safe for concurrent use. An upload
// is received and worked on by the goroutine of its request; a Demo has none of its own.
type Demo struct {
	manager  *manager.Manager
	log      *slog.Logger
	maxBytes int64
	dir      string
	handler  http.Handler
	results  results
	// decoding holds a token while a picture is decoded: one at a time, since it may take 400 MB.
	decoding chan struct{}

	closed atomic.Bool
	// mu protects active, and that nothing is added to working once closed is set. Nothing under it blocks.
	mu sync.Mutex
	// active are the uploads in progress, each with a function that ends its wait for the client.
	active  map[string]func()
	working sync.WaitGroup
}

// New returns a Demo. It fails if the Manager is missing, MaxBytes is negative, or Dir is not a directory.
func New(o Options) (*Demo, error) {
	if o.Manager == nil {
		return nil, errors.New("demo: Options.Manager is nil, want a manager to publish through")
	}
	if o.MaxBytes < 0 {
		return nil, fmt.Errorf("demo: Options.MaxBytes is %d, want 0 or more", o.MaxBytes)
	}
	o.MaxBytes = cmp.Or(o.MaxBytes, standardMaxBytes)
	o.Dir = cmp.Or(o.Dir, os.TempDir())
	if info, err := os.Stat(o.Dir); err != nil {
		return nil, fmt.Errorf("demo: directory for temporary files: %w", err)
	} else if !info.IsDir() {
		return nil, fmt.Errorf("demo: Options.Dir is %q, want a directory", o.Dir)
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	d := &Demo{
		manager: o.Manager, log: o.Logger, maxBytes: o.MaxBytes, dir: o.Dir,
		decoding: make(chan struct{}, 1), active: map[string]func(){},
	}
	index, err := renderIndex(o.MaxBytes)
	if err != nil {
		return nil, err
	}
	d.handler = d.routes(index)
	return d, nil
}

func (d *Demo) routes(index []byte) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { servePage(w, index) })
	mux.HandleFunc("GET /demo/{file}", serveAsset)
	mux.HandleFunc("POST /demo/uploads/{upload_id}", d.upload)
	mux.HandleFunc("GET /demo/uploads/{upload_id}", d.result)
	mux.HandleFunc("GET /demo/uploads/{upload_id}/thumbnail", d.thumbnail)
	// A page of another site must not be able to upload here in its visitor's name.
	return http.NewCrossOriginProtection().Handler(mux)
}

// ServeHTTP serves the page, its assets and the uploads. For an upload it returns when the work is done.
func (d *Demo) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.handler.ServeHTTP(w, r) }

// Close refuses further uploads, ends uploads that still wait for bytes of their client, and returns when
// the work on all of them has ended and their temporary files are gone. It is idempotent.
func (d *Demo) Close() {
	d.mu.Lock()
	d.closed.Store(true)
	for _, interrupt := range d.active {
		interrupt()
	}
	d.mu.Unlock()
	d.working.Wait()
}

// admit adds the upload to the active ones, or returns why it is refused. interrupt ends the upload's wait for its
// client; it must not block. After nil the caller must call release.
func (d *Demo) admit(uploadID string, interrupt func()) *failure {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed.Load() {
		return errStopping
	}
	if _, busy := d.active[uploadID]; busy {
		return &failure{status: http.StatusConflict, text: "This upload is already being received."}
	}
	if len(d.active) >= maxUploads {
		return &failure{status: http.StatusServiceUnavailable, text: "Too many uploads at once. Try again in a moment."}
	}
	d.active[uploadID] = interrupt
	d.working.Add(1)
	return nil
}

func (d *Demo) release(uploadID string) {
	d.mu.Lock()
	delete(d.active, uploadID)
	d.mu.Unlock()
	d.working.Done()
}

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
	WriteJSON(w, f.status, "application/problem+json", struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{http.StatusText(f.status), f.status, f.text})
}

// WriteJSON answers with a value that can be encoded. It fails only if the client is gone.
func WriteJSON(w http.ResponseWriter, status int, contentType string, v any) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}
