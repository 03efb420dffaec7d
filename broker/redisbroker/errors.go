package redisbroker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"github.com/shoal-go/shoal/broker"
	"github.com/shoal-go/shoal/broker/internal/health"
)

// fatalError is an error that a retry does not fix.
type fatalError struct{ error }

func (e fatalError) Unwrap() error { return e.error }

func fatalf(format string, args ...any) error { return fatalError{fmt.Errorf(format, args...)} }

func isFatal(err error) bool {
	var fatal fatalError
	return errors.As(err, &fatal)
}

// unavailable returns an error that wraps ErrUnavailable.
func unavailable(why string) error {
	return fmt.Errorf("redisbroker: %s: %w", why, broker.ErrUnavailable)
}

// errorCode returns the first word of an error that Redis answered with, and "" for any other error.
func errorCode(err error) string {
	answer, ok := rueidis.IsRedisErr(err)
	if !ok {
		return ""
	}
	word, _, _ := strings.Cut(answer.Error(), " ")
	return word
}

// errorText returns the text of an error that Redis answered with, or of a call without an answer. It is cut where
// Redis repeats a command's arguments, among which may be a password or a payload.
func errorText(err error) string {
	if errors.Is(err, context.DeadlineExceeded) {
		return noAnswer
	}
	text, _, _ := strings.Cut(err.Error(), ", with args")
	text, _, _ = strings.Cut(text, " script: ")
	return text
}

// tooManyClients begins the text with which Redis refuses a connection beyond its maxclients.
const tooManyClients = "max number of clients"

var errTooManyClients = errors.New(tooManyClients + " reached")

// outOfMemory is the code of Redis for a write that its maxmemory forbids.
const outOfMemory = "OOM"

const noMemory = " has no memory left to store messages: raise its maxmemory, or store fewer messages"

// noAnswer is the reason where the time of a call has passed.
const noAnswer = "no answer in time"

// noScript is the code of Redis for a script that it does not know, and of our scripts if their term has ended.
const noScript = "NOSCRIPT"

// refusesLogin reports whether a code of Redis means that it does not accept the user or the password.
func refusesLogin(code string) bool { return code == "WRONGPASS" || code == "NOAUTH" }

// callError turns the result of a command into the caller's error.
func callError(ctx context.Context, addr string, err error) error {
	switch word := errorCode(err); {
	case err == nil:
		return nil
	case word == outOfMemory:
		return unavailable(addr + noMemory)
	case isTemporary(word), refusesLogin(word): // the latter of a new connection, in place of one that has ended
		return unavailable(addr + " says: " + errorText(err))
	case word != "":
		return fmt.Errorf("redisbroker: %s says: %s", addr, errorText(err))
	case ctx.Err() != nil:
		return contextError(ctx, addr)
	default:
		return unavailable(addr + ": " + errorText(err))
	}
}

// contextError returns the error of a call whose context has ended. A deadline that passed means that Redis is
// unreachable.
func contextError(ctx context.Context, what string) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("redisbroker: %s: %s: %w: %w", what, noAnswer, broker.ErrUnavailable, ctx.Err())
	}
	return fmt.Errorf("redisbroker: %s: %w", what, ctx.Err())
}

// isTemporary reports whether a server that answers with this code, or its successor, will work again without a change.
func isTemporary(word string) bool {
	return slices.Contains([]string{
		"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "TRYAGAIN", "BUSY", "MISCONF",
		noScript, "MOVED", "ASK", "UNBLOCKED",
	}, word)
}

// hasMoved reports whether a node of a cluster answers that another one has, or is about to have, the slot.
// The command has not been carried out.
func hasMoved(word string) bool { return word == "MOVED" || word == "ASK" || word == "TRYAGAIN" }

// isForeign reports whether a command failed because a key has another type, or is a stream whose last id is beyond
// those of nodes. Only other programs write such keys.
func isForeign(err error) bool {
	code := errorCode(err)
	return code == "WRONGTYPE" || code != "" && strings.Contains(err.Error(), "stream")
}

// connectError turns an error of connecting to a server into a fatal one if a retry does not fix it.
func (b *Broker) connectError(addr string, err error) error {
	word := errorCode(err)
	switch {
	case err == nil || isFatal(err):
		return err
	case refusesLogin(word):
		return fatalf("redisbroker: %s refuses the user or the password (%s): set the right ones in %s",
			addr, word, b.optionNames().Of(health.URLOption))
	case word == outOfMemory:
		return unavailable(addr + noMemory)
	case errors.Is(err, errTooManyClients) || strings.Contains(err.Error(), tooManyClients):
		return unavailable(addr + " accepts no more connections: raise its maxclients")
	case isPermissionError(err):
		return fatalf("redisbroker: %s lets us connect but not do what is needed: %s: allow that by ACL SETUSER; all that "+
			"is needed is: %s", addr, errorText(err), b.permissions())
	case word == "" || isTemporary(word):
		return unavailable(addr + ": " + errorText(health.ExplainTLS(err, b.optionNames(), b.target.tls)))
	default:
		return fatalf("redisbroker: %s says: %s", addr, errorText(err))
	}
}

// optionNames returns how the operator sets options.
func (b *Broker) optionNames() health.Names { return b.opt.OptionName }

// isPermissionError reports whether a server says that the user lacks a permission, in a script or outside.
func isPermissionError(err error) bool {
	return errorCode(err) == "NOPERM" || errorCode(err) != "" && (strings.Contains(err.Error(), "ACL failure") ||
		strings.Contains(err.Error(), "The user executing the script"))
}

// scriptError adds to an error the command that a script was not allowed to run. Redis 7.0 only tells the line.
func (s *server) scriptError(err error, text string) error {
	_, place, found := strings.Cut(err.Error(), "@user_script:")
	if !found || !isPermissionError(err) {
		return err
	}
	digits := strings.TrimRight(place, ".")
	number, _ := strconv.Atoi(digits)
	lines := strings.Split(text, "\n")
	if number < 1 || number > len(lines) {
		return err
	}
	_, call, named := strings.Cut(lines[number-1], "redis.call(")
	if !named {
		return err // need names the command
	}
	return s.missingPermission(err, "run "+commandOf(call)+" in a script")
}
