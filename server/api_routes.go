package server

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// apiCall is one call of the API. What it returns is written as a problem.
type apiCall func(w http.ResponseWriter, r *http.Request) error

// apiRoute is a path of the API with its calls. It is immutable.
//
// http.ServeMux is not used here because an id may be anything: the mux never finds the id "/", and redirects
// a path with an empty one to another call.
type apiRoute struct {
	// pattern is the path, in which a segment in braces stands for an id of that name.
	pattern string
	calls   map[string]apiCall
}

// find returns the call that a request asks for, after setting the ids of its path.
func find(routes []apiRoute, r *http.Request) apiCall {
	path := strings.Split(r.URL.EscapedPath(), "/")
	for _, route := range routes {
		if !route.match(r, path) {
			continue
		}
		r.Pattern = route.pattern
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet // net/http leaves out the body
		}
		if call := route.calls[method]; call != nil {
			return call
		}
		return route.otherMethod
	}
	return func(http.ResponseWriter, *http.Request) error {
		return newProblem(http.StatusNotFound, "there is no such call")
	}
}

// match reports whether the segments of a path, still escaped, are those of the route.
func (a apiRoute) match(r *http.Request, path []string) bool {
	pattern := strings.Split(a.pattern, "/")
	if len(path) != len(pattern) {
		return false
	}
	for i, want := range pattern {
		segment, err := url.PathUnescape(path[i])
		name, isID := strings.CutPrefix(want, "{")
		switch {
		case err != nil || !isID && segment != want:
			return false
		case isID:
			r.SetPathValue(strings.TrimSuffix(name, "}"), segment)
		}
	}
	return true
}

// otherMethod answers what is none of the route's calls.
func (a apiRoute) otherMethod(w http.ResponseWriter, r *http.Request) error {
	methods := []string{http.MethodOptions}
	for method := range a.calls {
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
	writeNothing(w)
	return nil
}
