package demo

import (
	"crypto/sha256"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/shoal-go/shoal/manager"
)

// bodyPatience is how long the next bytes of a file may take. A browser that is gone without a word must not
// hold its place for longer.
const bodyPatience = 30 * time.Second

// received is a file that arrived as a whole.
type received struct {
	size   int64
	sha256 [sha256.Size]byte
}

// receive streams the request's body to the file while hashing it.
func (d *Demo) receive(
	w http.ResponseWriter, r *http.Request, file io.Writer, rep *manager.Reporter,
) (received, *failure) {
	if r.ContentLength > d.maxBytes {
		return received{}, d.tooLarge()
	}
	body := &bodyReader{
		demo: d, deadline: http.NewResponseController(w).SetReadDeadline,
		body: http.MaxBytesReader(w, r.Body, d.maxBytes),
	}
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(file, hash, rep.Writer(r.ContentLength)), body)
	if body.err != nil {
		return received{}, d.bodyFailure(body.err, size)
	}
	if err != nil {
		return received{}, notStored(err)
	}
	// The work that follows may take its time, and the connection stays good for further requests.
	_ = body.deadline(time.Time{})
	return received{size, [sha256.Size]byte(hash.Sum(nil))}, nil
}

// bodyFailure says why a body did not arrive, after size bytes of it.
func (d *Demo) bodyFailure(err error, size int64) *failure {
	var large *http.MaxBytesError
	switch {
	case d.closed.Load():
		return errStopping
	case errors.As(err, &large):
		return d.tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &failure{status: http.StatusRequestTimeout, text: "Nothing more arrived after " + formatBytes(size) + "."}
	}
	return &failure{status: http.StatusBadRequest, text: "The upload was cut off after " + formatBytes(size) + "."}
}

func (d *Demo) tooLarge() *failure {
	return &failure{
		status: http.StatusRequestEntityTooLarge,
		text:   "The file is too large: at most " + formatBytes(d.maxBytes) + " are allowed.",
	}
}

func notStored(cause error) *failure {
	return &failure{status: http.StatusInternalServerError, text: "The server could not store the file.", cause: cause}
}

// bodyReader reads a body with a deadline for each piece of it, and keeps the error that ended it early, so
// that it can be told from one of the disk.
type bodyReader struct {
	demo     *Demo
	deadline func(time.Time) error
	body     io.Reader
	err      error
}

func (b *bodyReader) Read(p []byte) (int, error) {
	// A server that cannot set deadlines reads without one.
	_ = b.deadline(time.Now().Add(bodyPatience))
	// Looked at after the deadline is set: Close sets closed first and then a deadline of its own, so
	// whichever comes last, this read ends.
	if b.demo.closed.Load() {
		b.err = errors.New("demo: closed")
		return 0, b.err
	}
	n, err := b.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}
