package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-go/shoal/client"
)

const (
	// maxWatched is the most uploads that one command follows.
	maxWatched = 1000
	// watchConnect bounds one attempt to connect.
	watchConnect = 10 * time.Second
)

type watchCommand struct {
	UploadIDs []string `arg:"" name:"upload-id" help:"Upload to follow; several may be given."`

	URL       string `default:"http://127.0.0.1:8080" help:"Address of the server."`
	Token     string `secret:"" placeholder:"JWT" help:"JSON Web Token of a user who may follow the uploads."`
	TokenFile string `placeholder:"FILE" help:"File with the token, read again whenever a fresh one is needed."`
	Dev       bool   `help:"Get a token from a development server."`
	JSON      bool   `name:"json" help:"Print each message as one line of JSON."`

	GiveUpAfter time.Duration `default:"2m" min:"1s" max:"8760h" help:"Time without a connection after which to give up."`

	checked string // the token that check has read: a pipe cannot be read twice
}

func (c *watchCommand) check(s *settings) {
	var ids []string
	for _, id := range c.UploadIDs {
		s.checkID("upload-id", id)
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	c.UploadIDs = ids
	if len(ids) > maxWatched {
		s.note(fmt.Sprintf("%d uploads are given, want at most %d", len(ids), maxWatched))
	}
	checkURL(s, "url", c.URL, "the server's address, such as http://127.0.0.1:8080")
	c.checkSources(s)
	if c.TokenFile != "" {
		token, err := readToken(c.TokenFile)
		if err != nil {
			s.refuse("token-file", err.Error())
		}
		c.checked = token
	}
}

// checkSources keeps one source of the token: one on the command line wins over one in the environment, and that over
// one in the file of settings.
func (c *watchCommand) checkSources(s *settings) {
	sources := []struct {
		flag  string
		given bool
		drop  func()
	}{
		{"token", c.Token != "", func() { c.Token = "" }},
		{"token-file", c.TokenFile != "", func() { c.TokenFile = "" }},
		{"dev", c.Dev, func() { c.Dev = false }},
	}
	highest := 0
	for _, source := range sources {
		if source.given {
			highest = max(highest, s.precedence(source.flag))
		}
	}
	var kept []string
	for _, source := range sources {
		switch {
		case !source.given:
		case s.precedence(source.flag) < highest:
			source.drop()
		default:
			kept = append(kept, s.key(source.flag))
		}
	}
	switch {
	case len(kept) == 0:
		s.refuse("token", "is missing, want a token such as one of shoal token, or --dev for a development server")
	case len(kept) > 1:
		s.note(strings.Join(kept, " and ") + " are given, want one of them")
	}
}

// Run follows the uploads until each has an outcome or is given up, or an interrupt. A second interrupt ends the
// process, which the first one cannot do while the output is a pipe without a reader.
func (c *watchCommand) Run(ctx context.Context, std streams) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := &watching{flags: c, cancel: cancel, view: newWatchView(std, c.JSON)}
	for _, id := range c.UploadIDs {
		w.uploads = append(w.uploads, newWatched(id))
	}
	followed, err := client.New(c.URL, client.Options{
		Token: c.token, GiveUpAfter: c.GiveUpAfter, OnState: w.connection,
		ConnectTimeout: min(watchConnect, c.GiveUpAfter),
	})
	if err != nil {
		return usageError{strings.TrimPrefix(err.Error(), "client: ")}
	}
	defer followed.Close()
	w.view.begin(w.uploads)
	var loops sync.WaitGroup
	for _, u := range w.uploads {
		loops.Go(func() { w.follow(ctx, followed, u) })
	}
	loops.Wait()
	w.view.end()
	return w.result(ctx)
}

// watching is one run of the command.
type watching struct {
	flags   *watchCommand
	uploads []*watched
	view    watchView
	cancel  context.CancelCauseFunc

	lost bool // the connection is interrupted; the client's goroutine alone uses it
}

// follow follows one upload until its outcome.
func (w *watching) follow(ctx context.Context, c *client.Client, u *watched) {
	for m, err := range c.Follow(ctx, u.id) {
		var gap *client.GapError
		switch {
		case errors.As(err, &gap):
			u.interrupted()
			w.print(w.view.note(u.name + ": messages were lost, the server's history does not reach back to them"))
		case err != nil:
			u.giveUp(err)
			w.print(w.view.changed(u))
			return
		default:
			shown := u.receive(m)
			w.print(w.view.message(u, m, shown))
			if u.ended() {
				return
			}
		}
	}
}

// print ends the command if its output cannot be written.
func (w *watching) print(err error) {
	if err != nil {
		w.cancel(outputError{err})
	}
}

// outputError is the reason of a command that ends since its output cannot be written.
type outputError struct{ error }

func (e outputError) Error() string { return "cannot print the messages: " + e.error.Error() }

// connection reports interruptions of the connection and their ends, each once.
func (w *watching) connection(s client.State) {
	switch {
	case s.Status == client.Waiting && !w.lost && s.Retry > 0:
		w.lost = true
		w.print(w.view.note(w.flags.explain(s.Err) + "; trying again"))
	case s.Status == client.Live && w.lost:
		w.lost = false
		w.print(w.view.note("connected again"))
	}
}

// result returns the error that stands for the outcomes: nil if all uploads are completed and all messages are printed.
func (w *watching) result(ctx context.Context) error {
	var failed, open []string
	var unprinted outputError
	cause := context.Cause(ctx)
	lost := errors.As(cause, &unprinted)
	for _, u := range w.uploads {
		switch why := u.why(); {
		case u.completed():
		case u.failed():
			failed = append(failed, fmt.Sprintf("%s failed: %s", u.name, why))
		case ctx.Err() != nil:
			open = append(open, u.name)
		default:
			open = append(open, w.flags.explain(u.reason()))
		}
	}
	switch {
	case lost && len(open) == 0:
		open = []string{cause.Error()}
	case lost:
		open = []string{fmt.Sprintf("%v; %d of %d uploads have not ended", cause, len(open), len(w.uploads))}
	case cause != nil && len(open) > 0:
		open = []string{fmt.Sprintf("interrupted; %d of %d uploads have not ended", len(open), len(w.uploads))}
	}
	lines := slices.Concat(failed, slices.Compact(open))
	switch {
	case len(failed) > 0 || lost:
		return statusError{statusFailed, lines}
	case len(open) > 0:
		return statusError{statusGivenUp, lines}
	}
	return nil
}
