package dashboard

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/shoal-go/shoal/manager"
	"github.com/shoal-go/shoal/server"
)

// Bounds of the lists that a page shows.
const (
	maxSlowest     = 20
	maxVisits      = 20_000
	maxFollowers   = 200
	maxMessages    = 50
	maxShownBytes  = 4 << 10
	maxConnections = 50
	maxUploads     = 200
	detailsTimeout = 5 * time.Second
)

// connection is one connection of a client. Times are in milliseconds.
type connection struct {
	User        string `json:"user"`
	Remote      string `json:"remote"`
	Transport   string `json:"transport"`
	Subprotocol string `json:"subprotocol"`
	Age         int64  `json:"age"`
	Silent      int64  `json:"silent"`
	Messages    int    `json:"messages"`
	Bytes       int    `json:"bytes"`
	Waiting     int64  `json:"waiting"`
}

// connections is the state of the upload "connections": the slowest ones.
type connections struct {
	Action string       `json:"action"`
	List   []connection `json:"list"`
}

// connections returns the slowest connections.
func (s *source) connections() connections {
	return connections{actionConnections, connectionsOf(s.walk.Step(maxVisits))}
}

func connectionsOf(infos []server.ConnectionInfo) []connection {
	list := make([]connection, 0, len(infos))
	for _, i := range infos {
		list = append(list, connection{
			i.UserID, i.Remote, i.Transport, i.Subprotocol, i.Age.Milliseconds(), i.Silent.Milliseconds(),
			i.QueuedMessages, i.QueuedBytes, i.Waiting.Milliseconds(),
		})
	}
	return list
}

// details answers with the result of read for the id in the query, if the request may read it.
func (d *Dashboard) details(read func(ctx context.Context, id string) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		granted, err := d.access(r)
		switch {
		case err != nil:
			refuse(w, r, err)
			return
		case !granted.reads:
			problem(w, http.StatusForbidden, "users, addresses and messages need an API key here")
			return
		}
		id := r.URL.Query().Get("id")
		if err := manager.CheckID("id", id); err != nil {
			problem(w, http.StatusUnprocessableEntity, err.Error())
			return
		}
		select {
		case d.reading <- struct{}{}:
			defer func() { <-d.reading }()
		default:
			problem(w, http.StatusServiceUnavailable, "too many pages read details at once; this one tries again")
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), detailsTimeout)
		defer cancel()
		found, err := read(ctx, id)
		if err != nil {
			problem(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		writeJSON(w, http.StatusOK, found)
	})
}

// uploadDetails describe an upload on all nodes.
type uploadDetails struct {
	ID        string   `json:"id"`
	Followers []string `json:"followers"`
	Count     int      `json:"count"`
	// MissingNodes did not say who follows on them.
	MissingNodes []string `json:"missing_nodes"`
	// Here is the number of followers on this node.
	Here   int    `json:"here"`
	Epoch  string `json:"epoch"`
	Offset uint64 `json:"offset"`
	// Stored is the number of stored messages, Messages are the newest of them, newest first.
	Stored   int             `json:"stored"`
	Messages []storedMessage `json:"messages"`
}

// storedMessage is a message with its text, whose end may be missing.
type storedMessage struct {
	Offset uint64 `json:"offset"`
	Bytes  int    `json:"bytes"`
	Text   string `json:"text"`
}

// upload returns the details of an upload.
func (d *Dashboard) upload(ctx context.Context, id string) (any, error) {
	m := d.opt.Manager
	h, historyErr := m.History(ctx, id, manager.Position{})
	followers, err := m.Subscribers(ctx, id)
	if err := errors.Join(historyErr, err); err != nil {
		return nil, err
	}
	found := uploadDetails{
		ID: id, Followers: append([]string{}, followers.Users[:min(len(followers.Users), maxFollowers)]...),
		Count: len(followers.Users), MissingNodes: followers.Missing, Here: m.Followers(id),
		Epoch: h.Position.Epoch, Offset: h.Position.Offset, Stored: len(h.Messages), Messages: []storedMessage{},
	}
	for _, s := range slices.Backward(h.Messages) {
		if len(found.Messages) == maxMessages {
			break
		}
		shown := strings.ToValidUTF8(string(s.Payload[:min(len(s.Payload), maxShownBytes)]), "") // a character may be cut
		found.Messages = append(found.Messages, storedMessage{s.Offset, len(s.Payload), shown})
	}
	return found, nil
}

// userDetails describe a user on this node.
type userDetails struct {
	ID          string       `json:"id"`
	Connections []connection `json:"connections"`
	// ConnectionCount and UploadCount also count the entries that the lists have no room for.
	ConnectionCount int      `json:"connection_count"`
	Uploads         []string `json:"uploads"`
	UploadCount     int      `json:"upload_count"`
}

// user returns the details of a user.
func (d *Dashboard) user(_ context.Context, id string) (any, error) {
	conns, count := d.opt.Server.UserConnections(id, maxConnections)
	uploads, uploadCount := d.opt.Manager.UserUploads(id, maxUploads)
	return userDetails{id, connectionsOf(conns), count, append([]string{}, uploads...), uploadCount}, nil
}

const (
	// residenceWindows is the number of intervals over which percentiles are taken.
	residenceWindows = 10
	maxResidence     = time.Minute
)

// Residence collects the durations from publishing a message until it was handed to the kernel, while somebody looks.
// The zero value is ready for use.
type Residence struct {
	window atomic.Pointer[residenceWindow] // nil while no page is open
}

type residenceWindow struct {
	mu   sync.Mutex // protects hist
	hist *hdrhistogram.WindowedHistogram
}

// Observe adds a duration. It may be called from any number of goroutines and returns at once.
func (r *Residence) Observe(d time.Duration) {
	w := r.window.Load()
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.hist.Current.RecordValue(min(max(d, time.Microsecond), maxResidence).Microseconds()) // it is in range
}

// start begins to collect, stop ends it.
func (r *Residence) start() {
	r.window.Store(&residenceWindow{
		hist: hdrhistogram.NewWindowed(residenceWindows, 1, maxResidence.Microseconds(), 2),
	})
}

func (r *Residence) stop() { r.window.Store(nil) }

// percentiles are in microseconds.
type percentiles struct {
	Count int64 `json:"count"`
	P50   int64 `json:"p50"`
	P90   int64 `json:"p90"`
	P99   int64 `json:"p99"`
	Max   int64 `json:"max"`
}

// next returns the percentiles of the last intervals and begins another one. It returns nil if nothing was observed.
func (r *Residence) next() *percentiles {
	w := r.window.Load()
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.hist.Merge()
	w.hist.Rotate()
	if all.TotalCount() == 0 {
		return nil
	}
	return &percentiles{
		all.TotalCount(), all.ValueAtQuantile(50), all.ValueAtQuantile(90), all.ValueAtQuantile(99), all.Max(),
	}
}
