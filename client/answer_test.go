package client_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/client"
)

// scripted is a server that sends the messages of one script after the subscriptions of each connection, and then reads
// to the end.
type scripted struct {
	mu      sync.Mutex
	scripts [][]string
	read    []string // the client's messages after its token
	conn    net.Conn // the newest one
}

// serveScripts answers the first connection by the first script, and so on.
func (p *place) serveScripts(scripts ...[]string) *scripted {
	s := &scripted{scripts: scripts}
	p.serve(func(w http.ResponseWriter, r *http.Request) { upgrade(w, r, s.run) })
	return s
}

func (s *scripted) run(conn net.Conn, frames *bufio.Reader) {
	if _, err := readFrame(frames); err != nil {
		return
	}
	s.mu.Lock()
	s.conn = conn
	s.mu.Unlock()
	s.send(`{"action":"auth_success","user_id":"ann"}`)
	for first := true; ; first = false {
		message, err := readFrame(frames)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.read = append(s.read, message)
		var script []string
		if first && len(s.scripts) > 0 {
			script, s.scripts = s.scripts[0], s.scripts[1:]
		}
		s.mu.Unlock()
		for _, message := range script {
			s.send(message)
		}
	}
}

// send sends a message on the newest connection.
func (s *scripted) send(message string) {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	_, _ = conn.Write(text(message))
}

func (s *scripted) messages() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read
}

func resumedAt(offset int, more string) string {
	return fmt.Sprintf(`{"action":"resumed","uploads":{"u":{"epoch":"e","offset":%d,%s}}}`, offset, more)
}

func noteAt(offset int) string {
	return fmt.Sprintf(`{"action":"note","n":%d,"offset":%d,"upload_id":"u"}`, offset, offset)
}

// An upload whose newest message the server no longer holds is continued after the position of the answer; one whose
// newest message has not come yet, or of a server that does not tell, just before it.
func TestAnswer_PositionWithoutNewestMessage(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		from   int
	}{
		"expired":  {resumedAt(3, `"recovered":false,"expired":true`), 3},
		"expected": {resumedAt(3, `"recovered":false`), 2},
		"held":     {resumedAt(3, `"recovered":false,"expired":false`), 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &place{t: t}
				second := []string{resumedAt(5, `"recovered":true`)}
				for offset := c.from + 1; offset <= 5; offset++ {
					second = append(second, noteAt(offset))
				}
				s := p.serveScripts([]string{c.answer}, second)
				l := follow(t, p.client(), "u")
				synctest.Wait()
				p.cut()
				for offset := c.from + 1; offset <= 5; offset++ {
					l.want(offset)
				}
				want := fmt.Sprintf(`{"action":"resume","uploads":{"u":{"epoch":"e","offset":%d}}}`, c.from)
				if read := s.messages(); len(read) != 2 || read[1] != want {
					t.Errorf("the client sent %q, want %s at last", read, want)
				}
			})
		})
	}
}

// A newest message that has expired before it came is lost.
func TestAnswer_ExpiredWhileExpectedIsGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{t: t}
		p.serveScripts([]string{resumedAt(3, `"recovered":false`)},
			[]string{resumedAt(3, `"recovered":false,"expired":true`), noteAt(4)})
		l := follow(t, p.client(), "u")
		synctest.Wait()
		p.cut()
		if gap := l.wantGap(); gap.Last.Offset != 2 || gap.Now.Offset != 3 {
			t.Errorf("the gap is %+v", gap)
		}
		l.want(4)
	})
}

// A limit that names no upload ends the loops whose subscriptions wait for an answer, and nothing else.
func TestAnswer_UnnamedLimitEndsUnansweredUploads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{t: t}
		const limit = `{"action":"error","code":"limit_exceeded","message":"enough"}`
		s := p.serveScripts([]string{resumedAt(1, `"recovered":false`), noteAt(1)})
		c := p.client()
		good := follow(t, c, "u")
		good.want(1)
		bad := follow(t, c, "v")
		synctest.Wait()
		s.send(limit)
		if err := bad.wantEnd(client.ErrLimit); !strings.Contains(err.Error(), `upload "v": enough`) {
			t.Errorf("ended with %v", err)
		}
		s.send(limit) // nothing waits for an answer
		s.send(noteAt(2))
		good.want(2)
		if n := p.attempts(); n != 1 {
			t.Errorf("%d connections, want 1", n)
		}
	})
}

// However often the server mentions an upload whose subscription failed, it is repeated once, and an answer in between
// cancels that.
func TestAnswer_RetriesEachUploadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{t: t}
		s := p.serveScripts()
		l := follow(t, p.client(func(o *client.Options) { o.IdleTimeout = time.Hour }), "u") // no ping in between
		synctest.Wait()
		before := runtime.NumGoroutine()
		many := `{"action":"error","code":"internal","message":"m","retry_after_ms":60000,"upload_ids":[` +
			strings.Repeat(`"u",`, 10_000) + `"u"]}`
		s.send(many)
		s.send(many)
		synctest.Wait()
		if n := runtime.NumGoroutine(); n > before+1 {
			t.Errorf("%d goroutines instead of %d", n, before)
		}
		<-time.After(59 * time.Second)
		if n := len(s.messages()); n != 1 {
			t.Errorf("the client sent %d subscriptions before the delay, want 1", n)
		}
		<-time.After(2 * time.Second)
		if n := len(s.messages()); n != 2 {
			t.Errorf("the client sent %d subscriptions after the delay, want 2", n)
		}

		s.send(many)
		s.send(resumedAt(1, `"recovered":false`))
		s.send(noteAt(1))
		l.want(1)
		<-time.After(2 * time.Minute)
		s.send(noteAt(2))
		l.want(2)
		if n := len(s.messages()); n != 2 {
			t.Errorf("the client sent %d messages, want none after the answer", n)
		}
	})
}

// The delay of one upload does not hide that another subscription is unanswered.
func TestAnswer_RetryDoesNotHideUnansweredUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &place{t: t}
		s := p.serveScripts()
		c := p.client()
		follow(t, c, "u")
		follow(t, c, "v")
		synctest.Wait()
		s.send(`{"action":"error","code":"internal","message":"m","retry_after_ms":300000,"upload_id":"u"}`)
		for range 10 { // signs of life
			<-time.After(10 * time.Second)
			s.send(`{"action":"ping"}`)
		}
		if n := p.attempts(); n < 2 {
			t.Errorf("%d connections: the client waits for an answer still", n)
		}
	})
}
