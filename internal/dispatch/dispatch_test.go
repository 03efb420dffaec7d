package dispatch

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// message has a number by which it is known.
type message struct {
	channel string
	n, size int
}

// desk records the messages that a queue delivers. While it is shut, Handle blocks.
type desk struct {
	mu   sync.Mutex
	log  []string // "channel:n" for each message, "!channel" for each loss, in their order
	shut chan struct{}
}

func (d *desk) handle(m message) {
	d.mu.Lock()
	shut := d.shut
	d.mu.Unlock()
	if shut != nil {
		<-shut
	}
	d.note(fmt.Sprintf("%s:%d", m.channel, m.n))
}

func (d *desk) lost(channel string) { d.note("!" + channel) }

func (d *desk) note(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.log = append(d.log, what)
}

func (d *desk) wants(t *testing.T, want ...string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.log, want) {
		t.Errorf("handled were %q, want %q", d.log, want)
	}
}

// open returns a queue with a desk that is open.
func open(t *testing.T, lanes, messages, bytes int) (*Queue[message], *desk) {
	t.Helper()
	d := new(desk)
	k := New(Config[message]{
		Lanes: lanes, Messages: messages, Bytes: bytes,
		Channel: func(m message) string { return m.channel },
		Size:    func(m message) int { return m.size },
		Handle:  d.handle,
		Lost:    d.lost,
	})
	t.Cleanup(k.Close)
	return k, d
}

// stuck returns a queue of one lane with a first message, "a:0", that is being handled until release.
func stuck(t *testing.T, messages, bytes int) (k *Queue[message], d *desk, release func()) {
	t.Helper()
	k, d = open(t, 1, messages, bytes)
	d.shut = make(chan struct{})
	k.Put(message{channel: "a"})
	synctest.Wait()
	return k, d, sync.OnceFunc(func() { close(d.shut) })
}

func TestDispatcher_HandlesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, d, release := stuck(t, 100, 100)
		for n := range 3 {
			k.Put(message{channel: "b", n: n})
			k.Put(message{channel: "a", n: n + 1})
		}
		release()
		synctest.Wait()
		d.wants(t, "a:0", "b:0", "a:1", "b:1", "a:2", "b:2", "a:3")
		k.Put(message{channel: "a", n: 4}) // into the room of those before
		synctest.Wait()
		d.wants(t, "a:0", "b:0", "a:1", "b:1", "a:2", "b:2", "a:3", "a:4")
	})
}

// TestDispatcher_BoundedByNumber: an excess message is dropped and its channel reported after all earlier messages,
// even if no further message arrives.
func TestDispatcher_BoundedByNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, d, release := stuck(t, 2, 100)
		for n := range 5 {
			k.Put(message{channel: "b", n: n})
		}
		d.wants(t)
		release()
		synctest.Wait()
		d.wants(t, "a:0", "b:0", "b:1", "!b")
		k.Put(message{channel: "b", n: 5})
		synctest.Wait()
		d.wants(t, "a:0", "b:0", "b:1", "!b", "b:5")
	})
}

func TestDispatcher_BoundedByBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, d, release := stuck(t, 100, 10)
		k.Put(message{channel: "b", n: 0, size: 6})
		k.Put(message{channel: "b", n: 1, size: 5})
		k.Put(message{channel: "b", n: 2, size: 4}) // exactly fits
		k.Put(message{channel: "b", n: 3, size: 1})
		release()
		synctest.Wait()
		d.wants(t, "a:0", "b:0", "b:2", "!b")
		k.Put(message{channel: "b", n: 4, size: 10})
		synctest.Wait()
		d.wants(t, "a:0", "b:0", "b:2", "!b", "b:4")
	})
}

// A message that never fits is named even though nothing else is there.
func TestLoss_TooLargeMessageIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, d := open(t, 1, 10, 10)
		k.Put(message{channel: "b", size: 11})
		synctest.Wait()
		d.wants(t, "!b")
	})
}

func TestLoss_ChannelIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, d, release := stuck(t, 1, 100)
		k.Put(message{channel: "a", n: 1})
		for n := range 3 {
			k.Put(message{channel: "b", n: n})
			k.Put(message{channel: "c", n: n})
		}
		release()
		synctest.Wait()
		slices.Sort(d.log[2:])
		d.wants(t, "a:0", "a:1", "!b", "!c")
	})
}

