package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/client"
	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// A loop gets the newest message and then all later ones, in order and once.
func TestFollow_NewestThenAllInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		p.node.publish(t, "u", 1, 2)
		l := follow(t, p.client(), "u")
		l.want(2)
		p.node.publish(t, "u", 3, 4, 5)
		l.want(3, 4, 5)
	})
}

// The subscriptions of a client that returns fit the smallest limit of messages that shoal serve accepts, whatever
// characters the ids have.
func TestFollow_ResumesWithinTheLimitOfMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limited := func(_ *manager.Options, o *server.Options) { o.MaxClientMessageBytes = 32 << 10 }
		p := newPlace(t, limited)
		c := p.client()
		var loops []*loop
		for i := range 40 {
			loops = append(loops, follow(t, c, fmt.Sprintf("%s%05d", strings.Repeat("<", 250), i)))
		}
		synctest.Wait()
		p.drain()
		n := p.start(limited)
		synctest.Wait()
		for i, l := range loops {
			n.publish(t, fmt.Sprintf("%s%05d", strings.Repeat("<", 250), i), 1)
			_ = l.wantGap()
			l.want(1)
		}
	})
}

// A later loop over the same upload begins with the newest message too, and needs no connection of its own.
func TestFollow_LaterLoopBeginsWithNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		c := p.client()
		first := follow(t, c, "u")
		synctest.Wait()
		p.node.publish(t, "u", 1, 2)
		first.want(1, 2)
		second := follow(t, c, "u")
		second.want(2)
		p.node.publish(t, "u", 3)
		first.want(3)
		second.want(3)
		first.stop()
		p.node.publish(t, "u", 4)
		second.want(4)
		if n := p.attempts(); n != 1 {
			t.Errorf("%d connections, want 1", n)
		}
	})
}

// The last loop over an upload ends its subscription.
func TestFollow_LastLoopUnsubscribes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		c := p.client()
		first, second := follow(t, c, "u"), follow(t, c, "u")
		synctest.Wait()
		for _, l := range []*loop{first, second} {
			if n := p.node.manager.Stats().Subscriptions; n != 1 {
				t.Errorf("%d subscriptions, want 1", n)
			}
			l.stop()
			synctest.Wait()
		}
		if n := p.node.manager.Stats().Subscriptions; n != 0 {
			t.Errorf("%d subscriptions are left", n)
		}
		third := follow(t, c, "u")
		synctest.Wait()
		p.node.publish(t, "u", 7)
		third.want(7)
	})
}

// After a broken connection the loop continues after its last message.
func TestFollow_RecoversAfterCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		l := follow(t, p.client(), "u")
		synctest.Wait()
		next := 0
		for range 20 {
			p.node.publish(t, "u", next, next+1)
			p.cut()
			p.node.publish(t, "u", next+2)
			l.want(next, next+1, next+2)
			next += 3
			<-time.After(10 * time.Second)
		}
	})
}

// A subscription that has had no message yet misses no message of an interruption.
func TestFollow_RecoversBeforeFirstMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		l := follow(t, p.client(), "u")
		synctest.Wait()
		p.cut()
		p.node.publish(t, "u", 1, 2, 3)
		l.want(1, 2, 3)
	})
}

// Messages that the history no longer has are reported, once, before the newest message.
func TestFollow_ReportsGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, func(o *manager.Options, _ *server.Options) { o.HistoryMessages = 2 })
		c := p.client()
		l := follow(t, c, "u")
		synctest.Wait()
		p.node.publish(t, "u", 1)
		l.want(1)
		p.cut()
		p.node.publish(t, "u", 2, 3, 4, 5)
		gap := l.wantGap()
		if gap.UploadID != "u" || gap.Last.Offset != 1 || gap.Now.Offset != 5 || !strings.Contains(gap.Error(), "offset 1") {
			t.Errorf("the gap is %+v: %v", gap, gap)
		}
		l.want(5)
		p.node.publish(t, "u", 6)
		l.want(6)
	})
}

// A server that has lost its memory has another epoch. The loop continues there, through a drain and a kill.
func TestFollow_SurvivesRestarts(t *testing.T) {
	for name, end := range map[string]func(*place){"drain": (*place).drain, "kill": (*place).kill} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlace(t)
				l := follow(t, p.client(), "u")
				synctest.Wait()
				p.node.publish(t, "u", 1)
				l.want(1)
				end(p)
				<-time.After(20 * time.Second)
				n := p.start()
				n.publish(t, "u", 2, 3)
				_ = l.wantGap()
				l.want(3)
				n.publish(t, "u", 4)
				l.want(4)
			})
		})
	}
}

