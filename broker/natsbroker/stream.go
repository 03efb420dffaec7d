package natsbroker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoal-go/shoal/broker/internal/health"
)

// minVersion is the first version of the NATS server that can read several messages of a subject at once and store a
// message on a condition on another subject.
var minVersion = [2]int{2, 12}

// permanentError is an error that retrying does not fix.
type permanentError struct{ error }

func (p permanentError) Unwrap() error { return p.error }

// checkVersion returns a permanentError if the server is too old.
func checkVersion(version string) error {
	var found [2]int
	parts := strings.SplitN(version, ".", 3)
	for i := range found {
		if i < len(parts) {
			n, err := strconv.Atoi(parts[i])
			if err != nil {
				n = 0
			}
			found[i] = n
		}
	}
	if slices.Compare(found[:], minVersion[:]) >= 0 {
		return nil
	}
	return permanentError{fmt.Errorf("natsbroker: the NATS server has version %.20q, want %d.%d or newer",
		version, minVersion[0], minVersion[1])}
}

// wanted returns the configuration that the stream should have.
func (o Options) wanted() jetstream.StreamConfig {
	c := jetstream.StreamConfig{
		Name:              o.Stream,
		Description:       "message history of Shoal channels",
		Subjects:          []string{uploadKind + ".>", othersPrefix + ">", epochPrefix + ">"},
		Retention:         jetstream.LimitsPolicy,
		Discard:           jetstream.DiscardOld,
		Storage:           jetstream.MemoryStorage,
		Replicas:          o.Replicas,
		MaxMsgsPerSubject: int64(o.Messages) + 1,
		MaxAge:            o.TTL,
		MaxBytes:          o.MaxBytes,
		Duplicates:        o.TTL,
		AllowDirect:       true,
		AllowRollup:       true,
		RePublish:         &jetstream.RePublish{Source: ">", Destination: livePrefix + ">"},
	}
	if o.File {
		c.Storage = jetstream.FileStorage
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = -1
	}
	return c
}

// streamManager finds, creates and enlarges the stream. It belongs to the supervisor.
type streamManager struct {
	Options
	// obstacles holds why limits cannot be raised, by the limit's name.
	obstacles map[string]obstacle
}

// obstacle is a refusal to raise a limit. It is logged once, and the same is not tried again until next.
type obstacle struct {
	change, reason string
	next           time.Time
}

// retryObstacle is the time between two attempts to raise a limit that the server has refused to raise.
const retryObstacle = time.Minute

// findStream finds or creates the stream, and returns its state. Several nodes may do so at once. The error is a
// permanentError if the settings of an existing stream are unsuitable.
func (m *streamManager) findStream(ctx context.Context, conn *nats.Conn) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, m.CallTimeout)
	defer cancel()
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	stream, err := js.Stream(ctx, m.Stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = m.createStream(ctx, js)
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another node was first
			stream, err = js.Stream(ctx, m.Stream)
		}
	}
	if err != nil {
		return nil, m.streamError(err)
	}
	info := stream.CachedInfo()
	return info, m.compare(info.Config)
}

// enlargeStream raises the limits of the stream to the wanted ones, and returns its state. Before the limit per subject
// is raised, it calls prepare.
func (m *streamManager) enlargeStream(
	ctx context.Context, conn *nats.Conn, info *jetstream.StreamInfo, prepare func() error,
) (*jetstream.StreamInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, m.CallTimeout)
	defer cancel()
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	if larger := m.enlarged(info.Config); larger != nil {
		if larger.MaxMsgsPerSubject != info.Config.MaxMsgsPerSubject {
			if err := prepare(); err != nil {
				return nil, err
			}
		}
		stream, err := js.UpdateStream(ctx, *larger)
		if err != nil {
			return nil, m.streamError(err)
		}
		m.logRaised(info.Config, stream.CachedInfo().Config)
		info = stream.CachedInfo()
	}
	for _, limit := range m.optionals(info.Config) {
		info = m.raise(ctx, js, info, limit)
	}
	return info, nil
}

