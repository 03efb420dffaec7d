package demo

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"strings"
	"time"
	"unicode"

	"github.com/shoal-go/shoal/manager"
)

// upload receives a file, the request's raw body, and works on it. The browser chose the id, so that it could
// follow the upload before it began; ?name= is the file's name, for people.
//
// A further attempt under the same id is welcome once the one before it has ended: its progress follows the
// earlier end in the upload's history.
func (d *Demo) upload(w http.ResponseWriter, r *http.Request) {
	uploadID := r.PathValue("upload_id")
	if err := manager.CheckID("upload_id", uploadID); err != nil {
		(&failure{status: http.StatusBadRequest, text: err.Error()}).writeProblem(w)
		return
	}
	setDeadline := http.NewResponseController(w).SetReadDeadline
	interrupt := func() { _ = setDeadline(time.Unix(1, 0)) } // in the past: a read ends at once
	if refused := d.admit(uploadID, interrupt); refused != nil {
		refused.writeProblem(w)
		return
	}
	defer d.release(uploadID)

	rep := d.manager.Progress(uploadID)
	res, failed := d.work(w, r, uploadID, rep)
	if failed != nil {
		d.end(uploadID, rep.Fail(failed.text), failed.cause)
		failed.writeProblem(w)
		return
	}
	d.results.put(res)
	d.end(uploadID, rep.Complete(res.describe(), 100), nil)
	WriteJSON(w, http.StatusOK, "application/json", res)
}

// end logs the end of an upload for the operator: failed publications, and errors of the
// server rather than of the client.
func (d *Demo) end(uploadID string, unpublished, cause error) {
	if unpublished != nil {
		d.log.Warn("demo: progress was not published", "upload_id", uploadID, "error", unpublished)
	}
	if cause != nil {
		d.log.Error("demo: upload failed", "upload_id", uploadID, "error", cause)
	}
}

// work takes the upload through its stages. Each of them reports its real progress.
func (d *Demo) work(
	w http.ResponseWriter, r *http.Request, uploadID string, rep *manager.Reporter,
) (*result, *failure) {
	name := displayName(r.URL.Query().Get("name"))
	_ = rep.Stage(statusReceiving, stageReceiving, 70, "Receiving "+name)
	file, err := newTempFile(d.dir)
	if err != nil {
		return nil, notStored(err)
	}
	defer file.discard()
	whole, failed := d.receive(w, r, file, rep)
	if failed != nil {
		return nil, failed
	}
	res := &result{UploadID: uploadID, Name: name, Size: whole.size, SHA256: fmt.Sprintf("%x", whole.sha256)}
	if failed := d.inspect(file, rep, res); failed != nil {
		return nil, failed
	}
	_ = rep.Stage(statusWorking, stageVerifying, 100,
		"Comparing the stored copy with what was received")
	if failed := d.audit(file, rep, whole); failed != nil {
		return nil, failed
	}
	return res, nil
}

// displayName makes one short line of a file's name, which the client chose.
func displayName(name string) string {
	const most = 80
	name = path.Base(strings.ReplaceAll(strings.ToValidUTF8(name, "\uFFFD"), `\`, "/"))
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) { // control characters, and characters that change the direction of writing
			return -1
		}
		return r
	}, name)
	if name == "" || name == "." || name == "/" {
		return "a file"
	}
	if runes := []rune(name); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return name
}

// tempFile is a file that is gone when it is closed.
type tempFile struct {
	*os.File
	unlinked bool
}

func newTempFile(dir string) (*tempFile, error) {
	f, err := os.CreateTemp(dir, "shoal-upload-*")
	if err != nil {
		return nil, err
	}
	// Where the system lets go of the name of an open file, not even a killed process leaves one behind.
	return &tempFile{f, os.Remove(f.Name()) == nil}, nil
}

// discard closes the file and removes it. An error would not matter to any caller.
func (f *tempFile) discard() {
	_ = f.Close()
	if !f.unlinked {
		_ = os.Remove(f.Name())
	}
}

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
