// Package embedded runs a NATS server in the process, alone or in a cluster, so that nodes need no other service.
// Importing natsbroker alone does not compile the server.
//
// # A single server
//
// The zero Options suffice: the server has no listener, and its broker reaches it through memory. Stored messages are
// lost when the process ends.
//
// # A cluster of nodes
//
// Each node runs a server with ClusterAddr and the ClusterRoutes to the others. They elect leaders by majority:
//
//   - With natsbroker.Options.Replicas of 3, one of three or two of five servers may fail without loss.
//   - Two servers are worse than one: both are needed for a majority. If one fails, the other can neither store nor
//     read, and Health says so until it is back. Run one or three.
//   - A server that restarts has lost its messages in memory and copies them from the others. Ready says when it has
//     them: before, no other server should be stopped.
//   - A member is its address in ClusterRoutes. A server that starts there again, under another Name and with an
//     empty directory, is the same member. Ready names the members that are missing.
//
// Messages to subscribers do not depend on a majority.
package embedded

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/time/rate"
)

// Server is a NATS server in this process. Its methods are safe for concurrent use.
type Server struct {
	server *server.Server
	store  *store
	memory int64
	// members are the addresses of all members that are known from the options.
	members []string
	log     *slog.Logger
	started time.Time
	ready   atomic.Bool // whether Ready has returned nil
	own     replicas
	close   func() error
}

// ErrNotReady is wrapped by the error of Start if the server does not accept connections within StartTimeout.
var ErrNotReady = errors.New("embedded: the server was not ready in time")

// Start starts a server and returns when it accepts connections; the other servers of a cluster may not have started
// yet. The error lists all invalid options, or names the address or directory that could not be opened.
func Start(opt Options) (*Server, error) {
	opt = opt.withDefaults()
	if err := opt.validate(); err != nil {
		return nil, err
	}
	store, err := openStore(opt.StoreDir)
	if err != nil {
		return nil, err
	}
	opt.StoreDir = store.dir
	inner, err := server.NewServer(opt.server())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("embedded: start the server: %w", err), store.close())
	}
	s := &Server{server: inner, store: store, memory: opt.MaxMemory, members: opt.members(), started: time.Now()}
	s.log = cmp.Or(opt.Logger, slog.New(slog.DiscardHandler))
	if opt.Logger != nil {
		sample := func() *rate.Sometimes { return &rate.Sometimes{First: 3, Interval: 10 * time.Second} }
		inner.SetLoggerV2(logger{opt.Logger, sample(), sample(), s.settled}, false, false, false)
	}
	s.close = sync.OnceValue(s.shutdown)
	inner.Start()
	if !inner.ReadyForConnections(opt.StartTimeout) {
		return nil, errors.Join(fmt.Errorf("%w: is an address taken?", ErrNotReady), s.Close())
	}
	return s, nil
}

// server returns the options of the NATS server.
func (o Options) server() *server.Options {
	out := &server.Options{
		ServerName: o.Name, NoSigs: true, NoLog: o.Logger == nil,
		JetStream: true, StoreDir: o.StoreDir, JetStreamMaxMemory: o.MaxMemory,
		DontListen: o.Addr == "" && o.ClusterAddr == "",
	}
	if member := o.memberName(); member != "" {
		out.ServerName = member
	}
	if out.ServerName == "" {
		out.ServerName = "shoal-" + rand.Text()[:10]
	}
	if o.Addr != "" {
		out.Host, out.Port = listenAt(o.Addr)
	}
	if o.ClusterAddr != "" {
		if o.Addr == "" {
			inProcessOnly(out)
		}
		out.Cluster.Name = o.ClusterName
		out.Cluster.Host, out.Cluster.Port = listenAt(o.ClusterAddr)
		if o.ClusterSecret != "" {
			out.Cluster.Username, out.Cluster.Password = clusterUser, o.ClusterSecret
		}
		out.Routes = o.routes()
	}
	return out
}

