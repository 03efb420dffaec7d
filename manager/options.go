package manager

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/internal/membership"
	"github.com/shoal-go/shoal/shard"
)

// Options configure a Manager. In every field 0 is the documented default. A negative value switches a limit off where
// the comment says so; where that would be unsafe, New returns an error. The options of the other packages of this
// module follow the same rule.
type Options struct {
	// Shards is the number of shards that users and uploads are hashed to; it is rounded up to a power of
	// two. 0: four for each of GOMAXPROCS.
	Shards int

	// HistoryMessages is the largest number of messages in the history of one upload. 0: 64. A negative value switches
	// the history off: late subscribers get no message until the next one is published, and nothing is recovered. It is
	// refused with a Broker, since nodes catch up with stored messages.
	HistoryMessages int
	// HistoryBytes bounds their bytes. The newest message is held until it is too old, however large it is. It must not
	// exceed HistoryTotalBytes. 0: 1 MiB, or HistoryTotalBytes if that is less; negative: no bound.
	HistoryBytes int
	// HistoryTTL is the largest age of a message in a history. 0: 10 minutes.
	HistoryTTL time.Duration

	// HistoryTotalBytes and MaxUploads bound the histories of all uploads together: the memory that they need, each
	// message with MessageOverhead and each upload with UploadOverhead bytes more than its payloads (0: 1 GiB), and the
	// number of uploads with stored messages (0: 1,000,000). Beyond a bound the uploads without followers that were
	// published to longest ago lose their histories: their next message begins a new epoch. If that is not enough,
	// uploads with followers lose their messages, but keep their positions. Either way a resuming client learns
	// that it missed messages. Publishers evict before they store, so HistoryTotalBytes is exceeded by one message at
	// most; with a Broker by the messages and histories that are arriving from it. They evict after they store where
	// MaxUploads is exceeded: by one upload for each call that has not returned. Negative: no bound.
	HistoryTotalBytes int
	MaxUploads        int

	// MaxKeys is the number of keys of PublishOnce that a node without a broker remembers, each for HistoryTTL; beyond
	// it the oldest are forgotten. A broker bounds its keys itself. 0: 100,000.
	MaxKeys int

	// MaxMessageBytes bounds one published message. 0: 64 KiB.
	MaxMessageBytes int

	// Classes are the classes of the application's own actions; an action that is not listed is of class Event. They
	// must be the same on all nodes.
	Classes map[string]ActionClass
	// Statuses and Stages restrict the statuses and stages of upload_progress to a list. Empty: any word of 1 to 64
	// characters a-z 0-9 _ - .
	Statuses, Stages []string

	// MaxConnectionsPerUser bounds the connections of a user on this node. 0: 32; negative: no bound. At the bound a
	// new connection replaces the one that has been silent for longest, if that is longer than EvictSilentAfter, which
	// should be a ping interval (0: 30 s; negative: none is replaced); otherwise the new connection is refused.
	MaxConnectionsPerUser int
	EvictSilentAfter      time.Duration

	// MaxSubscriptionsPerUser: beyond it subscribing fails with ErrTooManySubscriptions. 0: 1024;
	// negative: no bound.
	MaxSubscriptionsPerUser int

	// PendingTTL is how long the subscriptions of a user without any connection are kept, and the position of an upload
	// without messages and followers. 0: 1 minute.
	PendingTTL time.Duration
	// MaxPending is the maximum number of users with subscriptions and no connection. 0: 100,000; negative: no bound.
	MaxPending int

	// Broker shares messages with other nodes. nil: there are no other nodes. The manager runs the broker, which must
	// not be shared. If it is a broker.HistoryBroker, it stores the histories, so that they outlive a node; otherwise
	// only an upload's newest message is stored.
	Broker broker.Broker
	// NodeName identifies this node; it must be unique in the cluster. It has 1 to 128 letters, digits or characters of
	// "-_.:". "": a random name, or "local" for a node without a Broker.
	NodeName string
	// StateRate is the maximum number of upload_progress messages of one upload that this node publishes per second; of
	// excess ones the newest is sent at the end of the interval. It is from MinStateRate to 1000; 0 or negative: no
	// bound. It requires a Broker.
	StateRate float64

	// Tracer follows a sample of the publications until they have been written. nil: no tracing, at no cost.
	Tracer Tracer

	// Logger receives events for operators, without payloads. nil: nothing is logged.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	o.HistoryMessages = cmp.Or(o.HistoryMessages, 64)
	o.HistoryTTL = cmp.Or(o.HistoryTTL, 10*time.Minute)
	o.HistoryTotalBytes = cmp.Or(o.HistoryTotalBytes, 1<<30)
	if o.HistoryBytes == 0 {
		if o.HistoryBytes = 1 << 20; o.HistoryTotalBytes > 0 {
			o.HistoryBytes = min(o.HistoryBytes, o.HistoryTotalBytes)
		}
	}
	o.MaxUploads = cmp.Or(o.MaxUploads, 1_000_000)
	o.MaxKeys = cmp.Or(o.MaxKeys, 100_000)
	o.MaxMessageBytes = cmp.Or(o.MaxMessageBytes, 64<<10)
	o.MaxConnectionsPerUser = cmp.Or(o.MaxConnectionsPerUser, 32)
	o.EvictSilentAfter = cmp.Or(o.EvictSilentAfter, 30*time.Second)
	o.MaxSubscriptionsPerUser = cmp.Or(o.MaxSubscriptionsPerUser, 1024)
	o.PendingTTL = cmp.Or(o.PendingTTL, time.Minute)
	o.MaxPending = cmp.Or(o.MaxPending, 100_000)
	unlimited(&o.HistoryBytes, math.MaxInt)
	unlimited(&o.EvictSilentAfter, math.MaxInt64)
	unlimited(&o.StateRate, 0)
	if o.NodeName == "" && o.Broker == nil {
		o.NodeName = "local"
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	return o
}

// unlimited replaces a negative limit by the value that limits nothing.
func unlimited[T cmp.Ordered](field *T, none T) {
	var zero T
	if *field < zero {
		*field = none
	}
}

// MinStateRate is the smallest Options.StateRate: the newest state of an upload must reach the other nodes in its
// lifetime.
const MinStateRate = 0.001

func (o Options) validate() error {
	var all []error
	refuse := func(field string, value any, want string) {
		all = append(all, fmt.Errorf("manager: Options.%s is %v, want %s", field, value, want))
	}
	if o.Shards < 0 || o.Shards > shard.MaxShards {
		refuse("Shards", o.Shards, fmt.Sprintf("0 to %d", shard.MaxShards))
	}
	if o.HistoryMessages < 0 && o.Broker != nil {
		refuse("HistoryMessages", o.HistoryMessages, "at least 1 with a Broker: nodes catch up with stored messages")
	}
	if o.HistoryTTL < time.Millisecond {
		refuse("HistoryTTL", o.HistoryTTL, "at least 1ms: positions would be kept without end")
	}
	if total := o.HistoryTotalBytes; total > 0 && total < o.HistoryBytes && o.HistoryBytes != math.MaxInt {
		refuse("HistoryTotalBytes", total, fmt.Sprintf("at least HistoryBytes, which is %d", o.HistoryBytes))
	}
	if o.MaxKeys < 1 {
		refuse("MaxKeys", o.MaxKeys, "at least 1")
	}
	if o.MaxMessageBytes < minMessageBytes {
		refuse("MaxMessageBytes", o.MaxMessageBytes, fmt.Sprintf("at least %d", minMessageBytes))
	}
	for field, value := range map[string]any{"Broker": o.Broker, "Tracer": o.Tracer} {
		if value != nil && isNil(value) {
			refuse(field, fmt.Sprintf("a nil %T", value), "a usable one, or nil without a type")
		}
	}
	all = append(all, o.checkVocabulary()...)
	if o.EvictSilentAfter < time.Millisecond {
		refuse("EvictSilentAfter", o.EvictSilentAfter, "at least 1ms")
	}
	if o.PendingTTL < time.Millisecond {
		refuse("PendingTTL", o.PendingTTL, "at least 1ms: users who do not come back would be kept without end")
	}
	if o.NodeName != "" { // else membership chooses one
		if err := membership.CheckName(o.NodeName); err != nil {
			all = append(all, fmt.Errorf("manager: Options.NodeName %w", err))
		}
	}
	if !(o.StateRate <= 1000) || o.StateRate > 0 && o.StateRate < MinStateRate { // the negation refuses NaN too
		refuse("StateRate", o.StateRate, fmt.Sprintf("0, or from %v to 1000", MinStateRate))
	}
	if o.StateRate > 0 && o.Broker == nil {
		refuse("StateRate", o.StateRate, "no bound without a Broker")
	}
	return errors.Join(all...)
}

// minMessageBytes leaves room for the shortest message of the protocol with the longest id.
const minMessageBytes = 1024

// Limits are the options of a manager that its callers have to respect.
type Limits struct {
	// MaxMessageBytes bounds a published message.
	MaxMessageBytes int
	// MaxSubscriptionsPerUser bounds the uploads that a user follows; negative: no bound.
	MaxSubscriptionsPerUser int
	// HistoryTotalBytes bounds Stats.HistoryBytes; negative: no bound.
	HistoryTotalBytes int
}

// Limits returns the limits that the manager was made with.
func (m *Manager) Limits() Limits {
	if m.checkCreated() != nil {
		return Limits{}
	}
	return Limits{m.opt.MaxMessageBytes, m.opt.MaxSubscriptionsPerUser, m.opt.HistoryTotalBytes}
}
