package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/shoal-go/shoal/manager"
)

// Identity is the owner of a connection.
type Identity struct {
	// UserID is the user, an id of the protocol; see manager.CheckID.
	UserID string
	// TokenID names the token or session that authenticated the user, so that all its connections can be closed.
	// "": none.
	TokenID string
	// Expires is when the connection ends unless it has shown a fresh token. Zero: never.
	Expires time.Time
	// Uploads are the uploads that the connection may follow, ids or prefixes that end in "*", for AuthorizeClaims.
	Uploads []string
	// Data belongs to the application, for example a tenant or a role: Identify or Authenticate sets it, Authorize and
	// Client.Identity return it. The server does not read it.
	Data any
}

// The codes of a TokenError, which shoal.v1 clients get in auth_error.
const (
	TokenInvalid = "invalid"
	TokenExpired = "expired"
	TokenRevoked = "revoked"
)

// TokenError means that a token is known to be bad; the connection is closed with 4003. Every other error of
// Authenticate means that the token cannot be checked now; the connection is closed with 1013, one that is already open
// not before its current token expires.
type TokenError struct {
	// Message is sent to the client. It names the problem and must not contain a secret.
	Message string
	// Code is one of the codes above. "": TokenInvalid.
	Code string
}

func (e *TokenError) Error() string { return "server: token refused: " + e.Message }

// code returns the code for the client.
func (e *TokenError) code() string {
	if e.Code == "" {
		return TokenInvalid
	}
	return e.Code
}

// ErrForbidden is returned by Authorize for an upload that the user may not follow.
var ErrForbidden = errors.New("server: the user may not follow this upload")

// Authenticate returns the identity that a token belongs to. A *TokenError refuses the token, any other error means
// that it cannot be checked now and is logged. It may block on behalf of this one connection; ctx ends with the
// connection, and after Options.HookTimeout.
//
// A token that was revoked before the call must be refused here. Manager.DisconnectToken and Manager.DisconnectUser
// also close the connection for which it is being called.
type Authenticate func(ctx context.Context, token string) (Identity, error)

// Authorize decides whether a connection may follow an upload: nil if so, ErrForbidden if not. Any other error means
// that it cannot be decided now and is logged: the client has to try again. It may block on behalf of this one
// connection, and for a resume it is called from several goroutines at a time; ctx ends with the connection, and after
// Options.HookTimeout.
//
// It is called when a connection subscribes or resumes, and for all of a connection's own subscriptions when the
// connection renews its token.
type Authorize func(ctx context.Context, id Identity, uploadID string) error

// lifetime ends the contexts of a connection's hooks when the connection ends. The zero value is a connection that
// lives. Contexts are made on demand: an idle connection holds none.
type lifetime struct {
	ended bool
	mu    sync.Mutex // protects all fields; nothing is called under it
	// context is the result of Client.Context, nil before the first call.
	context *connContext
	// hook is the call of a hook that is running, nil while none is.
	hook *hookCall
}

// connContext is the context of a connection.
type connContext struct {
	ctx    context.Context // the lifetime of the connection itself
	cancel context.CancelFunc
}

// hookCall is a call of a hook, and its context. Most hooks do not look at the context, so its timer and its entry in
// the server's context are made on demand.
type hookCall struct {
	name     string
	parent   context.Context // the server's
	deadline time.Time
	mu       sync.Mutex      // protects the fields below
	made     context.Context // nil before it is asked for
	cancel   context.CancelFunc
	ended    bool
}

// context returns the context that the methods of the call pass on to, and makes it before the first use.
func (h *hookCall) context() context.Context {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.made == nil {
		h.made, h.cancel = context.WithDeadline(h.parent, h.deadline)
		if h.ended {
			h.cancel()
		}
	}
	return h.made
}

// end ends the context.
func (h *hookCall) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	if h.cancel != nil {
		h.cancel()
	}
}

