//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Traffic of a run.
const (
	publishers = 2
	followers  = 6 // of each publisher's upload
	// publishEvery is the pause between two publications of a publisher.
	publishEvery = 10 * time.Millisecond
)

// traffic is the publishers and followers of all nodes.
type traffic struct {
	stopPublishing, stopFollowing context.CancelFunc
	publishing, following         sync.WaitGroup
	publishers                    []*publisher
	followers                     []*follower
}

// account is the result of a run.
type account struct {
	published, unsure, delivered, announced, repeated int
	// longest is the longest time in which no publication of a publisher was accepted.
	longest  time.Duration
	problems []error
}

func startTraffic(ctx context.Context, nodes []*node) *traffic {
	t := &traffic{}
	publishing, stopPublishing := context.WithCancel(ctx)
	following, stopFollowing := context.WithCancel(ctx)
	t.stopPublishing, t.stopFollowing = stopPublishing, stopFollowing
	for i := range publishers {
		p := &publisher{upload: fmt.Sprint("upload-", i), nodes: nodes, unsure: map[int]bool{}}
		t.publishers = append(t.publishers, p)
		for j := range followers {
			f := &follower{name: fmt.Sprintf("follower %d of %s", j, p.upload), publisher: p, nodes: nodes}
			t.followers = append(t.followers, f)
			t.following.Go(func() { f.run(following, j) })
		}
		t.publishing.Go(func() { p.run(publishing) })
	}
	return t
}

// awaitProgress waits until every follower has received some more messages.
func (t *traffic) awaitProgress(ctx context.Context) error {
	const more = 50
	want := map[*publisher]int{}
	for _, p := range t.publishers {
		want[p] = p.last() + more
	}
	return t.await(ctx, want)
}

// await waits until every follower has a message of its upload, or a later one.
func (t *traffic) await(ctx context.Context, want map[*publisher]int) error {
	for _, f := range t.followers {
		what := fmt.Sprintf("%s has message %d", f.name, want[f.publisher])
		if err := poll(ctx, what, func() bool { return f.newest() >= want[f.publisher] }); err != nil {
			return err
		}
	}
	return nil
}

// end ends the traffic, once every follower has everything, and returns the account.
func (t *traffic) end(ctx context.Context) (a account) {
	t.stopPublishing()
	t.publishing.Wait()
	want := map[*publisher]int{}
	for _, p := range t.publishers {
		want[p] = p.accepted
		a.published += p.accepted
		a.unsure += len(p.unsure)
		a.longest = max(a.longest, p.longest)
	}
	if err := t.await(ctx, want); err != nil {
		a.problems = append(a.problems, err)
	}
	t.stopFollowing()
	t.following.Wait()
	for _, f := range t.followers {
		f.addTo(&a)
	}
	return a
}

// publisher publishes numbered messages to its upload, through all nodes in turn. A message that is not accepted is
// published again with its idempotency key, so that all are accepted in order.
type publisher struct {
	upload string
	nodes  []*node

	mu       sync.Mutex // protects the fields below while run is running
	accepted int
	// unsure are the messages that were published more than once.
	unsure  map[int]bool
	longest time.Duration
}

func (p *publisher) last() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

func (p *publisher) run(ctx context.Context) {
	client := &http.Client{Timeout: 3 * time.Second}
	defer client.CloseIdleConnections()
	before := time.Now()
	for turn := 0; wait(ctx, publishEvery) == nil; turn++ {
		n := p.last() + 1
		err := p.publish(ctx, client, p.nodes[turn%len(p.nodes)].url(), n)
		p.mu.Lock()
		if err == nil {
			p.accepted, p.longest, before = n, max(p.longest, time.Since(before)), time.Now()
		} else {
			p.unsure[n] = true
		}
		p.mu.Unlock()
	}
}

func (p *publisher) publish(ctx context.Context, client *http.Client, url string, n int) error {
	body := strings.NewReader(fmt.Sprintf(`{"action":"tick","n":%d}`, n))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/v1/uploads/"+p.upload+"/messages", body)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+apiKey)
	request.Header.Set("Idempotency-Key", fmt.Sprint(p.upload, "-", n))
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusAccepted {
		return errors.New(response.Status)
	}
	return nil
}
