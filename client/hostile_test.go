package client_test

import (
	"bufio"
	"crypto/sha1" // required by RFC 6455
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/client"
	"github.com/shoal-go/shoal/internal/wsframe"
)

// script is a server's side of one connection after the upgrade.
type script func(conn net.Conn, frames *bufio.Reader)

// upgrade accepts an upgrade by hand and runs a script.
func upgrade(w http.ResponseWriter, r *http.Request, s script) {
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Protocol: shoal.v1\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	s(conn, rw.Reader)
}

// frame returns a server's frame.
func frame(first byte, payload string) []byte { return wsframe.Append(nil, first, []byte(payload)) }

func text(payload string) []byte { return frame(0x81, payload) }

// readFrame reads a client's frame of up to 64 KiB.
func readFrame(r *bufio.Reader) (string, error) {
	f, err := wsframe.Read(r, 1<<16)
	return string(f.Payload), err
}

// login answers the token and reads the subscription, if there is one.
func login(conn net.Conn, frames *bufio.Reader) error {
	if _, err := readFrame(frames); err != nil {
		return err
	}
	if _, err := conn.Write(text(`{"action":"auth_success","user_id":"ann"}`)); err != nil {
		return err
	}
	_, err := readFrame(frames)
	return err
}

const resumedAtZero = `{"action":"resumed","uploads":{"u":{"epoch":"e","offset":0,"recovered":false}}}`

