package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/client"
)

// Messages of any form are published in order, to an upload with any id.
func TestPublish_ReachesFollowers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		c := p.client()
		const id = `a/b ü?%2F"`
		l := follow(t, c, id)
		synctest.Wait()
		at, err := c.Publish(t.Context(), id,
			[]byte("{\"action\":\"note\",\n\t\"n\":1}"), json.RawMessage(`{"action":"note","n":2}`),
			struct {
				Action string `json:"action"`
				N      int    `json:"n"`
			}{"note", 3})
		if err != nil || at.Offset != 3 || at.Epoch == "" {
			t.Fatalf("published at %+v, %v", at, err)
		}
		l.want(1, 2, 3)
	})
}

// None of the messages is published if one is invalid, and the error names it.
func TestPublish_RefusesInvalidMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		c := p.client()
		_, err := c.Publish(t.Context(), "u", []byte(`{"action":"note"}`), []byte(`{"n":1}`))
		var refused *client.APIError
		if !errors.As(err, &refused) || refused.Line != 2 || refused.Status != 400 || refused.Field != "action" {
			t.Errorf("refused with %v, %+v", err, refused)
		}
		if n := p.node.manager.Stats().Uploads; n != 0 {
			t.Errorf("%d uploads have messages", n)
		}
		for want, call := range map[string]func() error{
			"no message":                  func() error { _, err := c.Publish(t.Context(), "u"); return err },
			"message 1 cannot be encoded": func() error { _, err := c.Publish(t.Context(), "u", make(chan int)); return err },
			"message 2 cannot be encoded": func() error { _, err := c.Publish(t.Context(), "u", "x", []byte(" ")); return err },
			"unexpected end":              func() error { _, err := c.Publish(t.Context(), "u", []byte("{\n")); return err },
			"not valid":                   func() error { _, err := c.Publish(t.Context(), "", 1); return err },
			"cannot be part of a URL":     func() error { _, err := c.Publish(t.Context(), "..", 1); return err },
			"APIKey is empty": func() error {
				c := p.client(func(o *client.Options) { o.APIKey = "" })
				_, err := c.Publish(t.Context(), "u", 1)
				return err
			},
			"the API key is not one of those": func() error {
				c := p.client(func(o *client.Options) { o.APIKey = "x" })
				_, err := c.Publish(t.Context(), "u", 1)
				return err
			},
		} {
			if err := call(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
		_ = c.Close()
		if _, err := c.Publish(t.Context(), "u", 1); !errors.Is(err, client.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// A server that is away for a while gets the messages when it is back, and one that stays away is given up.
func TestPublish_TriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		c := p.client()
		p.drain()
		var published sync.WaitGroup
		published.Go(func() {
			if at, err := c.Publish(t.Context(), "u", []byte(`{"action":"note","n":1}`)); err != nil || at.Offset != 1 {
				t.Errorf("published at %+v, %v", at, err)
			}
		})
		<-time.After(20 * time.Second)
		n := p.start()
		published.Wait()
		p.drain()
		began := time.Now()
		_, err := c.Publish(t.Context(), "u", []byte(`{"action":"note","n":2}`))
		if took := time.Since(began); !errors.Is(err, client.ErrUnreachable) || !errors.Is(err, errRefused) || took != 30*time.Second {
			t.Errorf("given up after %v: %v", took, err)
		}
		var late *client.UnreachableError
		if !errors.As(err, &late) || late.After != 30*time.Second || late.Published != 0 {
			t.Errorf("given up with %+v", late)
		}
		once := p.client(func(o *client.Options) { o.PublishTimeout = -1 })
		began = time.Now()
		if _, err := once.Publish(t.Context(), "u", 1); !errors.Is(err, client.ErrUnreachable) || time.Since(began) != 0 {
			t.Errorf("after one attempt: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Publish(ctx, "u", 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("after the end of ctx: %v", err)
		}
		_ = n
	})
}

// The attempts of one call have one body and one idempotency key. Without keys, messages that are known to be published
// are not sent again.
func TestPublish_RepeatsExactly(t *testing.T) {
	for name, c := range map[string]struct {
		keyless bool
		want    string
	}{
		"keys":    {false, "[1 2 3 1 2 3 1 2 3 1 2 3]"},
		"no keys": {true, "[1 2 3 1 2 3 2 3 2 3]"},
	} {
		t.Run(name, func(t *testing.T) { testRepetitions(t, c.keyless, c.want) })
	}
}

func testRepetitions(t *testing.T, keyless bool, want string) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{t: t}
		var requests []string
		keys := map[string]bool{}
		p.serve(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if keyless && r.Header.Get("Idempotency-Key") != "" {
				w.WriteHeader(http.StatusNotImplemented)
				fmt.Fprint(w, `{"detail":"Idempotency-Key is not supported by the broker of this server"}`)
				return
			}
			requests = append(requests, strings.Join(strings.Fields(string(body)), " "))
			keys[r.Header.Get("Idempotency-Key")] = true
			switch len(requests) {
			case 1:
				w.Header().Set("Retry-After", "7")
				w.WriteHeader(503)
			case 2:
				w.WriteHeader(503)
				fmt.Fprint(w, `{"detail":"line 2: the broker is out of reach","line":2}`)
			case 3:
				conn, _, _ := w.(http.Hijacker).Hijack()
				_ = conn.Close()
			default:
				w.WriteHeader(202)
				fmt.Fprintf(w, `{"accepted":%d,"epoch":"e","offset":9}`, len(strings.Fields(string(body))))
			}
		})
		began := time.Now()
		at, err := p.client().Publish(t.Context(), "u", 1, 2, 3)
		if err != nil || at != (client.Position{Epoch: "e", Offset: 9}) {
			t.Errorf("published at %+v, %v", at, err)
		}
		if fmt.Sprint(requests) != want || len(keys) != 1 || time.Since(began) < 7*time.Second {
			t.Errorf("requests %q with %d keys within %v", requests, len(keys), time.Since(began))
		}
	})
}

