package dashboard

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/shoal-go/shoal/server"
)

// hostile is an id that would be dangerous as markup.
const hostile = `<img src=x onerror="alert(1)">`

// Details need access, and are JSON that no browser takes for markup.
func TestDetails_NeedAccess(t *testing.T) {
	wrong := []string{"Authorization", "Bearer wrong"}
	login := []string{"Authorization", "Basic YW5uOnNlY3JldA=="} // for a proxy, which passes it on
	for _, c := range []struct {
		trusted bool
		headers []string
		status  int
	}{
		{false, nil, http.StatusForbidden}, {true, nil, http.StatusOK}, {false, withKey, http.StatusOK},
		{false, wrong, http.StatusUnauthorized}, {true, wrong, http.StatusUnauthorized},
		{false, login, http.StatusForbidden}, {true, login, http.StatusOK},
	} {
		f := start(t, c.trusted)
		client := f.dial(f.public+"/ws/uploads", "ann")
		client.follow("a")
		client.until(action("subscribed"))
		f.publish("a", `{"action":"note","text":"secret"}`)
		for _, path := range []string{"/data/upload?id=a", "/data/user?id=ann"} {
			response, body := f.call(http.MethodGet, Path+path, "", c.headers...)
			if response.StatusCode != c.status {
				t.Errorf("trusted %v, headers %v: %s is answered with %d", c.trusted, c.headers, path, response.StatusCode)
			}
			shows := strings.Contains(body, "secret") || strings.Contains(body, `"uploads":["a"]`)
			if shows != (c.status == http.StatusOK) {
				t.Errorf("trusted %v, headers %v: %s is answered with %s", c.trusted, c.headers, path, body)
			}
			if response.Header.Get("X-Content-Type-Options") != "nosniff" || response.Header.Get("Cache-Control") != "no-store" ||
				!strings.HasPrefix(response.Header.Get("Content-Type"), "application/") {
				t.Errorf("the header is %v", response.Header)
			}
		}
	}
}

// A key that the API does not accept is refused as the API refuses it: a page keeps its key unless it is wrong.
func TestAccess_RefusesAsTheAPI(t *testing.T) {
	hook := func(err error) server.Options {
		return server.Options{AuthorizeAPI: func(*http.Request) error { return err }}
	}
	for _, c := range []struct {
		name    string
		options server.Options
		status  int
		header  string
		value   string
	}{
		{"a wrong key", server.Options{APIKeys: []string{"another"}}, 401, "WWW-Authenticate", `Bearer realm="shoal", error="invalid_token"`},
		{"no keys", server.Options{}, 403, "WWW-Authenticate", ""},
		{"a refused token", hook(&server.TokenError{Message: "no such key"}), 401, "WWW-Authenticate", `Bearer realm="shoal", error="invalid_token"`},
		{"a forbidden caller", hook(server.ErrForbidden), 403, "WWW-Authenticate", ""},
		{"a hook that fails", hook(errors.New("the database is away")), 503, "Retry-After", "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startWith(t, true, c.options)
			for _, path := range []string{"/token", "/data/upload?id=a", "/data/user?id=a"} {
				response, body := f.call(http.MethodGet, Path+path, "", withKey...)
				h := response.Header
				if response.StatusCode != c.status || h.Get(c.header) != c.value {
					t.Errorf("%s is answered with %d, %s %q; want %d, %q", path, response.StatusCode, c.header, h.Get(c.header), c.status, c.value)
				}
				if h.Get("Content-Type") != "application/problem+json" || h.Get("X-Content-Type-Options") != "nosniff" ||
					h.Get("Cross-Origin-Resource-Policy") != "same-origin" || h.Get("Cache-Control") != "no-store" ||
					strings.Contains(body, "database") || strings.Contains(body, "server: ") {
					t.Errorf("%s is answered with %v %s", path, h, body)
				}
			}
		})
	}
}

// Lists and texts are bounded, and hostile ids come through unchanged.
func TestDetails_AreBounded(t *testing.T) {
	f := start(t, true)
	for i := range maxMessages + 3 {
		f.publish(hostile, fmt.Sprintf(`{"action":"note","n":%d,"text":%q}`, i, strings.Repeat("é", maxShownBytes)))
	}
	client := f.dial(f.public+"/ws/uploads", "ann")
	quoted, err := json.Marshal(hostile)
	if err != nil {
		t.Fatal(err)
	}
	client.send(`{"action":"subscribe_upload","upload_id":` + string(quoted) + `}`)
	client.until(action("subscribed"))
	response, body := f.call(http.MethodGet, Path+"/data/upload?id="+url.QueryEscape(hostile), "")
	var found uploadDetails
	if err := json.Unmarshal([]byte(body), &found); err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%d %v", response.StatusCode, err)
	}
	if strings.Contains(body, "<img") {
		t.Error("the answer contains markup")
	}
	if found.ID != hostile || found.Stored != maxMessages+3 || len(found.Messages) != maxMessages || found.Here != 1 ||
		found.Count != 1 || found.Followers[0] != "ann" || found.Messages[0].Offset != maxMessages+3 {
		t.Errorf("found %d of %d messages of %q, followers %v", len(found.Messages), found.Stored, found.ID, found.Followers)
	}
	if m := found.Messages[0]; len(m.Text) > maxShownBytes || m.Bytes <= maxShownBytes || strings.Contains(m.Text, "\ufffd") {
		t.Errorf("%d bytes of %d are shown", len(m.Text), m.Bytes)
	}
	for _, id := range []string{"", strings.Repeat("x", 256), "a%00b"} {
		if response, _ := f.call(http.MethodGet, Path+"/data/user?id="+id, ""); response.StatusCode != http.StatusUnprocessableEntity {
			t.Errorf("the id %q is answered with %d", id, response.StatusCode)
		}
	}
}