// Deadline implements [context.Context], as do the methods that follow.
func (h *hookCall) Deadline() (time.Time, bool) { return h.deadline, true }
func (h *hookCall) Done() <-chan struct{}       { return h.context().Done() }
func (h *hookCall) Err() error                  { return h.context().Err() }
func (h *hookCall) Value(key any) any           { return h.context().Value(key) }

// Context returns a context that ends when the connection does: as soon as the client has closed its side or the
// server has closed the socket, also while a hook is running. On systems other than Linux, and where the listener's
// connections are neither TCP, Unix nor TLS over these, a client that leaves while a hook is running is noticed when
// it returns.
func (c *Client) Context() context.Context {
	l := &c.lifetime
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.context == nil {
		parent := context.Background()
		if c.server != nil {
			parent = c.server.ctx
		}
		ctx, cancel := context.WithCancel(parent)
		l.context = &connContext{ctx, cancel}
		if l.ended || c.server == nil { // a zero Client has no connection
			cancel()
		}
	}
	return l.context.ctx
}

// call runs a hook with a context that ends with the connection, with the server and after a timeout. The calls of one
// connection come one after the other.
func (c *Client) call(name string, timeout time.Duration, hook func(context.Context)) {
	h := &hookCall{name: name, parent: c.server.ctx, deadline: time.Now().Add(timeout)}
	defer h.end()
	c.run(h, func() { hook(h) })
}

// runHook runs a hook that has no context.
func (c *Client) runHook(name string, hook func()) { c.run(&hookCall{name: name}, hook) }

// run notes a call of a hook while it runs, for the error of Server.Close and for the end of the connection.
func (c *Client) run(h *hookCall, hook func()) {
	l := &c.lifetime
	l.mu.Lock()
	l.hook = h
	ended := l.ended
	l.mu.Unlock()
	if ended {
		h.end()
	}
	defer func() {
		c.lastRead.Store(int64(c.server.clock())) // see SilentFor
		l.mu.Lock()
		l.hook = nil
		l.mu.Unlock()
	}()
	hook()
}

// hookContext returns a context for the hooks of a request that have no connection yet: it ends with the request, with
// the server and after Options.HookTimeout.
func (s *Server) hookContext(r *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(r.Context(), s.opt.HookTimeout)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

// awaits reports whether the answer to a request is awaited: the client has not left, and the server is not closed.
// Otherwise these have ended the hook, whose error is none of the operator's concern.
func (s *Server) awaits(r *http.Request) bool { return r.Context().Err() == nil && s.ctx.Err() == nil }

// requestHooks counts the running hooks that belong to no connection. The zero value is ready for use.
type requestHooks struct {
	mu      sync.Mutex // protects the fields below
	running map[string]int
	// idle is closed when no hook runs; nil: nobody waits for that.
	idle chan struct{}
}

// run notes that a hook runs until done is called.
func (h *requestHooks) run(name string) (done func()) {
	h.add(name, 1)
	return func() { h.add(name, -1) }
}

func (h *requestHooks) add(name string, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.running == nil {
		h.running = make(map[string]int)
	}
	if h.running[name] += n; h.running[name] == 0 {
		delete(h.running, name)
	}
	if len(h.running) == 0 && h.idle != nil {
		close(h.idle)
		h.idle = nil
	}
}

// ended returns a channel that is closed as soon as no hook runs.
func (h *requestHooks) ended() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.idle == nil {
		h.idle = make(chan struct{})
	}
	idle := h.idle
	if len(h.running) == 0 {
		close(h.idle)
		h.idle = nil
	}
	return idle
}

// counts returns the number of running hooks by name.
func (h *requestHooks) counts() map[string]int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.running)
}

// runningHook returns the name of the hook that is running, or "".
func (c *Client) runningHook() string {
	c.lifetime.mu.Lock()
	hook := c.lifetime.hook
	c.lifetime.mu.Unlock()
	if hook != nil {
		return hook.name
	}
	return c.claims.runningHook()
}

