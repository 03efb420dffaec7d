//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-go/shoal/server"
	"github.com/shoal-go/shoal/server/jwtauth"
)

// tokenOf returns a token of a development server for a user, with an id of its own if that is not "".
func tokenOf(t *testing.T, user, id string) string {
	t.Helper()
	token, err := jwtauth.SignHS256([]byte(devSecret), server.Identity{
		UserID: user, TokenID: id, Expires: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// follow connects a user to a node and subscribes to an upload, and returns when the node has said so.
func follow(t *testing.T, n *process, user, tokenID, upload string) *socket {
	t.Helper()
	s := connectAs(t, n.address(), "shoal.v1")
	s.authenticate(tokenOf(t, user, tokenID))
	s.send(fmt.Sprintf(`{"action":"subscribe_upload","upload_id":%q}`, upload))
	s.receive("subscribed")
	return s
}

func TestNodesInRedis(t *testing.T) {
	nodes, redis := startNodesInRedis(t)
	t.Run("see each other", func(t *testing.T) { seeEachOther(t, nodes) })
	t.Run("hear a foreign publisher", func(t *testing.T) { hearForeignPublisher(t, nodes, redis) })
	t.Run("lose nothing", func(t *testing.T) {
		if told := loseNothing(t, nodes); told > 0 {
			t.Errorf("travellers were told %d times that they had missed something, which Redis should have kept", told)
		}
	})
	t.Run("outlive an outage", func(t *testing.T) { outliveOutage(t, nodes, redis) })
}

func TestNodesOfNATS(t *testing.T) {
	nodes := startNodesOfNATS(t)
	for _, n := range nodes {
		n.wantNoWarning()
	}
	t.Run("see each other", func(t *testing.T) { seeEachOther(t, nodes) })
	t.Run("lose nothing", func(t *testing.T) { loseNothing(t, nodes) })
}

// seeEachOther queries all nodes through one, and closes connections of others through one.
func seeEachOther(t *testing.T, nodes []*process) {
	sockets := make([]*socket, len(nodes))
	for i, n := range nodes {
		sockets[i] = follow(t, n, fmt.Sprintf("user-%d", i), "", "shared")
	}
	want := []string{"user-0", "user-1", "user-2"}
	for _, n := range nodes {
		eventually(t, "the node knows all subscribers", func() bool {
			users, missing := subscribers(t, n)
			return slices.Equal(users, want) && len(missing) == 0
		})
	}

	nodes[2].pause()
	users, missing := subscribers(t, nodes[0])
	nodes[2].signal(syscall.SIGCONT)
	if !slices.Equal(users, want[:2]) || !slices.Equal(missing, []string{"c"}) {
		t.Errorf("while c does not answer, users are %q and the missing nodes %q", users, missing)
	}

	for i, n := range nodes {
		token := fmt.Sprint("token-", i) // a node that is late may yet have to hear of the one before
		other := follow(t, nodes[(i+1)%len(nodes)], "user-of-token", token, "shared")
		eventuallyDeleted(t, n, "/v1/tokens/"+token+"/connections?code=4001")
		if code := other.closed(); code != 4001 {
			t.Errorf("the connection of the token is closed with %d, want 4001", code)
		}
	}
	for i, s := range sockets {
		eventuallyDeleted(t, nodes[(i+1)%len(nodes)], fmt.Sprintf("/v1/users/user-%d/connections?code=4000", i))
		if code := s.closed(); code != 4000 {
			t.Errorf("the connection of user-%d is closed with %d, want 4000", i, code)
		}
	}
}

// subscribers asks a node for the subscribers of the upload shared.
func subscribers(t *testing.T, n *process) (users, missing []string) {
	t.Helper()
	status, body := call(t, "GET", n.address()+"/v1/uploads/shared/subscribers", devSecret, "")
	var answer struct {
		Users   []string `json:"users"`
		Missing []string `json:"missing_nodes"`
	}
	if status == http.StatusServiceUnavailable {
		return nil, nil
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != http.StatusOK {
		t.Fatalf("%d %s: %v", status, body, err)
	}
	return answer.Users, answer.Missing
}

// eventuallyDeleted has a node close connections. A node that was stopped may take a moment to be well again.
func eventuallyDeleted(t *testing.T, n *process, path string) {
	t.Helper()
	eventually(t, "the order is accepted", func() bool {
		status, _ := call(t, "DELETE", n.address()+path, devSecret, "")
		return status == http.StatusAccepted
	})
}

// hearForeignPublisher has somebody publish who knows Redis, and nothing of this server.
func hearForeignPublisher(t *testing.T, nodes []*process, redis *redisServer) {
	var sockets []*socket
	for _, n := range nodes {
		sockets = append(sockets, follow(t, n, "ann", "", "foreign"))
	}
	const message = `{"action":"upload_completed","upload_id":"foreign","description":"from elsewhere","audit_score":7,` +
		`"timestamp":"2026-01-02T03:04:05Z"}`
	if answer := redis.do("PUBLISH", "upload:foreign", message); answer != ":3" {
		t.Errorf("Redis answers %q, want three receivers", answer)
	}
	for _, s := range sockets {
		if m := s.receive("upload_completed"); m["description"] != "from elsewhere" || m["offset"] != nil {
			t.Errorf("received %v", m)
		}
	}
}

// loseNothing restarts each node in turn, and has one end without a word, while messages are published and
// followed on all of them. It returns how often a follower learned that it had missed messages.
func loseNothing(t *testing.T, nodes []*process) (told int) {
	j := setOut(t, nodes)
	const some = 100
	for _, n := range nodes {
		j.goOn(some)
		n.terminate()
		j.goOn(some)
		n.restart()
		eventually(t, "the node is ready", n.ready)
	}
	nodes[1].kill()
	j.goOn(some)
	nodes[1].restart()
	eventually(t, "the node is ready", nodes[1].ready)
	j.goOn(some)
	j.end()
	for _, r := range j.travellers {
		told += r.account(t, j.teller.last(), j.teller.unsure)
	}
	t.Logf("%d messages, %d of them published more than once, %d times told of a loss",
		j.teller.last(), len(j.teller.unsure), told)
	return told
}

// outliveOutage takes Redis away for a while.
func outliveOutage(t *testing.T, nodes []*process, redis *redisServer) {
	var sockets []*socket
	for _, n := range nodes {
		sockets = append(sockets, follow(t, n, "ann", "", "outage"))
	}
	const message = `{"action":"tick","n":1}`
	redis.kill()
	for _, n := range nodes {
		eventually(t, "the node is not ready", func() bool { return n.health() == http.StatusServiceUnavailable })
		status, header := post(t, n.address()+"/v1/uploads/outage/messages", message)
		if status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
			t.Errorf("publishing gets %d with %v, want 503 with Retry-After", status, header)
		}
	}
	redis.start()
	for _, n := range nodes {
		eventually(t, "the node is ready again", n.ready)
	}
	if status, _ := post(t, nodes[0].address()+"/v1/uploads/outage/messages", message); status != http.StatusAccepted {
		t.Errorf("publishing gets %d, want 202", status)
	}
	for _, s := range sockets { // which have stayed connected
		s.receive("tick")
	}
}

func post(t *testing.T, url, body string) (int, http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), "POST", url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+devSecret)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode, response.Header
}

func TestServeWaitsForItsBroker(t *testing.T) {
	redis := reserveRedis(t)
	s := serveDev(t, "--broker=redis://:hidden@"+redis.address)
	readiness := func() int {
		status, _ := call(t, "GET", s.admin+"/readyz", "", "")
		return status
	}
	if status := readiness(); status != http.StatusServiceUnavailable {
		t.Errorf("without a broker /readyz answers %d", status)
	}
	s.waitForLog(t, "out of reach")
	c := connect(t, s.url)
	c.authenticate(tokenOf(t, "ann", "")) // which needs no broker
	redis.args = append(redis.args, "--requirepass", "hidden")
	redis.start()
	eventually(t, "the node is ready", func() bool { return readiness() == http.StatusOK })
	if strings.Contains(s.log.String(), "hidden") {
		t.Errorf("the log holds the password:\n%s", s.log)
	}
}

func TestServeEndsWithWrongCredentials(t *testing.T) {
	redis := reserveRedis(t, "--requirepass", "right").start()
	r := shoal(t, nil, "", "serve", "--dev", "--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--log-level=error",
		"--log-format=json", "--broker=redis://:hidden@"+redis.address)
	if !strings.Contains(r.err, `"msg":"serving failed","error":"the broker cannot be used: `) {
		t.Errorf("the log does not name the cause:\n%s", r.err)
	}
	r.withoutLog().wantErrors(t, statusFailed, "the broker cannot be used: redisbroker: "+redis.address+" refuses the user or the password")
	if strings.Contains(r.err, "hidden") {
		t.Errorf("the password is printed:\n%s", r.err)
	}
}

func TestServeOnABusyClusterPort(t *testing.T) {
	busy := reserveRedis(t).start()
	args := inCluster("--cluster-addr="+busy.address, "--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--dev")
	r := shoal(t, nil, "", append([]string{"serve"}, args...)...)
	r.wantErrors(t, statusFailed,
		"cannot listen on "+busy.address+": the address is in use; choose another address with --cluster-addr")
}

func TestServe_NamesABrokerDirThatCannotBeUsed(t *testing.T) {
	file := writeFile(t, "file", "")
	r := shoal(t, nil, "", "serve", "--dev", "--addr=127.0.0.1:0", "--admin-addr=127.0.0.1:0", "--broker=nats-embedded",
		"--broker-storage=file", "--broker-dir="+file)
	r.wantErrors(t, statusFailed, "choose another folder with --broker-dir")
	if !strings.Contains(r.err, "cannot store messages in "+file) {
		t.Errorf("it ends with %s", r.err)
	}
}

// TestServe_EndsWithHungRedis: a Redis that accepts connections and does not answer delays no stage of the shutdown
// beyond its share of --drain, and the clients get a close frame.
func TestServe_EndsWithHungRedis(t *testing.T) {
	redis := reserveRedis(t).start()
	n := startNode(t, "--broker=redis://"+redis.address, "--node-name=a")
	eventually(t, "the node is ready", n.ready)
	n.wantNoWarning()
	client := follow(t, n, "ann", "", "cat")
	if err := redis.command.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	n.signal(syscall.SIGTERM)
	if got := client.closed(); got != websocket.StatusServiceRestart {
		t.Errorf("the client was closed with %d, want 1012", got)
	}
	if err := n.wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	for _, want := range []string{`step=manager error="context deadline exceeded`, "msg=ended"} {
		if !strings.Contains(n.log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, tail(n.log.String()))
		}
	}
}

