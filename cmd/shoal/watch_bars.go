package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/mattn/go-runewidth"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/shoal-go/shoal/client"
)

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
	_, err := io.WriteString(v.progress, strings.TrimRight(printable(text), " ")+"\n")
	return err
}

// end draws the bars for the last time.
func (v *barView) end() {
	for _, bar := range v.bars {
		bar.Abort(false) // of no effect on one that has ended
	}
	v.progress.Wait()
}