// endContexts ends the contexts of the connection. Further calls have no effect.
func (c *Client) endContexts() {
	l := &c.lifetime
	l.mu.Lock()
	l.ended = true
	made, hook := l.context, l.hook
	l.mu.Unlock()
	if made != nil {
		made.cancel()
	}
	if hook != nil {
		hook.end()
	}
}

// gone reports whether the connection has ended.
func (c *Client) gone() bool {
	l := &c.lifetime
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// guard runs a handler of the client. A panic closes only this connection. So does a hook that ends the goroutine, but
// the caller ends too.
func (c *Client) guard(handle func()) {
	returned := false
	defer func() {
		if !returned {
			c.panicked(recover())
		}
	}()
	handle()
	returned = true
}

// panicked closes a connection whose handling panicked.
func (c *Client) panicked(problem any) {
	c.server.panicked(problem, c.UserID())
	c.Close(manager.InternalError)
}

// panicked counts and logs a panic while a client was handled; its value is nil if a hook has ended its goroutine. It
// could hold bytes of the client, so it is logged only if it is the runtime's.
func (s *Server) panicked(problem any, userID string) {
	s.counters.panics.Add(1)
	kind := "runtime.Goexit"
	if problem != nil {
		kind = fmt.Sprintf("%T", problem)
	}
	attrs := []any{"user", userID, "type", kind, "stack", string(debug.Stack())}
	if err, ok := problem.(runtime.Error); ok {
		attrs = append(attrs, "error", err.Error())
	}
	s.logs.panics.Log(s.opt.Logger, slog.LevelError, "panic while handling a client", attrs...)
}

// Observer gets durations while the server works. Its functions are called from many goroutines, also from those that
// write to clients, so they must return at once; nil ones are not called.
type Observer struct {
	// Written gets the time from the moment when this node had a message of an upload, by Publish or from the broker,
	// until it was handed to the kernel, for a sample of the writes. Messages of a recovery do not count.
	Written func(time.Duration)
	// Waited gets the time for which the oldest message of a slow connection had waited, at each write to it.
	Waited func(time.Duration)
	// Authenticated gets the duration of each call of Authenticate and Identify, Authorized that of each call of
	// Authorize.
	Authenticated func(Decision, time.Duration)
	Authorized    func(Decision, time.Duration)
}

// Decision is the outcome of a hook that decides about a client.
type Decision string

// The decisions. Unavailable: the hook could not decide, or has panicked.
const (
	Allowed     Decision = "allowed"
	Denied      Decision = "denied"
	Unavailable Decision = "unavailable"
)

// decided returns the Decision that the error of a hook means.
func decided(err error) Decision {
	var refused *TokenError
	switch {
	case err == nil:
		return Allowed
	case errors.As(err, &refused), errors.Is(err, ErrForbidden), errors.Is(err, http.ErrNoCookie):
		return Denied
	}
	return Unavailable
}

// observe calls a hook and tells its decision and duration. A hook that does not return could not decide.
func observe(to func(Decision, time.Duration), hook func() (Identity, error)) (id Identity, err error) {
	begin, decision := time.Now(), Unavailable
	defer func() { to(decision, time.Since(begin)) }()
	id, err = hook()
	decision = decided(err)
	return id, err
}

// observeHooks has the Observer get the durations of the hooks.
func (o *Options) observeHooks() {
	if to, hook := o.Observer.Authenticated, o.Authenticate; to != nil && hook != nil {
		o.Authenticate = func(ctx context.Context, token string) (Identity, error) {
			return observe(to, func() (Identity, error) { return hook(ctx, token) })
		}
	}
	if to, hook := o.Observer.Authenticated, o.Identify; to != nil && hook != nil {
		o.Identify = func(r *http.Request) (Identity, error) {
			return observe(to, func() (Identity, error) { return hook(r) })
		}
	}
	if to, hook := o.Observer.Authorized, o.Authorize; to != nil && hook != nil {
		o.Authorize = func(ctx context.Context, id Identity, uploadID string) error {
			_, err := observe(to, func() (Identity, error) { return id, hook(ctx, id, uploadID) })
			return err
		}
	}
}
