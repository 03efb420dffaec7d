package fuzz_test

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/manager"
)

// FuzzLastEventID requests a stream of one or two uploads from an arbitrary id. The answer is a stream whose events
// have nothing but the fields of the protocol and whose ids the server accepts again, or a problem that says which
// field is wrong; nothing of the connection is left.
func FuzzLastEventID(f *testing.F) {
	s := start(f)
	for _, id := range []string{"open1", "open2"} {
		e, err := manager.Parse(id, []byte("{\"action\":\"note\",\r\n\"n\":1}"), time.Now())
		if err != nil {
			f.Fatal(err)
		}
		pos, err := s.manager.Publish(f.Context(), id, e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(pos.Epoch+":0", false)
		f.Add(pos.Epoch+":1", false)
	}
	for _, seed := range []string{
		"", ":", "e:1", "e:18446744073709551615", "e:18446744073709551616", "e:-1", "e:+1", "%00:1", "%zz:1", "a%0Ad:1",
		"AAAAAAAA=e:1", "AAAAAAAA=e:1,AAAAAAAA=e:2", "A=e:1", "AAAAAAAA=e:1,", "e\r\nid: x:1", "\x00:1", "é:1",
		strings.Repeat("e", 64) + ":1", strings.Repeat("e", 65) + ":1", strings.Repeat("AAAAAAAA=e:1,", 700),
	} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, last string, two bool) {
		if len(last) > 16<<10 {
			return // the header of the request would be too long
		}
		path := "/events/uploads?id=open1"
		uploads := 1
		if two {
			path, uploads = path+"&id=open2", 2
		}
		next := s.follow(t, path, last, uploads)
		if next != "" && s.follow(t, path, next, uploads) == "" {
			t.Fatalf("the id %q of an event is refused", next)
		}
		s.nothingLeft(t)
	})
}

// follow requests a stream and checks its events up to the acknowledgements. It returns the last id, or "" if the
// request was refused.
func (s *target) follow(t *testing.T, path, last string, uploads int) (id string) {
	t.Helper()
	conn := s.dial(t)
	defer func() { _ = conn.Close() }()
	request := "GET " + path + "&last_event_id=" + url.QueryEscape(last) + " HTTP/1.1\r\nHost: s\r\n" +
		"Authorization: Bearer user-ann\r\n\r\n"
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode == http.StatusBadRequest {
		var problem struct{ Field string }
		if err := json.NewDecoder(response.Body).Decode(&problem); err != nil || problem.Field != "last_event_id" {
			t.Fatalf("refused because of %q (%v)", problem.Field, err)
		}
		return ""
	}
	if response.StatusCode != http.StatusOK {
		t.Fatalf("answered with %s", response.Status)
	}
	lines := bufio.NewScanner(response.Body)
	for uploads > 0 && lines.Scan() {
		name, value, found := strings.Cut(lines.Text(), ": ")
		switch {
		case name == "id":
			id = value
		case name == "data" && strings.Contains(value, `"action":"subscribed"`):
			uploads--
		case lines.Text() != "" && lines.Text() != ":" && (!found || name != "data" && name != "retry"):
			t.Fatalf("line %q in a stream", lines.Text())
		}
	}
	if uploads > 0 || id == "" {
		t.Fatalf("the stream ended without %d acknowledgements, with the id %q", uploads, id)
	}
	return id
}
