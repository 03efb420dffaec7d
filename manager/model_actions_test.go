package manager

import (
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-go/shoal/internal/model"
)

// The exported methods of twins are the actions that rapid draws from.

func (w *twins) Connect(t *rapid.T) {
	user := anyUser(t)
	name := user + rapid.SampledFrom(modelConns).Draw(t, "connection")
	wantSame(t, w.manager.Connect(user, w.conns[name]), w.model.Connect(user, name))
}

func (w *twins) Disconnect(t *rapid.T) {
	user := anyUser(t)
	name, conn := w.conn(t, user)
	w.manager.Disconnect(user, conn)
	w.model.Disconnect(user, name)
}

func (w *twins) DisconnectUser(t *rapid.T) {
	user := anyUser(t)
	closed, err := w.manager.DisconnectUser(t.Context(), user, CloseReason{1000, "Signed out"})
	must(t, err)
	wantEqual(t, "closed", closed, w.model.DisconnectUser(user, "Signed out"))
}

func (w *twins) SubscribeUpload(t *rapid.T) {
	user, upload := anyUser(t), anyUpload(t)
	wantSame(t, w.manager.SubscribeUpload(t.Context(), user, upload), w.model.SubscribeUpload(user, upload, time.Now()))
}

func (w *twins) UnsubscribeUpload(t *rapid.T) {
	user, upload := anyUser(t), anyUpload(t)
	w.manager.UnsubscribeUpload(user, upload)
	w.model.UnsubscribeUpload(user, upload)
}

func (w *twins) SubscribeConn(t *rapid.T) {
	user, upload := anyUser(t), anyUpload(t)
	name, conn := w.conn(t, user)
	opt := SubscribeOptions{Acknowledge: rapid.Bool().Draw(t, "acknowledge")}
	var since *model.Position
	if rapid.Bool().Draw(t, "since") {
		theirs, ours := w.since(t, upload)
		since, opt.Since = &theirs, &ours
	}
	wantSame(t, w.manager.SubscribeConn(t.Context(), user, conn, upload, opt),
		w.model.SubscribeConn(user, name, upload, since, opt.Acknowledge, time.Now()))
}

func (w *twins) UnsubscribeConn(t *rapid.T) {
	user, upload := anyUser(t), anyUpload(t)
	name, conn := w.conn(t, user)
	w.manager.UnsubscribeConn(user, conn, upload)
	w.model.UnsubscribeConn(user, name, upload)
}

func (w *twins) Resume(t *rapid.T) {
	user := anyUser(t)
	name, conn := w.conn(t, user)
	theirs, ours := map[string]model.Position{}, map[string]Position{}
	for _, upload := range rapid.SliceOfDistinct(rapid.SampledFrom(modelUploads), rapid.ID).Draw(t, "uploads") {
		theirs[upload], ours[upload] = w.since(t, upload)
	}
	got, err := w.manager.Resume(t.Context(), user, conn, ours)
	want, wantErr := w.model.Resume(user, name, theirs, time.Now())
	wantSame(t, err, wantErr)
	wantEqual(t, "refused", len(got), len(want))
	for upload := range want {
		wantSame(t, got[upload], want[upload])
	}
}

func (w *twins) Publish(t *rapid.T) {
	upload := anyUpload(t)
	msg, body := w.note(t)
	at, receivers := w.model.Publish(upload, body, time.Now())
	w.queued += receivers
	if rapid.Bool().Draw(t, "counted") {
		d, err := w.manager.SendToUploadSubscribers(upload, msg)
		must(t, err)
		wantEqual(t, "delivery", d, Delivery{Queued: receivers})
		return
	}
	pos, err := w.manager.Publish(t.Context(), upload, msg)
	must(t, err)
	w.wantPosition(t, "position", pos, at)
}

func (w *twins) SendToUser(t *rapid.T) {
	user := anyUser(t)
	msg, body := w.note(t)
	receivers := w.model.SendToUser(user, body)
	w.queued += receivers
	d, err := w.manager.SendToUser(t.Context(), user, msg)
	must(t, err)
	wantEqual(t, "delivery", d, Delivery{Queued: receivers})
}

func (w *twins) Forget(t *rapid.T) {
	upload := anyUpload(t)
	must(t, w.manager.Forget(t.Context(), upload))
	w.model.Forget(upload, time.Now())
}

func (w *twins) History(t *rapid.T) {
	upload := anyUpload(t)
	theirs, ours := w.since(t, upload)
	if theirs.Epoch > 0 && rapid.Bool().Draw(t, "any epoch") {
		_, _, now := w.model.History(upload, theirs)
		theirs.Epoch, ours.Epoch = now.Epoch, ""
	}
	messages, complete, at := w.model.History(upload, theirs)
	h := held(w.manager, upload, ours)
	if at.Epoch == 0 {
		wantEqual(t, "epoch", h.Position, Position{})
	} else {
		w.wantPosition(t, "history", h.Position, at)
	}
	wantEqual(t, "complete", h.Complete, complete)
	wantEqual(t, "messages", len(h.Messages), len(messages))
	for i, msg := range messages {
		wantEqual(t, "message", h.Messages[i].Offset, msg.Offset)
		wantEqual(t, "message", string(h.Messages[i].Payload), msg.Body)
	}
}

func (w *twins) Wait(t *rapid.T) {
	w.pass(time.Duration(rapid.IntRange(1, 15).Draw(t, "seconds")) * time.Second)
}

// record is a record of the model with the position as the manager writes it.
type record struct {
	model.Record
	position Position
}

// records returns the records that a connection received, by upload.
func (w *twins) records(t *rapid.T, conn *fakeConn) map[string][]record {
	all := map[string][]record{}
	add := func(upload, kind, body string, pos Position, recovered bool) {
		all[upload] = append(all[upload], record{model.Record{
			Kind: kind, Upload: upload, Body: body, Recovered: recovered, Position: model.Position{Offset: pos.Offset},
		}, pos})
	}
	for i, r := range conn.received(t) {
		switch r.Action {
		case "subscribed":
			add(r.UploadID, r.Action, "", r.Position, r.Recovered)
		case "resumed":
			for upload, u := range r.Uploads {
				add(upload, r.Action, "", u.Position, u.Recovered)
			}
		case "closed":
			add("", r.Action, r.published, Position{}, false)
		default:
			add(conn.frames[i].UploadID(), "message", r.published, r.Position, false)
		}
	}
	return all
}