func TestServeAloneWithNATS(t *testing.T) {
	s := serveDev(t, "--broker=nats-embedded", "--broker-storage=file", "--broker-dir="+t.TempDir())
	eventually(t, "the node is ready", func() bool {
		status, _ := call(t, "GET", s.admin+"/readyz", "", "")
		return status == http.StatusOK
	})
	if strings.Contains(s.log.String(), "level=WARN") {
		t.Errorf("a normal start warns:\n%s", s.log)
	}
	c := login(t, s.url)
	c.send(`{"action":"subscribe_upload","upload_id":"u"}`)
	eventually(t, "the message is accepted", func() bool {
		status, _ := post(t, s.url+"/v1/uploads/u/messages", `{"action":"tick"}`)
		return status == http.StatusAccepted
	})
	c.receive("tick")
}

// connectAs is connect with a subprotocol.
func connectAs(t *testing.T, url, protocol string) *socket {
	t.Helper()
	return dial(t, url, &websocket.DialOptions{Subprotocols: []string{protocol}})
}

// make cluster ends where a server answers at a port of a node: it would be taken for the node, which cannot listen.
func TestCluster_RefusesPortsInUse(t *testing.T) {
	curl := writeFile(t, "curl", "#!/bin/sh\n") // whose requests all succeed
	if err := os.Chmod(curl, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", filepath.Dir(curl)+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("TMPDIR", t.TempDir())
	out, err := exec.Command(repository + ".ci/cluster.sh").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "a server answers at 127.0.0.1:9091 already; end it first") {
		t.Errorf("it ends with %v:\n%s", err, out)
	}
}
