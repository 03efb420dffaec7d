package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/shoal-go/shoal/internal/plot"
)

const (
	// barInterval is the time between two updates of the bars, lineInterval between two lines without a terminal.
	barInterval  = 100 * time.Millisecond
	lineInterval = 2 * time.Second
)

// quantity is something that grows towards a total. value may be called at any time.
type quantity struct {
	name  string
	total int64
	value func() int64
}

// live shows how far a run is: bars on a terminal, lines elsewhere.
type live struct {
	out      io.Writer
	terminal bool
}

func newLive(out io.Writer) *live {
	file, ok := out.(*os.File)
	return &live{out, ok && term.IsTerminal(int(file.Fd()))}
}

// show shows quantities until the function that it returns is called, which shows them for the last time and
// waits for that.
func (l *live) show(all ...quantity) (done func()) {
	interval, update, end := lineInterval, func() { l.print(all) }, func() { l.print(all) }
	if l.terminal {
		interval = barInterval
		update, end = l.bars(all)
	}
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				update()
			case <-stop:
				end()
				return
			}
		}
	})
	return func() {
		close(stop)
		running.Wait()
	}
}

// print prints a line, and ignores errors: the result is printed at the end.
func (l *live) print(all []quantity) {
	for i, q := range all {
		if i > 0 {
			fmt.Fprint(l.out, ", ")
		}
		fmt.Fprintf(l.out, "%s %s of %s", q.name, plot.Grouped(q.value()), plot.Grouped(q.total))
	}
	fmt.Fprintln(l.out)
}

// bars returns a function that updates the bars of quantities, and one that does so for the last time.
func (l *live) bars(all []quantity) (update, end func()) {
	const nameWidth = 10
	progress := mpb.New(mpb.WithOutput(l.out), mpb.WithAutoRefresh(), mpb.WithRefreshRate(barInterval))
	bars := make([]*mpb.Bar, len(all))
	for i, q := range all {
		bars[i] = progress.AddBar(max(q.total, 1),
			mpb.PrependDecorators(decor.Name(q.name, decor.WC{W: nameWidth, C: decor.DindentRight})),
			mpb.AppendDecorators(decor.Any(func(s decor.Statistics) string {
				return plot.Grouped(s.Current) + " of " + plot.Grouped(q.total)
			})))
	}
	update = func() {
		for i, q := range all {
			bars[i].SetCurrent(q.value())
		}
	}
	return update, func() {
		update()
		for _, bar := range bars {
			bar.Abort(false) // of no effect on one that is full
		}
		progress.Wait()
	}
}
