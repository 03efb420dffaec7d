package fuzz_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/shoal-go/shoal/manager"
)

// claimConn counts the messages of a probe.
type claimConn struct{ got int }

func (c *claimConn) Send(*manager.Frame) manager.Outcome {
	c.got++
	return manager.Queued
}

func (c *claimConn) Close(manager.CloseReason) {}

// userModel states who receives the uploads of one user: every connection, as long as anything claims the upload.
type userModel struct {
	conns []*claimConn
	// claims are the uploads that each connection follows itself.
	claims map[*claimConn]map[string]bool
	// own are the uploads that the user follows apart from its connections: true if the application asked for it, false
	// if the claim is inherited from a connection that has ended.
	own map[string]bool
}

// follows reports whether anything claims an upload, and whether only inherited claims do.
func (u *userModel) follows(upload string) (yes, inherited bool) {
	for _, claims := range u.claims {
		if claims[upload] {
			return true, false
		}
	}
	asked, yes := u.own[upload]
	return yes, yes && !asked
}

// count returns the number of followed uploads, and of those that give way at the limit.
func (u *userModel) count() (all, yielding int) {
	for _, upload := range claimUploads {
		yes, inherited := u.follows(upload)
		if yes {
			all++
		}
		if inherited {
			yielding++
		}
	}
	return all, yielding
}

// end removes a connection. Its claims pass to the user if another connection is left; otherwise everything ends.
func (u *userModel) end(c *claimConn) {
	u.conns = slices.DeleteFunc(u.conns, func(other *claimConn) bool { return other == c })
	for upload := range u.claims[c] {
		if _, held := u.own[upload]; !held {
			u.own[upload] = false
		}
	}
	if delete(u.claims, c); len(u.conns) == 0 {
		clear(u.own)
	}
}

const maxClaims = 3 // subscriptions of a user

var claimUploads = []string{"a", "b", "c", "d", "e"}

// FuzzClaims applies an arbitrary sequence of operations to the connections of two users: connect, disconnect, and the
// beginnings and ends of subscriptions of connections and of users. After each, the receivers of every upload are those
// of the model, and so are the refusals at the user's limit, at which inherited claims give way.
func FuzzClaims(f *testing.F) {
	// Pairs of an operation and a target: connection + 6 × upload; connections 0 to 2 are ann's.
	f.Add([]byte{0, 0, 0, 1, 2, 0, 1, 0, 2, 1, 3, 1, 1, 1})                                  // a claim passes to the user
	f.Add([]byte{0, 0, 0, 1, 2, 0, 2, 6, 2, 13, 1, 0, 2, 19, 2, 25, 2, 1, 3, 19, 2, 1})      // inherited claims give way
	f.Add([]byte{0, 0, 0, 1, 0, 2, 2, 0, 2, 1, 3, 0, 1, 1, 1, 0, 5, 2})                      // another claim remains
	f.Add([]byte{4, 3, 0, 3, 0, 4, 2, 3, 3, 3, 4, 9, 4, 15, 4, 21, 1, 3, 1, 4, 0, 4, 2, 4})  // the application follows
	f.Add([]byte{0, 0, 0, 1, 2, 0, 1, 0, 4, 0, 2, 7, 2, 13, 2, 19, 0, 3, 2, 3, 5, 0, 2, 19}) // asked ones do not
	f.Fuzz(func(t *testing.T, script []byte) {
		m, err := manager.New(manager.Options{HistoryMessages: -1, MaxSubscriptionsPerUser: maxClaims, PendingTTL: forever})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = m.Close(t.Context()) }()
		users := map[string]*userModel{}
		names := []string{"ann", "bob"}
		for _, name := range names {
			users[name] = &userModel{claims: map[*claimConn]map[string]bool{}, own: map[string]bool{}}
		}
		all := make([]claimConn, 6)
		for script = script[:min(len(script), 200)]; len(script) >= 2; script = script[2:] {
			number := int(script[1]) % len(all)
			name := names[number/3]
			upload := claimUploads[int(script[1])/len(all)%len(claimUploads)]
			step(t, m, name, users[name], &all[number], upload, int(script[0])%6)
			for _, upload := range claimUploads {
				wantReceivers(t, m, upload, users)
			}
		}
	})
}

// step applies one operation to the manager and to the model.
func step(t *testing.T, m *manager.Manager, name string, u *userModel, c *claimConn, upload string, operation int) {
	t.Helper()
	connected := slices.Contains(u.conns, c)
	yes, _ := u.follows(upload)
	switch all, yielding := u.count(); operation {
	case 0:
		if err := m.Connect(name, c); err != nil {
			t.Fatal(err)
		}
		if !connected {
			u.conns, u.claims[c] = append(u.conns, c), map[string]bool{}
		}
	case 1:
		if m.Disconnect(name, c); connected {
			u.end(c)
		}
	case 2, 4:
		full := !yes && all == maxClaims && yielding == 0
		var err error
		if operation == 4 {
			err = m.SubscribeUpload(t.Context(), name, upload)
		} else if err = m.SubscribeConn(t.Context(), name, c, upload, manager.SubscribeOptions{}); !connected {
			if !errors.Is(err, manager.ErrNotConnected) {
				t.Fatalf("a subscription of no connection: %v", err)
			}
			return
		}
		if full != errors.Is(err, manager.ErrTooManySubscriptions) || !full && err != nil {
			t.Fatalf("%s subscribes to %s with %d subscriptions, %d of which give way: %v", name, upload, all, yielding, err)
		}
		if full {
			return
		}
		if !yes && all == maxClaims {
			u.giveWay()
		}
		if operation == 4 {
			u.own[upload] = true
		} else {
			u.claims[c][upload] = true
		}
	case 3:
		m.UnsubscribeConn(name, c, upload)
		if connected {
			delete(u.claims[c], upload)
		}
	case 5:
		m.UnsubscribeUpload(name, upload)
		delete(u.own, upload)
		for _, claims := range u.claims {
			delete(claims, upload)
		}
	}
}

// giveWay removes every subscription that has inherited claims only.
func (u *userModel) giveWay() {
	for _, upload := range claimUploads {
		if _, inherited := u.follows(upload); inherited {
			delete(u.own, upload)
		}
	}
}

// wantReceivers publishes a message and compares the connections that get it with the model.
func wantReceivers(t *testing.T, m *manager.Manager, upload string, users map[string]*userModel) {
	t.Helper()
	for _, u := range users {
		for _, c := range u.conns {
			c.got = 0
		}
	}
	if _, err := m.SendToUploadSubscribers(upload, manager.UploadCompleted{UploadID: upload}); err != nil {
		t.Fatal(err)
	}
	for name, u := range users {
		want := 0
		if yes, _ := u.follows(upload); yes {
			want = 1
		}
		for i, c := range u.conns {
			if c.got != want {
				t.Fatalf("connection %d of %s got %d messages of %s, want %d (claims %v, own %v)", i, name, c.got, upload,
					want, u.claims[c], u.own)
			}
		}
	}
}
