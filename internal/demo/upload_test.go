package demo

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/shoal-go/shoal/manager"
)

func TestUpload_ReportsProgress(t *testing.T) {
	f := newFixture(t, 0)
	file := bytes.Repeat([]byte("shoal "), 100_000)
	sum := fmt.Sprintf("%x", sha256.Sum256(file))
	if res := f.post("/demo/uploads/u?name=some.txt", bytes.NewReader(file)); res.StatusCode != http.StatusOK {
		t.Fatalf("answered %d, want 200", res.StatusCode)
	}

	all := f.until("upload_completed")
	var stages []string
	percent := 0.0
	for _, m := range all[:len(all)-1] {
		if m.Payload.Percent < percent {
			t.Errorf("the percent went back from %v to %v", percent, m.Payload.Percent)
		}
		percent = m.Payload.Percent
		if s := m.Payload.Status + " " + m.Payload.Stage; len(stages) == 0 || stages[len(stages)-1] != s {
			stages = append(stages, s)
		}
	}
	want := "[receiving receiving working inspecting working verifying]"
	if got := fmt.Sprint(stages); got != want || percent != 100 {
		t.Errorf("reported %s up to %v percent, want %s up to 100", got, percent, want)
	}
	if first := all[0].Payload.Message; first != "Receiving some.txt" {
		t.Errorf("the first message is %q", first)
	}
	if end := all[len(all)-1]; end.AuditScore != 100 || end.Description != "text/plain; charset=utf-8, 585.9 KiB, SHA-256 "+sum {
		t.Errorf("completed with %+v", end)
	}
	found := f.found("u")
	if found.Name != "some.txt" || found.Size != int64(len(file)) || found.SHA256 != sum || found.Thumbnail {
		t.Errorf("found %+v", found)
	}
	if res := f.get("/demo/uploads/u/thumbnail"); res.StatusCode != http.StatusNoContent {
		t.Errorf("answered %d for the thumbnail of a text, want 204", res.StatusCode)
	}
	wantEmpty(t, f.dir)
}

func TestUpload_Empty(t *testing.T) {
	f := newFixture(t, 0)
	if res := f.post("/demo/uploads/u", http.NoBody); res.StatusCode != http.StatusOK {
		t.Fatalf("answered %d, want 200", res.StatusCode)
	}
	f.until("upload_completed")
	if found := f.found("u"); found.Size != 0 || found.Name != "a file" {
		t.Errorf("found %+v", found)
	}
}

func TestUpload_TooLarge(t *testing.T) {
	bodies := map[string]io.Reader{
		"announced":   strings.NewReader(strings.Repeat("x", 1025)),
		"unannounced": io.MultiReader(strings.NewReader(strings.Repeat("x", 1025))),
	}
	for name, body := range bodies {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, 1024)
			text := f.wantProblem(f.post("/demo/uploads/u", body), http.StatusRequestEntityTooLarge)
			all := f.until("upload_failed")
			if got := all[len(all)-1].ErrorMessage; got != text || !strings.Contains(got, "at most 1 KiB") {
				t.Errorf("failed with %q, answered %q", got, text)
			}
			wantEmpty(t, f.dir)
		})
	}
}

func TestUpload_AnnouncedTooLargeIsNotRead(t *testing.T) {
	f := newFixture(t, 1024)
	body := iotest.ErrReader(errors.New("was read"))
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/demo/uploads/u", body)
	req.ContentLength = 1025
	answer := httptest.NewRecorder()
	f.demo.ServeHTTP(answer, req)
	if answer.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("answered %d, want 413 without reading the body", answer.Code)
	}
}

func TestUpload_LargestSize(t *testing.T) {
	f := newFixture(t, 1024)
	if res := f.post("/demo/uploads/u", strings.NewReader(strings.Repeat("x", 1024))); res.StatusCode != http.StatusOK {
		t.Errorf("answered %d, want 200", res.StatusCode)
	}
}

func TestUpload_CutOffCanBeRepeated(t *testing.T) {
	f := newFixture(t, 0)
	body, feed := io.Pipe()
	answer := f.begin("u", body)
	if _, err := feed.Write(make([]byte, 2048)); err != nil {
		t.Fatal(err)
	}
	_ = feed.CloseWithError(errors.New("the browser is gone"))
	if res, err := answer(); err == nil {
		t.Errorf("answered %d to a client that is gone", res.StatusCode)
	}
	all := f.until("upload_failed")
	if got := all[len(all)-1].ErrorMessage; !strings.HasPrefix(got, "The upload was cut off after ") {
		t.Errorf("failed with %q", got)
	}

	// The failure is published before the place is given back, so a second attempt may come too early.
	for {
		res := f.post("/demo/uploads/u", strings.NewReader("whole"))
		if res.StatusCode == http.StatusOK {
			break
		}
		if res.StatusCode != http.StatusConflict {
			t.Fatalf("answered %d, want 409 until the first attempt has ended, then 200", res.StatusCode)
		}
	}
	f.until("upload_completed")
	wantEmpty(t, f.dir)
}

