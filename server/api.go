package server

import (
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/shoal-go/shoal/manager"
)

// minBodyBytes is the bound of a request body, unless a single message may be larger.
const minBodyBytes = 8 << 20

// apiOptions configure the HTTP API. All of them are required but the first two.
type apiOptions struct {
	// PathPrefix is the path at which the API is, in its description.
	PathPrefix string
	// Authorize decides in place of the keys who may use the API, if it is not nil.
	Authorize func(*http.Request) error
	// Keys returns the API keys of now, each of which gives full access. Without one, every request is refused.
	Keys func() apiKeys
	// MaxMessageBytes bounds one message; it must not exceed the manager's limit.
	MaxMessageBytes int
	// MaxBodiesBytes bounds all bodies together.
	MaxBodiesBytes int
	// Logger gets failures whose cause the caller must not see.
	Logger *slog.Logger
	// Stats returns the answer of GET /v1/stats.
	Stats func() any
}

// api is the HTTP API, the handler of everything under /v1/. Its methods may be called from any number of goroutines.
type api struct {
	manager      *manager.Manager
	opt          apiOptions
	maxBodyBytes int
	bodies       bodyBudget
	routes       []apiRoute
}

func newAPI(m *manager.Manager, opt apiOptions) *api {
	a := &api{
		manager: m, opt: opt, maxBodyBytes: max(minBodyBytes, opt.MaxMessageBytes),
	}
	a.bodies.limit = int64(max(opt.MaxBodiesBytes, leastBudget(a.maxBodyBytes)))
	endpoint := func(handle apiHandler, query ...string) apiEndpoint { return apiEndpoint{handle, query} }
	a.routes = []apiRoute{
		newRoute("/v1/uploads/{upload_id}", apiMethods{"GET": endpoint(a.newest), "DELETE": endpoint(a.forget)}),
		newRoute("/v1/uploads/{upload_id}/messages", apiMethods{
			"GET": endpoint(a.history, "since", "epoch"), "POST": endpoint(a.publish),
		}),
		newRoute("/v1/uploads/{upload_id}/subscribers", apiMethods{"GET": endpoint(a.subscribers)}),
		newRoute("/v1/messages", apiMethods{"POST": endpoint(a.publishMany)}),
		newRoute("/v1/users/{user_id}/messages", apiMethods{"POST": endpoint(a.sendToUser)}),
		newRoute("/v1/users/{user_id}/connections", apiMethods{"DELETE": endpoint(a.disconnectUser, "code", "reason")}),
		newRoute("/v1/tokens/{token_id}/connections", apiMethods{"DELETE": endpoint(a.disconnectToken, "code", "reason")}),
		newRoute("/v1/stats", apiMethods{"GET": endpoint(a.stats)}),
		newRoute("/v1/nodes", apiMethods{"GET": endpoint(a.nodes)}),
		newRoute(descriptionPath, apiMethods{"GET": endpoint(a.describe)}),
	}
	return a
}

// authorize returns nil if a request may use the API.
func (a *api) authorize(r *http.Request) error {
	if a.opt.Authorize != nil {
		return a.opt.Authorize(r)
	}
	return a.opt.Keys().check(r)
}

// answer answers a request, which authorize has refused if refused is not nil.
func (a *api) answer(w http.ResponseWriter, r *http.Request, refused error) {
	err := refused
	if err == nil || isPublic(r) {
		err = a.call(w, r)
	}
	if err != nil {
		writeProblem(w, r, a.opt.Logger, err)
	}
}

func (a *api) call(w http.ResponseWriter, r *http.Request) error {
	endpoint, id, err := findEndpoint(a.routes, w, r)
	if err != nil || endpoint.handle == nil {
		return err
	}
	query, err := parseQuery(r, endpoint.query)
	if err != nil {
		return err
	}
	return endpoint.handle(w, r, id, query)
}

// parseQuery returns the query of a request. Unlike URL.Query it refuses a malformed query, and parameters that are
// unknown or given twice: a misspelt one would otherwise be ignored.
func parseQuery(r *http.Request, known []string) (url.Values, error) {
	if r.URL.RawQuery == "" {
		return nil, nil //nolint:nilnil // no parameters
	}
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalidField("query", "is malformed; special characters in it must be percent-encoded")
	}
	for name, values := range query {
		switch {
		case !slices.Contains(known, name) && len(known) == 0:
			return nil, invalidField("query", "has parameters, which this endpoint does not have")
		case !slices.Contains(known, name):
			return nil, invalidField("query", "has an unknown parameter; known are "+strings.Join(known, ", "))
		case len(values) > 1:
			return nil, invalidField(name, "must not be given twice")
		}
	}
	return query, nil
}

// apiHandler answers a request with an id in its path, "" if the path has none. Its error is written as a problem.
type apiHandler func(w http.ResponseWriter, r *http.Request, id string, query url.Values) error

// apiEndpoint is a handler with the names of its query parameters.
type apiEndpoint struct {
	handle apiHandler
	query  []string
}

type apiMethods map[string]apiEndpoint

