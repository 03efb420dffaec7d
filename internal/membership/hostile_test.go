package membership

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// pattern returns bytes without repeated parts.
func pattern(size int) []byte {
	out := make([]byte, 0, size+16)
	for i := 0; len(out) < size; i++ {
		out = append(strconv.AppendInt(out, int64(i), 36), ',')
	}
	return out[:size]
}

func TestAnswer_LargeArrivesWhole(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		sizes := map[string]int{"b": 0, "d": partBytes, "e": partBytes + 1, "f": 5_000_000}
		a := c.start(Config{Name: "a"})
		for name, size := range sizes {
			c.start(Config{Name: name, Answer: func(string, []byte) ([]byte, error) { return pattern(size), nil }})
		}
		answers, missing, err := a.Ask(context.Background(), "who", nil)
		if err != nil || missing != nil {
			t.Fatalf("missing %q, %v", missing, err)
		}
		for name, size := range sizes {
			if !bytes.Equal(answers[name].Body, pattern(size)) {
				t.Errorf("the answer of %d bytes came as one of %d", size, len(answers[name].Body))
			}
		}
		if a.answerBytes != 0 || len(a.asks) != 0 {
			t.Errorf("%d bytes in %d questions are left", a.answerBytes, len(a.asks))
		}
	})
}

// sizes notes the largest message that is published.
type sizes struct {
	broker.Broker
	largest int
}

func (s *sizes) Publish(ctx context.Context, channel string, payload []byte) error {
	s.largest = max(s.largest, len(payload))
	return s.Broker.Publish(ctx, channel, payload)
}

func TestAnswer_PartsAreSmall(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		long := strings.Repeat("n", maxNameBytes)
		a := c.start(Config{Name: "a"})
		b := c.configure(Config{Name: long, Answer: func(string, []byte) ([]byte, error) { return pattern(3 * partBytes), nil }})
		measured := &sizes{Broker: b.wire}
		b.cfg.Broker = measured
		b.connect()
		synctest.Wait()
		b.run()
		t.Cleanup(b.leave)
		synctest.Wait()
		answers, _, err := a.Ask(context.Background(), "who", nil)
		if err != nil || len(answers[long].Body) != 3*partBytes {
			t.Fatalf("%d bytes, %v", len(answers[long].Body), err)
		}
		if measured.largest > 256<<10 {
			t.Errorf("a part has %d bytes, want 256 KiB at most", measured.largest)
		}
		b.asked = 1<<64 - 2
		if _, _, err := b.Ask(context.Background(), long, pattern(MaxBodyBytes)); err != nil {
			t.Error(err)
		}
		if measured.largest > 1<<20 {
			t.Errorf("a message has %d bytes, want 1 MiB at most", measured.largest)
		}
	})
}

// narrow refuses large messages for good, like a server with a low limit.
type narrow struct{ broker.Broker }

func (n narrow) Publish(ctx context.Context, channel string, payload []byte) error {
	if len(payload) > 1<<10 {
		return errors.New("the message is too large")
	}
	return n.Broker.Publish(ctx, channel, payload)
}

// TestAnswer_RefusedByTheBrokerIsLogged: a node whose answers the broker refuses says so, once for many: the asking
// node only sees that it is missing.
func TestAnswer_RefusedByTheBrokerIsLogged(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Name: "a"})
		b := c.configure(Config{Name: "b", Answer: func(string, []byte) ([]byte, error) { return pattern(2 << 10), nil }})
		b.cfg.Broker = narrow{b.wire}
		b.connect()
		synctest.Wait()
		b.run()
		synctest.Wait()
		for range 3 {
			c.ask(a, []string{"a"}, []string{"b"})
		}
		b.leave()
		const want = `level=WARN msg="membership: sending an answer failed" kind=who node=a error="the message is too large"`
		if text := b.logs.String(); strings.Count(text, want) != 1 {
			t.Errorf("the log is %q, want once %s", text, want)
		}
	})
}

func TestAsk_TooLargeIsRefused(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Name: "a"})
		c.start(Config{Name: "b", Answer: func(string, []byte) ([]byte, error) { return make([]byte, MaxAnswerBytes+1), nil }})
		c.ask(a, []string{"a"}, []string{"b"})
		body := make([]byte, MaxBodyBytes+1)
		if _, _, err := a.Ask(context.Background(), "do", body); err == nil || !strings.Contains(err.Error(), "at most 983040") {
			t.Errorf("asking with a large body: %v", err)
		}
		if _, _, err := a.Ask(context.Background(), "not\na kind", nil); err == nil || !strings.Contains(err.Error(), "kind is") {
			t.Errorf("asking: %v", err)
		}
	})
}