// createStream creates the stream. If the server refuses the duplicate window, the window is as short as possible:
// everything else works, and StoreOnce names the missing permission.
func (o Options) createStream(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
	config := o.wanted()
	stream, err := js.CreateStream(ctx, config)
	var api *jetstream.APIError
	if errors.As(err, &api) && strings.Contains(api.Description, "duplicate") {
		o.Logger.Warn("NATS server refused the duplicate window", "stream", o.Stream, "window", config.Duplicates,
			"error", err)
		config.Duplicates = min(o.TTL, minTTL)
		return js.CreateStream(ctx, config)
	}
	return stream, err
}

// optional is a limit of an existing stream which is raised if that is possible and permitted: all but StoreOnce works
// with a lower one, and in a rolling update new nodes may ask for more than the servers have.
type optional struct {
	name        string
	found, want any
	raised      bool // whether found suffices
	refusal     string
	raise       func(*jetstream.StreamConfig)
}

// optionals returns the optional limits of a stream.
func (o Options) optionals(c jetstream.StreamConfig) []optional {
	bytes, want := c.MaxBytes, o.wanted().MaxBytes
	return []optional{
		{
			"max_bytes", bytes, want, o.MaxBytes == 0 || bytes <= 0 || want > 0 && bytes >= want,
			"NATS server has no room for a larger stream", func(c *jetstream.StreamConfig) { c.MaxBytes = want },
		},
		{
			"duplicate_window", c.Duplicates, o.TTL, c.Duplicates >= o.TTL,
			"NATS stream has a short duplicate window", func(c *jetstream.StreamConfig) { c.Duplicates = o.TTL },
		},
		{
			"replicas", c.Replicas, o.Replicas, c.Replicas >= o.Replicas,
			"NATS stream has too few replicas", func(c *jetstream.StreamConfig) { c.Replicas = o.Replicas },
		},
	}
}

// raise raises an optional limit, and returns the stream's state.
func (m *streamManager) raise(
	ctx context.Context, js jetstream.JetStream, info *jetstream.StreamInfo, l optional,
) *jetstream.StreamInfo {
	if l.raised {
		delete(m.obstacles, l.name)
		return info
	}
	before, change := m.obstacles[l.name], fmt.Sprint(l.found, l.want)
	if before.change == change && time.Now().Before(before.next) {
		return info
	}
	ctx, cancel := context.WithTimeout(ctx, min(m.CallTimeout, time.Second)) // a missing permission gets no response
	defer cancel()
	config := info.Config
	l.raise(&config)
	stream, err := js.UpdateStream(ctx, config)
	if err == nil {
		delete(m.obstacles, l.name)
		m.logRaised(info.Config, stream.CachedInfo().Config)
		return stream.CachedInfo()
	}
	now := obstacle{change, err.Error(), time.Now().Add(retryObstacle)}
	if before.change != change || before.reason != now.reason {
		m.Logger.Warn(l.refusal, "stream", m.Stream, "limit", l.name, "now", l.found, "want", l.want, "error", err)
	}
	if m.obstacles == nil {
		m.obstacles = make(map[string]obstacle)
	}
	m.obstacles[l.name] = now
	return info
}

// logRaised logs the limits of the stream that were raised: an operator may have chosen the values before.
func (m *streamManager) logRaised(before, now jetstream.StreamConfig) {
	for _, l := range []struct {
		name        string
		before, now any
	}{
		{"max_bytes", before.MaxBytes, now.MaxBytes},
		{"max_msgs_per_subject", before.MaxMsgsPerSubject, now.MaxMsgsPerSubject},
		{"max_age", before.MaxAge, now.MaxAge},
		{"duplicate_window", before.Duplicates, now.Duplicates},
		{"replicas", before.Replicas, now.Replicas},
	} {
		if l.now != l.before {
			m.Logger.Info("raised a limit of the NATS stream", "stream", m.Stream, "limit", l.name,
				"before", l.before, "now", l.now)
		}
	}
}

