package main

import (
	"strings"
	"testing"
)

// inCluster are the flags of a node of a cluster of NATS; more of a test's own follow.
func inCluster(more ...string) []string {
	return append([]string{
		"--broker=nats-embedded", "--cluster-addr=127.0.0.1:7001",
		"--cluster-route=127.0.0.1:7001", "--cluster-route=127.0.0.1:7002", "--cluster-route=127.0.0.1:7003", "--node-name=a",
	}, more...)
}

func TestCheckConfigAcceptsBrokers(t *testing.T) {
	for _, args := range [][]string{
		{"--broker=nats://h"},
		{"--broker=nats://u:p@h:4222,nats://h2:4222", "--broker-replicas=3", "--broker-storage=file"},
		{"--broker=tls://token@h", "--node-name=a.b:c_d-1", "--broker-state-rate=12.5"},
		{"--broker=redis://h"},
		{"--broker=rediss://u:p@h:6380/2", "--history-messages=10000", "--max-message-bytes=900KiB"},
		{"--broker=redis+sentinel://:p@h1,h2:26379/main?sentinel_password=p"},
		{"--broker=redis+cluster://h1,h2"},
		{"--broker=nats-embedded", "--history-messages=65536"},
		{"--broker=nats-embedded", "--broker-storage=file", "--broker-dir=/var/lib/shoal", "--broker-replicas=1"},
		inCluster(),
		inCluster("--dev", "--broker-replicas=2", "--cluster-secret=0123456789abcdef"),
		{"--broker=nats-embedded", "--cluster-addr=:7001", "--cluster-route=198.51.100.1:7001", "--cluster-route=198.51.100.2:7001",
			"--cluster-secret=0123456789abcdef", "--node-name=a"}, // this node is none of the routes
		{"--broker=nats-embedded", "--cluster-addr=127.0.0.1:7001", "--cluster-route=127.0.0.1:7001",
			"--cluster-route=127.0.0.1:7002", "--broker-replicas=2", "--node-name=a"},
	} {
		r := shoal(t, nil, "", good(args...)...)
		r.wantDone(t)
	}
}

