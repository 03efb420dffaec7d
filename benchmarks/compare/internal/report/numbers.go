package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// text writes a spread: the median, and the least and the most where there are several values.
func (s spread) text(write func(float64) string) string {
	switch s.n {
	case 0:
		return "–"
	case 1:
		return write(s.median)
	}
	return fmt.Sprintf("%s (%s–%s)", write(s.median), write(s.min), write(s.max))
}

// grouped writes a whole number with its thousands set apart.
func grouped(v float64) string {
	digits := strconv.FormatFloat(math.Abs(math.Round(v)), 'f', 0, 64)
	var b strings.Builder
	if math.Round(v) < 0 {
		b.WriteByte('-')
	}
	for i, c := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(c)
	}
	return b.String()
}

// short writes a number with about three digits.
func short(v float64) string {
	switch a := math.Abs(v); {
	case a >= 1000:
		return grouped(v)
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// scaled writes a number for a chart, where there is little room.
func scaled(v float64) string {
	switch a := math.Abs(v); {
	case a >= 999_500:
		return digits(v/1e6) + " M"
	case a >= 999.5:
		return digits(v/1e3) + " k"
	}
	return digits(v)
}

// digits writes a number below 1000 with three digits, without zeros that say nothing.
func digits(v float64) string {
	places := 2
	switch a := math.Abs(v); {
	case a >= 99.95:
		places = 0
	case a >= 9.995:
		places = 1
	}
	text := strconv.FormatFloat(v, 'f', places, 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}

// precise writes milliseconds to the microsecond.
func precise(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) }

func percent(v float64) string { return fmt.Sprintf("%.0f %%", v*100) }

// seconds writes a number of milliseconds in seconds.
func seconds(v float64) string { return short(v / 1e3) }

func thousands(v float64) string { return short(v / 1e3) }
