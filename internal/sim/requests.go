package sim

import (
	"slices"

	"github.com/shoal-go/shoal/broker"
)

// request is the part of a shoal.v1 client's message about one upload. The server handles the messages of a connection
// one after the other, and answers each request: a subscription with `subscribed` or `resumed`, or with an error, and
// the end of one with `unsubscribed`.
type request struct {
	upload int
	// ends: it ends the subscription.
	ends bool
	// revokes: it ends a subscription because of a token that does not allow it. There is no answer if the subscription
	// was refused.
	revokes bool
	// resume is the message that asks for several uploads; nil: it is a subscribe_upload.
	resume *resumption
	// since is the position from which the client continues, nil if it asks for the newest message.
	since *broker.Position
	// allowed: the newest token that was sent before allows the upload.
	allowed bool
	// view is the subscription that the client makes or continues with it; nil if it ends one or is not allowed.
	view *view
}

// resumption is a resume message.
type resumption struct{ requests map[int]*request }

// ledger holds the requests of a shoal.v1 connection that are not answered. It belongs to the world.
type ledger struct {
	// uploads holds the requests of each upload, oldest first.
	uploads map[int][]*request
	// resumes are the unanswered resume messages, oldest first.
	resumes []*resumption
}

// add appends a request.
func (l *ledger) add(r *request) { l.uploads[r.upload] = append(l.uploads[r.upload], r) }

// remove removes a request, and reports whether it was there.
func (l *ledger) remove(r *request) bool {
	all := l.uploads[r.upload]
	i := slices.Index(all, r)
	if i < 0 {
		return false
	}
	if l.uploads[r.upload] = slices.Delete(all, i, i+1); len(l.uploads[r.upload]) == 0 {
		delete(l.uploads, r.upload)
	}
	return true
}

// run returns the oldest unanswered requests of an upload up to the first one that ends its subscription: only these
// can be answered next.
func (l *ledger) run(upload int) []*request {
	all := l.uploads[upload]
	if i := slices.IndexFunc(all, func(r *request) bool { return r.ends }); i >= 0 {
		return all[:i]
	}
	return all
}

// subscription returns the request that a `subscribed` answers, or nil if nobody has asked for it.
func (l *ledger) subscription(upload int, at broker.Position, recovered bool) *request {
	for _, r := range l.run(upload) {
		if r.resume == nil && r.allowed && (!recovered || r.continues(at)) {
			return r
		}
	}
	return nil
}

// continues reports whether messages up to a position can continue the position of the request.
func (r *request) continues(at broker.Position) bool {
	return r.since != nil && r.since.Epoch == at.Epoch && r.since.Offset <= at.Offset
}

// refused returns the subscription that an error answers, or nil if nobody has asked for it. Errors may overtake other
// answers.
func (l *ledger) refused(upload int, forbidden bool) *request {
	for _, r := range l.uploads[upload] {
		if !r.ends && r.allowed != forbidden {
			return r
		}
	}
	return nil
}

// end returns the request that an `unsubscribed` answers, or nil, and the number of requests before it.
func (l *ledger) end(upload int) (r *request, before int) {
	for i, r := range l.uploads[upload] {
		if r.ends {
			return r, i
		}
	}
	return nil, 0
}

// withdraw removes the end by a token of a subscription that was refused: it has no answer.
func (l *ledger) withdraw(upload int) {
	if r, before := l.end(upload); r != nil && r.revokes && before == 0 {
		l.remove(r)
	}
}