// lacksRoom reports whether a server refuses a stream because its limits, or the account's, leave no room for MaxBytes.
func lacksRoom(err error) bool {
	const (
		account   = 10002
		server    = 10023
		memory    = 10028
		disk      = 10047
		perStream = 10122
		noPeers   = 10005 // in a cluster, for one of several reasons
	)
	var api *jetstream.APIError
	return errors.As(err, &api) &&
		(slices.Contains([]jetstream.ErrorCode{account, server, memory, disk, perStream}, api.ErrorCode) ||
			api.ErrorCode == noPeers && strings.Contains(api.Description, "insufficient storage"))
}

// needsBound reports whether the account refuses streams without a bound.
func needsBound(err error) bool {
	const required = 10113
	var api *jetstream.APIError
	return errors.As(err, &api) && api.ErrorCode == required
}

// streamError describes an error of the stream, as a permanentError if retrying does not help.
func (o Options) streamError(err error) error {
	wrapped := fmt.Errorf("natsbroker: stream %s: %w", o.Stream, err)
	bound := health.Names(o.OptionName).Of("MaxBytes")
	switch {
	case o.MaxBytes > 0 && lacksRoom(err):
		return fmt.Errorf("%w; lower %s, which is %d, or raise the limits of the server", wrapped, bound, o.MaxBytes)
	case needsBound(err):
		return fmt.Errorf("%w; set %s", wrapped, bound)
	}
	const (
		overlap         = 10065
		invalid         = 10052
		tooManyReplicas = 10074
	)
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) ||
		errors.Is(err, nats.ErrNoResponders) {
		return permanentError{fmt.Errorf("natsbroker: the NATS server has no JetStream, want it enabled: %w", err)}
	}
	var api *jetstream.APIError
	if errors.As(err, &api) && slices.Contains([]jetstream.ErrorCode{overlap, invalid, tooManyReplicas}, api.ErrorCode) {
		return permanentError{wrapped}
	}
	return wrapped
}

// compare returns a permanentError that names all unsuitable settings of an existing stream.
func (o Options) compare(found jetstream.StreamConfig) error {
	want := o.wanted()
	var all []error
	check := func(setting string, same bool, found, want any) {
		if !same {
			all = append(all, fmt.Errorf("natsbroker: stream %s has %s %v, want %v", o.Stream, setting, found, want))
		}
	}
	slices.Sort(found.Subjects)
	slices.Sort(want.Subjects)
	check("subjects", slices.Equal(found.Subjects, want.Subjects), found.Subjects, want.Subjects)
	check("storage", found.Storage == want.Storage, found.Storage, want.Storage)
	check("retention", found.Retention == want.Retention, found.Retention, want.Retention)
	check("discard policy", found.Discard == want.Discard, found.Discard, want.Discard)
	check("allow direct", found.AllowDirect, found.AllowDirect, true)
	check("allow rollup", found.AllowRollup, found.AllowRollup, true)
	check("sealed", !found.Sealed, found.Sealed, false)
	check("no ack", !found.NoAck, found.NoAck, false)
	check("subject transform", found.SubjectTransform == nil, found.SubjectTransform, "none")
	republish := jetstream.RePublish{}
	if found.RePublish != nil {
		republish = *found.RePublish
	}
	check("republish", republish == *want.RePublish, republish, *want.RePublish)
	if len(all) == 0 {
		return nil
	}
	return permanentError{errors.Join(all...)}
}

// enlarged returns the configuration of an existing stream with the limits of messages raised to the wanted ones, or
// nil if they suffice. Limits are never lowered, nor are optionals: another node may rely on them. Without
// Options.MaxBytes the stream keeps its own bound, which an operator or another node has set.
func (o Options) enlarged(found jetstream.StreamConfig) *jetstream.StreamConfig {
	want, changed := o.wanted(), false
	grow := func(found *int64, want int64) {
		if *found > 0 && (*found < want || want <= 0) {
			*found, changed = want, true
		}
	}
	age := int64(found.MaxAge)
	grow(&found.MaxMsgsPerSubject, want.MaxMsgsPerSubject)
	grow(&age, int64(want.MaxAge))
	found.MaxAge = time.Duration(age)
	if !changed {
		return nil
	}
	return &found
}
