package main

import (
	"net/http"
	"net/http/pprof"
)

// handleProfiles serves the profiles of the runtime under /debug/pprof/, for --pprof. The command line is left out: it
// may hold secrets. The import of net/http/pprof also registers handlers at http.DefaultServeMux, which no listener uses.
func handleProfiles(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", http.NotFound)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}