// inProcessOnly makes a server listen on loopback and accept only connections of this process: a server without a
// listener cannot join a cluster.
func inProcessOnly(out *server.Options) {
	out.Host, out.Port = "127.0.0.1", server.RANDOM_PORT
	inside := &server.User{
		Username: "in-process", Password: rand.Text(),
		AllowedConnectionTypes: map[string]struct{}{jwt.ConnectionTypeInProcess: {}},
	}
	out.Users, out.NoAuthUser = []*server.User{inside}, inside.Username
}

// listenAt splits an address that validate has accepted. Port 0 selects a free one.
func listenAt(address string) (string, int) {
	host, port, err := split(address)
	if err != nil || port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port
}

// MemoryLimit returns Options.MaxMemory, from which natsbroker derives the bound of its stream.
func (s *Server) MemoryLimit() int64 { return s.memory }

// InProcessConn connects to the server without a socket, as natsbroker.Options.Server requires. It fails after Close.
func (s *Server) InProcessConn() (net.Conn, error) { return s.server.InProcessConn() }

// Routes returns the ids of the connections to the other servers of the cluster, from which natsbroker learns that
// messages may have been lost between two servers.
func (s *Server) Routes() []uint64 {
	all, err := s.server.Routez(new(server.RoutezOptions))
	if err != nil {
		return nil
	}
	var ids []uint64
	for _, r := range all.Routes {
		ids = append(ids, r.Rid)
	}
	return ids
}

// Addr returns the address of the client listener, or nil. In a cluster there always is one; without
// Options.Addr it is on loopback and rejects every client.
func (s *Server) Addr() net.Addr { return s.server.Addr() }

// ClusterAddr returns the address of the cluster listener, or nil.
func (s *Server) ClusterAddr() net.Addr {
	if a := s.server.ClusterAddr(); a != nil {
		return a
	}
	return nil
}

// Close stops the server and waits until it has stopped. Further calls return the same. The error means that the
// temporary directory could not be removed.
func (s *Server) Close() error { return s.close() }

func (s *Server) shutdown() error {
	s.server.Shutdown()
	s.server.WaitForShutdown()
	return s.store.close()
}

// ErrBehind is returned by Ready while the server lacks stored state, or the cluster a majority.
var ErrBehind = errors.New("embedded: the NATS server has not caught up with its cluster")

// ErrCannotStore is returned by Ready after a write to the folder of the messages has failed, such as on a full disk.
// The server stores nothing more, even if there is room again, until it is restarted.
var ErrCannotStore = errors.New("embedded: the NATS server cannot store messages; make room and restart this node")

// Ready returns nil if the server has everything that it should store. Else the error wraps ErrCannotStore and names
// the file, or it wraps ErrBehind and names the configured members that this server is not connected to. Do not stop
// another server on purpose before: the majority that then remains may lack the state. After the start, or
// after the server lacked something, it asks the leaders of the cluster what it should have, and waits for the answers
// for at most a second.
func (s *Server) Ready() error {
	v := healthResponse{header: make(http.Header)}
	s.server.HandleHealthz(&v, &http.Request{Method: http.MethodGet, URL: new(url.URL)})
	if v.status == http.StatusOK {
		if err := s.checkReplicas(); err != nil {
			return fmt.Errorf("%w: %w", ErrBehind, err)
		}
		if !s.ready.Swap(true) {
			s.warnOfFormerMembers()
		}
		return nil
	}
	s.own.outdate()
	if reason := v.reason(); strings.Contains(reason, "write error") {
		return fmt.Errorf("%w: %s", ErrCannotStore, reason)
	}
	missing := s.missing()
	if len(missing) == 0 {
		if former := s.formerMembers(); former > 0 {
			return fmt.Errorf("%w: its folder has %d members that are not among the routes: start the servers at the addresses "+
				"that they had before, or all of them with empty folders", ErrBehind, former)
		}
		return ErrBehind
	}
	return fmt.Errorf("%w: %d of %d members are connected, %d are needed, missing: %s", ErrBehind,
		len(s.members)-len(missing), len(s.members), s.quorum(), strings.Join(missing, ", "))
}

