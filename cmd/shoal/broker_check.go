package main

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/natsbroker"
	"github.com/shoal-go/shoal/broker/natsbroker/embedded"
	"github.com/shoal-go/shoal/broker/redisbroker"
	"github.com/shoal-go/shoal/manager"
)

const (
	// How many messages of one upload an engine keeps at most.
	maxHistoryOfNATS  = 1 << 16
	maxHistoryOfRedis = 10_000
	// maxSharedMessageBytes bounds a message between nodes. Brokers accept 1 MiB including its metadata.
	maxSharedMessageBytes = 900 << 10
	maxNodeNameBytes      = 128
	// minClusterSecretBytes is the length of the shortest secret that is not soon guessed.
	minClusterSecretBytes = 16
)

// checkBroker reports an invalid broker, and settings that do not fit it.
func (f *serveFlags) checkBroker(s *settings) {
	if f.engine() == "" {
		f.checkUnknownBroker(s)
		return
	}
	f.checkBrokerURL(s)
	f.checkBrokerAccess(s)
	f.checkCompanions(s)
	f.checkShared(s)
	if f.NodeName != "" {
		f.checkNodeName(s)
	}
	if f.engine() == embeddedEngine && f.ClusterAddr != "" {
		f.checkCluster(s)
	}
}

// checkUnknownBroker reports an unknown --broker, and repeats only the parts that cannot be a password.
func (f *serveFlags) checkUnknownBroker(s *settings) {
	const want = "memory, nats://host:port, redis://host:port, redis+sentinel://host:port/master, " +
		"redis+cluster://host:port or nats-embedded"
	word, _, _ := strings.Cut(f.Broker, "://")
	if f.BrokerFile != "" { // whose text may be a password
		s.refuse("broker-file", "names no broker that is known, want "+want)
		return
	}
	if strings.ContainsFunc(word, func(r rune) bool { return r != '-' && r != '+' && !isLetterOrDigit(r) }) {
		s.refuse("broker", "is none that is known, want "+want)
		return
	}
	s.complain("broker", word, want)
}

