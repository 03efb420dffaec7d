package plot

import (
	"math"
	"slices"
)

// Axis is one axis of a chart, from Least to Most. Least must be above 0 if the axis is logarithmic.
type Axis struct {
	Title       string
	Least, Most float64
	Logarithmic bool
	Ticks       []Tick
}

// Tick is a labelled value of an axis. "": without a label.
type Tick struct {
	Value float64
	Label string
}

// at returns the position of a value as a share of the axis.
func (a Axis) at(v float64) float64 {
	if a.Logarithmic {
		return math.Log(max(v, a.Least)/a.Least) / math.Log(a.Most/a.Least)
	}
	return (v - a.Least) / (a.Most - a.Least)
}

const (
	// wide is the ratio of the largest to the smallest value from which an axis is logarithmic: on a linear one the small
	// values could no longer be distinguished.
	wide = 12
	// labelRoom is the share of a value axis that is left free beyond the largest value.
	labelRoom = 0.16
	// labelGap is the share of an axis that two labels have to be apart.
	labelGap = 0.04
)

// Values returns an axis for measured values between two bounds: linear from 0, or logarithmic where they lie far apart.
func Values(title string, least, most float64) Axis {
	if !(most > 0) {
		least, most = 1, 1
	}
	if least > 0 && most/least > wide {
		return logarithmic(title, least, most)
	}
	a := Axis{Title: title, Most: most / (1 - labelRoom)}
	step := niceStep(most / 5)
	for i := 0; float64(i)*step <= a.Most; i++ {
		a.Ticks = append(a.Ticks, Tick{float64(i) * step, Scaled(float64(i) * step)})
	}
	return a
}

// logarithmic begins somewhat below the smallest value, since a bar's length means nothing on such an axis.
func logarithmic(title string, least, most float64) Axis {
	a := Axis{Title: title + " (logarithmic)", Least: least / 1.6, Logarithmic: true}
	a.Most = a.Least * math.Pow(most/a.Least, 1/(1-labelRoom))
	for power := math.Floor(math.Log10(a.Least)); power <= math.Log10(a.Most); power++ {
		for _, factor := range []float64{1, 2, 5} {
			if v := factor * math.Pow(10, power); v >= a.Least && v <= a.Most {
				a.Ticks = append(a.Ticks, Tick{v, Scaled(v)})
			}
		}
	}
	return a
}

// niceStep is the smallest of 1, 2 and 5 times a power of ten that is not less.
func niceStep(least float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(least)))
	for _, factor := range []float64{1, 2, 5} {
		if factor*power >= least {
			return factor * power
		}
	}
	return 10 * power
}

// Parameter returns an axis for a parameter that was given these values, in ascending order. The ticks are the values, or
// powers of ten where there are many; a label without room is left out.
func Parameter(title string, values []float64, logarithmic bool, write func(float64) string) Axis {
	const many = 7
	a := Axis{Title: title, Least: slices.Min(values), Most: slices.Max(values), Logarithmic: logarithmic}
	if logarithmic {
		a.Title += " (logarithmic)"
		if len(values) > many {
			values = nil
			for v := math.Pow(10, math.Ceil(math.Log10(a.Least))); v <= a.Most; v *= 10 {
				values = append(values, v)
			}
		}
	}
	labelled := math.Inf(-1)
	for _, v := range values {
		tick := Tick{Value: v}
		if at := a.at(v); at-labelled > labelGap {
			tick.Label, labelled = write(v), at
		}
		a.Ticks = append(a.Ticks, tick)
	}
	return a
}
