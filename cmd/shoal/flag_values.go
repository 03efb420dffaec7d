package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// size is a number of bytes.
type size int

// rate is how many of something may come in a second, after a burst.
type rate struct {
	perSecond float64
	burst     int
}

// The errors of the functions below name the expected form.

// bounded returns a parser that keeps to the bounds of the flag's tags min and max.
func bounded[T cmp.Ordered](noun string, parse func(string) (T, error)) func(string, *kong.Tag) (T, error) {
	return func(text string, tag *kong.Tag) (T, error) {
		low, err := parse(tag.Get("min"))
		if err != nil {
			panic("a flag has no usable min")
		}
		high, err := parse(tag.Get("max"))
		if err != nil {
			panic("a flag has no usable max")
		}
		value, err := parse(text)
		if err != nil || value < low || value > high {
			return value, fmt.Errorf("%s from %s to %s", noun, tag.Get("min"), tag.Get("max"))
		}
		return value, nil
	}
}

func parseInt(text string) (int, error) { return strconv.Atoi(text) }

func parseFloat(text string) (float64, error) {
	value, err := strconv.ParseFloat(text, 64)
	if math.IsNaN(value) {
		return 0, errors.New("not a number")
	}
	return value, err
}

// parseText keeps to the values of the flag's tag oneof, where it has one. An empty text, such as that of
// --tls-cert=$CERT without the variable, would count as no flag at all: it is refused unless the flag has the tag
// blank.
func parseText(text string, tag *kong.Tag) (string, error) {
	allowed := strings.Fields(tag.Get("oneof"))
	required := tag.Arg && !tag.Optional // the command checks it
	switch {
	case len(allowed) > 0 && !slices.Contains(allowed, text):
		return "", fmt.Errorf("one of %s", strings.Join(allowed, ", "))
	case text == "" && !required && !tag.Has("blank"):
		return "", errors.New("a value; leave it out for the default")
	}
	return text, nil
}

func parseBool(text string, _ *kong.Tag) (bool, error) {
	switch text {
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	}
	return false, errors.New("true or false")
}

func parseSize(text string) (size, error) {
	number, unit := text, 1
	for suffix, factor := range map[string]int{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40} {
		if before, ok := strings.CutSuffix(text, suffix); ok {
			number, unit = strings.TrimRight(before, " "), factor
		}
	}
	n, err := strconv.Atoi(number)
	if err != nil || n > math.MaxInt/unit || n < 0 {
		return 0, errors.New("not a size")
	}
	return size(n * unit), nil
}

// standardBurst is the burst of a rate that names none, in seconds of that rate.
const standardBurst = 4

const (
	// minBurst is a burst that every client needs: its first message, a subscription, and the two answers to a ping.
	minBurst = 4
	// maxRate bounds rates and bursts: beyond it there might as well be none.
	maxRate = 1_000_000
)

// parseRate takes "50/s", or "50/s,200" with a burst.
func parseRate(text string, _ *kong.Tag) (rate, error) {
	wrong := fmt.Errorf("a rate such as 50/s, or 50/s,200 with a burst of %d or more, above 0 and up to %d",
		minBurst, maxRate)
	head, tail, hasBurst := strings.Cut(text, ",")
	number, ok := strings.CutSuffix(strings.TrimSpace(head), "/s")
	perSecond, err := parseFloat(number)
	if !ok || err != nil || perSecond <= 0 || perSecond > maxRate {
		return rate{}, wrong
	}
	burst := max(int(math.Ceil(perSecond*standardBurst)), minBurst)
	if hasBurst {
		burst, err = strconv.Atoi(strings.TrimSpace(tail))
		if err != nil || burst < minBurst || burst > maxRate {
			return rate{}, wrong
		}
	}
	return rate{perSecond, burst}, nil
}