func TestDetails_BoundReaders(t *testing.T) {
	f := start(t, true)
	for range maxReading {
		f.dashboard.reading <- struct{}{}
	}
	if response, _ := f.call(http.MethodGet, Path+"/data/user?id=a", ""); response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one more reader is answered with %d", response.StatusCode)
	}
	<-f.dashboard.reading
	if response, _ := f.call(http.MethodGet, Path+"/data/user?id=a", ""); response.StatusCode != http.StatusOK {
		t.Errorf("a reader is answered with %d", response.StatusCode)
	}
}

// Actions are those of the HTTP API with its checks, also where reading is free, and not for pages of other sites.
func TestActions_NeedTheKey(t *testing.T) {
	f := start(t, true)
	client := f.dial(f.public+"/ws/uploads", "ann")
	client.follow("a")
	client.until(action("subscribed"))
	const message = `{"action":"note","by":"hand"}`
	publish := func(headers ...string) int {
		response, _ := f.call(http.MethodPost, Path+"/data/upload?id=a", message, headers...)
		return response.StatusCode
	}
	json := []string{"Content-Type", "application/json"}
	if status := publish(json...); status != http.StatusUnauthorized {
		t.Errorf("publishing without a key is answered with %d", status)
	}
	if status := publish(append(json, "Authorization", "Bearer wrong")...); status != http.StatusUnauthorized {
		t.Errorf("publishing with a wrong key is answered with %d", status)
	}
	if status := publish(append(withKey, "Sec-Fetch-Site", "cross-site")...); status != http.StatusForbidden {
		t.Errorf("publishing from another site is answered with %d", status)
	}
	if f.manager.Stats().Published != 0 {
		t.Error("a refused message was published")
	}
	if status := publish(withKey...); status != http.StatusAccepted {
		t.Errorf("publishing with the key is answered with %d", status)
	}
	client.until(action("note"))
	if response, _ := f.call(http.MethodDelete, Path+"/data/user?id=ann", ""); response.StatusCode != http.StatusUnauthorized {
		t.Errorf("disconnecting without a key is answered with %d", response.StatusCode)
	}
	response, body := f.call(http.MethodDelete, Path+"/data/user?id=ann", "", withKey...)
	if response.StatusCode != http.StatusAccepted || !strings.Contains(body, `"closed":1`) {
		t.Errorf("disconnecting is answered with %d %s", response.StatusCode, body)
	}
}

// Ids that a browser would resolve in a path, or that look like parts of an address, reach the endpoint as they are.
func TestActions_TakeAnyID(t *testing.T) {
	f := start(t, true)
	for _, id := range []string{".", "..", "%2e", "/", "a/../b", "?", "#", "a&id=b", "ü", " "} {
		client := f.dial(f.public+"/ws/uploads", id)
		client.follow(id)
		client.until(action("subscribed"))
		query := "?id=" + url.QueryEscape(id)
		response, body := f.call(http.MethodPost, Path+"/data/upload"+query, `{"action":"note"}`,
			append(withKey, "Content-Type", "application/json")...)
		if response.StatusCode != http.StatusAccepted {
			t.Fatalf("publishing to %q is answered with %d %s", id, response.StatusCode, body)
		}
		client.until(action("note"))
		response, body = f.call(http.MethodDelete, Path+"/data/user"+query, "", withKey...)
		if response.StatusCode != http.StatusAccepted || !strings.Contains(body, `"closed":1`) {
			t.Errorf("disconnecting %q is answered with %d %s", id, response.StatusCode, body)
		}
	}
	for _, query := range []string{"", "?id=", "?id=%00", "?id=" + strings.Repeat("x", 256)} {
		response, _ := f.call(http.MethodDelete, Path+"/data/user"+query, "", withKey...)
		if response.StatusCode != http.StatusUnprocessableEntity && response.StatusCode != http.StatusBadRequest {
			t.Errorf("%q is answered with %d", query, response.StatusCode)
		}
	}
}

// A page keeps its user when it renews its token, unless its access has changed.
func TestToken_KeepsTheViewer(t *testing.T) {
	f := start(t, false)
	r := func(query string) *http.Request {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "/token?"+query, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		return request
	}
	same := "viewer=" + strings.Repeat("ab", viewerBytes)
	if a, b := viewerID(r(same), access{}), viewerID(r(same), access{}); a != b || a == viewerID(r(same), access{reads: true}) {
		t.Errorf("the ids are %q and %q", a, b)
	}
	for _, bad := range []string{"", "viewer=zz", "viewer=abab"} {
		if a, b := viewerID(r(bad), access{}), viewerID(r(bad), access{}); a == b {
			t.Errorf("%q gives the same id twice: %s", bad, a)
		}
	}
	response, body := f.call(http.MethodGet, Path+"/token", "", "Authorization", "Bearer wrong")
	if response.StatusCode != http.StatusUnauthorized || !strings.Contains(body, `"detail":"the API key is not`) {
		t.Errorf("a wrong key is answered with %d %s", response.StatusCode, body)
	}
}
