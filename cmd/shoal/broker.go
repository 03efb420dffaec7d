package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/natsbroker"
	"github.com/shoal-go/shoal/broker/natsbroker/embedded"
	"github.com/shoal-go/shoal/broker/redisbroker"
	"github.com/shoal-go/shoal/cmd/shoal/internal/dashboard"
)

// engine is the broker that connects the nodes.
type engine string

const (
	noEngine       engine = "memory" // one node, which needs nothing to be joined with
	natsEngine     engine = "nats"
	embeddedEngine engine = "nats-embedded"
	redisEngine    engine = "redis"
)

// fileStorage is the value of --broker-storage where NATS keeps messages in files.
const fileStorage = "file"

// engine returns which engine --broker names, "" if none is known by that name.
func (f *serveFlags) engine() engine {
	scheme, _, isURL := strings.Cut(f.Broker, "://")
	if !isURL {
		if e := engine(f.Broker); e == noEngine || e == embeddedEngine {
			return e
		}
		return ""
	}
	// After a plus comes how several servers of Redis stand together.
	switch family, _, _ := strings.Cut(scheme, "+"); family {
	case "nats", "tls":
		return natsEngine
	case "redis", "rediss":
		return redisEngine
	}
	return ""
}

// openBroker creates the broker. It does not wait for an external engine; an embedded NATS server is running
// afterwards.
func (n *node) openBroker() error {
	switch n.flags.engine() {
	case redisEngine:
		return n.openRedis()
	case natsEngine:
		options := n.natsOptions()
		options.URL = n.flags.Broker
		options.CredentialsFile, options.NKeyFile = n.flags.NATSCredentials, n.flags.NATSNKey
		secure, err := n.openBrokerTLS()
		if err != nil {
			return err
		}
		options.TLS, options.RootCAs = secure.config, secure.authorities
		return n.openNATS(options)
	case embeddedEngine:
		if err := n.openEmbedded(); err != nil {
			return err
		}
		options := n.natsOptions()
		options.Server = n.embedded
		return n.openNATS(options)
	}
	return nil
}

func (n *node) openRedis() error {
	secure, err := n.openBrokerTLS()
	if err != nil {
		return err
	}
	b, err := redisbroker.New(redisbroker.Options{
		URL:      n.flags.Broker,
		TLS:      secure.config,
		RootCAs:  secure.authorities,
		Messages: n.flags.HistoryMessages,
		TTL:      n.flags.HistoryTTL,
		Logger:   n.log,

		OptionName:    brokerOptionName,
		ChannelPrefix: n.flags.ChannelPrefix,
	})
	if err != nil {
		return err
	}
	n.setBroker(b)
	return nil
}

// brokerOptionName returns the flag that sets an option of a broker, for the errors of brokers.
func brokerOptionName(option string) string {
	return map[string]string{
		"URL":              "--broker",
		"TLS.RootCAs":      "--broker-tls-ca",
		"TLS.Certificates": "--broker-tls-cert and --broker-tls-key",
		"CredentialsFile":  "--nats-credentials",
		"NKeyFile":         "--nats-nkey",
		"MaxBytes":         "--history-total-bytes",
	}[option]
}

// setBroker sets the broker, with --channel-prefix.
func (n *node) setBroker(b broker.Broker) {
	if prefix := n.flags.ChannelPrefix; prefix != "" {
		b = broker.WithPrefix(b, prefix)
	}
	n.broker = b
}

func (n *node) openNATS(options natsbroker.Options) error {
	b, err := natsbroker.New(options)
	if err != nil {
		return err
	}
	n.setBroker(b)
	return nil
}

// natsOptions returns the options of the broker over NATS but for where the server is.
func (n *node) natsOptions() natsbroker.Options {
	return natsbroker.Options{
		Messages: n.flags.HistoryMessages,
		TTL:      n.flags.HistoryTTL,
		MaxBytes: n.flags.streamBytes(),
		Replicas: n.flags.replicas(),
		File:     n.flags.BrokerStorage == fileStorage,
		Logger:   n.log,

		OptionName: brokerOptionName,
	}
}

// streamBytes returns the bound of the stream in NATS, 0 for its present one. A stream in the memory of this process
// counts against its memory limit; one in files or elsewhere does not.
func (f *serveFlags) streamBytes() int64 {
	if f.engine() == embeddedEngine && f.BrokerStorage != fileStorage {
		return int64(f.historyTotalBytes())
	}
	return int64(f.HistoryTotalBytes)
}

// replicas returns on how many servers of NATS each message is kept.
func (f *serveFlags) replicas() int {
	const safe = 3 // one of three may fail
	switch {
	case f.BrokerReplicas > 0:
		return f.BrokerReplicas
	case f.ClusterAddr != "":
		return safe
	}
	return 1
}

// embeddedMemory is the limit of the server's memory, twice the largest --history-total-bytes. The bound of the stream
// limits the use: it is the largest that a node of the cluster asks for, and every server needs room for it.
const embeddedMemory = 2 << 40

// openEmbedded starts the server of NATS within this process.
func (n *node) openEmbedded() error {
	f := n.flags
	if f.ClusterAddr != "" {
		// The server itself would only say, after some time, that it is not ready.
		probe, err := f.listen("cluster-addr", f.ClusterAddr)
		if err != nil {
			return err
		}
		_ = probe.Close() // it was open, which is all there was to know
	}
	server, err := embedded.Start(embedded.Options{
		Name:          n.name,
		ClusterAddr:   f.ClusterAddr,
		ClusterRoutes: f.ClusterRoute,
		ClusterSecret: f.ClusterSecret,
		StoreDir:      f.BrokerDir,
		MaxMemory:     embeddedMemory,
		Logger:        n.log,
	})
	switch noFolder := errors.As(err, new(*fs.PathError)); {
	case noFolder && f.BrokerDir != "":
		return fmt.Errorf("cannot store messages in %s: %w; choose another folder with --broker-dir", f.BrokerDir, err)
	case noFolder:
		return fmt.Errorf("cannot start the NATS server of --broker nats-embedded: %w; "+
			"set TMPDIR to a folder that can be written to, or give --broker-storage file and --broker-dir", err)
	case err != nil:
		return fmt.Errorf("cannot start the NATS server of --broker nats-embedded: %w", err)
	}
	n.embedded = server
	return nil
}

// countedBroker returns the broker with its calls counted, nil for one node alone.
func (n *node) countedBroker() broker.Broker {
	if n.broker == nil {
		return nil
	}
	return n.metrics.Broker(n.broker)
}

// adminHandler returns the handler of the admin listener. A node is not ready before its own NATS server is: a
// client that restarts nodes in turn goes by that, and a cluster loses its majority if two are behind.
func (n *node) adminHandler() http.Handler {
	admin := n.server.AdminHandler()
	mux := http.NewServeMux()
	mux.Handle("/", admin)
	mux.Handle("GET /metrics", n.metrics.handler())
	if n.flags.PProf {
		handleProfiles(mux)
	}
	if n.embedded != nil {
		mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
			if err := n.embedded.Ready(); err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			admin.ServeHTTP(w, r)
		})
	}
	if n.dashboard == nil {
		return mux
	}
	mux.Handle(dashboard.Path, n.dashboard)
	return dashboard.AheadOf(mux, dashboard.Path+"/", n.dashboard)
}

// ready returns why /readyz answers 503, or nil. The reason of the node's own NATS server precedes: a full disk, for
// example, also puts the broker out of reach.
func (n *node) ready() error {
	if n.embedded != nil {
		if err := n.embedded.Ready(); err != nil {
			return err
		}
	}
	return n.server.Ready()
}