func TestAnswer_ErrorIsNotAnswered(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		refuse := func(string, []byte) ([]byte, error) { return []byte("body"), errors.New("unknown kind") }
		a, b := c.start(Config{Name: "a"}), c.start(Config{Name: "b", Answer: refuse})
		began := time.Now()
		c.ask(a, []string{"a"}, []string{"b"})
		c.ask(b, []string{"a"}, []string{"b"})
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %v for what was refused", waited)
		}
	})
}

func TestAnswer_LateIsIgnored(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Name: "a"})
		c.start(Config{Name: "b", Patience: time.Minute, Answer: func(_ string, body []byte) ([]byte, error) {
			if string(body) != "second" {
				<-time.After(3 * time.Second)
			}
			return body, nil
		}})
		c.ask(a, []string{"a"}, []string{"b"})
		answers, _, err := a.Ask(context.Background(), "who", []byte("second"))
		if err != nil || string(answers["b"].Body) != "second" {
			t.Errorf("the answer is %q, %v", answers["b"].Body, err)
		}
		pass(5 * time.Second)
		if counts := a.Counts(); counts != (Counts{Stray: 1}) {
			t.Errorf("the counts are %+v, want one stray", counts)
		}
	})
}

func TestAsk_LeavingNodeIsNotAwaited(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Name: "a"})
		b := c.start(Config{Name: "b", Answer: func(string, []byte) ([]byte, error) {
			<-time.After(time.Second)
			return nil, nil
		}})
		time.AfterFunc(500*time.Millisecond, func() { b.stopRun() })
		began := time.Now()
		c.ask(a, []string{"a"}, nil)
		if waited := time.Since(began); waited != 500*time.Millisecond {
			t.Errorf("the question took %v, want the time until the node left", waited)
		}
		pass(time.Second)
	})
}

func TestMembership_NodeThatHearsNothingLosesNobody(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a, b := c.start(Config{Name: "a"}), c.start(Config{Name: "b"})
		a.setDeaf(true)
		pass(time.Minute)
		c.members(a, "a", "b")
		c.ask(a, []string{"a"}, []string{"b"})
		a.setDeaf(false)
		pass(10 * time.Second)
		c.members(a, "a", "b")
		c.members(b, "a", "b")
	})
}

func TestMembership_TwoNodesOfOneName(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Name: "same"})
		b := c.start(Config{Name: "same"})
		other := c.start(Config{Name: "other"})
		pass(5 * time.Second)
		a.leave()
		b.leave()
		for _, n := range []*member{a, b} {
			if logs := n.logs.String(); strings.Count(logs, "level=ERROR") != 1 || !strings.Contains(logs, "node name used twice") {
				t.Errorf("the log is\n%s", logs)
			}
		}
		synctest.Wait()
		c.members(other, "other")
	})
}

// wire makes a message with a header as it stands.
func wire(header, body string) []byte { return []byte(header + "\n" + body) }

