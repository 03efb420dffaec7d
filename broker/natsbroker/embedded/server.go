package embedded

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"golang.org/x/time/rate"
)

// Server is a NATS server within this process. Its methods may be called from any number of goroutines.
type Server struct {
	server *server.Server
	folder string // to be removed at the end, or ""
	close  func() error
}

// ErrNotReady is what Start's error wraps if the server did not get ready in time.
var ErrNotReady = errors.New("embedded: the server did not get ready in time")

// Start starts a server, and returns when it can be connected to; the other servers of a cluster may still be
// away then. The error lists all options that will not do, or says what could not be opened.
func Start(opt Options) (*Server, error) {
	opt = opt.withDefaults()
	if err := opt.validate(); err != nil {
		return nil, err
	}
	folder := ""
	if opt.StoreDir == "" {
		made, err := os.MkdirTemp("", "shoal-nats-")
		if err != nil {
			return nil, fmt.Errorf("embedded: make a folder for the server's state: %w", err)
		}
		folder, opt.StoreDir = made, made
	}
	inner, err := server.NewServer(opt.server())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("embedded: start the server: %w", err), removeAll(folder))
	}
	if opt.Logger != nil {
		inner.SetLoggerV2(logger{opt.Logger, &rate.Sometimes{First: 3, Interval: 10 * time.Second}}, false, false, false)
	}
	s := &Server{server: inner, folder: folder}
	s.close = sync.OnceValue(s.shutdown)
	inner.Start()
	if !inner.ReadyForConnections(opt.StartTimeout) {
		return nil, errors.Join(fmt.Errorf("%w: is an address taken?", ErrNotReady), s.Close())
	}
	return s, nil
}

// server returns the options as the server wants them.
func (o Options) server() *server.Options {
	out := &server.Options{
		ServerName: o.Name, NoSigs: true, NoLog: o.Logger == nil,
		JetStream: true, StoreDir: o.StoreDir, JetStreamMaxMemory: o.MaxMemory,
		DontListen: o.Addr == "" && o.ClusterAddr == "",
	}
	if out.ServerName == "" {
		out.ServerName = "shoal-" + rand.Text()[:10]
	}
	if o.Addr != "" {
		out.Host, out.Port = listenAt(o.Addr)
	}
	if o.ClusterAddr != "" {
		if o.Addr == "" {
			keepOut(out)
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

// keepOut makes a server listen where only this machine reaches it, and let nobody in but this process: a server
// that listens nowhere does not join a cluster either.
func keepOut(out *server.Options) {
	out.Host, out.Port = "127.0.0.1", server.RANDOM_PORT
	inside := &server.User{
		Username: "in-process", Password: rand.Text(),
		AllowedConnectionTypes: map[string]struct{}{jwt.ConnectionTypeInProcess: {}},
	}
	out.Users, out.NoAuthUser = []*server.User{inside}, inside.Username
}

// listenAt takes apart an address that validate has let pass. Port 0 means a free one.
func listenAt(address string) (string, int) {
	host, port, err := split(address)
	if err != nil || port == 0 {
		port = server.RANDOM_PORT
	}
	return host, port
}

// InProcessConn connects to the server without a socket; this makes a Server what natsbroker.Options.Server takes.
func (s *Server) InProcessConn() (net.Conn, error) { return s.server.InProcessConn() }

// Addr returns where the server listens, nil if nowhere. One of a cluster listens always, on loopback for nobody
// if Options.Addr is empty.
func (s *Server) Addr() net.Addr { return s.server.Addr() }

// ClusterAddr returns where it listens for other servers, nil if nowhere.
func (s *Server) ClusterAddr() net.Addr {
	if a := s.server.ClusterAddr(); a != nil {
		return a
	}
	return nil
}

// Close ends the server, and returns when it has ended. It may be called again, and then returns the same. The
// error says that the temporary folder could not be removed.
func (s *Server) Close() error { return s.close() }

func (s *Server) shutdown() error {
	s.server.Shutdown()
	s.server.WaitForShutdown()
	return removeAll(s.folder)
}

// removeAll removes a temporary folder, if there is one. The server has ended, with all that writes there: shutting
// down stops its stores and its part in elections, and waits for their goroutines.
func removeAll(folder string) error {
	if folder == "" {
		return nil
	}
	if err := os.RemoveAll(folder); err != nil {
		return fmt.Errorf("embedded: remove the server's temporary folder: %w", err)
	}
	return nil
}