// The list of channels with losses is bounded too: in the end it says that all may have some.
func TestLoss_TooManyChannelsStandForAll(t *testing.T) {
	for _, test := range []struct {
		channels, want int
		all            bool
	}{{maxLost, maxLost, false}, {maxLost + 1, 1, true}, {3 * maxLost, 1, true}} {
		synctest.Test(t, func(t *testing.T) {
			k, d, release := stuck(t, 1, 100)
			k.Put(message{channel: "a", n: 1})
			for i := range test.channels {
				k.Put(message{channel: fmt.Sprint("lost-", i)})
			}
			if n := len(k.lanes[0].lost); n > maxLost {
				t.Errorf("%d channels are remembered, at most %d may be", n, maxLost)
			}
			release()
			synctest.Wait()
			if named := d.log[2:]; len(named) != test.want || slices.Contains(named, "!") != test.all {
				t.Errorf("of %d channels with losses %d were named", test.channels, len(named))
			}
		})
	}
}

// Put returns while Handle is stuck, however much there is to put.
func TestPut_DoesNotWaitForHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, d, release := stuck(t, 10, 100)
		for n := range 10_000 {
			k.Put(message{channel: "a", n: n + 1}) // else all goroutines of the bubble wait, which is an error
		}
		release()
		synctest.Wait()
		if n := len(d.log); n != 12 || d.log[11] != "!a" {
			t.Errorf("handled were %q, want ten messages after the first, and the loss", d.log)
		}
	})
}

// A lane that is stuck does not hold up another.
func TestDispatcher_LanesAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		defer close(stop)
		var mu sync.Mutex
		handled := map[string]bool{}
		k := New(Config[string]{
			Lanes: 2, Messages: 1000, Bytes: 1000,
			Channel: func(m string) string { return m },
			Size:    func(string) int { return 1 },
			Lost:    func(channel string) { t.Errorf("%q has losses", channel) },
			Handle: func(m string) {
				if m == "stuck" {
					<-stop
				}
				mu.Lock()
				defer mu.Unlock()
				handled[m] = true
			},
		})
		t.Cleanup(k.Close)
		k.Put("stuck")
		for i := range 100 {
			k.Put(fmt.Sprint(i))
		}
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if n := len(handled); n < 10 || n > 90 {
			t.Errorf("%d of 100 channels were handled beside a stuck one, want about half", n)
		}
	})
}

func TestClose_HandlesWhatWasPut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, d, release := stuck(t, 2, 100)
		for n := range 3 {
			k.Put(message{channel: "a", n: n + 1})
		}
		time.AfterFunc(time.Second, release)
		k.Close()
		d.wants(t, "a:0", "a:1", "a:2", "!a")
		k.Put(message{channel: "a", n: 9})
		k.Close()
		synctest.Wait()
		d.wants(t, "a:0", "a:1", "a:2", "!a")
	})
}

func TestDispatcher_HandledMessageCanBeCollected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, _ := open(t, 1, 10, 100)
		for n := range 3 {
			k.Put(message{channel: "a", n: n + 1})
			synctest.Wait()
		}
		l := k.lanes[0]
		for _, room := range [][]message{l.queue, l.spare} {
			for _, m := range room[:cap(room)] {
				if m != (message{}) {
					t.Errorf("%+v is still held", m)
				}
			}
		}
	})
}

// TestDispatcher_EveryMessageIsHandledOrReported: with concurrent producers, every message is handled in channel order, or its
// channel is reported afterwards.
func TestDispatcher_EveryMessageIsHandledOrReported(t *testing.T) {
	const channels, messages = 8, 5000
	var mu sync.Mutex
	var putting sync.WaitGroup
	next := make([]int, channels)
	// A gap is owed a name, unless one was given since the message before it.
	owed, named := make([]bool, channels), make([]bool, channels)
	var complaints []string
	k := New(Config[message]{
		Lanes: 3, Messages: 64, Bytes: 4000,
		Channel: func(m message) string { return m.channel },
		Size:    func(m message) int { return m.size },
		Handle: func(m message) {
			mu.Lock()
			defer mu.Unlock()
			c := m.channel[0] - '0'
			if m.n < next[c] {
				complaints = append(complaints, fmt.Sprintf("%+v after %d", m, next[c]-1))
			}
			if m.n > next[c] && !named[c] {
				owed[c] = true
			}
			next[c], named[c] = m.n+1, false
		},
		Lost: func(channel string) {
			mu.Lock()
			defer mu.Unlock()
			c := channel[0] - '0'
			owed[c], named[c] = false, true
		},
	})
	for c := range channels {
		putting.Go(func() {
			random := rand.New(rand.NewPCG(uint64(c), 1))
			for n := range messages {
				k.Put(message{channel: string(rune('0' + c)), n: n, size: random.IntN(200)})
			}
		})
	}
	putting.Wait()
	k.Close()
	for c := range channels {
		if owed[c] || next[c] < messages && !named[c] {
			complaints = append(complaints, fmt.Sprintf("not all of channel %d came, and no loss was named", c))
		}
	}
	if len(complaints) > 0 {
		t.Error(strings.Join(complaints, "\n"))
	}
}