// An upload that is begun again has a new epoch, which live loops learn of at once.
func TestFollow_ContinuesForgottenUpload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		l := follow(t, p.client(), "u")
		synctest.Wait()
		p.node.publish(t, "u", 1)
		l.want(1)
		if err := p.node.manager.Forget(t.Context(), "u"); err != nil {
			t.Fatal(err)
		}
		_ = l.wantGap()
		p.node.publish(t, "u", 2)
		l.want(2)
	})
}

// A loop that does not take its messages does not hold up others, holds a bounded number of them, and gets all events in
// the end.
func TestFollow_SlowLoopLosesNoEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		c := p.client(func(o *client.Options) { o.QueueMessages = 8 })
		slow, fast := follow(t, c, "u"), follow(t, c, "u")
		other := follow(t, c, "v")
		synctest.Wait()
		for n := range 300 {
			p.node.publish(t, "u", n)
			p.node.publish(t, "v", n)
			fast.want(n)
			other.want(n)
		}
		for n := range 300 {
			slow.want(n)
		}
		p.node.publish(t, "u", 300)
		slow.want(300)
		fast.want(300)
	})
}

// While a loop is slow, newer states replace older ones, in their order among events.
func TestFollow_SlowLoopConflatesStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		c := p.client(func(o *client.Options) { o.QueueMessages = 4 })
		l := follow(t, c, "u")
		synctest.Wait()
		progress := func(percent int) {
			p.node.publishJSON(t, "u", fmt.Sprintf(`{"action":"upload_progress","payload":{"status":"analyzing",`+
				`"stage":"vision_analysis","progress_percent":%d,"message":""}}`, percent))
			synctest.Wait()
		}
		for percent := range 50 {
			progress(percent)
		}
		p.node.publish(t, "u", 1)
		progress(99)
		p.node.publishJSON(t, "u", `{"action":"upload_completed","description":"d","audit_score":7}`)
		synctest.Wait()
		var got []string
		skipped := uint64(0)
		for done := false; !done; {
			m, err := l.next()
			if err != nil {
				t.Fatal(err)
			}
			skipped += m.Skipped
			got = append(got, m.Action)
			done = m.Terminal()
			if o, ok := m.Outcome(); done && (!ok || o.Failed || o.Description != "d" || o.AuditScore != 7) {
				t.Errorf("outcome %+v, %v", o, ok)
			}
		}
		if len(got) > 6 || skipped+uint64(len(got)) != 53 {
			t.Errorf("got %v, %d skipped, of 53", got, skipped)
		}
	})
}

// The queues of all loops together keep to their bytes.
func TestFollow_QueueBytesBoundAllLoops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		c := p.client(func(o *client.Options) { o.QueueBytes = 1000 })
		var loops []*loop
		for range 5 {
			loops = append(loops, follow(t, c, "u"))
		}
		synctest.Wait()
		for n := range 100 {
			p.node.publishJSON(t, "u", fmt.Sprintf(`{"action":"note","n":%d,"text":%q}`, n, strings.Repeat("x", 200)))
		}
		synctest.Wait()
		if held := client.HeldBytes(c); held > 1000+5*300 {
			t.Errorf("%d bytes are queued", held)
		}
		for _, l := range loops {
			for n := range 100 {
				l.want(n)
			}
		}
	})
}

// Any mixture of publications, interruptions, loops that come and go, and slow loops: each loop gets events in order,
// without a repetition, and without a loss that is not reported.
func TestFollow_ManyLoopsThroughInterruptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		c := p.client(func(o *client.Options) { o.QueueMessages = 3 })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		const last = 120
		var loops sync.WaitGroup
		for i := range 18 {
			loops.Go(func() {
				<-time.After(time.Duration(i) * 300 * time.Millisecond)
				before := -1
				for m, err := range c.Follow(ctx, fmt.Sprintf("u%d", i%3)) {
					var note struct{ N int }
					if err == nil {
						err = m.Decode(&note)
					}
					if err != nil || before >= 0 && note.N != before+1 {
						t.Errorf("loop %d got %s, %v after %d", i, m.Data, err, before)
						return
					}
					if before = note.N; before == last {
						return
					}
					<-time.After(time.Duration(3*i*i) * time.Millisecond)
				}
			})
		}
		for n := range last + 1 {
			for u := range 3 {
				p.node.publish(t, fmt.Sprintf("u%d", u), n)
			}
			<-time.After(100 * time.Millisecond)
			if n%20 == 15 {
				p.cut()
			}
		}
		loops.Wait()
	})
}