func TestServeAndCheckConfigRefuseBrokers(t *testing.T) {
	for name, c := range map[string]struct {
		args []string // after good()
		want []string
	}{
		"unknown": {[]string{"--broker=carrier-pigeon"}, []string{`--broker is "carrier-pigeon", want memory, nats://`}},
		"unknown, and no word about others": {[]string{"--broker=natsembedded", "--cluster-addr=:7001"},
			[]string{`--broker is "natsembedded", want memory, nats://`}},
		"unknown scheme":      {[]string{"--broker=amqp://u:hidden@h"}, []string{`--broker is "amqp", want memory`}},
		"no scheme":           {[]string{"--broker=u:hidden@h"}, []string{`--broker is none that is known, want memory`}},
		"empty":               {[]string{"--broker="}, []string{`--broker is "", want a value`}},
		"NATS without host":   {[]string{"--broker=nats://u:hidden@"}, []string{`--broker will not do: URL is bad at server 1`}},
		"NATS's port":         {[]string{"--broker=nats://u:hidden@h:99999999"}, []string{`(port out of range), want nats://`}},
		"Redis's port":        {[]string{"--broker=redis://u:hidden@h:99999999"}, []string{`--broker will not do: the URL has a port`}},
		"state rate":          {[]string{"--broker=redis://h", "--broker-state-rate=1e-10"}, []string{`--broker-state-rate is "1e-10", want 0 or at least 0.001`}},
		"NATS with a path":    {[]string{"--broker=nats://u:hidden@h/x"}, []string{`(path or query after the port), want nats://`}},
		"NATS, then other":    {[]string{"--broker=nats://h,redis://h"}, []string{`--broker will not do: URL is bad at server 2`}},
		"Redis without host":  {[]string{"--broker=redis://u:hidden@"}, []string{`--broker will not do: the URL must name each server`}},
		"Redis of no kind":    {[]string{"--broker=redis+ring://h"}, []string{`--broker will not do: the URL begins with "redis+ring"`}},
		"Redis with database": {[]string{"--broker=redis://:hidden@h/x"}, []string{`--broker will not do: the URL's database is "x"`}},
		"sentinel without master": {[]string{"--broker=redis+sentinel://:hidden@h"},
			[]string{`--broker will not do: the URL must name the sentinels' master`}},
		"history of Redis": {[]string{"--broker=redis://h", "--history-messages=10001"},
			[]string{`--history-messages is "10001", want at most 10000, for Redis`}},
		"history of NATS": {[]string{"--broker=nats://h", "--history-messages=65537"},
			[]string{`--history-messages is "65537", want at most 65536, for NATS`}},
		"large messages": {[]string{"--broker=redis://h", "--max-message-bytes=1MiB", "--queue-bytes=2MiB"},
			[]string{`--max-message-bytes is "1048576", want at most 900KiB`}},
		"settings of nodes for one alone": {
			[]string{"--node-name=a", "--broker-state-rate=5", "--broker-replicas=3", "--broker-storage=file",
				"--broker-dir=d", "--cluster-addr=:7001", "--cluster-route=a:1", "--cluster-secret=hidden"},
			[]string{`--node-name is "a", want --broker with it`,
				`--broker-state-rate is "5", want --broker with it`,
				`--broker-replicas is "3", want --broker nats://… or nats-embedded with it`,
				`--broker-storage is "file", want --broker nats://… or nats-embedded with it`,
				`--broker-dir is "d", want --broker nats-embedded with it`,
				`--cluster-addr is ":7001", want --broker nats-embedded with it`,
				`--cluster-route is "a:1", want --cluster-addr with it`,
				`--cluster-secret is set, want --cluster-addr with it`}},
		"settings of NATS with Redis": {
			[]string{"--broker=redis://h", "--broker-replicas=3", "--broker-storage=file", "--cluster-addr=:7001"},
			[]string{`--broker-replicas is "3"`, `--broker-storage is "file"`, `--cluster-addr is ":7001"`}},
		"folder without files": {[]string{"--broker=nats-embedded", "--broker-dir=d"},
			[]string{`--broker-dir is "d", want --broker-storage file with it`}},
		"files without folder": {[]string{"--broker=nats-embedded", "--broker-storage=file"},
			[]string{`--broker-storage is "file", want --broker-dir with it`}},
		"storage":  {[]string{"--broker=nats://h", "--broker-storage=disk"}, []string{`want one of memory, file`}},
		"replicas": {[]string{"--broker=nats://h", "--broker-replicas=6"}, []string{`want a whole number from 0 to 5`}},
		"replicas on one": {[]string{"--broker=nats-embedded", "--broker-replicas=3"},
			[]string{`--broker-replicas is "3", want 1, or --cluster-addr with it`}},
		"rate":           {[]string{"--broker=nats://h", "--broker-state-rate=-1"}, []string{`--broker-state-rate is "-1"`}},
		"rate no number": {[]string{"--broker=nats://h", "--broker-state-rate=NaN"}, []string{`--broker-state-rate is "NaN"`}},
		"name": {[]string{"--broker=nats://h", "--node-name=a b"},
			[]string{`--node-name is "a b", want 1 to 128 letters`}},
		"long name":   {[]string{"--broker=nats://h", "--node-name=" + strings.Repeat("a", 129)}, []string{`want 1 to 128 letters`}},
		"dot in name": {inCluster("--node-name=a.b"), []string{`--node-name is "a.b", want one without a dot`}},
		"cluster of nothing": {[]string{"--broker=nats-embedded", "--cluster-addr=127.0.0.1:7001"},
			[]string{`--cluster-route is missing, want the --cluster-addr of every node`, `--node-name is missing`}},
		"cluster of one": {[]string{"--broker=nats-embedded", "--cluster-addr=127.0.0.1:7001", "--node-name=a",
			"--cluster-route=127.0.0.1:7001", "--cluster-route=127.0.0.1:7001", "--broker-replicas=1"},
			[]string{`--cluster-route names no other node, want the --cluster-addr of every node of the cluster, or no --cluster-addr`}},
		"cluster of two": {[]string{"--broker=nats-embedded", "--cluster-addr=127.0.0.1:7001", "--node-name=a",
			"--cluster-route=127.0.0.1:7001", "--cluster-route=127.0.0.1:7002"},
			[]string{`--cluster-route names 2 nodes, want 3 at least, as many as keep each message, or --broker-replicas 2`}},
		"cluster of two, at any address": {[]string{"--broker=nats-embedded", "--cluster-addr=:7001", "--node-name=a",
			"--cluster-route=127.0.0.1:7001", "--cluster-route=198.51.100.1:7001", "--cluster-secret=hidden0123456789"},
			[]string{`--cluster-route names 2 nodes`}},
		"replicas beyond the cluster": {inCluster("--broker-replicas=5"),
			[]string{`--cluster-route names 3 nodes, want 5 at least`}},
		"cluster address":      {inCluster("--cluster-addr=7001"), []string{`--cluster-addr is "7001", want host:port`}},
		"cluster address free": {inCluster("--cluster-addr=127.0.0.1:0"), []string{`want a port from 1 to 65535`}},
		"cluster address taken": {inCluster("--addr=127.0.0.1:7001"),
			[]string{`--cluster-addr is "127.0.0.1:7001", want another address than --addr and --admin-addr`}},
		"cluster in public": {inCluster("--cluster-addr=:7001"),
			[]string{"--cluster-secret is missing, want the same one on all nodes"}},
		"cluster of development in public": {inCluster("--dev", "--cluster-addr=192.0.2.1:7001", "--cluster-secret=hidden0123456789"),
			[]string{`--cluster-addr is "192.0.2.1:7001", want a loopback address`}},
		"cluster secret short": {inCluster("--cluster-secret=hidden"),
			[]string{"--cluster-secret has 6 bytes, want at least 16"}},
		"routes": {inCluster("--cluster-route=:7001", "--cluster-route=a", "--cluster-route=a:0"),
			[]string{`--cluster-route is ":7001"`, `--cluster-route is "a", want host:port of a node`, `--cluster-route is "a:0"`}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, command := range []string{"check-config", "serve"} {
				args := good(c.args...)
				args[0] = command
				r := shoal(t, nil, "", args...)
				r.wantErrors(t, statusUsage, c.want...)
				if strings.Contains(r.err, "hidden") {
					t.Errorf("a secret is printed:\n%s", r.err)
				}
			}
		})
	}
}

