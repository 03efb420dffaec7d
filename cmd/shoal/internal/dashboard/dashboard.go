package dashboard

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/shoal-go/shoal/internal/demo"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// Path is where the Dashboard must be mounted: it serves this path and everything below it. All addresses of the page
// are relative, so a reverse proxy may put any prefix in front of it.
const Path = "/dashboard"

// Options configure a Dashboard.
type Options struct {
	// Manager and Server are observed. Required.
	Manager *manager.Manager
	Server  *server.Server
	// API is the HTTP API of Server at /v1/, without its path prefix. Required.
	API http.Handler
	// Residence gets the durations of Server's writes. Required.
	Residence *Residence
	// Ready returns why the server should get no new connections, or nil. nil: Server.Ready.
	Ready func() error
	// Trusted reports whether a request may read the ids of users, addresses and messages without an API key. nil: none
	// may.
	Trusted func(*http.Request) bool
	// Node is the name of the node, "" if it has no name of its own. Version is the version of the program.
	Node, Version string
	// Logger gets failures of the dashboard itself. nil: nothing is logged.
	Logger *slog.Logger
}

// Dashboard is the handler of the page. It is safe for concurrent use.
type Dashboard struct {
	opt     Options
	handler http.Handler
	live    *live
	// reading holds a token for each request that reads details.
	reading chan struct{}
}

// maxReading bounds the requests that read details at the same time: each may ask the other nodes.
const maxReading = 8

// New returns a Dashboard, which must be closed with Close before the observed server and manager.
func New(opt Options) (*Dashboard, error) {
	if opt.Manager == nil || opt.Server == nil || opt.API == nil || opt.Residence == nil {
		return nil, errors.New("dashboard: Options.Manager, Server, API and Residence are required")
	}
	if opt.Trusted == nil {
		opt.Trusted = func(*http.Request) bool { return false }
	}
	if opt.Ready == nil {
		opt.Ready = opt.Server.Ready
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Dashboard{opt: opt, reading: make(chan struct{}, maxReading)}
	d.live = newLive(opt, []byte(rand.Text()+rand.Text())) // bytes of any value might be no secret that jwtauth accepts
	assets, err := loadAssets()
	if err != nil {
		return nil, fmt.Errorf("dashboard: %w", err)
	}
	d.handler = d.routes(assets)
	return d, nil
}

func (d *Dashboard) routes(assets map[string]asset) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", strings.TrimPrefix(Path, "/")+"/") // relative: a proxy's prefix stays in front of it
		w.WriteHeader(http.StatusFound)
	})
	mux.HandleFunc("GET "+Path+"/{$}", func(w http.ResponseWriter, _ *http.Request) { assets["index.html"].serve(w) })
	mux.HandleFunc("GET "+Path+"/assets/{file}", func(w http.ResponseWriter, r *http.Request) {
		found, ok := assets["assets/"+r.PathValue("file")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		found.serve(w)
	})
	mux.HandleFunc("GET "+Path+"/token", d.token)
	mux.Handle("GET "+Path+"/data/upload", d.details(d.upload))
	mux.Handle("GET "+Path+"/data/user", d.details(d.user))
	mux.Handle("POST "+Path+"/data/upload", d.action("/v1/uploads/", "/messages"))
	mux.Handle("DELETE "+Path+"/data/user", d.action("/v1/users/", "/connections"))
	live := http.StripPrefix(Path, d.live)
	mux.Handle(Path+"/ws/uploads", live)
	mux.Handle(Path+"/events/", live)
	// A page of another site must not act here. It has no key, and its requests do not even reach the check.
	return http.NewCrossOriginProtection().Handler(mux)
}

// action returns the handler of an action of the page: the endpoint of the API whose path has the id between before
// and after. The page gives the id in the query, because a browser resolves "." and ".." in a path in any encoding.
func (d *Dashboard) action(before, after string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.URL.Query().Get("id")
		endpoint := r.WithContext(r.Context()) // a copy
		endpoint.URL = &url.URL{Path: before + id + after, RawPath: before + url.PathEscape(id) + after}
		d.opt.API.ServeHTTP(w, endpoint)
	})
}

// AheadOf returns a handler of requests for a mux, but for those below a path: the mux would redirect a path with an
// empty id to the path of another upload.
func AheadOf(mux *http.ServeMux, path string, below http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, path) {
			below.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// ServeHTTP serves the page, its data and the observed server's API.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.handler.ServeHTTP(w, r) }

// Close disconnects the pages and ends the goroutines. It blocks until they have ended, or ctx has.
func (d *Dashboard) Close(ctx context.Context) error { return d.live.close(ctx) }

//go:embed page
var files embed.FS

// asset is a file of the page.
type asset struct {
	contentType string
	body        []byte
}

// loadAssets returns the files of the page by their paths. It shares the client of JavaScript and the icon with the
// demo page.
func loadAssets() (map[string]asset, error) {
	assets := map[string]asset{}
	pages, err := fs.Sub(files, "page")
	if err != nil {
		return nil, err
	}
	err = fs.WalkDir(pages, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := fs.ReadFile(pages, name)
		assets[name] = asset{demo.ContentType(name), body}
		return err
	})
	for _, name := range []string{"shoal.js", "icon.svg"} {
		assets["assets/"+name] = asset{demo.ContentType(name), demo.Asset(name)}
	}
	return assets, err
}

func (a asset) serve(w http.ResponseWriter) {
	const policy = "Content-Security-Policy"
	demo.SetPageHeaders(w)
	w.Header().Set(policy, w.Header().Get(policy)+"; require-trusted-types-for 'script'")
	w.Header().Set("Content-Type", a.contentType)
	_, _ = w.Write(a.body) // fails only if the client is gone
}
