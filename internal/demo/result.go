package demo

import (
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/shoal-go/shoal/manager"
)

// maxResults bounds the results that are kept, and with them their thumbnails.
const maxResults = 64

// result is the analysis of a file.
type result struct {
	UploadID string `json:"upload_id"`
	Name     string `json:"name"`
	// Size is in bytes.
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
	// Type is the media type that the content shows.
	Type string `json:"type"`
	// Width and Height are in pixels, and 0 for a file that is not a picture.
	Width  int `json:"width,omitempty"`
	Height int `json:"height,omitempty"`
	// Remark names properties that could not be determined, and why.
	Remark    string `json:"remark,omitempty"`
	Thumbnail bool   `json:"thumbnail"`

	thumbnail     []byte
	thumbnailType string
}

// describe returns the result as a line for people.
func (r *result) describe() string {
	parts := []string{r.Type}
	if r.Width > 0 {
		parts = append(parts, fmt.Sprintf("%d × %d pixels", r.Width, r.Height))
	}
	if r.Remark != "" {
		parts = append(parts, r.Remark)
	}
	return strings.Join(append(parts, formatBytes(r.Size), "SHA-256 "+r.SHA256), ", ")
}

// results keeps the newest results. It is safe for concurrent use; the zero value is empty.
type results struct {
	// mu protects both fields. Nothing under it blocks.
	mu    sync.Mutex
	byID  map[string]*result
	order []string // oldest first
}

// put keeps a result, which must not be changed afterwards, in the place of an earlier one of the same upload.
func (s *results) put(r *result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID = map[string]*result{}
	}
	if _, known := s.byID[r.UploadID]; !known {
		s.order = append(s.order, r.UploadID)
	}
	s.byID[r.UploadID] = r
	if len(s.order) > maxResults {
		delete(s.byID, s.order[0])
		s.order = append([]string(nil), s.order[1:]...)
	}
}

// find returns the result of an upload, or nil.
func (s *results) find(uploadID string) *result {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byID[uploadID]
}

// result answers with the analysis of a file. For an upload without a file on this server, such as one that is only
// published to, it answers 204: the question is not an error.
func (d *Demo) result(w http.ResponseWriter, r *http.Request) {
	res := d.known(w, r)
	if res == nil {
		return
	}
	WriteJSON(w, http.StatusOK, "application/json", res)
}

// thumbnail answers with the picture's thumbnail.
func (d *Demo) thumbnail(w http.ResponseWriter, r *http.Request) {
	res := d.known(w, r)
	if res == nil {
		return
	}
	if !res.Thumbnail {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	SetPageHeaders(w)
	w.Header().Set("Content-Type", res.thumbnailType)
	_, _ = w.Write(res.thumbnail) // fails only if the client is gone
}

// known returns the result of the request's upload, or nil after having answered.
func (d *Demo) known(w http.ResponseWriter, r *http.Request) *result {
	uploadID := r.PathValue("upload_id")
	if err := manager.CheckID("upload_id", uploadID); err != nil {
		(&failure{status: http.StatusBadRequest, text: err.Error()}).writeProblem(w)
		return nil
	}
	res := d.results.find(uploadID)
	if res == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return res
}

// formatBytes writes a size for people, in powers of 1024.
func formatBytes(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	size, unit := float64(n)/1024, 0
	for size >= 1023.95 && unit < len(units)-1 {
		size, unit = size/1024, unit+1
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", size), ".0") + " " + units[unit:unit+1] + "iB"
}
