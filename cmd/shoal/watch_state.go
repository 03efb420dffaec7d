package main

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/shoal-go/shoal/client"
	"github.com/shoal-go/shoal/internal/printable"
)

const (
	// samples is the number of messages that a rate is measured over, minSpan the shortest time that it is measured over.
	samples = 32
	minSpan = time.Second
	// maxShown bounds a server's text in runes.
	maxShown = 200
	// maxLeft is the longest time left that is shown.
	maxLeft = 100 * time.Hour
)

// watched is the state of an upload. Its methods may be called from any goroutine.
type watched struct {
	id, name string // name is the printable id

	mu       sync.Mutex
	progress client.Progress
	known    bool // a progress has come
	outcome  *client.Outcome
	err      error // the reason for giving up
	told     time.Duration
	hasTold  bool // the application itself has sent the time left
	points   []point
	line     string // the last line that progressed
}

// point is a progress at a time.
type point struct {
	at      time.Time
	percent float64
}

func newWatched(id string) *watched { return &watched{id: id, name: shown(id)} }

// shown makes a text of a server printable and bounds its length.
func shown(text string) string {
	text = strings.Join(strings.Fields(printable.Text(text)), " ")
	if runes := []rune(text); len(runes) > maxShown {
		return string(runes[:maxShown-1]) + "…"
	}
	return text
}

// receive applies a message and reports whether it changes the shown state of the upload.
func (u *watched) receive(m client.Message) (changed bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if o, ok := m.Outcome(); ok {
		u.outcome = &o
		return true
	}
	p, ok := m.Progress()
	if !ok {
		return false
	}
	if math.IsNaN(p.Percent) {
		p.Percent = 0
	}
	p.Percent = min(max(p.Percent, 0), 100)
	u.measure(m, p.Percent)
	u.progress, u.known = p, true
	line := fmt.Sprintf("%.0f %s %s %s %s", math.Floor(p.Percent), p.Status, p.Stage, p.Message, u.problem())
	changed = line != u.line
	u.line = line
	return changed
}

// measure adds a point to the rate, which begins again when the progress goes back.
func (u *watched) measure(m client.Message, percent float64) {
	var body struct {
		Timestamp string `json:"timestamp"`
		Payload   struct {
			Seconds *float64 `json:"eta_seconds"`
		} `json:"payload"`
	}
	u.hasTold = false
	if json.Unmarshal(m.Data, &body) == nil {
		if s := body.Payload.Seconds; s != nil && *s >= 0 && *s < maxLeft.Seconds() {
			u.told, u.hasTold = time.Duration(*s*float64(time.Second)), true
		}
	}
	at, err := time.Parse(time.RFC3339Nano, body.Timestamp)
	if err != nil {
		at = time.Now()
	}
	if n := len(u.points); n > 0 && (percent < u.points[n-1].percent || at.Before(u.points[n-1].at)) {
		u.points = u.points[:0]
	}
	u.points = append(u.points, point{at, percent})
	if len(u.points) > samples {
		u.points = append(u.points[:0], u.points[len(u.points)-samples:]...)
	}
}

// rate returns the progress in percent per second, and false if it is not known.
func (u *watched) rate() (float64, bool) {
	if len(u.points) < 2 {
		return 0, false
	}
	first, last := u.points[0], u.points[len(u.points)-1]
	span, done := last.at.Sub(first.at), last.percent-first.percent
	if span < minSpan || done <= 0 {
		return 0, false
	}
	return done / span.Seconds(), true
}

// interrupted begins the measurement of the rate again, after lost messages.
func (u *watched) interrupted() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.points, u.line = nil, ""
}

func (u *watched) giveUp(err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.err = err
}

func (u *watched) ended() bool { return u.read(func() bool { return u.outcome != nil }) }
func (u *watched) failed() bool {
	return u.read(func() bool { return u.outcome != nil && u.outcome.Failed })
}
func (u *watched) completed() bool {
	return u.read(func() bool { return u.outcome != nil && !u.outcome.Failed })
}

func (u *watched) read(what func() bool) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return what()
}

// reason returns the reason for giving up.
func (u *watched) reason() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err
}

// why returns the reason of a failure.
func (u *watched) why() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.outcome == nil || u.outcome.Error == "" {
		return "no reason given"
	}
	return shown(u.outcome.Error)
}

// problem returns the error that a progress reports, or "". The lock is held.
func (u *watched) problem() string {
	if u.progress.Error == nil || *u.progress.Error == "" {
		return ""
	}
	return "error: " + shown(*u.progress.Error)
}

// percent returns the progress, 100 after completion. It returns false if no progress has come.
func (u *watched) percent() (percent float64, known bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.outcome != nil && !u.outcome.Failed {
		return 100, true
	}
	return u.progress.Percent, u.known
}

// describe returns the state in parts: the stage, the rate and the time left, and the message; each may be "".
func (u *watched) describe() (stage, pace, message string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.outcome != nil && u.outcome.Failed:
		return "failed", "", shown(u.outcome.Error)
	case u.outcome != nil:
		return "completed", "", shown(u.outcome.Description)
	case u.err != nil:
		return "given up", "", ""
	case !u.known:
		return "waiting", "", ""
	}
	stage = shown(u.progress.Stage)
	if stage == "" {
		stage = shown(u.progress.Status)
	}
	message = shown(u.progress.Message)
	if problem := u.problem(); problem != "" {
		message = strings.TrimSpace(message + " " + problem)
	}
	return stage, u.pace(), message
}

// pace returns the rate and the time left, as far as they are known. The lock is held.
func (u *watched) pace() string {
	rate, known := u.rate()
	left := u.told
	if !u.hasTold && known {
		left = time.Duration(min((100-u.progress.Percent)/rate, maxLeft.Seconds()) * float64(time.Second))
	}
	var parts []string
	if known {
		parts = append(parts, rateText(rate))
	}
	if (known || u.hasTold) && left < maxLeft {
		parts = append(parts, left.Round(time.Second).String()+" left")
	}
	return strings.Join(parts, ", ")
}

// rateText returns a rate in percent per second, or per minute where it is slow.
func rateText(perSecond float64) string {
	if perSecond >= 1 {
		return fmt.Sprintf("%.1f%%/s", perSecond)
	}
	return fmt.Sprintf("%.1f%%/min", perSecond*60)
}
