package demo

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"path"
)

//go:embed page
var files embed.FS

// pageHeaders let the page load only resources of this server.
var pageHeaders = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
		"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Referrer-Policy":              "no-referrer",
	"X-Content-Type-Options":       "nosniff",
	// The files have no version in their names: a newer binary must not meet an older page.
	"Cache-Control": "no-cache",
}

// contentTypes are given rather than looked up: the system's table may call a script plain text, and then no
// browser runs it.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// ContentType returns the content type of a file of a page by its name.
func ContentType(name string) string { return contentTypes[path.Ext(name)] }

func renderIndex(maxBytes int64) ([]byte, error) {
	page, err := template.ParseFS(files, "page/index.html")
	if err != nil {
		return nil, fmt.Errorf("demo: page: %w", err)
	}
	var out bytes.Buffer
	if err := page.Execute(&out, map[string]any{"MaxBytes": maxBytes, "MaxSize": formatBytes(maxBytes)}); err != nil {
		return nil, fmt.Errorf("demo: page: %w", err)
	}
	return out.Bytes(), nil
}

func servePage(w http.ResponseWriter, index []byte) {
	SetPageHeaders(w)
	w.Header().Set("Content-Type", ContentType("index.html"))
	_, _ = w.Write(index) // fails only if the client is gone
}

// Asset returns an asset of the page, for other pages of this program, nil if no asset has that name.
func Asset(name string) []byte {
	body, err := files.ReadFile("page/assets/" + name)
	if err != nil {
		return nil
	}
	return body
}

func serveAsset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	body := Asset(name)
	if body == nil {
		http.NotFound(w, r)
		return
	}
	SetPageHeaders(w)
	w.Header().Set("Content-Type", ContentType(name))
	_, _ = w.Write(body) //nolint:gosec // an embedded file; it fails only if the client is gone
}

// SetPageHeaders sets the headers of a page and of its files, which let it load only resources of this server.
func SetPageHeaders(w http.ResponseWriter) {
	for name, value := range pageHeaders {
		w.Header().Set(name, value)
	}
}
