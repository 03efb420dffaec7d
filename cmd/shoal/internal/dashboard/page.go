package dashboard

import (
	"embed"
	"io/fs"
	"net/http"
	"path"

	"github.com/shoal-go/shoal/internal/demo"
)

//go:embed page
var files embed.FS

// pageHeaders let the page load only resources of this server.
var pageHeaders = map[string]string{
	"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
		"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
		"require-trusted-types-for 'script'",
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
		assets[name] = asset{contentTypes[path.Ext(name)], body}
		return err
	})
	for _, name := range []string{"shoal.js", "icon.svg"} {
		assets["assets/"+name] = asset{contentTypes[path.Ext(name)], demo.Asset(name)}
	}
	return assets, err
}

func (a asset) serve(w http.ResponseWriter) {
	for name, value := range pageHeaders {
		w.Header().Set(name, value)
	}
	w.Header().Set("Content-Type", a.contentType)
	_, _ = w.Write(a.body) // fails only if the client is gone
}