// apiRoute is a path of the API with its endpoints. It is immutable.
//
// http.ServeMux cannot route an id that is "/", and redirects a path with an empty id to another endpoint.
type apiRoute struct {
	// pattern is the path, in which one segment may be an id: its name in braces.
	pattern  string
	segments []string
	idName   string // "" if the path has no id
	idAt     int    // its segment
	methods  apiMethods
}

func newRoute(pattern string, methods apiMethods) apiRoute {
	a := apiRoute{pattern: pattern, segments: strings.Split(pattern, "/"), methods: methods}
	for i, segment := range a.segments {
		if name, isID := strings.CutPrefix(segment, "{"); isID {
			a.idName, a.idAt = strings.TrimSuffix(name, "}"), i
		}
	}
	return a
}

// findEndpoint returns the endpoint of a request and the id in its path, which it has checked, "" if the path has none.
// The endpoint is empty if the request has been answered.
func findEndpoint(
	routes []apiRoute, w http.ResponseWriter, r *http.Request,
) (found apiEndpoint, id string, err error) {
	path := strings.Split(r.URL.EscapedPath(), "/")
	for _, route := range routes {
		id, matches := route.match(path)
		if !matches {
			continue
		}
		r.Pattern = route.pattern
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet // net/http drops the body
		}
		if endpoint, found := route.methods[method]; found {
			return endpoint, id, route.checkID(id)
		}
		return apiEndpoint{}, "", route.otherMethod(w, r)
	}
	return apiEndpoint{}, "", newProblem(http.StatusNotFound, "unknown endpoint")
}

// match reports whether the segments of a path, still escaped, are those of the route, and returns the id among them.
func (a apiRoute) match(path []string) (id string, matches bool) {
	if len(path) != len(a.segments) {
		return "", false
	}
	for i, want := range a.segments {
		segment, err := url.PathUnescape(path[i])
		isID := a.idName != "" && i == a.idAt
		switch {
		case err != nil || !isID && segment != want:
			return "", false
		case isID:
			id = segment
		}
	}
	return id, true
}

// checkID returns an error if the route has an id and it is invalid.
func (a apiRoute) checkID(id string) error {
	if a.idName == "" {
		return nil
	}
	return manager.CheckID(a.idName, id)
}

// otherMethod answers OPTIONS, and refuses every other method that the route does not have.
func (a apiRoute) otherMethod(w http.ResponseWriter, r *http.Request) error {
	methods := []string{http.MethodOptions}
	for method := range a.methods {
		methods = append(methods, method)
		if method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	slices.Sort(methods)
	allow := strings.Join(methods, ", ")
	w.Header().Set("Allow", allow)
	if r.Method != http.MethodOptions {
		return newProblem(http.StatusMethodNotAllowed, "the methods of this path are "+allow)
	}
	writeNoContent(w)
	return nil
}

// apiKeys are the digests of API keys.
type apiKeys [][sha256.Size]byte

func newAPIKeys(keys []string) (all apiKeys) {
	for _, key := range keys {
		if key != "" { // or a request without a key would have one
			all = append(all, sha256.Sum256([]byte(key)))
		}
	}
	return all
}

// check returns nil if a request has one of the keys, or else an *apiProblem.
func (k apiKeys) check(r *http.Request) error {
	if len(k) == 0 {
		return newProblem(http.StatusForbidden, "the API is closed, because no API key is configured")
	}
	key := bearer(r)
	switch {
	case key == "":
		return unauthorized(bearerChallenge, "an API key is missing; send it as Authorization: Bearer <key>")
	case !k.contain(key):
		return unauthorized(bearerChallenge+`, error="invalid_token"`, "the API key is not one of those configured")
	}
	return nil
}

// contain compares the key with every configured one, by digest, so that the time it takes does not depend on how much
// of a key was right.
func (k apiKeys) contain(key string) bool {
	digest := sha256.Sum256([]byte(key))
	found := 0
	for _, known := range k {
		found |= subtle.ConstantTimeCompare(digest[:], known[:])
	}
	return found == 1
}

// bearerChallenge asks for a key.
const bearerChallenge = `Bearer realm="shoal"`

func unauthorized(challenge, detail string) *apiProblem {
	p := newProblem(http.StatusUnauthorized, detail)
	p.header.Set("WWW-Authenticate", challenge)
	return p
}

// bearer returns the token of a request's Authorization header, or "" unless there is exactly one.
func bearer(r *http.Request) string {
	values := r.Header.Values("Authorization")
	if len(values) != 1 || !isBearer(values[0]) {
		return ""
	}
	_, token, _ := strings.Cut(values[0], " ")
	return strings.TrimLeft(token, " ") // any number of spaces may separate them (RFC 9110, 11.4)
}

// hasBearer reports whether an Authorization header of a request is for a token, not for a proxy in front, for example.
func hasBearer(r *http.Request) bool {
	return slices.ContainsFunc(r.Header.Values("Authorization"), isBearer)
}

// isBearer reports whether the scheme of an Authorization header is Bearer.
func isBearer(value string) bool {
	scheme, _, _ := strings.Cut(value, " ")
	return strings.EqualFold(scheme, "Bearer")
}
