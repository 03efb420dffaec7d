package manager

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/shoal-go/shoal/broker"
)

// Errors that callers may branch on.
var (
	// ErrClosed: the manager is closing or closed.
	ErrClosed = errors.New("manager: closed")
	// ErrTooManySubscriptions: the user follows as many uploads as Options.MaxSubscriptionsPerUser allows.
	ErrTooManySubscriptions = errors.New("manager: too many subscriptions")
	// ErrTooManyConnections: the user has as many connections as Options.MaxConnectionsPerUser allows, and none of them
	// has been silent for long.
	ErrTooManyConnections = errors.New("manager: too many connections of one user")
	// ErrTooManyPending: as many users without a connection have subscribed as Options.MaxPending allows.
	ErrTooManyPending = errors.New("manager: too many subscriptions of users without a connection")
	// ErrUnavailable means that the broker is unreachable or did not answer in time, and that it is unknown whether the
	// operation took effect. It may be retried.
	ErrUnavailable = errors.New("manager: the broker is out of reach")
	// ErrKeyReused: the key of PublishOnce was used for something else on this upload.
	ErrKeyReused = errors.New("manager: the key was used for something else")
	// ErrKeysUnsupported means that PublishOnce cannot work with this broker as it is configured. Nothing was
	// published.
	ErrKeysUnsupported = errors.New("manager: the broker does not support PublishOnce")
	// ErrRefused means that the broker refuses to let this node follow or read an upload, or refuses a message or an
	// order, for example for want of a permission, and will refuse again until an operator changes that. The text gives
	// the reason.
	ErrRefused = errors.New("manager: the broker refused the operation")
	// ErrUnknownUpload: nothing is known of the upload's messages.
	ErrUnknownUpload = errors.New("manager: unknown upload")
	// ErrNotConnected: the connection is not registered for the user.
	ErrNotConnected = errors.New("manager: connection is not registered")
)

// errNotMade and errReporterNotMade are the errors of every method of a zero value.
var (
	errNotMade         = errors.New("manager: Manager was not created with New")
	errReporterNotMade = errors.New("manager: Reporter was not created with Manager.Progress")
)

// failure wraps the error of a call of the broker that has no effect, such as a read, in an error on which callers can
// branch: ErrUnavailable, ErrKeysUnsupported or ErrRefused. After a cancellation it is ctx's.
func failure(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrClosed), errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, broker.ErrKeysUnsupported):
		return fmt.Errorf("%w: %w", ErrKeysUnsupported, err)
	case isPassing(err):
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	default:
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
}

// uncertain is failure for a call that has an effect: after a cancellation it is unknown whether the call took effect.
func uncertain(err error) error {
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return failure(err)
}

// isPassing reports whether a call of the broker that failed may succeed later.
func isPassing(err error) bool {
	return errors.Is(err, broker.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, context.Canceled)
}

// bounded returns a context that ends with ctx, and after brokerPatience if ctx has no end of its own.
func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, brokerPatience)
}

// MissingNodesError is the error of a command that some nodes have not confirmed. It wraps ErrUnavailable: giving the
// command again later makes sense. The nodes that confirmed it have carried it out.
type MissingNodesError struct {
	// Nodes are their names, sorted.
	Nodes []string
}

func (e *MissingNodesError) Error() string {
	return "manager: nodes did not confirm the command: " + strings.Join(e.Nodes, ", ")
}

func (e *MissingNodesError) Unwrap() error { return ErrUnavailable }

// InvalidError names the invalid part of a caller's input and the valid values.
type InvalidError struct {
	// Field is the name of the field as it stands in the message, or "user_id", "upload_id" for an id
	// that was given beside it; "" is the message as a whole.
	Field string
	// Problem describes the violation, without repeating a payload.
	Problem string
}

func (e *InvalidError) Error() string {
	if e.Field == "" {
		return "manager: message " + e.Problem
	}
	return "manager: " + e.Field + " " + e.Problem
}

// maxIDBytes is the length of the longest id.
const maxIDBytes = 255

// CheckID returns an *InvalidError unless id is one of the protocol: 1 to 255 bytes of valid UTF-8 without
// control characters and without U+FFFD: decoders replace invalid text by it, so two different ids would become one.
// field is the name that the error gives it.
func CheckID(field, id string) error {
	switch {
	case id == "":
		return &InvalidError{field, "must not be empty"}
	case len(id) > maxIDBytes:
		return &InvalidError{field, fmt.Sprintf("has %d bytes, at most %d are allowed", len(id), maxIDBytes)}
	case isPrintableASCII(id): // as nearly all are, and each published message has one
		return nil
	case !utf8.ValidString(id):
		return &InvalidError{field, "must be valid UTF-8"}
	case strings.ContainsRune(id, utf8.RuneError):
		return &InvalidError{field, "must not contain U+FFFD, which stands for text that could not be decoded"}
	case strings.ContainsFunc(id, isControl):
		return &InvalidError{field, "must not contain control characters"}
	}
	return nil
}

func isPrintableASCII(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// isControl reports whether r is of Unicode's category Cc.
func isControl(r rune) bool { return r < 0x20 || (r >= 0x7F && r < 0xA0) }

// tooLarge is the error of a message with more bytes than Options.MaxMessageBytes allows.
func tooLarge(size, most int) error {
	return &InvalidError{"", fmt.Sprintf("has %d bytes, at most %d are allowed", size, most)}
}
