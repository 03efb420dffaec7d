package server

import (
	"log/slog"
	"net/http"

	"github.com/shoal-go/shoal/manager"
)

// apiOptions configure the HTTP API.
type apiOptions struct {
	// Keys are the API keys, any of which opens it. Without one, every call is refused.
	Keys []string
	// MaxMessageBytes bounds one message; it must not exceed the manager's. 0: 64 KiB.
	MaxMessageBytes int
	// MaxBodyBytes bounds a request's body. 0: 8 MiB.
	MaxBodyBytes int
	// Logger gets what failed inside. nil: nothing is logged.
	Logger *slog.Logger
	// Stats returns what GET /v1/stats answers. nil: the manager's counts.
	Stats func() any
}

// api is the HTTP API. Its methods are called from any number of goroutines.
type api struct {
	manager *manager.Manager
	opt     apiOptions
	keys    apiKeys
	routes  []apiRoute
}

// newAPI returns the handler of everything under /v1/.
func newAPI(m *manager.Manager, opt apiOptions) http.Handler {
	if opt.MaxMessageBytes == 0 {
		opt.MaxMessageBytes = 64 << 10
	}
	if opt.MaxBodyBytes == 0 {
		opt.MaxBodyBytes = 8 << 20
	}
	opt.MaxBodyBytes = max(opt.MaxBodyBytes, opt.MaxMessageBytes)
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.Stats == nil {
		opt.Stats = func() any { return m.Stats() }
	}
	a := &api{manager: m, opt: opt, keys: newAPIKeys(opt.Keys)}
	a.routes = []apiRoute{
		{"/v1/uploads/{upload_id}", map[string]apiCall{"GET": a.newest, "DELETE": a.forget}},
		{"/v1/uploads/{upload_id}/messages", map[string]apiCall{"GET": a.history, "POST": a.publish}},
		{"/v1/uploads/{upload_id}/subscribers", map[string]apiCall{"GET": a.subscribers}},
		{"/v1/users/{user_id}/messages", map[string]apiCall{"POST": a.sendToUser}},
		{"/v1/users/{user_id}/connections", map[string]apiCall{"DELETE": a.disconnectUser}},
		{"/v1/tokens/{token_id}/connections", map[string]apiCall{"DELETE": a.disconnectToken}},
		{"/v1/stats", map[string]apiCall{"GET": a.stats}},
		{"/v1/nodes", map[string]apiCall{"GET": a.nodes}},
	}
	return a
}

// ServeHTTP answers a request that holds an API key.
func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := a.keys.check(r)
	if err == nil {
		err = find(a.routes, r)(w, r)
	}
	if err != nil {
		writeProblem(w, r, a.opt.Logger, err)
	}
}

func (a *api) stats(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, a.opt.Stats())
	return nil
}

// nodes answers with the counts of all nodes that have answered in time.
func (a *api) nodes(w http.ResponseWriter, r *http.Request) error {
	stats, missing, err := a.manager.NodeStats(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Nodes        map[string]manager.Stats `json:"nodes"`
		MissingNodes []string                 `json:"missing_nodes,omitempty"`
	}{stats, missing})
	return nil
}

// pathID returns the id that stands in the path under a name.
func pathID(r *http.Request, name string) (string, error) {
	id := r.PathValue(name)
	return id, manager.CheckID(name, id)
}