// A loop ends with its context, with Close, or by a break, and leaves nothing behind.
func TestFollow_Ends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		c := p.client()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for _, err := range c.Follow(ctx, "u") {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("ended with %v", err)
			}
		}
		l := follow(t, c, "u")
		synctest.Wait()
		_ = c.Close()
		_ = l.wantEnd(client.ErrClosed)
		for _, err := range c.Follow(t.Context(), "u") {
			if !errors.Is(err, client.ErrClosed) {
				t.Errorf("ended with %v", err)
			}
		}
		if stats := p.node.manager.Stats(); stats.Connections != 0 {
			t.Errorf("left behind: %+v", stats)
		}
		_ = c.Close()
	})
}

func TestFollow_RefusesBadArguments(t *testing.T) {
	c, err := client.New("http://127.0.0.1:1", client.Options{APIKey: "k"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for id, want := range map[string]string{"u": "Options.Token is nil", "": "not valid", "a\nb": "not valid",
		strings.Repeat("x", 256): "not valid", "\xff": "not valid"} {
		for _, err := range c.Follow(t.Context(), id) {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %q", id, err, want)
			}
		}
	}
}

func TestNew_RefusesBadOptions(t *testing.T) {
	for _, address := range []string{"", "localhost:80", "ftp://a", "http://", "http://a/?x=1", "http://a b"} {
		if _, err := client.New(address, client.Options{}); err == nil || !strings.Contains(err.Error(), "the URL") {
			t.Errorf("%q: %v", address, err)
		}
	}
	_, err := client.New("http://a", client.Options{
		ConnectTimeout: -1, IdleTimeout: -1, MinBackoff: -1, MaxBackoff: -2, GiveUpAfter: -1, QueueMessages: -1,
		QueueBytes: -1, MaxMessageBytes: -1, APIKey: "hidden key",
	})
	for _, field := range []string{"ConnectTimeout", "IdleTimeout", "MinBackoff", "MaxBackoff", "GiveUpAfter",
		"QueueMessages", "QueueBytes", "MaxMessageBytes", "APIKey"} {
		if err == nil || !strings.Contains(err.Error(), "Options."+field+" ") {
			t.Errorf("no complaint about %s in %v", field, err)
		}
	}
	if strings.Contains(err.Error(), "hidden") {
		t.Errorf("the key is in the error %v", err)
	}
}

// wrappedTransport is one that a program has put around another, as those do which trace requests.
type wrappedTransport struct {
	http.RoundTripper
	closedIdle *int
}

func (w wrappedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := w.RoundTripper.RoundTrip(r)
	if response != nil {
		response.Body = struct{ io.ReadCloser }{response.Body} // which hides that it can be written to
	}
	return response, err
}

func (w wrappedTransport) CloseIdleConnections() { *w.closedIdle++ }

// Close leaves the connections of a transport alone that belongs to the program.
func TestClose_SparesTransportsOfOthers(t *testing.T) {
	closed, standard := 0, http.DefaultTransport
	http.DefaultTransport = wrappedTransport{standard, &closed}
	defer func() { http.DefaultTransport = standard }()
	for _, own := range []*http.Client{nil, http.DefaultClient} {
		c, err := client.New("http://127.0.0.1:1", client.Options{APIKey: "k", HTTPClient: own})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	if closed != 0 {
		t.Errorf("the idle connections of http.DefaultTransport were closed %d times", closed)
	}
}

// A transport that takes the connection away is named, not the server.
func TestFollow_TransportWithoutUpgrades(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, closed := newPlace(t), 0
		c := p.client(func(o *client.Options) {
			o.HTTPClient.Transport = wrappedTransport{o.HTTPClient.Transport, &closed}
		})
		err := follow(t, c, "u").wantEnd(client.ErrNotShoal)
		if !strings.Contains(err.Error(), "response body is not a io.ReadWriteCloser") {
			t.Errorf("ended with %v, which does not tell why", err)
		}
	})
}