func TestReceive_MalformedIsDroppedAndCounted(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Name: "a"})
		inbox := a.inbox
		all := []struct {
			channel string
			payload []byte
		}{
			{AllChannel, nil},
			{AllChannel, []byte("secret")},
			{AllChannel, wire(`secret`, "")},
			{AllChannel, wire(`[]`, "")},
			{AllChannel, wire(`{}`, "")},
			{AllChannel, wire(`{"v":2,"t":"hello","from":"b","run":"r"}`, "")},
			{AllChannel, wire(`{"v":1,"t":"hello","from":"b","run":""}`, "")},
			{AllChannel, wire(`{"v":1,"t":"hello","from":"secret \n","run":"r"}`, "")},
			{AllChannel, wire(`{"v":1,"t":"hello","from":"b>*","run":"r"}`, "")},
			{AllChannel, wire(`{"v":1,"t":"hello","from":"`+strings.Repeat("b", 129)+`","run":"r"}`, "")},
			{AllChannel, wire(`{"v":1,"t":"hello","from":"b","run":"r"}`+strings.Repeat(" ", 1024), "")},
			{AllChannel, wire(`{"v":1,"t":"hello","from":"b","run":"r"}`, "secret")},
			{AllChannel, wire(`{"v":1,"t":"welcome","from":"b","run":"r"}`, "")},
			{inbox, wire(`{"v":1,"t":"hello","from":"b","run":"r"}`, "")},
			{inbox, wire(`{"v":1,"t":"ask","from":"b","run":"r","kind":"do"}`, "")},
			{AllChannel, wire(`{"v":1,"t":"secret","from":"b","run":"r"}`, "")},
			{AllChannel, wire(`{"v":1,"t":"ask","from":"b","run":"r"}`, "")},
			{AllChannel, wire(`{"v":1,"t":"ask","from":"b","run":"r","kind":"x y","n":1}`, "")},
			{AllChannel, wire(`{"v":1,"t":"ask","from":"b","run":"r","kind":"do"}`, strings.Repeat("x", MaxBodyBytes+1))},
			{AllChannel, wire(`{"v":1,"t":"ask","from":"b","run":"r","kind":"do","n":-1}`, "")},
			{inbox, wire(`{"v":1,"t":"answer","from":"b","run":"r","n":1,"part":-1}`, "")},
			{inbox, wire(`{"v":1,"t":"answer","from":"b","run":"r","n":1,"more":true}`, "")},
			{inbox, wire(`{"v":1,"t":"answer","from":"b","run":"r","n":1,"more":true,"refused":true}`, "x")},
			{inbox, wire(`{"v":1,"t":"answer","from":"b","run":"r","n":1}`, strings.Repeat("x", partBytes+1))},
		}
		for i, m := range all {
			if !a.Membership.Receive(broker.Message{Channel: m.channel, Payload: m.payload}) {
				t.Errorf("message %d is not taken for one of the nodes'", i)
			}
			if got := a.Counts(); got != (Counts{Malformed: uint64(i + 1)}) {
				t.Fatalf("after %.100q the counts are %+v, want %d malformed", m.payload, got, i+1)
			}
		}
		for _, channel := range []string{"", "shoal:", "shoal:node-b", "shoal:node-aa", "upload:a"} {
			if a.Membership.Receive(broker.Message{Channel: channel, Payload: []byte("x")}) {
				t.Errorf("a message on %q is taken for one of the nodes'", channel)
			}
		}
		synctest.Wait()
		c.members(a, "a")
		a.leave()
		logs := a.logs.String()
		if strings.Contains(logs, "secret") || !strings.Contains(logs, "channel=shoal:all") || !strings.Contains(logs, "channel="+inbox) {
			t.Errorf("the log is\n%s", logs)
		}
		if lines := strings.Count(logs, "\n"); lines > 10 {
			t.Errorf("%d lines are logged, want one for each channel and thing that can be wrong", lines)
		}
	})
}

// part makes a part of an answer to a's question n.
func part(a *member, from, run string, n uint64, part int, more bool, body []byte) broker.Message {
	h := header{Type: typeAnswer, From: from, Run: run, N: n, To: a.Membership.run, Part: part, More: more}
	return broker.Message{Channel: a.inbox, Payload: encode(h, body)}
}

func hello(name, run string) broker.Message {
	return broker.Message{Channel: AllChannel, Payload: encode(header{Type: typeHello, From: name, Run: run, N: 1}, nil)}
}

// asking asks in a goroutine of its own, and returns a function that waits for the outcome.
func asking(a *member) func() (map[string]Answer, []string) {
	type outcome struct {
		answers map[string]Answer
		missing []string
	}
	ended := make(chan outcome, 1)
	go func() {
		answers, missing, _ := a.Ask(context.Background(), "who", nil)
		ended <- outcome{answers, missing}
	}()
	synctest.Wait()
	return func() (map[string]Answer, []string) { o := <-ended; return o.answers, o.missing }
}

func TestReceive_StrayParts(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Name: "a"})
		for _, name := range []string{"b", "d", "e"} {
			a.Membership.Receive(hello(name, "r"))
		}
		outcome := asking(a)
		foreign := part(a, "b", "r", 1, 0, false, []byte("foreign"))
		foreign.Payload = bytes.Replace(foreign.Payload, []byte(a.Membership.run), []byte("another"), 1)
		stray := uint64(0)
		for _, step := range []struct {
			m     broker.Message
			stray bool
		}{
			{foreign, true},
			{part(a, "b", "r", 0, 0, false, nil), true},
			{part(a, "b", "r", 2, 0, false, nil), true},
			{part(a, "a", "r", 1, 0, false, []byte("not own")), true},
			{part(a, "b", "r", 1, 0, true, []byte("one ")), false},
			{part(a, "b", "r", 1, 0, true, []byte("one again ")), true},
			{part(a, "d", "r", 1, 0, true, []byte("lost")), false},
			{part(a, "b", "other", 1, 1, false, []byte("of another run")), true},
			{part(a, "b", "r", 1, 1, false, []byte("two")), false},
			{part(a, "b", "r", 1, 2, false, []byte("three")), true},
			{part(a, "d", "r", 1, 2, false, []byte("after a gap")), true},
			{part(a, "d", "r", 1, 1, false, []byte("too late")), true},
			{part(a, "newcomer", "r", 1, 0, false, []byte("new")), false},
			{part(a, "e", "r", 1, 1, false, []byte("first is lost")), true},
		} {
			a.Membership.Receive(step.m)
			if step.stray {
				stray++
			}
			if got := a.Counts(); got != (Counts{Stray: stray}) {
				t.Fatalf("after %q the counts are %+v, want %d stray", step.m.Payload, got, stray)
			}
		}
		answers, missing := outcome()
		if !slices.Equal(missing, []string{"d", "e"}) || string(answers["b"].Body) != "one two" ||
			string(answers["newcomer"].Body) != "new" || string(answers["a"].Body) != "who a " || len(answers) != 3 {
			t.Errorf("answers %q, missing %q", answers, missing)
		}
	})
}