func isLetterOrDigit(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// checkBrokerURL validates the URL with the package that will use it. The errors contain no password.
func (f *serveFlags) checkBrokerURL(s *settings) {
	var err error
	switch f.engine() {
	case natsEngine:
		_, err = natsbroker.New(natsbroker.Options{URL: f.Broker})
	case redisEngine:
		_, err = redisbroker.New(redisbroker.Options{URL: f.Broker})
	}
	if err == nil {
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		_, problem, _ := strings.Cut(line, ": ") // before it stands the package
		s.refuse("broker", "will not do: "+strings.TrimPrefix(problem, "Options."))
	}
}

// companion is a setting that makes sense only with another one.
type companion struct {
	flag, value string // the value is "" if it is not set
	has         bool
	with        string
}

// checkCompanions complains of settings that would have no effect.
func (f *serveFlags) checkCompanions(s *settings) {
	engine, broker := f.engine(), s.key("broker")
	inside, files := engine == embeddedEngine, f.BrokerStorage == fileStorage
	inNATS, clustered := inside || engine == natsEngine, inside && f.ClusterAddr != ""
	const anyNATS, ownNATS = " nats://… or nats-embedded", " nats-embedded"
	for _, c := range []companion{
		{"channel-prefix", f.ChannelPrefix, engine != noEngine, broker},
		{"nats-credentials", f.NATSCredentials, engine == natsEngine, broker + " nats://…"},
		{"nats-nkey", f.NATSNKey, engine == natsEngine, broker + " nats://…"},
		{"broker-tls-ca", f.BrokerTLSCA, f.overTLS(), broker + " rediss://… or tls://…"},
		{"broker-tls-cert", f.BrokerTLSCert, f.overTLS(), broker + " rediss://… or tls://…"},
		{"node-name", f.NodeName, engine != noEngine, broker},
		{"broker-state-rate", unlessZero(f.BrokerStateRate), engine != noEngine, broker},
		{"broker-replicas", unlessZero(float64(f.BrokerReplicas)), inNATS, broker + anyNATS},
		{"broker-storage", onlyIf(files, f.BrokerStorage), inNATS, broker + anyNATS},
		{"broker-storage", onlyIf(files && inside, f.BrokerStorage), f.BrokerDir != "", s.key("broker-dir")},
		{"broker-dir", f.BrokerDir, inside, broker + ownNATS},
		{"broker-dir", onlyIf(inside, f.BrokerDir), files, s.key("broker-storage") + " file"},
		{"cluster-addr", f.ClusterAddr, inside, broker + ownNATS},
		{"cluster-route", strings.Join(f.ClusterRoute, ","), clustered, s.key("cluster-addr")},
	} {
		if c.value != "" && !c.has {
			s.complain(c.flag, c.value, c.with+" with it")
		}
	}
	if f.ClusterSecret != "" && !clustered {
		s.refuse("cluster-secret", "is set, want "+s.key("cluster-addr")+" with it")
	}
}

func unlessZero(n float64) string { return onlyIf(n != 0, strconv.FormatFloat(n, 'g', -1, 64)) }

func onlyIf(condition bool, value string) string {
	if !condition {
		return ""
	}
	return value
}

// checkShared reports limits beyond those of the broker.
func (f *serveFlags) checkShared(s *settings) {
	if r := f.BrokerStateRate; r > 0 && r < manager.MinStateRate {
		s.complain("broker-state-rate", unlessZero(r), "0 or at least "+unlessZero(manager.MinStateRate))
	}
	engine := f.engine()
	if engine == noEngine {
		return
	}
	most, name := maxHistoryOfNATS, "NATS"
	if engine == redisEngine {
		most, name = maxHistoryOfRedis, "Redis"
	}
	if f.HistoryMessages > most {
		s.complain("history-messages", strconv.Itoa(f.HistoryMessages), "at most "+strconv.Itoa(most)+", for "+name)
	}
	if f.MaxMessageBytes > maxSharedMessageBytes {
		s.complain("max-message-bytes", strconv.Itoa(int(f.MaxMessageBytes)),
			"at most 900KiB, which is what nodes can share")
	}
	if f.BrokerReplicas > 1 && engine == embeddedEngine && f.ClusterAddr == "" {
		s.complain("broker-replicas", strconv.Itoa(f.BrokerReplicas), "1, or "+s.key("cluster-addr")+" with it")
	}
}

func (f *serveFlags) checkNodeName(s *settings) {
	bad := func(r rune) bool { return !isLetterOrDigit(r) && !strings.ContainsRune("-_.:", r) }
	switch {
	case len(f.NodeName) > maxNodeNameBytes || strings.ContainsFunc(f.NodeName, bad):
		s.complain("node-name", f.NodeName, `1 to 128 letters, digits or characters of "-_.:"`)
	case f.engine() == embeddedEngine && strings.Contains(f.NodeName, "."):
		s.complain("node-name", f.NodeName, "one without a dot, because the node's NATS server has the same name")
	}
}

// checkCluster complains of how the nodes' own servers of NATS are to find and to know each other.
func (f *serveFlags) checkCluster(s *settings) {
	if f.checkAddress(s, "cluster-addr", f.ClusterAddr) {
		f.checkClusterAddress(s)
	}
	if len(f.ClusterRoute) == 0 {
		s.refuse("cluster-route", "is missing, want the "+s.key("cluster-addr")+" of every node of the cluster")
	}
	valid := len(f.ClusterRoute) > 0
	for _, route := range f.ClusterRoute {
		if host, port, err := net.SplitHostPort(route); err != nil || host == "" || !isPort(port) || port == "0" {
			s.complain("cluster-route", route, "host:port of a node, with a port from 1 to 65535")
			valid = false
		}
	}
	if valid {
		f.checkClusterSize(s)
	}
	if f.NodeName == "" {
		s.refuse("node-name", "is missing, want a name that is this node's own and the same after a restart: "+
			"the cluster counts its nodes by their names")
	}
}

// minClusterSize is the number of servers below which NATS never elects a leader.
const minClusterSize = 2

// checkClusterSize complains of a cluster with too few nodes to become ready.
func (f *serveFlags) checkClusterSize(s *settings) {
	size := embedded.Options{ClusterAddr: f.ClusterAddr, ClusterRoutes: f.ClusterRoute}.ClusterSize()
	switch {
	case size < minClusterSize:
		s.refuse("cluster-route", "names no other node, want the "+s.key("cluster-addr")+
			" of every node of the cluster, or no "+s.key("cluster-addr")+" for one node alone")
	case size < f.replicas():
		s.refuse("cluster-route", fmt.Sprintf("names %d nodes, want %d at least, as many as keep each message, or %s %d",
			size, f.replicas(), s.key("broker-replicas"), size))
	}
}

func (f *serveFlags) checkClusterAddress(s *settings) {
	host, port, _ := net.SplitHostPort(f.ClusterAddr) // checkAddress has let it pass
	switch {
	case port == "0":
		s.complain("cluster-addr", f.ClusterAddr, "a port from 1 to 65535, for the other nodes to name")
	case slices.Contains(f.Addr, f.ClusterAddr) || f.ClusterAddr == f.AdminAddr:
		s.complain("cluster-addr", f.ClusterAddr, "another address than "+s.key("addr")+" and "+s.key("admin-addr"))
	}
	const example = ", such as openssl rand -hex 16 prints"
	switch secret := len(f.ClusterSecret); {
	case secret == 0 && !isLoopback(host):
		s.refuse("cluster-secret", "is missing, want the same one on all nodes, because who reaches "+
			s.key("cluster-addr")+" could read and send everything"+example)
	case secret > 0 && secret < minClusterSecretBytes:
		s.refuse("cluster-secret", "has "+strconv.Itoa(secret)+" bytes, want at least "+
			strconv.Itoa(minClusterSecretBytes)+example)
	}
}

// checkBrokerAccess reports files and names for the broker that will not do.
func (f *serveFlags) checkBrokerAccess(s *settings) {
	if f.ChannelPrefix != "" {
		if err := broker.CheckPrefix(f.ChannelPrefix); err != nil {
			s.complain("channel-prefix", f.ChannelPrefix, strings.TrimPrefix(err.Error(), "want "))
		}
	}
	if (f.BrokerTLSCert == "") != (f.BrokerTLSKey == "") {
		s.refuse("broker-tls-cert", "and "+s.key("broker-tls-key")+" belong together, want both or none")
		return
	}
	switch secure, err := f.brokerTLS(nil); {
	case err != nil:
		s.note(err.Error())
	case f.BrokerTLSCert != "":
		pair, _ := secure.config.GetClientCertificate(nil) // which has no error
		s.checkValidity("broker-tls-cert", pair)
	}
	if f.engine() != natsEngine || f.NATSCredentials == "" && f.NATSNKey == "" {
		return
	}
	_, err := natsbroker.New(natsbroker.Options{
		URL: "nats://127.0.0.1", CredentialsFile: f.NATSCredentials, NKeyFile: f.NATSNKey,
	})
	credentials, nkey := s.key("nats-credentials"), s.key("nats-nkey")
	named := strings.NewReplacer("natsbroker: Options.CredentialsFile", credentials, "natsbroker: Options.NKeyFile", nkey,
		"natsbroker: Options has CredentialsFile and NKeyFile", credentials+" and "+nkey+" are given")
	for _, problem := range splitErrors(err) {
		s.note(named.Replace(problem))
	}
}

// splitErrors returns the texts of joined errors.
func splitErrors(err error) (texts []string) {
	var joined interface{ Unwrap() []error }
	switch {
	case err == nil:
	case errors.As(err, &joined):
		for _, e := range joined.Unwrap() {
			texts = append(texts, splitErrors(e)...)
		}
	default:
		texts = append(texts, err.Error())
	}
	return texts
}
