package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"
	"unicode/utf16"

	"github.com/mattn/go-runewidth"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/shoal-go/shoal/client"
	"github.com/shoal-go/shoal/internal/printable"
)

// watchView shows uploads. Its methods may be called from any goroutine. An error means that the output is gone.
type watchView interface {
	begin(uploads []*watched)
	// message shows a message. changed: it changes the state of the upload.
	message(u *watched, m client.Message, changed bool) error
	// changed shows the state of an upload that has changed without a message.
	changed(u *watched) error
	// note shows a line about the connection.
	note(text string) error
	end()
}

// newWatchView returns bars on a terminal and lines elsewhere.
func newWatchView(std streams, asJSON bool) watchView {
	lines := &lineView{out: std.out, notes: std.err}
	if asJSON {
		return &jsonView{lineView: lines}
	}
	if file, ok := std.out.(*os.File); ok {
		columns, rows, err := term.GetSize(int(file.Fd()))
		if err == nil && columns > 0 && rows > 0 { // bars need the size
			return &barView{out: file, columns: columns}
		}
	}
	return lines
}

// lineView prints a line for each change.
type lineView struct {
	mu         sync.Mutex
	out, notes io.Writer
}

func (v *lineView) begin([]*watched) {}
func (v *lineView) end()             {}

func (v *lineView) message(u *watched, m client.Message, changed bool) error {
	if changed {
		return v.changed(u)
	}
	if m.Action == client.ActionProgress {
		return nil
	}
	return v.print(v.out, eventLine(u, m))
}

func (v *lineView) changed(u *watched) error {
	stage, pace, message := u.describe()
	line := u.name + ": " + stage
	if percent, known := u.percent(); known {
		line = fmt.Sprintf("%s: %.0f%% %s", u.name, percent, stage)
	}
	if message != "" {
		line += ": " + message
	}
	if pace != "" {
		line += " (" + pace + ")"
	}
	return v.print(v.out, line)
}

func (v *lineView) note(text string) error { return v.print(v.notes, "shoal: "+printable.Text(text)) }

func (v *lineView) print(w io.Writer, line string) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	_, err := fmt.Fprintln(w, line)
	return err
}

// eventLine describes a message of the application's own: by its text, if it has one, or by its JSON.
func eventLine(u *watched, m client.Message) string {
	text := string(m.Data)
	var body, payload map[string]any
	if json.Unmarshal(m.Data, &body) == nil {
		payload, _ = body["payload"].(map[string]any)
		for _, in := range []map[string]any{body, payload} {
			for _, name := range []string{"message", "text", "line"} {
				if s, ok := in[name].(string); ok && s != "" {
					text = s
				}
			}
		}
	}
	return fmt.Sprintf("%s: %s: %s", u.name, shown(m.Action), shown(text))
}

// jsonView prints each message as one line of JSON.
type jsonView struct{ *lineView }

func (v *jsonView) message(_ *watched, m client.Message, _ bool) error {
	return v.print(v.out, jsonLine(m.Data))
}

func (v *jsonView) changed(*watched) error { return nil }

// jsonLine returns a message in one line in which every character is printable: others are written as escapes, which
// means the same, since they can only occur within strings.
func jsonLine(data []byte) string {
	var compact bytes.Buffer
	if json.Compact(&compact, data) != nil {
		return ""
	}
	var b strings.Builder
	for _, r := range compact.String() {
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xFFFF:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

const (
	// barWidth is the width of a bar in columns, nameShare the part of a line that the name of an upload may take.
	barWidth  = 24
	nameShare = 4
	// barSteps is the number of steps of a bar, hundredths of a percent.
	barSteps = 10_000
)

// barView draws a bar for each upload. Other lines scroll above the bars.
type barView struct {
	out      io.Writer
	columns  int // of the terminal at the beginning
	progress *mpb.Progress
	bars     map[*watched]*mpb.Bar
}

func (v *barView) begin(uploads []*watched) {
	v.progress = mpb.New(mpb.WithOutput(v.out), mpb.WithAutoRefresh(), mpb.WithRefreshRate(barInterval),
		mpb.WithWidth(barWidth))
	v.bars = make(map[*watched]*mpb.Bar, len(uploads))
	width := 0
	for _, u := range uploads {
		width = max(width, min(runewidth.StringWidth(u.name), v.columns/nameShare))
	}
	for _, u := range uploads {
		name := runewidth.FillRight(runewidth.Truncate(u.name, width, "…"), width)
		v.bars[u] = v.progress.AddBar(barSteps,
			mpb.PrependDecorators(decor.Name(name)),
			mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string { return barText(u, s.AvailableWidth) })))
	}
}

// barText returns the text behind a bar, in a line with that many columns left for both.
func barText(u *watched, columns int) string {
	const around = barWidth + 2
	stage, pace, message := u.describe()
	percent, _ := u.percent()
	text := fmt.Sprintf("%3.0f%% %s", percent, stage)
	for _, part := range []string{pace, message} {
		if part != "" {
			text += "  " + part
		}
	}
	return runewidth.Truncate(text, max(columns-around, 0), "…")
}

func (v *barView) message(u *watched, m client.Message, changed bool) error {
	if !changed && m.Action != client.ActionProgress {
		return v.note(eventLine(u, m))
	}
	return v.changed(u)
}

func (v *barView) changed(u *watched) error {
	bar := v.bars[u]
	percent, _ := u.percent()
	bar.SetCurrent(int64(percent / 100 * (barSteps - 1)))
	switch {
	case u.completed():
		bar.SetCurrent(barSteps)
	case u.failed() || u.reason() != nil:
		bar.Abort(false)
	}
	return nil
}

func (v *barView) note(text string) error {
	_, err := io.WriteString(v.progress, strings.TrimRight(printable.Text(text), " ")+"\n")
	return err
}

// end draws the bars for the last time.
func (v *barView) end() {
	for _, bar := range v.bars {
		bar.Abort(false) // of no effect on one that has ended
	}
	v.progress.Wait()
}