// A prefix is in front of all channels: of uploads, of users and of the nodes themselves.
func TestServe_WorksWithAChannelPrefix(t *testing.T) {
	s := serveDev(t, "--broker=nats-embedded", "--channel-prefix=staging")
	for status := 0; status != 200; {
		status, _ = call(t, "GET", s.admin+"/readyz", "", "")
	}
	c := login(t, s.url)
	c.send(`{"action":"subscribe_upload","upload_id":"a.b c*"}`)
	for done := false; !done; {
		_, text := call(t, "GET", s.url+"/v1/uploads/a.b%20c*/subscribers", "dev", "")
		done = strings.Contains(text, "alice")
	}
	if status, text := call(t, "POST", s.url+"/v1/uploads/a.b%20c*/messages", "dev", `{"action":"note"}`); status != 202 {
		t.Errorf("publishing gets %d %s", status, text)
	}
	c.receive("note")
	if status, text := call(t, "POST", s.url+"/v1/users/alice/messages", "dev", `{"action":"hello"}`); status != 202 && status != 200 {
		t.Errorf("a message to a user gets %d %s", status, text)
	}
	c.receive("hello")
}

func TestCheckConfig_NamesProblemsOfTheBrokersAccess(t *testing.T) {
	cert, key := newPair(t, "client")
	certFile, keyFile := writeFile(t, "cert.pem", string(cert)), writeFile(t, "key.pem", string(key))
	nonsense := writeFile(t, "nonsense", "nonsense")
	for name, c := range map[string]struct {
		args []string
		want string // "": it is right
	}{
		"prefix":              {[]string{"--broker=redis://h", "--channel-prefix=prod"}, ""},
		"prefix with a dot":   {[]string{"--broker=redis://h", "--channel-prefix=a.b"}, "--channel-prefix is"},
		"prefix alone":        {[]string{"--channel-prefix=prod"}, "--broker with it"},
		"TLS":                 {[]string{"--broker=rediss://h", "--broker-tls-ca=" + certFile, "--broker-tls-cert=" + certFile, "--broker-tls-key=" + keyFile}, ""},
		"TLS with NATS":       {[]string{"--broker=tls://h:4222", "--broker-tls-ca=" + certFile, "--broker-tls-min-version=1.3"}, ""},
		"TLS without":         {[]string{"--broker=redis://h", "--broker-tls-ca=" + certFile}, "rediss://"},
		"authority":           {[]string{"--broker=rediss://h", "--broker-tls-ca=" + nonsense}, "--broker-tls-ca"},
		"certificate alone":   {[]string{"--broker=rediss://h", "--broker-tls-cert=" + certFile}, "belong together"},
		"missing credentials": {[]string{"--broker=nats://h:4222", "--nats-credentials=/nowhere"}, "--nats-credentials is /nowhere, want"},
		"no credentials":      {[]string{"--broker=nats://h:4222", "--nats-credentials=" + nonsense}, "but it has no JWT"},
		"JWT without a seed":  {[]string{"--broker=nats://h:4222", "--nats-credentials=" + writeFile(t, "jwt", "a.b.c")}, "but it has no seed"},
		"no nkey":             {[]string{"--broker=nats://h:4222", "--nats-nkey=" + nonsense}, "--nats-nkey is " + nonsense + ", want"},
		"credentials and nkey": {
			[]string{"--broker=nats://h:4222", "--nats-credentials=" + nonsense, "--nats-nkey=" + nonsense},
			"--nats-credentials and --nats-nkey are given, want one of them",
		},
		"nkey with Redis": {[]string{"--broker=redis://h", "--nats-nkey=" + nonsense}, "nats://"},
	} {
		r := shoal(t, nil, "", append([]string{"check-config", "--dev"}, c.args...)...)
		if c.want == "" && r.status != statusDone || c.want != "" && (r.status != statusUsage || !strings.Contains(r.err, c.want)) {
			t.Errorf("%s: status %d, %s", name, r.status, r.err)
		}
	}
}
