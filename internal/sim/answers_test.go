package sim

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/shoal-go/shoal/broker"
)

// Seeds of operations with tokens that have no end: for all uploads, and for all but upload 0.
const (
	allUploads    = 1<<16 | 1
	allButUpload0 = 1<<16 | 6<<8
)

// execute executes operations without waiting for the answers in between, and returns the violation.
func execute(t *testing.T, cfg Config, ops ...Op) (violation string) {
	t.Helper()
	cfg.Nodes, cfg.History = 1, 64
	for i := range ops {
		ops[i].AtOnce = ops[i].Kind != settle
	}
	synctest.Test(t, func(*testing.T) { violation, _ = Run(History{Config: cfg, Ops: ops}, nil) })
	return violation
}

// An answer to a resume that comes after the client has unsubscribed and subscribed again is not the answer to the
// second subscription.
func TestRun_LateAnswerOfResume(t *testing.T) {
	for _, cfg := range []Config{{}, {Broker: true, Stored: true}} {
		violation := execute(t, cfg,
			Op{Kind: arrive, seed: allUploads}, Op{Kind: subscribe}, Op{Kind: settle},
			Op{Kind: publish, N: 3}, Op{Kind: settle},
			Op{Kind: resume, seed: allUploads}, Op{Kind: unsubscribe}, Op{Kind: subscribe}, Op{Kind: publish, N: 2},
			Op{Kind: settle}, Op{Kind: publish, N: 2}, Op{Kind: settle})
		if violation != "" {
			t.Errorf("%+v: %s", cfg, violation)
		}
	}
}

// A subscription is allowed by the token that was sent before it, also if the client has no answer to that token yet.
func TestRun_SubscriptionBehindPendingToken(t *testing.T) {
	for client := range 2 { // shoal.v1, base
		violation := execute(t, Config{Claims: true}, Op{Kind: publish, N: 1},
			Op{Kind: arrive, Client: client, seed: allButUpload0}, Op{Kind: settle},
			Op{Kind: subscribe, Client: client}, // is refused
			Op{Kind: renew, Client: client, seed: allUploads}, Op{Kind: subscribe, Client: client}, Op{Kind: settle},
			Op{Kind: publish, N: 2}, Op{Kind: settle}, Op{Kind: subscribe, Client: client}, Op{Kind: settle},
			Op{Kind: renew, Client: client, seed: allButUpload0}, Op{Kind: subscribe, Client: client}, // is refused
			Op{Kind: settle}, Op{Kind: publish, N: 2}, Op{Kind: settle})
		if violation != "" {
			t.Errorf("client %d: %s", client, violation)
		}
	}
}

// conversation is a client without a network, whose server's messages are those of the test.
type conversation struct {
	w *World
	c *client
}

// converse begins a conversation about an upload that has had five events.
func converse(v1 bool) conversation {
	w := &World{cfg: Config{History: 64}, account: newAccount(0), forgotten: map[int]bool{}}
	for body := 1; body <= 5; body++ {
		w.account.accept(0, body, broker.Position{Epoch: "e", Offset: uint64(body)})
	}
	s := &session{
		node: &node{}, v1: v1, observed: newObserved(w.account), views: map[int]*view{}, narrowed: map[int]int{},
		claims: map[int]int{}, repeats: map[int]int{}, asked: ledger{uploads: map[int][]*request{}}, unsure: map[int]bool{}, entered: true,
		reached: map[int]int{},
		shown:   grant{rights: 1<<Uploads - 1},
	}
	s.observed.connect()
	c := &client{v1: v1, session: s, at: map[int]broker.Position{}, wants: map[int]bool{}}
	return conversation{w, c}
}

// receive passes answers, and events by their number.
func (c conversation) receive(messages ...any) {
	for _, m := range messages {
		switch m := m.(type) {
		case received:
			c.w.receive(c.c, m)
		case int:
			r := received{Action: "upload_completed", UploadID: uploadID(0), Describe: string(rune('0' + m))}
			if c.c.v1 {
				r.Offset = uint64(m)
			}
			c.w.receive(c.c, r)
		}
	}
}

func subscribedAt(offset uint64) received {
	return received{Action: "subscribed", UploadID: uploadID(0), Epoch: "e", Offset: offset}
}

func resumedAt(offset uint64, recovered bool) received {
	r := received{Action: "resumed", Uploads: map[string]standing{}}
	r.Uploads[uploadID(0)] = standing{Epoch: "e", Offset: offset, Recovered: recovered}
	return r
}

// Losses are noticed with any answer that is late.
func TestReceive_NoticesLosses(t *testing.T) {
	unsubscribed := received{Action: "unsubscribed", UploadID: uploadID(0)}
	for name, test := range map[string]struct {
		want     string
		messages []any
	}{
		"nothing is lost":                     {"", []any{resumedAt(3, true), 2, 3, unsubscribed, subscribedAt(4), 4, 5}},
		"messages of the first need not come": {"", []any{resumedAt(3, true), unsubscribed, subscribedAt(4), 4, 5}},
		"newest message":                      {"event 4", []any{resumedAt(3, true), unsubscribed, subscribedAt(4), 5}},
		"next message":                        {"event 4", []any{resumedAt(3, true), unsubscribed, subscribedAt(3), 3, 5}},
		"answer":                              {"1 earlier requests", []any{unsubscribed, subscribedAt(4), 4, 5}},
		"answer that continues a position": {"asked for", []any{resumedAt(3, true), unsubscribed, received{
			Action: "subscribed", UploadID: uploadID(0), Epoch: "e", Offset: 4, Recovery: true,
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			c := converse(true)
			c.c.wants[0], c.c.at[0] = true, broker.Position{Epoch: "e", Offset: 1}
			c.w.follow(c.c)
			c.w.unsubscribe(c.c, 0)
			c.w.subscribe(c.c, 0)
			c.receive(test.messages...)
			if got := c.w.violation; !strings.Contains(got, test.want) || (got == "") != (test.want == "") {
				t.Errorf("violation %q, want %q", got, test.want)
			}
		})
	}
}
