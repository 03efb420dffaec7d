package server

import (
	_ "embed"
	"net/http"
	"net/url"
	"strings"
)

// description is the OpenAPI description of the API at the root of a server.
//
//go:embed openapi.json
var description string

// descriptionPath is the path of the description. It needs no API key: it is the same on every server.
const descriptionPath = "/v1/openapi.json"

// describe answers with the description of the API at its path.
func (a *api) describe(w http.ResponseWriter, _ *http.Request, _ url.Values) error {
	text := description
	if a.opt.PathPrefix != "" {
		text = strings.Replace(text, `{"url": "/"}`, `{"url": "`+a.opt.PathPrefix+`"}`, 1)
	}
	writeBody(w, http.StatusOK, "application/json", []byte(text))
	return nil
}

// isPublic reports whether a request needs no API key.
func isPublic(r *http.Request) bool {
	return r.URL.Path == descriptionPath && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}