func TestReceive_HugeAnswersAreDropped(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Name: "a"})
		a.Membership.Receive(hello("b", "r"))
		outcome := asking(a)
		body := make([]byte, partBytes)
		sent := 0
		for ; a.Counts().Overflow == 0; sent++ {
			a.Membership.Receive(part(a, "b", "r", 1, sent, true, body))
			if sent*partBytes > 2*MaxAnswerBytes {
				t.Fatal("an endless answer is taken")
			}
		}
		if sent*partBytes < MaxAnswerBytes {
			t.Errorf("an answer is given up after %d bytes", sent*partBytes)
		}
		answers, missing := outcome()
		if !slices.Equal(missing, []string{"b"}) || len(answers) != 1 || a.answerBytes != 0 {
			t.Errorf("%d answers, missing %q, %d bytes left", len(answers), missing, a.answerBytes)
		}
	})
}

func TestReceive_AnswersTogetherAreBounded(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Name: "a"})
		a.Membership.Receive(hello("b", "r"))
		outcome := asking(a)
		payload := part(a, "b", "r", 1, 0, true, make([]byte, partBytes)) // one payload for all: they are not changed
		for i := 0; a.Counts().Overflow == 0; i++ {
			h := header{Type: typeAnswer, From: fmt.Sprint("x", i/100), Run: "r", N: 1, To: a.Membership.run, Part: i % 100, More: true}
			a.handleAnswer(a.inbox, h, payload.Payload[:partBytes])
			if i*partBytes > 2*maxAnswersBytes {
				t.Fatal("answers without end are taken")
			}
		}
		outcome()
		if a.answerBytes != 0 {
			t.Errorf("%d bytes are left", a.answerBytes)
		}
	})
}

func TestMembership_FloodOfNodesIsBounded(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Name: "a"})
		for i := range maxNodes + 10 {
			a.Membership.Receive(hello(fmt.Sprint("n", i), "r"))
		}
		if got := len(a.Members()); got != maxNodes+1 {
			t.Errorf("%d nodes are known, want %d", got, maxNodes+1)
		}
		if got := a.Counts().Overflow; got != 10 {
			t.Errorf("%d are counted as too many, want 10", got)
		}
		pass(5 * time.Second)
		c.members(a, "a")
	})
}

func TestReceive_FloodOfQuestionsIsBounded(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		gate := make(chan struct{})
		a := c.start(Config{Name: "a", Answer: func(string, []byte) ([]byte, error) { <-gate; return nil, nil }})
		defer close(gate)
		small := encode(header{Type: typeAsk, From: "b", Run: "r", Kind: "do", N: 1}, nil)
		for range waitingMessages + 10 {
			a.Membership.Receive(broker.Message{Channel: AllChannel, Payload: small})
		}
		if got := a.Counts().Overflow; got == 0 || got > 10 {
			t.Errorf("%d questions are dropped, want some of the last ten", got)
		}
	})
}

func TestReceive_QueuesAreBoundedInBytes(t *testing.T) {
	q := newQueue()
	body := make([]byte, MaxBodyBytes)
	n := 0
	for ; q.push(header{}, body); n++ {
		if n > waitingMessages/2 {
			t.Fatal("a queue takes any amount of bytes")
		}
	}
	if n != waitingBytes/MaxBodyBytes {
		t.Errorf("%d bodies are taken, want %d", n, waitingBytes/MaxBodyBytes)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	q.each(ctx, func(context.Context, job) {
		if n--; n == 0 {
			cancel()
		}
	})
	if got := q.bytes.Load(); got != 0 || !q.push(header{}, body) {
		t.Errorf("the empty queue holds %d bytes", got)
	}
}

func TestAsk_ConcurrentQuestionsAreBounded(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Name: "a"})
		a.Membership.Receive(hello("silent", "r"))
		var all []func() (map[string]Answer, []string)
		for range maxAsks {
			all = append(all, asking(a))
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_, missing, err := a.Ask(ctx, "who", nil)
		if !errors.Is(err, broker.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || !slices.Equal(missing, []string{"silent"}) {
			t.Errorf("missing %q, %v; want ErrUnavailable and the context's error", missing, err)
		}
		for _, outcome := range all {
			outcome()
		}
		c.ask(a, []string{"a"}, []string{"silent"})
	})
}

