package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unicode/utf8"

	"github.com/shoal-go/shoal/internal/reload"
)

const (
	// maxLineBytes bounds one message: the largest that a server can be made to take.
	maxLineBytes = 64 << 20
	// maxBatchLines and maxBatchBytes bound one request, well below the server's own limit.
	maxBatchLines = 1000
	maxBatchBytes = 4 << 20
)

type publishCommand struct {
	UploadID string `arg:"" name:"upload-id" help:"Upload to publish to."`
	File     string `arg:"" optional:"" help:"File with a JSON message on each line; - or nothing is standard input."`

	URL        string   `default:"http://127.0.0.1:8080" help:"Address of the server."`
	APIKey     []string `sep:"none" placeholder:"KEY" help:"Key of the HTTP API; of several, the first."`
	APIKeyFile string   `name:"api-key-file" placeholder:"FILE" help:"File with the key instead; of several, one a line, the first."`
	Dev        bool     `help:"Use the key of a development server."`

	Stage   string   `placeholder:"STAGE" help:"Publish one upload_progress with this stage, instead of a file."`
	Status  string   `placeholder:"STATUS" help:"Its status."`
	Percent *float64 `min:"0" max:"100" placeholder:"PERCENT" help:"Its progress in percent. Default: 0."`
	Message string   `blank:"" placeholder:"TEXT" help:"Its message."`

	RetryFor time.Duration `default:"30s" min:"0s" max:"8760h" help:"Time to try again while the server is out of reach."`
}

func (c *publishCommand) check(s *settings) {
	s.checkID("upload-id", c.UploadID)
	if c.UploadID == "." || c.UploadID == ".." {
		s.note("upload-id " + c.UploadID + " cannot stand in a URL's path, want another id")
	}
	checkURL(s, "url", c.URL, "the server's address, such as http://127.0.0.1:8080")
	complaints := len(s.complaints)
	c.APIKey = s.credentialsOf("api-key", c.APIKey, c.APIKeyFile)
	switch {
	case len(s.complaints) > complaints:
	case len(c.APIKey) > 0 && !isVisibleASCII(c.APIKey[0]):
		s.refuse("api-key", "cannot be held by an HTTP header, want visible ASCII characters without spaces")
	case len(c.APIKey) > 0:
	case c.Dev:
		c.APIKey = []string{devSecret}
	default:
		s.refuse("api-key", "is missing, want one of the server's, or --dev for that of a development server")
	}
	if c.File != "" && !c.buildsMessageHere(s) {
		c.Stage, c.Status, c.Percent, c.Message = "", "", nil, "" // a file on the command line wins
	}
	if !c.buildsMessage() {
		return
	}
	if c.Stage == "" {
		s.refuse("stage", "is missing, want the stage of the message, such as vision_analysis")
	}
	if c.Status == "" {
		s.refuse("status", "is missing, want the status of the message, such as analyzing")
	}
	if !utf8.ValidString(c.Message) { // invalid bytes would be replaced
		s.refuse("message", "is not valid UTF-8")
	}
	if c.File != "" {
		s.note(fmt.Sprintf("the file %q and a message made of flags are both given, want one of them", c.File))
	}
}

// buildsMessage reports whether the message is made of flags.
func (c *publishCommand) buildsMessage() bool {
	return c.Stage != "" || c.Status != "" || c.Percent != nil || c.Message != ""
}

// buildsMessageHere reports whether a part of the message is on the command line.
func (c *publishCommand) buildsMessageHere(s *settings) bool {
	for flag, given := range map[string]bool{
		"stage": c.Stage != "", "status": c.Status != "", "percent": c.Percent != nil, "message": c.Message != "",
	} {
		if given && s.precedence(flag) == onCommandLine {
			return true
		}
	}
	return false
}

// Run publishes the messages, in order. Lines that arrive during a request are sent together with the next one.
//
// An interrupt ends the reading: the messages that have been read are still published, if the server answers soon. A
// second one ends the process.
func (c *publishCommand) Run(ctx context.Context, std streams) error {
	input, err := c.open(std.in)
	if err != nil {
		return err
	}
	defer input.Close()
	ctx, stop := interruptible(ctx)
	defer stop()
	p, err := newPublisher(publisherOptions{
		server: c.URL, key: c.APIKey[0], uploadID: c.UploadID, retryFor: c.RetryFor, notes: std.err,
		hasLines: !c.buildsMessage(),
	})
	if err != nil {
		return err
	}
	defer p.close()
	if err := publishLines(ctx, p, input); err != nil {
		return p.explain(err)
	}
	if p.total == 0 {
		return errors.New("there is no message in the input; give one JSON message on each line")
	}
	return printLine(std.out, fmt.Sprintf("accepted %d, epoch %s, offset %d", p.total, p.last.Epoch, p.last.Offset))
}

