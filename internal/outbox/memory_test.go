package outbox

import (
	"testing"
	"unsafe"

	"github.com/shoal-go/shoal/internal/frame"
)

func TestLayout(t *testing.T) {
	if got := unsafe.Sizeof(Outbox{}); got > 256 {
		t.Errorf("an outbox has %d bytes, want 256 at most: there is one for each idle connection", got)
	}
	if got := unsafe.Sizeof(chunk{}); got != 256 {
		t.Errorf("a chunk has %d bytes, want 256: more would take the next size class", got)
	}
	if got := unsafe.Sizeof(counters{}); got%cacheLine != 0 {
		t.Errorf("counters have %d bytes, want a whole number of cache lines", got)
	}
}

func TestALaneLetsGoOfWhatHasLeftIt(t *testing.T) {
	p := NewPool(Options{})
	defer p.Close()
	var l lane
	for range 2 {
		l.push(&p.chunks, entry{frame: control(frame.Ping, "")})
	}
	c := l.head
	l.pop(&p.chunks)
	l.pop(&p.chunks)
	if l.lone != (entry{}) {
		t.Error("the entry that stood alone is still held")
	}
	if *c != (chunk{}) {
		t.Error("a chunk given back still holds something")
	}
}

func TestAPoolForgetsWhatHasEnded(t *testing.T) {
	p := NewPool(Options{Writers: 1})
	defer p.Close()
	var boxes []*Outbox
	for range 3 {
		boxes = append(boxes, p.Open(newNullConn(t), Config{}))
	}
	for _, i := range []int{1, 2, 0} {
		boxes[i].Abort()
		<-boxes[i].Done()
		for o := p.writers[0].open; o != nil; o = o.nextOpen {
			if o == boxes[i] {
				t.Errorf("outbox %d is still linked", i)
			}
		}
	}
	if p.writers[0].open != nil {
		t.Error("something is still linked")
	}
}