// settling is how long after its start a server may lack routes or a leader without a warning: the servers of a cluster
// wait for each other.
const settling = 30 * time.Second

// settled reports whether a missing route or leader is a fault, and not a part of the start.
func (s *Server) settled() bool { return s.ready.Load() || time.Since(s.started) > settling }

// healthResponse records the server's health. It is not safe for concurrent use.
type healthResponse struct {
	header http.Header
	status int
	body   []byte
}

func (h *healthResponse) Header() http.Header { return h.header }

func (h *healthResponse) WriteHeader(status int) { h.status = status }

func (h *healthResponse) Write(p []byte) (int, error) {
	if h.status == 0 {
		h.status = http.StatusOK
	}
	h.body = append(h.body, p...)
	return len(p), nil
}

// reason returns the server's reason for not being healthy, or "".
func (h *healthResponse) reason() string {
	var health server.HealthStatus
	if json.Unmarshal(h.body, &health) != nil {
		return ""
	}
	return health.Error
}

// logger forwards the log of the NATS server to an slog.Logger. Its methods are safe for concurrent use.
type logger struct {
	out *slog.Logger
	// routes and refused sample the errors of noRoute and onRoute.
	routes, refused *rate.Sometimes
	settled         func() bool
}

// Parts of warnings of the NATS server that need no attention.
var (
	// routine are health checks, which calls of Server.Ready cause and whose result it returns; the secret of the
	// cluster, which is a password; and snapshots, which each shutdown takes.
	routine = []string{
		"Healthcheck failed", "Falling behind in health check", "Health check OK", "Plaintext passwords detected",
		"Metalayer blocking snapshot",
	}
	// starting are expected until the servers of a cluster have found each other.
	starting = []string{
		"Waiting for routing to be established", "JetStream has not established contact with a meta leader",
		"Detected another leader with higher term",
	}
)

const (
	// noRoute begins the error of each attempt to reach another server.
	noRoute = "Error trying to connect to route"
	// onRoute is in the errors of a connection to another server, such as one with a wrong secret, and of strangers that
	// connect to the port of the cluster.
	onRoute = " - rid:"
)

// expected reports whether a line needs no attention now.
func (l logger) expected(text string) bool {
	has := func(part string) bool { return strings.Contains(text, part) }
	return slices.ContainsFunc(routine, has) || slices.ContainsFunc(starting, has) && !l.settled()
}

// Noticef logs routine events.
func (l logger) Noticef(format string, v ...any) { l.out.Debug(line(format, v)) }

// Warnf logs events that may need attention.
func (l logger) Warnf(format string, v ...any) {
	level := slog.LevelWarn
	if l.expected(fmt.Sprintf(format, v...)) {
		level = slog.LevelDebug
	}
	l.out.Log(context.Background(), level, line(format, v))
}

// Errorf logs errors. A route to a node that is unreachable or refuses it is tried, and reported, several times a
// second; only a sample of these errors is logged.
func (l logger) Errorf(format string, v ...any) {
	switch {
	case strings.Contains(format, onRoute):
		l.refused.Do(func() { l.out.Error(line(format, v)) })
	case !strings.HasPrefix(format, noRoute):
		l.out.Error(line(format, v))
	case l.settled():
		l.routes.Do(func() { l.out.Warn(line(format, v)) })
	default:
		l.out.Debug(line(format, v))
	}
}

// Fatalf logs errors that stop the server. It does not end the process: Start returns an error.
func (l logger) Fatalf(format string, v ...any) { l.out.Error(line(format, v)) }

// Debugf logs nothing: debug messages hold payloads.
func (l logger) Debugf(string, ...any) {}

// Tracef logs nothing.
func (l logger) Tracef(string, ...any) {}

func line(format string, v []any) string { return "NATS server: " + fmt.Sprintf(format, v...) }