// A violation of the protocol ends the loop with an error that names the problem, after few attempts and with bounded
// memory.
func TestHostile_Messages(t *testing.T) {
	huge := binary.BigEndian.AppendUint64([]byte{0x81, 127}, 1<<62)
	negative := append([]byte{0x81, 127}, 0x80, 0, 0, 0, 0, 0, 0, 1)
	for name, c := range map[string]struct {
		sent [][]byte
		want string
	}{
		"not JSON":          {[][]byte{text("hello")}, "a message of 5 bytes is not a JSON object"},
		"array":             {[][]byte{text("[1]")}, "not a JSON object"},
		"null":              {[][]byte{text("null")}, "not a JSON object"},
		"bad UTF-8":         {[][]byte{text("{\"action\":\"\xff\"}")}, "not a JSON object"},
		"no action":         {[][]byte{text(`{"Action":"ping"}`)}, "has no action"},
		"number as action":  {[][]byte{text(`{"action":1}`)}, `"action"`},
		"binary":            {[][]byte{frame(0x82, "{}")}, "is binary"},
		"deep":              {[][]byte{text(`{"action":` + strings.Repeat("[", 60_000) + `}`)}, "not a JSON object"},
		"huge frame":        {[][]byte{huge, make([]byte, 70_000)}, "more than 65536 bytes, the limit of Options.MaxMessageBytes"},
		"negative length":   {[][]byte{negative}, "negative"},
		"long message":      {[][]byte{text(`{"a":"` + strings.Repeat("x", 1<<16) + `"}`)}, "more than 65536 bytes"},
		"fragments":         {[][]byte{frame(0x01, strings.Repeat("x", 40_000)), frame(0x00, strings.Repeat("x", 40_000))}, "more than 65536 bytes"},
		"masked control":    {[][]byte{frame(0x89, strings.Repeat("x", 126))}, "invalid length"},
		"reserved bits":     {[][]byte{frame(0xF1, "{}")}, "rsv"},
		"unknown opcode":    {[][]byte{frame(0x83, "{}")}, "opcode"},
		"bad close":         {[][]byte{frame(0x88, "x")}, "close"},
		"offset text":       {[][]byte{text(resumedAtZero), text(`{"action":"a","upload_id":"u","offset":"1"}`)}, `"offset"`},
		"offset negative":   {[][]byte{text(resumedAtZero), text(`{"action":"a","upload_id":"u","offset":-1}`)}, `"offset"`},
		"offset fraction":   {[][]byte{text(resumedAtZero), text(`{"action":"a","upload_id":"u","offset":1.5}`)}, `"offset"`},
		"offset large":      {[][]byte{text(resumedAtZero), text(`{"action":"a","upload_id":"u","offset":18446744073709551616}`)}, `"offset"`},
		"skipped negative":  {[][]byte{text(`{"action":"a","skipped":-1}`)}, `"skipped"`},
		"offset of nothing": {[][]byte{text(`{"action":"a","offset":1}`)}, "names no upload"},
		"resumed array":     {[][]byte{text(`{"action":"resumed","uploads":[]}`)}, `"uploads"`},
		"no epoch":          {[][]byte{text(`{"action":"subscribed","upload_id":"u","offset":1,"recovered":true}`)}, "lacks epoch"},
		"long epoch": {[][]byte{text(`{"action":"subscribed","upload_id":"u","epoch":"` + strings.Repeat("e", 256) +
			`","offset":1,"recovered":true}`)}, "an epoch has 256 bytes"},
		"recovered nothing": {[][]byte{text(`{"action":"subscribed","upload_id":"u","epoch":"e","offset":1,"recovered":true}`)},
			"recovered from an offset that it does not have"},
		"bad request": {[][]byte{text(`{"action":"error","code":"bad_request","message":"so\u001b[31m bad"}`)}, "bad_request: so [31m bad"},
		"error ids":   {[][]byte{text(`{"action":"error","code":"internal","upload_ids":7}`)}, `"upload_ids"`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &place{t: t}
				p.serve(func(w http.ResponseWriter, r *http.Request) {
					upgrade(w, r, func(conn net.Conn, frames *bufio.Reader) {
						if login(conn, frames) != nil {
							return
						}
						for _, data := range c.sent {
							_, _ = conn.Write(data)
						}
						_, _ = io.Copy(io.Discard, frames)
					})
				})
				var seen states
				l := follow(t, p.client(seen.record, func(o *client.Options) {
					o.MaxMessageBytes, o.GiveUpAfter, o.IdleTimeout = 1<<16, time.Minute, 10*time.Second
				}), "u")
				<-time.After(time.Minute)
				synctest.Wait()
				// Violations of WebSocket itself may be those of a middle box, and are tried again without end.
				if !strings.HasSuffix(seen.String(), "stopped") {
					if reason := seen.last(); !strings.Contains(reason.Error(), c.want) {
						t.Fatalf("the reason is %v, want %q", reason, c.want)
					}
					return
				}
				_, err := l.next()
				if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 400 {
					t.Errorf("ended with %v, want %q", err, c.want)
				}
				if n := p.attempts(); n > 3 && !errors.Is(err, client.ErrUnreachable) {
					t.Errorf("%d attempts", n)
				}
			})
		})
	}
}

// last returns the reason of the last interruption.
func (s *states) last() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.all) - 1; i >= 0; i-- {
		if s.all[i].Err != nil {
			return s.all[i].Err
		}
	}
	return errors.New("none")
}

// Answers that are not an upgrade are final where the server is probably the wrong one, and retried where it is not.
func TestHostile_Upgrade(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		header string
		body   string
		want   error
		text   string
	}{
		"page":         {200, "", "<html>", client.ErrNotShoal, "<html> (HTTP status 200)"},
		"not found":    {404, "", "404 page not found", client.ErrNotShoal, "404"},
		"redirect":     {302, "", "", client.ErrNotShoal, "302"},
		"unauthorized": {401, "", "who?", client.ErrUnauthorized, "who?"},
		"forbidden":    {403, "", "\x1b[31mno\n", client.ErrForbidden, "[31mno (HTTP status 403)"},
		"draining":     {503, "3", "later", client.ErrUnreachable, "later"},
		"too many":     {429, "99999999999999", "slow", client.ErrUnreachable, "slow"},
		"slow proxy":   {408, "", "late", client.ErrUnreachable, "late"},
		"too early":    {425, "", "early", client.ErrUnreachable, "early"},
		"endless":      {500, "", strings.Repeat("x", 1<<20), client.ErrUnreachable, "xxx"},
		"no accept":    {101, "", "", client.ErrNotShoal, "cannot be used: failed to WebSocket dial: WebSocket protocol violation: invalid Sec-WebSocket-Accept"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &place{t: t}
				p.serve(func(w http.ResponseWriter, r *http.Request) {
					if c.header != "" {
						w.Header().Set("Retry-After", c.header)
					}
					if c.status == 302 {
						w.Header().Set("Location", "/elsewhere")
					}
					if r.URL.Path != "/ws/uploads" {
						t.Errorf("a redirect to %s was followed", r.URL)
					}
					if c.status == 101 {
						w.Header().Set("Connection", "Upgrade")
						w.Header().Set("Upgrade", "websocket")
					}
					w.WriteHeader(c.status)
					_, _ = io.WriteString(w, c.body)
				})
				l := follow(t, p.client(func(o *client.Options) { o.GiveUpAfter = time.Minute }), "u")
				err := l.wantEnd(c.want)
				if !strings.Contains(err.Error(), c.text) || len(err.Error()) > 450 {
					t.Errorf("ended with %v, want %q", err, c.text)
				}
			})
		})
	}
}