// A proxy in front may answer for a while, with a status that asks for a repetition.
func TestPublish_RepeatsTemporaryStatuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{t: t}
		answers := []int{408, 425, 429, 502, 503, 504}
		p.serve(func(w http.ResponseWriter, _ *http.Request) {
			if len(answers) == 0 {
				w.WriteHeader(202)
				fmt.Fprint(w, `{"accepted":1,"epoch":"e","offset":9}`)
				return
			}
			http.Error(w, "later", answers[0])
			answers = answers[1:]
		})
		if at, err := p.client().Publish(t.Context(), "u", 1); err != nil || at.Offset != 9 {
			t.Errorf("published at %+v, %v, with %v left", at, err, answers)
		}
	})
}

// Answers that are not those of a Shoal server are errors with a bounded text.
func TestPublish_StrangeAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   string
	}{
		"page":      {200, "<html>", "the server answered 200 OK"},
		"accepted":  {202, "", "not that of a shoal server"},
		"miscount":  {202, `{"accepted":2,"epoch":"e","offset":1}`, "not that of a shoal server"},
		"hostile":   {400, `{"detail":"a\n\u001b[31mb","line":-5}`, "a  [31mb (HTTP status 400)"},
		"endless":   {500, strings.Repeat("x", 10<<20), "500 Internal Server Error"},
		"not found": {404, "no", "404 Not Found"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &place{t: t}
				p.serve(func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(c.status)
					_, _ = io.WriteString(w, c.body)
				})
				_, err := p.client().Publish(t.Context(), "u", 1)
				var refused *client.APIError
				if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.want) || refused.Line != 0 {
					t.Errorf("refused with %v", err)
				}
			})
		})
	}
}

// A message whose answer is lost is published once.
func TestPublish_LostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		p.wrap = func(c net.Conn) net.Conn {
			if p.dials > 1 {
				return c
			}
			return deaf{c}
		}
		at, err := p.client().Publish(t.Context(), "u", []byte(`{"action":"note","n":1}`))
		if err != nil || at.Offset != 1 || p.attempts() != 2 {
			t.Errorf("published at %+v after %d attempts: %v", at, p.attempts(), err)
		}
	})
}

// deaf is a connection that breaks when the answer comes.
type deaf struct{ net.Conn }

func (d deaf) Read(p []byte) (int, error) {
	if n, err := d.Conn.Read(p); err != nil {
		return n, err
	}
	_ = d.Conn.Close()
	return 0, io.ErrUnexpectedEOF
}
