// Command soak keeps two nodes under changing load and faults, records their use of resources, and fails if a resource
// does not return to its baseline, naming it.
//
//	go run ./fuzz/soak -duration 2h -csv soak.csv
//
// The time is divided into cycles. In each, the audience grows and shrinks again; clients follow uploads, read slowly
// or not at all, have slow links, reset their connections, come back and resume; publishers publish at both nodes; both
// nodes reload their settings, one of them is restarted, and the broker is, with its data or without. At the end of a
// cycle all clients have gone and the resources are measured.
package main

import (
	"context"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"time"
)

func main() {
	c := config{out: os.Stdout}
	flag.DurationVar(&c.duration, "duration", time.Minute, "length of the run")
	flag.IntVar(&c.cycles, "cycles", 6, "number of times that the audience grows and shrinks")
	flag.IntVar(&c.audience, "clients", 300, "largest number of clients")
	flag.IntVar(&c.rate, "rate", 100, "publications a second")
	flag.StringVar(&c.broker, "broker", "nats-embedded", "what joins the nodes: nats-embedded, or redis (a process)")
	file := flag.String("csv", "", "file for the measurements")
	chart := flag.String("draw", "", "draw the measurements of such a file as SVG instead, to standard output")
	flag.Parse()
	if *chart != "" {
		if err := draw(*chart, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "soak:", err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	c.each = func(all []sample) error {
		if *file == "" {
			return nil
		}
		return writeFile(*file, all)
	}
	if _, err := soak(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// config describes a run.
type config struct {
	duration time.Duration
	// rate is the number of publications a second.
	cycles, audience, rate int
	broker                 string
	out                    io.Writer
	// each is called after each cycle with all measurements; nil: not.
	each func([]sample) error
}

// validate returns an error that names an invalid value.
func (c config) validate() error {
	switch {
	case c.cycles < 2:
		return fmt.Errorf("-cycles is %d, want at least 2: the first one is the baseline", c.cycles)
	case c.audience < 1 || c.audience > 10_000:
		return fmt.Errorf("-clients is %d, want 1 to 10000", c.audience)
	case c.rate < 2 || c.rate > 10_000:
		return fmt.Errorf("-rate is %d, want 2 to 10000", c.rate)
	case c.duration < time.Duration(c.cycles)*100*time.Millisecond:
		return fmt.Errorf("-duration is %v, want at least 100ms for each of %d cycles", c.duration, c.cycles)
	}
	return nil
}

// soak runs all cycles. The error names the resources that grew.
func soak(ctx context.Context, c config) (samples []sample, err error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	w, err := newWorld(c.broker)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	fmt.Fprintln(c.out, header)
	var quiet []sample
	for cycle := range c.cycles {
		during := w.cycle(ctx, cycle, c)
		if ctx.Err() != nil {
			return samples, ctx.Err()
		}
		end, err := w.settle(ctx)
		if err != nil {
			return samples, fmt.Errorf("cycle %d: %w", cycle+1, err)
		}
		quiet = append(quiet, end)
		samples = append(append(samples, during...), end)
		if c.each != nil {
			if err := c.each(samples); err != nil {
				return samples, err
			}
		}
		busy := busiest(during)
		fmt.Fprintf(c.out, "%5d  %s\n       %s\n", cycle+1, busy, end)
	}
	return samples, grown(quiet)
}

// writeFile writes the samples as comma-separated values.
func writeFile(name string, samples []sample) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	w := csv.NewWriter(file)
	_ = w.Write([]string{
		"seconds", "clients", "subscriptions", "goroutines", "heap_bytes", "descriptors", "delivered", "p99_ms",
	})
	for _, s := range samples {
		_ = w.Write([]string{
			strconv.FormatFloat(s.at.Seconds(), 'f', 1, 64), strconv.Itoa(s.clients), strconv.Itoa(s.subscriptions),
			strconv.Itoa(s.goroutines), strconv.FormatUint(s.heap, 10), strconv.Itoa(s.descriptors),
			strconv.FormatUint(s.delivered, 10), strconv.FormatFloat(millis(s.p99), 'f', 2, 64),
		})
	}
	w.Flush()
	return errors.Join(w.Error(), file.Close())
}
