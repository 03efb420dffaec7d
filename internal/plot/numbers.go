package plot

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Grouped writes a whole number with a comma before each three digits.
func Grouped[N int | int64 | float64](n N) string {
	text := strconv.FormatInt(int64(math.Round(float64(n))), 10)
	if whole, ok := any(n).(int64); ok {
		text = strconv.FormatInt(whole, 10) // beyond 2^53 a float64 is not exact
	}
	digits, negative := strings.CutPrefix(text, "-")
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	if negative {
		return "-" + digits
	}
	return digits
}

// Short writes a number with about three digits.
func Short(v float64) string {
	if math.Abs(v) >= 1000 {
		return Grouped(v)
	}
	return strconv.FormatFloat(v, 'f', places(v), 64)
}

// Scaled writes a number for a chart, where there is little room: three digits and a unit, without trailing zeros.
func Scaled(v float64) string {
	unit := ""
	switch a := math.Abs(v); {
	case a >= 999_500:
		v, unit = v/1e6, " M"
	case a >= 999.5:
		v, unit = v/1e3, " k"
	}
	text := strconv.FormatFloat(v, 'f', places(v), 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text + unit
}

// Duration writes nanoseconds with three digits and a unit.
func Duration(nanoseconds int64) string {
	value, unit := inUnit(nanoseconds)
	if unit == "ns" {
		return strconv.FormatInt(nanoseconds, 10) + " ns"
	}
	return strconv.FormatFloat(value, 'f', places(value), 64) + " " + unit
}

// Round writes a whole number of a unit of time.
func Round(nanoseconds int64) string {
	value, unit := inUnit(nanoseconds)
	return strconv.FormatFloat(value, 'f', 0, 64) + " " + unit
}

// inUnit converts nanoseconds to the largest unit in which they are at least 1.
func inUnit(nanoseconds int64) (value float64, unit string) {
	value, unit = float64(nanoseconds), "ns"
	for _, larger := range []struct {
		unit string
		size time.Duration
	}{{"µs", time.Microsecond}, {"ms", time.Millisecond}, {"s", time.Second}} {
		if nanoseconds >= int64(larger.size) {
			value, unit = float64(nanoseconds)/float64(larger.size), larger.unit
		}
	}
	return value, unit
}

// places is the number of decimal places that makes three digits of a number below 1000.
func places(v float64) int {
	switch a := math.Abs(v); {
	case a >= 99.95:
		return 0
	case a >= 9.995:
		return 1
	}
	return 2
}
