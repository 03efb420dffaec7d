package demo

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func TestThePageNeedsNothingButWhatItServes(t *testing.T) {
	f := newFixture(t, 5<<20)
	res := f.get("/")
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("answered %d, %v", res.StatusCode, err)
	}
	page := string(body)
	if csp := res.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") {
		t.Errorf("the policy is %q", csp)
	}
	if !strings.Contains(page, `data-max-bytes="5242880"`) || !strings.Contains(page, "up to 5 MiB") {
		t.Error("the page does not say how large a file may be")
	}
	// Elements that the policy would block.
	for _, inline := range []string{`<style`, ` style=`, `<script>`, ` on[a-z]+=`, `https?://`} {
		if found := regexp.MustCompile(inline).FindString(page); found != "" {
			t.Errorf("the page contains %q", found)
		}
	}
	for _, link := range regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if res := f.get(link[1]); res.StatusCode != http.StatusOK {
			t.Errorf("%s is answered with %d", link[1], res.StatusCode)
		}
	}
}

func TestAssets(t *testing.T) {
	f := newFixture(t, 0)
	entries, err := files.ReadDir("page/assets")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		res := f.get("/demo/" + entry.Name())
		if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") == "" || res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s is answered with %d and %v", entry.Name(), res.StatusCode, res.Header)
		}
	}
	for _, path := range []string{"/demo/none.js", "/demo/index.html", "/demo/..%2Findex.html", "/demo/", "/other"} {
		if res := f.get(path); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s is answered with %d, want 404", path, res.StatusCode)
		}
	}
}

func TestNothingIsKnownOfOtherUploads(t *testing.T) {
	f := newFixture(t, 0)
	for _, path := range []string{"/demo/uploads/other", "/demo/uploads/other/thumbnail"} {
		if res := f.get(path); res.StatusCode != http.StatusNoContent {
			t.Errorf("%s is answered with %d, want 204", path, res.StatusCode)
		}
	}
}
