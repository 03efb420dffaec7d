package main

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/shoal-go/shoal/examples/internal/try"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A session gets its own uploads only, and logging out closes its connections.
func TestCookies(t *testing.T) {
	ln := try.Listen(t)
	stop := try.Run(t, func(ctx context.Context) error { return run(ctx, ln) })
	host := ln.Addr().String()
	if _, status := try.DialStatus(t, host+"/live", nil); status != http.StatusUnauthorized {
		t.Errorf("without a session: %d", status)
	}
	login := func(user string) http.Header {
		answer, err := http.Post("http://"+host+"/login", "application/x-www-form-urlencoded", strings.NewReader("user="+user))
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		return http.Header{"Cookie": {answer.Cookies()[0].String()}}
	}
	post := func(path string, header http.Header) int {
		request, err := http.NewRequest(http.MethodPost, "http://"+host+path, http.NoBody)
		request.Header = header
		return try.Do(t, request, err)
	}
	ann, bob := login("ann"), login("bob")
	if status := post("/uploads/cat", ann); status != http.StatusOK {
		t.Errorf("uploading: %d", status)
	}
	c := try.Dial(t, host+"/live", ann)
	c.Subscribe("cat")
	if m := c.Want("upload_completed"); m["upload_id"] != "cat" {
		t.Errorf("received %v", m)
	}
	other := try.Dial(t, host+"/live", bob)
	other.Send(`{"action":"subscribe_upload","upload_id":"cat"}`)
	if m := other.Next(); m["code"] != "forbidden" {
		t.Errorf("bob received %v", m)
	}
	if status := post("/logout", ann); status != http.StatusOK {
		t.Errorf("logging out: %d", status)
	}
	c.WantClose(4003)
	if _, status := try.DialStatus(t, host+"/live", ann); status != http.StatusUnauthorized {
		t.Errorf("after logging out: %d", status)
	}
	go stop()
	other.Want("reconnect")
	other.WantClose(1012)
	stop()
}
