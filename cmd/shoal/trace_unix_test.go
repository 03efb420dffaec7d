//go:build unix

package main

import (
	"cmp"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector is an OpenTelemetry collector that keeps the spans that it gets.
type collector struct {
	*httptest.Server

	mu            sync.Mutex // protects the fields below
	spans         []collected
	authorization string
}

// collected is a span with the name of its node.
type collected struct {
	*tracepb.Span
	node string
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var request collectorpb.ExportTraceServiceRequest
		if err != nil || proto.Unmarshal(body, &request) != nil || r.URL.Path != tracePath {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.authorization = r.Header.Get("Authorization")
		for _, resource := range request.GetResourceSpans() {
			node := ""
			for _, a := range resource.GetResource().GetAttributes() {
				if a.GetKey() == "service.instance.id" {
					node = a.GetValue().GetStringValue()
				}
			}
			for _, scope := range resource.GetScopeSpans() {
				for _, s := range scope.GetSpans() {
					c.spans = append(c.spans, collected{s, node})
				}
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// startNATS runs a NATS server with a stream store in this process, and returns it when it accepts connections.
func startNATS(t *testing.T, opt *server.Options) *server.Server {
	t.Helper()
	opt.Host, opt.JetStream, opt.StoreDir, opt.NoSigs, opt.NoLog = "127.0.0.1", true, t.TempDir(), true, true
	opt.Port = cmp.Or(opt.Port, server.RANDOM_PORT)
	s, err := server.NewServer(opt)
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		s.Shutdown()
		s.WaitForShutdown()
	})
	if !s.ReadyForConnections(patience) {
		t.Fatal("the NATS server does not start")
	}
	return s
}

// A publication on one node is delivered on another within one trace, whose spans are complete when the nodes have ended.
func TestServe_TracesAPublicationBetweenNodes(t *testing.T) {
	for name, broker := range map[string]func(t *testing.T) []string{
		"memory": func(*testing.T) []string { return nil },
		"redis": func(t *testing.T) []string {
			return []string{"--broker=redis://" + reserveRedis(t).start().address}
		},
		"nats": func(t *testing.T) []string {
			return []string{"--broker=" + startNATS(t, &server.Options{}).ClientURL()}
		},
	} {
		t.Run(name, func(t *testing.T) {
			traces, args := newCollector(t), broker(t)
			args = append(args, "--trace-endpoint="+traces.URL, "--trace-sample=0", "--trace-header=Authorization: key-7361",
				"--drain=500ms")
			names := []string{"a", "b"}
			if name == "memory" {
				names = []string{""}
			}
			var nodes []*served
			for _, name := range names {
				if name != "" {
					args = append(args, "--node-name="+name)
				}
				n := serveDev(t, args...)
				eventually(t, "the node is ready", func() bool {
					status, _ := call(t, "GET", n.admin+"/readyz", "", "")
					return status == http.StatusOK
				})
				nodes = append(nodes, n)
			}
			publishTraced(t, nodes[0], nodes[len(nodes)-1])
			for _, n := range nodes {
				if status := n.end(); status != statusDone || strings.Contains(n.log.String(), "7361") {
					t.Errorf("status %d, log:\n%s", status, n.log)
				}
			}
			want := []string{"shoal publish", "shoal broker", "shoal deliver", "shoal written"}
			if name == "memory" {
				want = []string{"shoal publish", "shoal deliver", "shoal written"}
			}
			traces.check(t, want, names)
		})
	}
}

// remoteTrace and remoteSpan are those of a publisher.
const remoteTrace, remoteSpan = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"

// publishTraced publishes on one node, as a part of a publisher's trace, and returns when a client of another has it.
func publishTraced(t *testing.T, from, to *served) {
	t.Helper()
	c := login(t, to.url)
	c.send(`{"action":"subscribe_upload","upload_id":"cat"}`)
	eventually(t, "the client follows", func() bool {
		_, text := call(t, "GET", to.url+"/v1/uploads/cat/subscribers", "dev", "")
		return strings.Contains(text, "alice")
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, from.url+"/v1/uploads/cat/messages",
		strings.NewReader(`{"action":"note","text":"payload-7361"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer dev")
	r.Header.Set("Traceparent", "00-"+remoteTrace+"-"+remoteSpan+"-01")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	c.receive("note")
}

// check fails unless the spans with these names are a chain in the publisher's trace, the first on the first node and the
// last on the last, and there are no others of them.
func (c *collector) check(t *testing.T, names, nodes []string) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.authorization != "key-7361" {
		t.Errorf("the collector got the Authorization %q", c.authorization)
	}
	byName := map[string][]collected{}
	for _, s := range c.spans {
		if strings.Contains(s.String(), "payload-7361") {
			t.Errorf("a payload is in %v", s)
		}
		byName[s.GetName()] = append(byName[s.GetName()], s)
	}
	parent := remoteSpan
	for i, name := range names {
		var found []collected
		for _, s := range byName[name] {
			if hex.EncodeToString(s.GetTraceId()) == remoteTrace && hex.EncodeToString(s.GetParentSpanId()) == parent {
				found = append(found, s)
			}
		}
		if len(found) == 0 {
			t.Fatalf("there is no %s that follows the span before it among %v", name, c.spans)
		}
		s := found[0]
		if name == "shoal deliver" {
			s = found[len(found)-1]
		}
		switch node := s.node; {
		case nodes[0] == "":
		case i == 0 && node != nodes[0], i == len(names)-1 && node != nodes[len(nodes)-1]:
			t.Errorf("%s is of node %q", name, node)
		}
		if s.GetEndTimeUnixNano() < s.GetStartTimeUnixNano() {
			t.Errorf("%s ends before it begins", name)
		}
		parent = hex.EncodeToString(s.GetSpanId())
	}
}

// A collector that hangs, or is not there, delays neither publishers nor the end, and is logged with a limit.
func TestServe_CollectorThatIsAwayDelaysNobody(t *testing.T) {
	released := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-released }))
	defer hanging.Close()
	defer close(released)
	var ending sync.WaitGroup
	for _, endpoint := range []string{hanging.URL, "http://" + freeAddress(t)} {
		s := serveDev(t, "--trace-endpoint="+endpoint, "--trace-sample=1")
		// More than the queue of spans and several batches hold.
		line := `{"action":"note"}` + "\n"
		for range 4 {
			if status, text := callAs(t, s.url+"/v1/uploads/cat/messages", strings.Repeat(line, 1000)); status != http.StatusAccepted {
				t.Fatalf("publishing gets %d %s", status, text)
			}
		}
		ending.Go(func() {
			if status := s.end(); status != statusDone {
				t.Errorf("status %d", status)
			}
			if lines := strings.Count(s.log.String(), "trace export failed"); lines < 1 || lines > 2 {
				t.Errorf("%d lines about the collector:\n%s", lines, s.log)
			}
		})
	}
	ending.Wait()
}

// callAs publishes lines of JSON and returns the status and body of the answer.
func callAs(t *testing.T, url, lines string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(lines))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer dev")
	r.Header.Set("Content-Type", "application/x-ndjson")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text)
}

func TestCheckConfig_RefusesTracing(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		want string // "": it is right
	}{
		"endpoint":            {[]string{"--trace-endpoint=https://h:4318", "--trace-sample=1", "--trace-header=a: b"}, ""},
		"no URL":              {[]string{"--trace-endpoint=h:4318"}, "--trace-endpoint"},
		"password":            {[]string{"--trace-endpoint=https://u:hidden@h"}, "credentials belong into --trace-header"},
		"share":               {[]string{"--trace-endpoint=https://h", "--trace-sample=1.5"}, "--trace-sample"},
		"header alone":        {[]string{"--trace-header=a: hidden"}, "--trace-endpoint with it"},
		"header without name": {[]string{"--trace-endpoint=https://h", "--trace-header=hidden"}, "--trace-header has an entry"},
		"header with a break": {[]string{"--trace-endpoint=https://h", "--trace-header=a: hidden\nb: c"}, "--trace-header has an entry"},
	} {
		r := shoal(t, nil, "", append([]string{"check-config", "--dev"}, c.args...)...)
		if c.want == "" && r.status != statusDone || c.want != "" && (r.status != statusUsage || !strings.Contains(r.err, c.want)) {
			t.Errorf("%s: status %d, %s", name, r.status, r.err)
		}
		if strings.Contains(r.err, "hidden") {
			t.Errorf("%s: a secret is printed: %s", name, r.err)
		}
	}
}
