package dashboard

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// The page loads only files of the dashboard, by relative addresses, and contains nothing that its policy blocks.
func TestPage_NeedsNothingElse(t *testing.T) {
	f := start(t, false)
	response, page := f.call(http.MethodGet, Path+"/", "")
	policy := response.Header.Get("Content-Security-Policy")
	if response.StatusCode != http.StatusOK || !strings.Contains(policy, "default-src 'none'") ||
		strings.Contains(policy, "unsafe") {
		t.Errorf("answered %d with the policy %q", response.StatusCode, policy)
	}
	for _, inline := range []string{`<style`, ` style=`, `<script>`, ` on[a-z]+=`, `https?://`, `(src|href)="/`} {
		if found := regexp.MustCompile(inline).FindString(page); found != "" {
			t.Errorf("the page contains %q", found)
		}
	}
	assets, err := loadAssets()
	if err != nil || len(assets) < 10 {
		t.Errorf("%d assets, %v", len(assets), err)
	}
	for name := range assets {
		if name == "index.html" {
			continue
		}
		response, body := f.call(http.MethodGet, Path+"/"+name, "")
		if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") == "" || body == "" ||
			response.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s is answered with %d and %v", name, response.StatusCode, response.Header)
		}
		if strings.HasSuffix(name, ".js") && name != "assets/shoal.js" &&
			regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(`).MatchString(body) {
			t.Errorf("%s parses markup or code", name)
		}
	}
	for _, link := range regexp.MustCompile(`(?:src|href)="([^"#]+)"`).FindAllStringSubmatch(page, -1) {
		if _, ok := assets[link[1]]; !ok {
			t.Errorf("the page refers to %s, which is no asset", link[1])
		}
	}
	if response, _ := f.call(http.MethodGet, Path, ""); response.Header.Get("Location") != "dashboard/" {
		t.Errorf("redirected to %q", response.Header.Get("Location"))
	}
	for _, path := range []string{"/assets/none.js", "/assets/..%2Findex.html", "/assets/", "/other"} {
		if response, _ := f.call(http.MethodGet, Path+path, ""); response.StatusCode != http.StatusNotFound {
			t.Errorf("%s is answered with %d", path, response.StatusCode)
		}
	}
}

// Numbers come live, and nothing is counted before the first page follows and after the last one has left.
func TestLive_CountsOnlyWhileAPageFollows(t *testing.T) {
	f := start(t, false)
	f.residence.Observe(time.Millisecond)
	if f.dashboard.live.stream != nil || f.residence.window.Load() != nil {
		t.Error("the stream is open before anybody looks")
	}
	v := f.view()
	v.follow(topicNumbers)
	first := v.until(action(actionNumbers))
	if first["rates"] != nil || first["node"] != "n1" || first["residence"] != nil {
		t.Errorf("the first state is %v", first)
	}
	f.residence.Observe(3 * time.Millisecond)
	f.publish("a", `{"action":"note"}`)
	changed := v.until(func(m map[string]any) bool {
		stats, _ := m["stats"].(map[string]any)
		return stats["published"] == 1.0 && m["residence"] != nil
	})
	if in := changed["rates"].(map[string]any)["published"].(float64); in <= 0 {
		t.Errorf("%v messages came in a second", in)
	}
	if took := changed["residence"].(map[string]any)["p50"].(float64); took < 2900 || took > 3100 {
		t.Errorf("the median residence is %v µs, want about 3000", took)
	}
	_ = v.conn.CloseNow()
	waitFor(t, func() bool { return f.residence.window.Load() == nil })
	again := f.view()
	again.follow(topicNumbers)
	if first := again.until(action(actionNumbers)); first["rates"] != nil {
		t.Error("the first state for a page is an old one")
	}
}

// Clients of the observed server cannot read the numbers: the stream belongs to a server of its own.
func TestLive_IsOutOfReachOfClients(t *testing.T) {
	f := start(t, true)
	v := f.view()
	v.follow(topicConnections)
	v.until(action(actionConnections))
	client := f.dial(f.public+"/ws/uploads", "mallory")
	client.follow(topicConnections)
	client.until(action("subscribed"))
	if h, err := f.manager.History(t.Context(), topicConnections, manager.Position{}); err != nil || len(h.Messages) > 0 {
		t.Errorf("the observed server has %d messages, %v", len(h.Messages), err)
	}
	if conns, _ := f.server.UserConnections("mallory", 1); len(conns) != 1 {
		t.Error("the client is not connected")
	}
	response, _ := f.call(http.MethodGet, Path+"/events/uploads/"+topicConnections, "")
	if response.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token the event stream is answered with %d", response.StatusCode)
	}
}

