package manager

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// fanOut sends frames to many receivers, on several cores if that is faster. Its goroutines only assist: a broadcast
// that finds none of them idle does all the work itself, so it waits only for goroutines that already work on it.
type fanOut struct {
	guard   *guard
	jobs    chan *fanJob
	helpers int
	running sync.WaitGroup
	stop    chan struct{}
	once    sync.Once
	// spare holds finished jobs, so that a broadcast allocates nothing for its own bookkeeping.
	spare sync.Pool
}

// Below fanOutAlone receivers a broadcast stays on its caller's goroutine; beyond it goroutines take parts
// of fanOutPart receivers each.
const (
	fanOutAlone = 1024
	fanOutPart  = 512
)

// fanJob are broadcasts to the same receivers that several goroutines work on.
type fanJob struct {
	fans      *fanOut
	receivers []receiver
	frames    []*Frame
	// next is the index of the first unclaimed receiver.
	next    atomic.Int64
	helpers sync.WaitGroup
	mu      sync.Mutex
	total   Delivery // protected by mu
}

func newFanOut(g *guard) *fanOut {
	f := &fanOut{
		guard:   g,
		jobs:    make(chan *fanJob),
		helpers: runtime.GOMAXPROCS(0) - 1,
		stop:    make(chan struct{}),
		spare:   sync.Pool{New: func() any { return new(fanJob) }},
	}
	for range f.helpers {
		f.running.Go(f.help)
	}
	return f
}

// close ends the goroutines. Broadcasts may still be under way.
func (f *fanOut) close() {
	f.once.Do(func() { close(f.stop) })
	f.running.Wait()
}

func (f *fanOut) help() {
	for {
		select {
		case <-f.stop:
			return
		case job := <-f.jobs:
			job.work()
			job.helpers.Done()
		}
	}
}

// send sends frames, in their order, to all receivers. The lock of their upload is held.
func (f *fanOut) send(receivers []receiver, frames ...*Frame) Delivery {
	if len(receivers) < fanOutAlone {
		return f.sendPart(receivers, frames)
	}
	job := f.spare.Get().(*fanJob) // the pool holds nothing else
	job.fans, job.receivers = f, receivers
	job.frames = append(job.frames, frames...)
	job.next.Store(0)
	job.total = Delivery{}
	f.offer(job)
	job.work()
	job.helpers.Wait()
	total := job.total
	job.receivers = nil
	clear(job.frames)
	job.frames = job.frames[:0]
	f.spare.Put(job)
	return total
}

// maxDeferred is the number of receivers up to which a publisher writes to the connections itself.
const maxDeferred = 16

// deferred are the connections that a publisher will flush after unlocking the upload.
type deferred struct {
	conns [maxDeferred]Flusher
	n     int
}

// sendDeferred sends a frame to all receivers of an upload, which is locked. The caller must flush d after unlocking;
// with a nil d nothing is deferred.
func (f *fanOut) sendDeferred(receivers []receiver, frame *Frame, d *deferred) (total Delivery) {
	if d == nil || len(receivers) > maxDeferred {
		return f.send(receivers, frame)
	}
	for _, r := range receivers {
		if r.Conn == nil {
			continue
		}
		if c, ok := r.Conn.(Flusher); ok {
			o, flush := f.guard.sendDeferred(c, frame)
			total.count(o)
			if flush {
				d.conns[d.n] = c
				d.n++
			}
			continue
		}
		total.count(f.guard.send(r.Conn, frame))
	}
	return total
}

// flush flushes the connections in d.
func (f *fanOut) flush(d *deferred) {
	for _, c := range d.conns[:d.n] {
		f.guard.flush(c)
	}
}

// offer hands the job to the goroutines that are idle.
func (f *fanOut) offer(job *fanJob) {
	for range f.helpers {
		job.helpers.Add(1)
		select {
		case f.jobs <- job:
		default:
			job.helpers.Done()
			return
		}
	}
}

// work takes parts until none is left.
func (j *fanJob) work() {
	var d Delivery
	for {
		end := int(j.next.Add(fanOutPart))
		begin := end - fanOutPart
		if begin >= len(j.receivers) {
			break
		}
		d.add(j.fans.sendPart(j.receivers[begin:min(end, len(j.receivers))], j.frames))
	}
	j.mu.Lock()
	j.total.add(d)
	j.mu.Unlock()
}

// sendPart sends frames to some of the receivers.
func (f *fanOut) sendPart(receivers []receiver, frames []*Frame) (d Delivery) {
	if f.guard.failing.Load() != 0 { // under the upload's lock a connection fails by panicking below
		receivers = f.withoutFailed(receivers, len(frames), &d)
	}
	for i := 0; i < len(receivers); {
		i += f.sendUntilPanic(receivers[i:], frames, &d)
	}
	return d
}

// withoutFailed returns the receivers that get frames although connections are being closed because of a panic. The
// frames of the others count as dropped.
func (f *fanOut) withoutFailed(receivers []receiver, frames int, d *Delivery) (kept []receiver) {
	for _, r := range receivers {
		if r.Conn != nil && f.guard.refuses(r.Conn) {
			d.Dropped += frames
		} else {
			kept = append(kept, r)
		}
	}
	return kept
}

// sendUntilPanic sends frames to receivers up to one whose connection panics, and returns how many it has served, that
// one among them. That connection gets no more of the frames: it is closed.
func (f *fanOut) sendUntilPanic(receivers []receiver, frames []*Frame, d *Delivery) (served int) {
	before := d.sum()
	defer func() {
		if problem := recover(); problem != nil {
			c := receivers[served].Conn
			f.guard.report("Send", c, problem)
			f.guard.fail(c)
			served++
			d.Dropped += len(frames)*connected(receivers[:served]) - (d.sum() - before) // the frames that were not counted
		}
	}()
	for ; served < len(receivers); served++ {
		c := receivers[served].Conn
		if c == nil {
			continue
		}
		for _, f := range frames {
			d.count(c.Send(f))
		}
	}
	return served
}

// connected returns the number of receivers that have a connection.
func connected(receivers []receiver) (n int) {
	for _, r := range receivers {
		if r.Conn != nil {
			n++
		}
	}
	return n
}
