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
	// obstacles holds why a limit cannot be raised, by the limit's name, so that later checks do not log it again.
	obstacles map[string]string
}

// hindered records why a limit cannot be raised, nil if it can, and the limit's values. It reports whether that is new.
func (m *streamManager) hindered(limit string, reason error, values ...any) bool {
	text := ""
	if reason != nil {
		text = fmt.Sprint(append(values, reason)...)
	}
	if m.obstacles[limit] == text {
		return false
	}
	if m.obstacles == nil {
		m.obstacles = make(map[string]string)
	}
	m.obstacles[limit] = text
	return true
}

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
		stream, err := m.enlarge(ctx, js, info.Config, *larger)
		if err != nil {
			return nil, m.streamError(err)
		}
		info = stream.CachedInfo()
	}
	return m.widen(ctx, js, info), nil
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

// widen makes the duplicate window of an existing stream as long as the TTL, if that is possible and permitted; nothing
// but StoreOnce needs it. It returns the stream's state.
func (m *streamManager) widen(
	ctx context.Context, js jetstream.JetStream, info *jetstream.StreamInfo,
) *jetstream.StreamInfo {
	const limit = "duplicate_window"
	config := info.Config
	if config.Duplicates >= m.TTL {
		m.hindered(limit, nil)
		return info
	}
	ctx, cancel := context.WithTimeout(ctx, min(m.CallTimeout, time.Second)) // a missing permission gets no response
	defer cancel()
	config.Duplicates = m.TTL
	stream, err := js.UpdateStream(ctx, config)
	if err != nil {
		if m.hindered(limit, err, info.Config.Duplicates) {
			m.Logger.Warn("NATS stream has a short duplicate window", "stream", m.Stream,
				"window", info.Config.Duplicates, "want", m.TTL, "error", err)
		}
		return info
	}
	m.logRaised(info.Config, stream.CachedInfo().Config)
	return stream.CachedInfo()
}

// enlarge raises the limits of an existing stream. If there is no room for a larger MaxBytes, the stream keeps the one
// that it has: everything works with it, and in a rolling update the new nodes may ask for more than the old ones have.
func (m *streamManager) enlarge(
	ctx context.Context, js jetstream.JetStream, found, larger jetstream.StreamConfig,
) (stream jetstream.Stream, err error) {
	const limit = "max_bytes"
	stream, err = js.UpdateStream(ctx, larger)
	if lacksRoom(err) && larger.MaxBytes != found.MaxBytes {
		if m.hindered(limit, err, found.MaxBytes, larger.MaxBytes) {
			m.Logger.Warn("NATS server has no room for a larger stream", "stream", m.Stream, "max_bytes", found.MaxBytes,
				"want", larger.MaxBytes, "error", err)
		}
		larger.MaxBytes = found.MaxBytes
		stream, err = js.UpdateStream(ctx, larger)
	} else {
		m.hindered(limit, nil)
	}
	if err == nil {
		m.logRaised(found, stream.CachedInfo().Config)
	}
	return stream, err
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
		account = 10002
		server  = 10023
		memory  = 10028
		disk    = 10047
	)
	var api *jetstream.APIError
	return errors.As(err, &api) && slices.Contains([]jetstream.ErrorCode{account, server, memory, disk}, api.ErrorCode)
}

// streamError describes an error of the stream, as a permanentError if retrying does not help.
func (o Options) streamError(err error) error {
	wrapped := fmt.Errorf("natsbroker: stream %s: %w", o.Stream, err)
	if o.MaxBytes > 0 && lacksRoom(err) {
		return fmt.Errorf("%w; lower %s, which is %d, or raise the limits of the server", wrapped,
			health.Names(o.OptionName).Of("MaxBytes"), o.MaxBytes)
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

// enlarged returns the configuration of an existing stream with its limits raised to the wanted ones, or nil if they
// suffice. Limits are never lowered: another node may rely on them. Without Options.MaxBytes the stream keeps its own
// bound, which an operator or another node has set.
func (o Options) enlarged(found jetstream.StreamConfig) *jetstream.StreamConfig {
	want, changed := o.wanted(), false
	grow := func(found *int64, want int64) {
		if *found > 0 && (*found < want || want <= 0) {
			*found, changed = want, true
		}
	}
	age := int64(found.MaxAge)
	grow(&found.MaxMsgsPerSubject, want.MaxMsgsPerSubject)
	if o.MaxBytes != 0 {
		grow(&found.MaxBytes, want.MaxBytes)
	}
	grow(&age, int64(want.MaxAge))
	found.MaxAge = time.Duration(age)
	if !changed {
		return nil
	}
	return &found
}
