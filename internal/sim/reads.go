package sim

import (
	"context"
	"errors"
	"slices"

	"github.com/shoal-go/shoal/broker"
)

// errRefused is the refusal to read a channel.
var errRefused = errors.New("sim: the stored messages cannot be read")

// reads executes a read of channels, unless the hub refuses one of them.
func (l *link) reads(ctx context.Context, execute func(), names ...string) error {
	refused := false
	err := l.call(ctx, func(*hub) {
		refused = slices.ContainsFunc(names, func(name string) bool { return l.refuses[name] > 0 })
		if l.refused = l.refused || refused; !refused {
			execute()
		}
	})
	if err == nil && refused {
		return errRefused
	}
	return err
}

// refuse adds to the reasons for which the hub refuses to read an upload.
func (l *link) refuse(upload, reasons int) {
	l.change(func() { l.refuses["upload:"+uploadID(upload)] += reasons })
}

// History returns the stored messages after a position.
func (l *link) History(ctx context.Context, name string, since broker.Position) (s broker.Snapshot, err error) {
	err = l.reads(ctx, func() {
		s = l.hub.byNodes(l.read(name).kept.Since(since))
	}, name)
	return s, err
}

// Newest returns the newest stored message.
func (l *link) Newest(ctx context.Context, name string) (s broker.Snapshot, err error) {
	err = l.reads(ctx, func() {
		s = l.hub.byNodes(l.read(name).kept.Newest())
	}, name)
	return s, err
}

// Positions returns the positions of channels.
func (l *link) Positions(ctx context.Context, names ...string) (all []broker.Position, err error) {
	err = l.reads(ctx, func() {
		for _, name := range names {
			all = append(all, l.read(name).kept.Position)
		}
	}, names...)
	return all, err
}