// Connections with their users are for readers only.
func TestLive_NeedsAccessForConnections(t *testing.T) {
	for _, c := range []struct {
		trusted bool
		headers []string
		allowed bool
	}{{false, nil, false}, {true, nil, true}, {false, withKey, true}} {
		f := start(t, c.trusted)
		v := f.view(c.headers...)
		v.follow(topicConnections)
		m := v.until(func(m map[string]any) bool { return m["action"] == actionConnections || m["action"] == "error" })
		if allowed := m["action"] == actionConnections; allowed != c.allowed {
			t.Errorf("trusted %v, headers %v: %v", c.trusted, c.headers, m)
		}
	}
}

func TestLive_BoundsViewers(t *testing.T) {
	f := start(t, false)
	for range maxViewers {
		v := f.view()
		v.until(action("auth_success"))
	}
	conn, response, err := f.tryDial(f.url + Path + "/ws/uploads")
	if err == nil {
		_ = conn.CloseNow()
	}
	if response == nil || response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one more is answered with %v, %v", response, err)
	}
}

func TestDashboard_CloseRefusesPages(t *testing.T) {
	f := start(t, false)
	v := f.view()
	v.follow(topicNumbers)
	v.until(action(actionNumbers))
	closed := make(chan error, 1)
	go func() { closed <- f.dashboard.Close(t.Context()) }()
	for {
		if _, _, err := v.conn.Read(v.ctx); err != nil {
			break
		}
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if response, _ := f.call(http.MethodGet, Path+"/ws/uploads", ""); response.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("the stream is answered with %d after Close", response.StatusCode)
	}
}

// The state has a bounded size, however many shards and nodes there are.
func TestNumbers_AreBounded(t *testing.T) {
	shards := make([]manager.ShardStats, 4*maxShards)
	for i := range shards {
		shards[i] = manager.ShardStats{Connections: 1, Users: 2, Uploads: 3, Subscriptions: 4}
	}
	sizes := sizesOf(shards)
	if len(sizes.Users) != maxShards || sizes.Connections[0] != 4 || sizes.Subscriptions[maxShards-1] != 16 {
		t.Errorf("%d shards are shown, %d connections in the first", len(sizes.Users), sizes.Connections[0])
	}
	if sizes := sizesOf(nil); len(sizes.Users) != 0 {
		t.Errorf("no shards are shown as %v", sizes)
	}
	stats := map[string]manager.Stats{}
	var missing []string
	for i := range 2 * maxNodes {
		name := strings.Repeat("n", 255) + strconv.Itoa(i)
		stats[name] = manager.Stats{Broker: &manager.BrokerStats{Healthy: i > 0}}
		missing = append(missing, name)
	}
	list := listNodes(stats, missing)
	if len(list.nodes) != maxNodes || list.more != maxNodes || len(list.missing) != maxNodes {
		t.Errorf("%d nodes, %d more, %d missing", len(list.nodes), list.more, len(list.missing))
	}
	if list.nodes[0].Healthy || !list.nodes[1].Healthy {
		t.Error("the health of the nodes is lost")
	}
	text, err := json.Marshal(numbers{Shards: sizes, Nodes: list.nodes, MissingNodes: list.missing})
	if err != nil || len(text) > maxNumbersBytes/4 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
}

// The page shows the reason that the process has, such as a full disk, rather than its consequence in the server.
func TestNumbers_ShowTheReasonOfTheProcess(t *testing.T) {
	f := start(t, true)
	v := f.view()
	v.follow(topicNumbers)
	ready := v.until(action(actionNumbers))
	if got := ready["not_ready"]; got != "" {
		t.Errorf("the page of a server that is ready shows %q", got)
	}
	reason := "no space left on device"
	f.notReady.Store(&reason)
	v.until(func(m map[string]any) bool { return m["not_ready"] == reason })
}

// Rates are counts divided by the time between two states.
func TestNumbers_Rates(t *testing.T) {
	at := time.Now()
	before, now := counts{at: at}, counts{at: at.Add(2 * time.Second)}
	before.stats.SentFrames, now.stats.SentFrames = 5, 25
	now.stats.Messages.Publish.State, now.stats.Messages.User.Event = 4, 2
	now.stats.Queued, now.stats.Conflated = 6, 2
	want := rates{Frames: 10, Published: 3, Deliveries: 4, Conflated: 1}
	if got := now.since(before); got == nil || *got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := now.since(counts{}); got != nil {
		t.Errorf("the first state has rates: %+v", got)
	}
}

// infoOf is an example of a connection.
func infoOf(user string) server.ConnectionInfo {
	return server.ConnectionInfo{
		UserID: user, Remote: "10.0.0.1:1", Transport: "sse", Age: 3 * time.Second, Silent: 2 * time.Second,
		QueuedMessages: 4, QueuedBytes: 6, RecoveryBytes: 5, Waiting: time.Second,
	}
}

func TestConnectionsOf(t *testing.T) {
	want := connection{"ann", "10.0.0.1:1", "sse", "", 3000, 2000, 4, 6, 1000}
	if got := connectionsOf([]server.ConnectionInfo{infoOf("ann")}); len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