// open returns the input of the messages.
func (c *publishCommand) open(stdin io.Reader) (io.ReadCloser, error) {
	switch {
	case c.buildsMessage():
		return io.NopCloser(bytes.NewReader(c.message())), nil
	case c.File == "" || c.File == "-":
		return io.NopCloser(stdin), nil
	}
	file, err := os.Open(c.File)
	if err != nil {
		return nil, fmt.Errorf("cannot read the messages: %w", err)
	}
	return file, nil
}

// message returns the message that the flags make.
func (c *publishCommand) message() []byte {
	percent := 0.0
	if c.Percent != nil {
		percent = *c.Percent
	}
	line, err := json.Marshal(map[string]any{
		"action": "upload_progress",
		"payload": map[string]any{
			"upload_id": c.UploadID, "status": c.Status, "stage": c.Stage, "progress_percent": percent,
			"message": c.Message, "error_message": nil, "description_audit_score": nil,
		},
	})
	if err != nil {
		panic("texts and a number have a JSON form")
	}
	return line
}

// publishLines sends the lines of the input, as many at a time as there are and a batch may have. A line is not held
// back for more to come: the input may be a pipe from a program that is at work.
func publishLines(ctx context.Context, p *publisher, input io.Reader) error {
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	lines := readLines(reading, input)
	sending, release := outlive(ctx, interruptGrace)
	defer release()
	b := &batch{first: 1}
	send := func() error {
		err := p.send(sending, b)
		b = &batch{first: b.next()}
		if err != nil && sending.Err() != nil {
			return errors.New("interrupted before the server has answered")
		}
		return err
	}
	for {
		l, ok, err := nextLine(ctx, lines, send)
		if err != nil {
			return err
		}
		switch {
		case !ok:
			return cmp.Or(send(), endedEarly(ctx))
		case errors.Is(l.err, bufio.ErrTooLong):
			tooLong := fmt.Errorf("line %d has more than %d bytes; give one message on each line", b.next(), maxLineBytes)
			return cmp.Or(send(), tooLong)
		case l.err != nil:
			return cmp.Or(send(), fmt.Errorf("cannot read the messages: %w", l.err))
		}
		if !b.fits(l.text) {
			if err := send(); err != nil {
				return err
			}
		}
		b.add(l.text)
	}
}

// interruptGrace is the time for publishing the lines that have been read before an interrupt: a server that is out of
// reach must not keep the command for --retry-for.
const interruptGrace = 2 * time.Second

// outlive returns a context that ends some time after ctx, or with release.
func outlive(ctx context.Context, grace time.Duration) (longer context.Context, release func()) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	return longer, func() {
		stop()
		cancel()
	}
}

// endedEarly returns an error if ctx has ended.
func endedEarly(ctx context.Context) error {
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	return nil
}

// nextLine returns the next line, or false at the end of the lines or of ctx. If no line arrives for a moment, it calls
// idle first.
func nextLine(ctx context.Context, lines <-chan line, idle func() error) (l line, ok bool, err error) {
	const moment = 5 * time.Millisecond // longer than reading the next line of a file takes
	timer := time.NewTimer(moment)
	defer timer.Stop()
	select {
	case l, ok = <-lines:
		return l, ok, nil
	case <-timer.C:
	}
	if err := idle(); err != nil {
		return line{}, false, err
	}
	select {
	case l, ok = <-lines:
		return l, ok, nil
	case <-ctx.Done():
		return line{}, false, nil
	}
}

// line is a line of the input, or the error that ended it.
type line struct {
	text []byte
	err  error
}

// readLines returns a channel of the input's lines, which ends with the input or with ctx. Reading the input does not
// end with ctx; the process does.
func readLines(ctx context.Context, input io.Reader) <-chan line {
	lines := make(chan line, 64)
	put := func(l line) bool {
		select {
		case lines <- l:
			return true
		case <-ctx.Done():
			return false
		}
	}
	go func() {
		defer close(lines)
		scanner := bufio.NewScanner(input)
		scanner.Buffer(nil, maxLineBytes)
		for first := true; scanner.Scan(); first = false {
			text := scanner.Bytes()
			if first {
				text = reload.TrimBOM(text)
			}
			if !put(line{text: bytes.Clone(text)}) {
				return
			}
		}
		if err := scanner.Err(); err != nil {
			put(line{err: err})
		}
	}()
	return lines
}

// batch is the lines of one request. Blank ones are kept, so that the server counts them as the file does.
type batch struct {
	first    int // the number of the first line, from 1
	lines    int
	messages int
	body     bytes.Buffer
}

func (b *batch) fits(line []byte) bool {
	return b.lines == 0 || b.lines < maxBatchLines && b.body.Len()+len(line)+1 <= maxBatchBytes
}

func (b *batch) add(line []byte) {
	if len(bytes.TrimSpace(line)) > 0 {
		b.messages++
	}
	b.lines++
	b.body.Write(line)
	b.body.WriteByte('\n')
}

// next is the number of the line after the batch.
func (b *batch) next() int { return b.first + b.lines }