func TestReceive_InvalidEchoes(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Name: "a"})
		a.Membership.Receive(hello("b", "r"))
		for _, n := range []uint64{0, 1, 1, 1, 1, 2, 3, 4, 5, 6, 1 << 63} {
			h := header{Type: typeHello, From: "a", Run: a.Membership.run, N: n}
			a.Membership.Receive(broker.Message{Channel: AllChannel, Payload: encode(h, nil)})
		}
		c.members(a, "a", "b")
	})
}

func TestMembership_WelcomeAfterByeIsIgnored(t *testing.T) {
	inCluster(t, func(t *testing.T, c *cluster) {
		a := c.start(Config{Name: "a"})
		say := func(typ, run string) {
			channel := AllChannel
			if typ == typeWelcome {
				channel = a.inbox
			}
			a.Membership.Receive(broker.Message{Channel: channel, Payload: encode(header{Type: typ, From: "b", Run: run}, nil)})
		}
		say(typeHello, "r")
		say(typeBye, "r")
		say(typeWelcome, "r")
		c.members(a, "a")
		say(typeHello, "next")
		say(typeBye, "r")
		c.members(a, "a", "b")
	})
}

func TestConfig_InvalidIsRefused(t *testing.T) {
	_, err := New(Config{Name: "a b", Interval: -1, Patience: -1})
	for _, want := range []string{"Config.Broker is nil", `Config.Name is "a b"`, "Config.Interval is -1ns", "Config.Patience is -1ns"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error is %v, want %q in it", err, want)
		}
	}
	hub := broker.NewMemory(broker.MemoryOptions{})
	one, _ := New(Config{Broker: hub.Node()})
	two, _ := New(Config{Broker: hub.Node()})
	if one.Name() == two.Name() || !validName(one.Name()) {
		t.Errorf("the names by default are %q and %q", one.Name(), two.Name())
	}
}

// FuzzReceive hands bytes to a node that runs, knows another and waits for its answer.
func FuzzReceive(f *testing.F) {
	for _, h := range []header{
		{Type: typeHello, From: "b", Run: "r", N: 1}, {Type: typeWelcome, From: "b", Run: "r"}, {Type: typeBye, From: "b", Run: "r"},
		{Type: typeAsk, From: "b", Run: "r", Kind: "who", N: 1},
		{Type: typeAnswer, From: "b", Run: "r", N: 1, To: "me", More: true}, {Type: typeAnswer, From: "b", Run: "r", N: 1, To: "me", Part: 1},
		{Type: typeAnswer, From: "b", Run: "r", N: 1, To: "me", Refused: true}, {Type: typeHello, From: "a", Run: "r"},
	} {
		body := []byte(nil)
		if h.Kind != "" || h.More {
			body = []byte("body")
		}
		f.Add(encode(h, body), h.Type == typeAnswer || h.Type == typeWelcome)
	}
	f.Add([]byte("{\"v\":2}\n"), true)
	f.Fuzz(func(t *testing.T, payload []byte, inbox bool) {
		p, err := New(Config{Name: "a", Broker: broker.NewMemory(broker.MemoryOptions{}).Node()})
		if err != nil {
			t.Fatal(err)
		}
		p.run = "me"
		p.setRunning(true)
		p.roster.hello("b", "r")
		_, n := p.begin()
		m := broker.Message{Channel: AllChannel, Payload: payload}
		if inbox {
			m.Channel = p.inbox
		}
		before := bytes.Clone(payload)
		for range 3 {
			if !p.Receive(m) {
				t.Fatal("the channel is not taken for one of the nodes'")
			}
		}
		if !bytes.Equal(payload, before) {
			t.Error("the payload was changed")
		}
		for _, name := range p.Members() {
			if !validName(name) {
				t.Errorf("a node is known as %q", name)
			}
		}
		answers, missing := p.end(n)
		for _, name := range slices.Concat(missing, slices.Collect(maps.Keys(answers))) {
			if !validName(name) || name == "a" {
				t.Errorf("an answer came from %q", name)
			}
		}
		if p.answerBytes != 0 {
			t.Errorf("%d bytes are left", p.answerBytes)
		}
	})
}
