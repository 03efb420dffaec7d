package redisbroker

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/redis/rueidis"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/internal/health"
)

// commandConn sends commands to one server during one of its terms as master. It is immutable and may be used by any
// number of goroutines.
type commandConn struct {
	client rueidis.Client
	term   string // the token of the term
	sha    [scriptCount]string
	// evicts is the policy by which the server removes keys when its memory is full, or "".
	evicts string
}

// oldest is the first version of Redis with sharded pub/sub, and with stream ids that are given in part.
const oldest = 7

// dial connects to a server. The connection and its replacements are made until ctx ends.
func (b *Broker) dial(ctx context.Context, addr string, as login, db int) (rueidis.Client, error) {
	const buffer = 64 << 10
	option := rueidis.ClientOption{
		InitAddress:         []string{addr},
		Username:            as.user,
		Password:            as.password,
		SelectDB:            db,
		TLSConfig:           b.target.tls,
		ClientName:          "shoal",
		Dialer:              net.Dialer{Timeout: b.opt.Timeout},
		ConnWriteTimeout:    b.opt.Timeout,
		ReadBufferEachConn:  buffer,
		WriteBufferEachConn: buffer,
		PipelineMultiplex:   -1, // one connection, which writes all queued commands at once
		// Or else a command that is alone on the connection closes it where its deadline passes, such as that of a probe.
		AlwaysPipelining:  true,
		ForceSingleClient: true,
		DisableCache:      true,
		DisableRetry:      true, // fail at once; the caller knows whether a retry is safe
		DialCtxFn: func(dialing context.Context, addr string, dialer *net.Dialer, config *tls.Config) (net.Conn, error) {
			dialing, cancel := context.WithCancel(dialing)
			defer cancel()
			defer context.AfterFunc(ctx, cancel)()
			var conn net.Conn
			var err error
			if config != nil {
				if b.opt.RootCAs != nil {
					config = config.Clone()
					config.RootCAs = b.opt.RootCAs()
				}
				conn, err = (&tls.Dialer{NetDialer: dialer, Config: config}).DialContext(dialing, "tcp", addr)
			} else {
				conn, err = dialer.DialContext(dialing, "tcp", addr)
			}
			if err != nil {
				return nil, err
			}
			return &greetedConn{Conn: conn}, nil
		},
	}
	client, err := rueidis.NewClient(option)
	if err != nil && client != nil {
		client.Close()
	}
	if err != nil && b.target.tls == nil && health.IsClosed(err) {
		err = fmt.Errorf("%w: if this persists, the server may require TLS: begin %s with rediss", err,
			b.optionNames().Of(health.URLOption))
	}
	return client, err
}

// greetedConn is a connection of a server that may refuse it before any command. A full server does so and closes the
// connection, which the client that has sent its first commands meanwhile would report as the end of the connection.
type greetedConn struct {
	net.Conn
	greeted atomic.Bool
}

// Read reads from the connection. The refusal of a full server is errTooManyClients.
func (c *greetedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.greeted.Swap(true) && bytes.HasPrefix(p[:n], []byte("-ERR "+tooManyClients)) {
		return 0, errTooManyClients
	}
	return n, err
}

