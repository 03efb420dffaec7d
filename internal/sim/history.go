package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// The size of the world: few ids, so that everything meets.
const (
	// Uploads is the number of uploads.
	Uploads = 3
	users   = 3
	clients = 6
)

// Config is the configuration of a history.
type Config struct {
	Nodes int
	// Broker: the nodes have one; Stored: it stores messages; Bare: its positions come without epochs.
	Broker, Stored, Bare bool
	TLS                  bool
	// Claims: tokens name the uploads that they allow, and expire.
	Claims bool
	// Queue is the limit of messages of a connection's queue, Recovery of the bytes of a recovery; 0: the defaults.
	Queue, Recovery int
	// History is the number of messages that are stored.
	History int
	// TTL is how long messages are held; 0: longer than any history takes.
	TTL time.Duration
	// Refuses: while all nodes catch up at the end, the broker refuses to read one upload.
	Refuses bool
	// Skewed: the clocks of nodes are up to 30 s apart.
	Skewed bool
}

// positions reports whether messages have offsets.
func (c Config) positions() bool { return !c.Broker || c.Stored }

// Kind is the kind of an operation.
type Kind string

// The operations of a history.
const (
	publish     Kind = "publish"
	once        Kind = "publish once"
	embed       Kind = "embed"
	arrive      Kind = "connect"
	leave       Kind = "leave"
	subscribe   Kind = "subscribe"
	since       Kind = "subscribe since"
	unsubscribe Kind = "unsubscribe"
	resume      Kind = "resume"
	again       Kind = "resume in place"
	renew       Kind = "renew"
	kick        Kind = "kick"
	panics      Kind = "panic"
	doubt       Kind = "doubt"
	forget      Kind = "forget"
	wait        Kind = "wait"
	settle      Kind = "settle"
	stall       Kind = "stall"
	dawdle      Kind = "dawdle"
	reset       Kind = "reset"
	partition   Kind = "partition"
	lose        Kind = "lose messages"
	late        Kind = "late answers"
	mute        Kind = "lost answers"
	refuse      Kind = "refuse reads"
	restart     Kind = "restart broker"
	step        Kind = "step the broker's clock"
	crash       Kind = "crash"
	drain       Kind = "drain"
)

// Op is one operation. Each kind uses some of the parameters.
type Op struct {
	Kind                 Kind
	Node, Client, Upload int
	Class                class
	N                    int
	For                  time.Duration
	// AtOnce: the next operation does not wait until the bubble is idle.
	AtOnce bool
	seed   uint64
}

// String describes the operation.
func (o Op) String() string {
	text := string(o.Kind)
	switch o.Kind {
	case publish:
		text += fmt.Sprintf(" %d × %s to upload %d at node %d", o.N, o.Class, o.Upload, o.Node)
	case once:
		text += fmt.Sprintf(" a %s to upload %d at node %d and the next", o.Class, o.Upload, o.Node)
	case embed:
		text += fmt.Sprintf(" a connection at node %d that panics after %d messages of upload %d", o.Node, o.N, o.Upload)
	case arrive, renew:
		text += fmt.Sprintf(" client %d to node %d (token: rights %03b, %v)", o.Client, o.Node, o.rights(), o.lifetime())
	case subscribe, since, unsubscribe:
		text += fmt.Sprintf(" client %d upload %d", o.Client, o.Upload)
	case leave, resume, again, kick, panics, reset:
		text += fmt.Sprintf(" client %d", o.Client)
	case stall, dawdle:
		text += fmt.Sprintf(" client %d for %v", o.Client, o.For)
	case forget:
		text += fmt.Sprintf(" upload %d at node %d", o.Upload, o.Node)
	case wait:
		text += fmt.Sprintf(" %v", o.For)
	case refuse:
		text += fmt.Sprintf(" of upload %d at node %d for %v", o.Upload, o.Node, o.For)
	case restart:
		text += fmt.Sprintf(" for %v, losing %d messages, renumber %v, keep epochs %v", o.For, o.dropped(), o.renumbered(),
			o.keepsEpoch())
	case step:
		text += fmt.Sprintf(" by %v", o.stepped())
	case partition, lose, late, mute, doubt:
		text += fmt.Sprintf(" node %d for %v", o.Node, o.For)
	case crash, drain:
		text += fmt.Sprintf(" node %d", o.Node)
	}
	if o.AtOnce {
		text += ", at once"
	}
	return text
}

// rights and lifetime are those of the token of connect and renew; 0 is a token without an end.
func (o Op) rights() uint {
	if o.seed%4 == 0 {
		return uint(o.seed>>8) % (1 << Uploads)
	}
	return 1<<Uploads - 1
}

func (o Op) lifetime() time.Duration {
	if o.seed>>16%3 == 0 {
		return time.Duration(2+o.seed>>20%60) * time.Second
	}
	return 0
}

// dropped and renumbered are the fate of the broker's data in a restart.
func (o Op) dropped() int     { return int(o.seed%5) - 1 }
func (o Op) renumbered() bool { return o.seed>>8%2 == 0 }
func (o Op) keepsEpoch() bool { return o.seed>>16%3 == 0 && o.dropped() > 0 }

// stepped is the time by which the broker's clock is set.
func (o Op) stepped() time.Duration {
	if o.seed%2 == 0 {
		return -100 * o.For
	}
	return 100 * o.For
}

// lasts returns the duration of a fault, and 0 for other operations.
func (o Op) lasts() time.Duration {
	switch o.Kind {
	case stall, dawdle, doubt, partition, lose, late, mute, refuse, restart, drain:
		return o.For
	default:
		return 0
	}
}

// History is a configuration and operations.
type History struct {
	Seed   uint64
	Config Config
	Ops    []Op
	// kept are the indexes of the operations in the history that was drawn.
	kept []int
}

// String describes the history, one operation a line, with their indexes in the history that was drawn.
func (h History) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%+v\n", h.Config)
	for i, op := range h.Ops {
		fmt.Fprintf(&b, "%4d  %s\n", h.kept[i], op)
	}
	return b.String()
}

// attempts is how often a history is executed before it counts as one that keeps all promises: the interleaving of
// goroutines is not part of a history.
const attempts = 3

// Shrink returns the shortest history that it can find by leaving out operations of h while violates still reports a
// violation, which it calls for each candidate up to three times.
func Shrink(h History, violates func(History) bool) History {
	again := func(candidate History) bool {
		for range attempts {
			if violates(candidate) {
				return true
			}
		}
		return false
	}
	for size := len(h.Ops); size > 0; size /= 2 {
		for from := 0; from < len(h.Ops); {
			if candidate := h.without(from, min(from+size, len(h.Ops))); again(candidate) {
				h = candidate
			} else {
				from += size
			}
		}
	}
	return h
}

// without returns the history without some operations.
func (h History) without(from, to int) History {
	h.Ops = slices.Delete(slices.Clone(h.Ops), from, to)
	h.kept = slices.Delete(slices.Clone(h.kept), from, to)
	return h
}

// Only returns the history with the operations at these indexes, as String shows them.
func (h History) Only(indexes ...int) History {
	rest := h
	rest.Ops, rest.kept = nil, nil
	for i, index := range h.kept {
		if slices.Contains(indexes, index) {
			rest.Ops, rest.kept = append(rest.Ops, h.Ops[i]), append(rest.kept, index)
		}
	}
	return rest
}

// Kept returns the indexes of the operations in the history that was drawn.
func (h History) Kept() []int { return h.kept }
