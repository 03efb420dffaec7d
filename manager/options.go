package manager

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/shoal-go/shoal/broker"
)

// Options configure a Manager. The zero value is the documented default.
type Options struct {
	// Shards is the number of shards that users and uploads are hashed to; it is rounded up to a power of
	// two. 0: four for each of GOMAXPROCS.
	Shards int

	// HistoryMessages, HistoryBytes and HistoryTTL bound the history of one upload: by number of messages
	// (0: 64), by their bytes (0: 1 MiB) and by age (0: 10 minutes). The newest message is held until
	// it is too old, however large it is.
	HistoryMessages int
	HistoryBytes    int
	HistoryTTL      time.Duration

	// HistoryTotalBytes and MaxUploads bound the histories of all uploads together: the memory that they need, each
	// message with MessageOverhead and each upload with UploadOverhead bytes more than its payloads (0: 1 GiB), and the
	// number of uploads with stored messages (0: 1,000,000). Beyond a bound the uploads without followers that were
	// published to longest ago lose their histories: their next message begins a new epoch. If that is not enough,
	// uploads with followers lose their messages, but keep their positions. Either way a client that resumes is told
	// that it missed messages. Negative: no bound.
	HistoryTotalBytes int
	MaxUploads        int

	// MaxKeys is the number of keys of PublishOnce that a node without a broker remembers, each for HistoryTTL; beyond
	// it the oldest are forgotten. A broker bounds its keys itself. 0: 100,000.
	MaxKeys int

	// MaxMessageBytes bounds one published message. 0: 64 KiB.
	MaxMessageBytes int

	// MaxConnectionsPerUser bounds the connections of a user on this node. Beyond it the connection that has been
	// silent for longest gives way, if that is longer than EvictSilentAfter (0: 30 s), which should be a ping interval;
	// otherwise the new one is refused. 0: 32; negative: no bound.
	MaxConnectionsPerUser int
	EvictSilentAfter      time.Duration

	// MaxSubscriptionsPerUser: beyond it subscribing fails with ErrTooManySubscriptions. 0: 1024;
	// negative: no bound.
	MaxSubscriptionsPerUser int

	// PendingTTL is how long the subscriptions of a user without any connection are kept (0: 1 minute), MaxPending the
	// maximum number of such users (0: 100,000). The position of an upload without messages and followers is kept for
	// the same time.
	PendingTTL time.Duration
	MaxPending int

	// Broker shares messages with other nodes. nil: there are no other nodes. The manager runs the broker, which must
	// not be shared. If it is a broker.HistoryBroker, it stores the histories, so that they outlive a node; otherwise
	// only an upload's newest message is stored.
	Broker broker.Broker
	// NodeName is how other nodes call this one, and different from all others': 1 to 128 letters, digits
	// or characters of "-_.:". "": a random one, or "local" for a node that is alone.
	NodeName string
	// StateRate is the maximum number of state messages of one upload that this node publishes per second; of excess
	// ones the newest is sent at the end of the interval. 0: no bound. It requires a Broker.
	StateRate float64

	// Logger receives events for operators, without payloads. nil: nothing is logged.
	Logger *slog.Logger
}

func (o Options) withDefaults() Options {
	set(&o.HistoryMessages, 64)
	set(&o.HistoryBytes, 1<<20)
	set(&o.HistoryTTL, 10*time.Minute)
	set(&o.HistoryTotalBytes, 1<<30)
	set(&o.MaxUploads, 1_000_000)
	set(&o.MaxKeys, 100_000)
	set(&o.MaxMessageBytes, 64<<10)
	set(&o.MaxConnectionsPerUser, 32)
	set(&o.EvictSilentAfter, 30*time.Second)
	set(&o.MaxSubscriptionsPerUser, 1024)
	set(&o.PendingTTL, time.Minute)
	set(&o.MaxPending, 100_000)
	if o.NodeName == "" && o.Broker == nil {
		o.NodeName = "local"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

func set[T comparable](field *T, standard T) {
	var zero T
	if *field == zero {
		*field = standard
	}
}

// maxShards keeps the registry's fixed cost within reason: each shard is a few cache lines and two maps.
const maxShards = 1 << 16

func (o Options) validate() error {
	var all []error
	refuse := func(field string, value any, want string) {
		all = append(all, fmt.Errorf("manager: Options.%s is %v, want %s", field, value, want))
	}
	if o.Shards < 0 || o.Shards > maxShards {
		refuse("Shards", o.Shards, fmt.Sprintf("0 to %d", maxShards))
	}
	if o.HistoryMessages < 1 {
		refuse("HistoryMessages", o.HistoryMessages, "at least 1")
	}
	if o.HistoryBytes < 1 {
		refuse("HistoryBytes", o.HistoryBytes, "at least 1")
	}
	if o.HistoryTTL < time.Millisecond {
		refuse("HistoryTTL", o.HistoryTTL, "at least 1ms")
	}
	if o.MaxKeys < 1 {
		refuse("MaxKeys", o.MaxKeys, "at least 1")
	}
	if o.MaxMessageBytes < minMessageBytes {
		refuse("MaxMessageBytes", o.MaxMessageBytes, fmt.Sprintf("at least %d", minMessageBytes))
	}
	if o.EvictSilentAfter < time.Millisecond {
		refuse("EvictSilentAfter", o.EvictSilentAfter, "at least 1ms")
	}
	if o.PendingTTL < time.Millisecond {
		refuse("PendingTTL", o.PendingTTL, "at least 1ms")
	}
	if o.MaxPending < 0 {
		refuse("MaxPending", o.MaxPending, "0 or more")
	}
	if !(o.StateRate >= 0 && o.StateRate <= 1000) { // the negation refuses NaN too
		refuse("StateRate", o.StateRate, "0 to 1000")
	}
	if o.StateRate > 0 && o.Broker == nil {
		refuse("StateRate", o.StateRate, "0 without a Broker")
	}
	return errors.Join(all...)
}

// minMessageBytes leaves room for the shortest message of the protocol with the longest id.
const minMessageBytes = 1024