// attach checks that a server is suitable, and loads the scripts for its current term. It uses one connection, so that
// one process answers.
func (b *Broker) attach(ctx context.Context, addr string, client rueidis.Client) (*commandConn, error) {
	ctx, cancel := context.WithTimeout(ctx, b.opt.Timeout)
	defer cancel()
	conn, release := client.Dedicate()
	defer release()
	server, err := conn.Do(ctx, conn.B().Info().Section("server").Build()).ToString()
	if err != nil {
		return nil, err
	}
	if err := checkVersion(addr, infoField(server, "redis_version")); err != nil {
		return nil, err
	}
	info, err := conn.Do(ctx, conn.B().Info().Section("replication", "cluster", "memory").Build()).ToString()
	if err != nil {
		return nil, err
	}
	if err := b.checkKind(addr, info); err != nil {
		return nil, err
	}
	l := &commandConn{client: client, evicts: evictionPolicy(info)}
	sha, err := conn.Do(ctx, conn.B().ScriptLoad().Script(termOnly).Build()).ToString()
	if err != nil {
		return nil, err
	}
	if l.term, err = conn.Do(ctx, conn.B().Evalsha().Sha1(sha).Numkeys(0).Build()).ToString(); err != nil {
		return nil, err
	}
	if len(l.term) < tokenLength {
		return nil, fatalf("redisbroker: %s does not tell its run_id and master_replid by INFO: they are needed", addr)
	}
	for i, text := range b.scripts(l.term) {
		if l.sha[i], err = conn.Do(ctx, conn.B().ScriptLoad().Script(text).Build()).ToString(); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// scripts returns the scripts for a server's term.
func (b *Broker) scripts(term string) [scriptCount]string {
	return scriptTexts(b.target.mode, term, b.opt.Messages, b.opt.TTL)
}

// checkVersion returns an error unless the server is new enough.
func checkVersion(addr, version string) error {
	major, _, _ := strings.Cut(version, ".")
	if number, err := strconv.Atoi(major); err != nil || number < oldest {
		return fatalf("redisbroker: %s is Redis %.20q, but %d.0 or newer is needed", addr, version, oldest)
	}
	return nil
}

// checkKind returns an error unless the server is of the URL's kind, and a master.
func (b *Broker) checkKind(addr, info string) error {
	clustered := infoField(info, "cluster_enabled") == "1"
	switch {
	case clustered && b.target.mode != cluster:
		return fatalf("redisbroker: %s is a node of a cluster: the URL must begin with redis+cluster://", addr)
	case !clustered && b.target.mode == cluster:
		return fatalf("redisbroker: %s is no node of a cluster: the URL must begin with redis://", addr)
	case infoField(info, "role") != "master":
		return errors.New("the server is a replica, which takes no messages")
	}
	return nil
}

// keepsAll is the policy of a server that refuses to store more when its memory is full.
const keepsAll = "noeviction"

// evictionPolicy returns the policy by which a server removes stored messages when its memory is full, by the answer of
// INFO, or "".
func evictionPolicy(info string) string {
	limit, policy := infoField(info, "maxmemory"), infoField(info, "maxmemory_policy")
	if limit == "" || limit == "0" || policy == keepsAll {
		return ""
	}
	return policy
}

// infoField returns a field of the answer of INFO.
func infoField(info, name string) string {
	for field := range strings.SplitSeq(info, "\r\n") {
		if value, ok := strings.CutPrefix(field, name+":"); ok {
			return value
		}
	}
	return ""
}

// currentTerm returns the command that returns the token of the server's present term.
func (l *commandConn) currentTerm() rueidis.Completed {
	return l.client.B().Evalsha().Sha1(l.sha[termScript]).Numkeys(0).Build()
}

// command returns the command that runs a script with a key.
func (l *commandConn) command(s script, key string) rueidis.Completed {
	return l.client.B().Evalsha().Sha1(l.sha[s]).Numkeys(1).Key(key).Build()
}

// read returns the command that reads at most count messages after a position, or any if its epoch is another one.
// followed: this node is subscribed to the channel.
func (l *commandConn) read(key string, since broker.Position, count int, followed bool) rueidis.Completed {
	follows := "0"
	if followed {
		follows = "1"
	}
	return l.client.B().Evalsha().Sha1(l.sha[readScript]).Numkeys(1).Key(key).
		Arg(since.Epoch, strconv.FormatUint(since.Offset, 10), strconv.Itoa(count), follows).Build()
}

// send returns the command that runs a script with a key and a payload.
func (l *commandConn) send(s script, key string, payload []byte) rueidis.Completed {
	// The command may still be on its way when its caller has given up, so it has a payload of its own.
	return l.client.B().Evalsha().Sha1(l.sha[s]).Numkeys(1).Key(key).Arg(string(payload)).Build()
}

// store returns the command that stores a payload in a stream, with a trace context unless that is empty.
func (l *commandConn) store(stream string, payload []byte, trace string) rueidis.Completed {
	if trace == "" {
		return l.send(storeScript, stream, payload)
	}
	return l.client.B().Evalsha().Sha1(l.sha[storeScript]).Numkeys(1).Key(stream).
		Arg(string(payload), " "+trace).Build()
}

// storeOnce returns the command that runs the script with the keys of a stream and of a message, and a payload.
func (l *commandConn) storeOnce(stream, key string, payload []byte, digest, trace string) rueidis.Completed {
	if trace != "" {
		trace = " " + trace
	}
	return l.client.B().Evalsha().Sha1(l.sha[onceScript]).Numkeys(2).Key(stream, key).
		Arg(string(payload), trace, digest).Build()
}