// begin starts an upload whose body is still to come. It returns a function that waits for the answer.
func (f *fixture) begin(uploadID string, body io.Reader) (answer func() (*http.Response, error)) {
	f.Helper()
	req, err := http.NewRequestWithContext(f.Context(), http.MethodPost, f.url+"/demo/uploads/"+uploadID, body)
	if err != nil {
		f.Fatal(err)
	}
	var res *http.Response
	done := make(chan struct{})
	go func() {
		defer close(done)
		res, err = f.do(req)
	}()
	return func() (*http.Response, error) {
		<-done
		return res, err
	}
}

func TestUpload_IDInProgress(t *testing.T) {
	f := newFixture(t, 0)
	body, feed := io.Pipe()
	answer := f.begin("u", body)
	<-f.heard
	f.wantProblem(f.post("/demo/uploads/u", strings.NewReader("other")), http.StatusConflict)
	f.silent()
	_ = feed.Close()
	if res, err := answer(); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("the first one was answered %v, %v, want 200", res, err)
	}
}

func TestUpload_TooMany(t *testing.T) {
	f := newFixture(t, 0)
	for i := range maxUploads {
		if refused := f.demo.admit(fmt.Sprint(i), func() {}); refused != nil {
			t.Fatal(refused.text)
		}
		defer f.demo.release(fmt.Sprint(i))
	}
	res := f.post("/demo/uploads/u", strings.NewReader("x"))
	f.wantProblem(res, http.StatusServiceUnavailable)
	if res.Header.Get("Retry-After") == "" {
		t.Error("the answer does not say when to try again")
	}
	f.silent()
}

func TestClose_EndsWaitingUploads(t *testing.T) {
	f := newFixture(t, 0)
	body, feed := io.Pipe()
	answer := f.begin("u", body)
	<-f.heard
	f.demo.Close() // returns when the work has ended, so all of it has been published
	var end message
	for len(f.heard) > 0 {
		end = <-f.heard
	}
	if end.ErrorMessage != errStopping.text {
		t.Errorf("failed with %q, want %q", end.ErrorMessage, errStopping.text)
	}
	wantEmpty(t, f.dir)
	_ = feed.Close()
	res, err := answer()
	if err != nil {
		t.Fatal(err)
	}
	f.wantProblem(res, http.StatusServiceUnavailable)
	f.wantProblem(f.post("/demo/uploads/u", strings.NewReader("x")), http.StatusServiceUnavailable)
	f.silent()
	f.demo.Close() // has no effect
}

func TestUpload_OtherOriginIsRefused(t *testing.T) {
	f := newFixture(t, 0)
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}} {
		if res := f.post("/demo/uploads/u", strings.NewReader("x"), header...); res.StatusCode != http.StatusForbidden {
			t.Errorf("answered %d with %v, want 403", res.StatusCode, header)
		}
	}
	f.silent()
	if res := f.post("/demo/uploads/u", strings.NewReader("x"), "Sec-Fetch-Site", "same-origin"); res.StatusCode != http.StatusOK {
		t.Errorf("answered %d to its own page, want 200", res.StatusCode)
	}
}

func TestUpload_IDsAreValid(t *testing.T) {
	f := newFixture(t, 0)
	for _, id := range []string{strings.Repeat("x", 256), "a%00b", "%FF"} {
		for _, res := range []*http.Response{
			f.post("/demo/uploads/"+id, strings.NewReader("x")), f.get("/demo/uploads/" + id), f.get("/demo/uploads/" + id + "/thumbnail"),
		} {
			if text := f.wantProblem(res, http.StatusBadRequest); !strings.Contains(text, "upload_id") {
				t.Errorf("the problem is %q, want it to name the upload_id", text)
			}
		}
	}
	if res := f.post("/demo/uploads/"+strings.Repeat("%2F", 255), strings.NewReader("x")); res.StatusCode != http.StatusOK {
		t.Errorf("answered %d to an id of 255 bytes, want 200", res.StatusCode)
	}
}

func TestUpload_StoreFailureHidesPath(t *testing.T) {
	f := newFixture(t, 0)
	if err := os.Remove(f.dir); err != nil {
		t.Fatal(err)
	}
	text := f.wantProblem(f.post("/demo/uploads/u", strings.NewReader("x")), http.StatusInternalServerError)
	all := f.until("upload_failed")
	if got := all[len(all)-1].ErrorMessage; got != text || got != "The server could not store the file." {
		t.Errorf("failed with %q, answered %q", got, text)
	}
}

func TestNew_ChecksOptions(t *testing.T) {
	m := &manager.Manager{}
	for want, o := range map[string]Options{
		"Options.Manager is nil":        {},
		"Options.MaxBytes is -1":        {Manager: m, MaxBytes: -1},
		"directory for temporary files": {Manager: m, Dir: "no/such"},
		"want a directory":              {Manager: m, Dir: "demo.go"},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New(%+v) returned %v, want %q", o, err, want)
		}
	}
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("%v is left in the directory for temporary files, %v", entries, err)
	}
}
