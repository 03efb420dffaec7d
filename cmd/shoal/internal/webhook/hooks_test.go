package webhook

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// follows returns the events about uploads that a service has got, in order.
func (s *recipient) follows() (all []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		all = append(all, string(e.Kind)+" "+e.UploadID)
	}
	return all
}

// Each upload that was reported as followed is reported as no longer followed when the node ends, also where a follower
// has not been seen to leave.
func TestHooks_CloseReportsUnfollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := &recipient{}
		s := to.sender(Followed, Unfollowed)
		var followers atomic.Int64
		followers.Store(1)
		h := NewHooks(s, func(string) int { return int(followers.Load()) })
		h.follow("left before")
		<-time.After(checkFollowers / 2)
		followers.Store(0)
		<-time.After(checkFollowers)
		followers.Store(1)
		h.follow("left at the end")
		h.Close()
		h.follow("came too late")
		h.Close()
		closeWithin(s, time.Minute)
		want := []string{
			"upload_followed left before", "upload_unfollowed left before",
			"upload_followed left at the end", "upload_unfollowed left at the end",
		}
		if got := to.follows(); !slices.Equal(got, want) {
			t.Errorf("the events are %q, want %q", got, want)
		}
	})
}