// A server without shoal.v1 is named as such.
func TestHostile_NoSubprotocol(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{t: t}
		p.serve(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Set("Sec-WebSocket-Protocol", "")
			sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
			w.Header().Set("Sec-WebSocket-Accept", base64.StdEncoding.EncodeToString(sum[:]))
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "websocket")
			w.WriteHeader(http.StatusSwitchingProtocols)
		})
		err := follow(t, p.client(), "u").wantEnd(client.ErrNotShoal)
		if !strings.Contains(err.Error(), "does not speak shoal.v1") {
			t.Errorf("ended with %v", err)
		}
	})
}

// A server that has been live may be away behind a load balancer that answers for it.
func TestHostile_LoadBalancerDuringDeploy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		l := follow(t, p.client(), "u")
		synctest.Wait()
		n := p.node
		n.publish(t, "u", 0)
		l.want(0)
		p.serve(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Connection", "close")
			http.NotFound(w, r)
		})
		p.cut()
		<-time.After(time.Minute)
		p.mu.Lock()
		p.listening = n.listener
		p.mu.Unlock()
		n.publish(t, "u", 1)
		l.want(1)
	})
}

// A server that floods a loop does not make the client hold more than its bounds.
func TestHostile_Flood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{t: t}
		p.serve(func(w http.ResponseWriter, r *http.Request) {
			upgrade(w, r, func(conn net.Conn, frames *bufio.Reader) {
				if login(conn, frames) != nil {
					return
				}
				_, _ = conn.Write(text(resumedAtZero))
				for n := 1; n < 3000; n++ {
					message := fmt.Sprintf(`{"action":"a","upload_id":"u","offset":%d,"x":%q}`, n, strings.Repeat("x", 1000))
					if _, err := conn.Write(text(message)); err != nil {
						return
					}
				}
				_, _ = io.Copy(io.Discard, frames)
			})
		})
		c := p.client(func(o *client.Options) { o.QueueMessages, o.QueueBytes = 100, 50_000 })
		l := follow(t, c, "u")
		<-time.After(time.Second)
		if held := client.HeldBytes(c); held > 50_000 {
			t.Errorf("%d bytes are queued", held)
		}
		if m, err := l.next(); err != nil || m.Offset != 1 || m.Epoch != "e" {
			t.Errorf("the first message is %+v, %v", m.Position, err)
		}
	})
}

// Messages that come in pieces of any size are one message each.
func TestHostile_PartialWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		p.wrap = func(c net.Conn) net.Conn { return dripping{c} }
		l := follow(t, p.client(), "u")
		synctest.Wait()
		for n := range 20 {
			p.node.publish(t, "u", n)
		}
		for n := range 20 {
			l.want(n)
		}
	})
}

// dripping delivers single bytes.
type dripping struct{ net.Conn }

func (d dripping) Read(p []byte) (int, error) { return d.Conn.Read(p[:min(len(p), 1)]) }
