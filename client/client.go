package client

import (
	"context"
	"errors"
	"iter"
	"net/url"
	"sync"
)

// Client follows uploads over one connection and publishes messages. Its methods may be called from any number of
// goroutines.
type Client struct {
	opt      Options
	url      *url.URL
	ctx      context.Context // ends with Close
	stop     context.CancelFunc
	routines sync.WaitGroup

	// mu protects the fields below and the uploads, loops, queues and cursors. No I/O and no callback but
	// Options.StateKey happens while it is held.
	mu       sync.Mutex
	closed   bool
	running  bool // a goroutine keeps the connection
	uploads  map[string]*upload
	link     *link // the authenticated connection, or nil
	budget   budget
	token    string // the newest token, or "" after it was refused
	attached bool   // a connection to this server has been live before
	accepted bool   // the server has accepted a message
}

// New returns a client of the server at a URL such as https://shoal.example.com, whose path is a prefix of the server's
// paths. It does not connect. The error names each invalid option.
func New(address string, o Options) (*Client, error) {
	u, err := parseURL(address)
	o = o.withDefaults()
	if err := errors.Join(err, o.validate()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Client{
		opt: o, url: u, ctx: ctx, stop: cancel,
		uploads: map[string]*upload{}, budget: budget{limit: o.QueueBytes},
	}, nil
}

// Close ends all loops with ErrClosed, closes the connection and returns when no goroutine of the client is left. It
// may be called more than once, but not from a callback.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.endAll(ErrClosed)
	c.mu.Unlock()
	c.stop()
	c.routines.Wait()
	c.opt.closeIdle()
	return nil
}

// Follow returns a loop over the messages of an upload: the newest one first, if there is one, then each later one. The
// upload is followed while the loop runs, and loops over the same upload share a subscription.
//
// An error that is a *GapError reports lost messages, and the loop may continue. Any other error is the last: the error
// of ctx, ErrClosed, or one of the other variables of this package. Without an error the loop only ends by a break.
func (c *Client) Follow(ctx context.Context, uploadID string) iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		f, err := c.join(uploadID)
		if err != nil {
			yield(Message{}, err)
			return
		}
		defer c.leave(f)
		for {
			it, err := c.next(ctx, f)
			switch {
			case err != nil:
				yield(Message{}, err)
				return
			case it.gap != nil:
				if !yield(Message{}, it.gap) {
					return
				}
			case !yield(it.message, nil):
				return
			}
		}
	}
}

// join adds a loop and starts the connection unless it is running.
func (c *Client) join(uploadID string) (*follower, error) {
	if err := checkID(uploadID); err != nil {
		return nil, err
	}
	if c.opt.Token == nil {
		return nil, errors.New("client: Options.Token is nil, want a function that returns a token")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	u := c.uploads[uploadID]
	if u == nil {
		u = &upload{id: uploadID}
		c.uploads[uploadID] = u
	}
	f := u.follow(queue{limit: c.opt.QueueMessages, stateKey: c.opt.StateKey, budget: &c.budget})
	c.changed(uploadID)
	if !c.running {
		c.running = true
		c.routines.Go(c.run)
	}
	return f, nil
}

// leave removes a loop.
func (c *Client) leave(f *follower) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := f.upload
	u.unfollow(f)
	if len(u.followers) == 0 && c.uploads[u.id] == u {
		delete(c.uploads, u.id)
		c.changed(u.id)
	}
}

// changed makes the connection subscribe or unsubscribe an upload. The lock is held.
func (c *Client) changed(uploadID string) {
	if c.link != nil {
		c.link.changed(uploadID)
	}
}

// next returns the next item of a loop. It blocks until there is one.
func (c *Client) next(ctx context.Context, f *follower) (item, error) {
	for {
		if err := ctx.Err(); err != nil {
			return item{}, err
		}
		c.mu.Lock()
		it, ok, drained := f.next()
		err := f.err
		if drained {
			c.changed(f.upload.id)
		}
		c.mu.Unlock()
		switch {
		case ok:
			return it, nil
		case err != nil:
			return item{}, err
		}
		select {
		case <-f.ready:
		case <-ctx.Done():
		}
	}
}

// endAll ends all loops. The lock is held.
func (c *Client) endAll(err error) {
	for id, u := range c.uploads {
		u.end(err)
		delete(c.uploads, id)
	}
}
