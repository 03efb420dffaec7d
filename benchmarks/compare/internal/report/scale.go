package report

import (
	"math"
	"slices"

	"gonum.org/v1/plot"
)

// scale is the axis of the values.
type scale struct {
	min, max   float64
	normalizer plot.Normalizer
	ticks      []plot.Tick
	note       string // a remark for the reader
}

// wide is how many times as large as the smallest value the largest must be for the axis to be logarithmic:
// beyond it the small ones could no longer be told apart.
const wide = 12

// labelRoom is how much of the axis is left free for the value behind the longest bar.
const labelRoom = 0.16

// scale chooses the axis: linear from 0, or logarithmic where the values lie far apart.
func (c chart) scale() scale {
	return scaleOf(c.extent())
}

func scaleOf(least, most float64) scale {
	if !(most > 0) {
		least, most = 1, 1
	}
	if least > 0 && most/least > wide {
		return logarithmic(least, most)
	}
	return linear(most)
}

func linear(most float64) scale {
	s := scale{min: 0, max: most / (1 - labelRoom), normalizer: plot.LinearScale{}}
	step := niceStep(most / 5)
	for i := 0; float64(i)*step <= s.max; i++ {
		v := float64(i) * step
		s.ticks = append(s.ticks, plot.Tick{Value: v, Label: scaled(v)})
	}
	return s
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

func logarithmic(least, most float64) scale {
	s := scale{normalizer: plot.LogScale{}, note: " (logarithmic)"}
	// A bar's length means nothing on such an axis, so it may begin anywhere below the smallest.
	s.min = least / 1.6
	s.max = s.min * math.Pow(most/s.min, 1/(1-labelRoom))
	for power := math.Floor(math.Log10(s.min)); power <= math.Log10(s.max); power++ {
		for _, factor := range []float64{1, 2, 5} {
			if v := factor * math.Pow(10, power); v >= s.min && v <= s.max {
				s.ticks = append(s.ticks, plot.Tick{Value: v, Label: scaled(v)})
			}
		}
	}
	return s
}

// scale is the axis of a parameter that was swept from the least value to the most.
func (a axis) scale(values []float64) scale {
	s := scale{min: slices.Min(values), max: slices.Max(values), normalizer: plot.LinearScale{}}
	if a.logarithmic {
		s.normalizer, s.note = plot.LogScale{}, " (logarithmic)"
	}
	labelled := math.Inf(-1)
	for _, v := range a.tickValues(s, values) {
		tick := plot.Tick{Value: v}
		if at := s.normalizer.Normalize(s.min, s.max, v); at-labelled > leastGap {
			tick.Label, labelled = a.write(v), at
		}
		s.ticks = append(s.ticks, tick)
	}
	return s
}

// leastGap is the share of the axis that two labels have to be apart.
const leastGap = 0.04

// tickValues are the values themselves, or powers of ten where there are many.
func (a axis) tickValues(s scale, values []float64) []float64 {
	const many = 7
	if !a.logarithmic || len(values) <= many {
		return values
	}
	var powers []float64
	for v := math.Pow(10, math.Ceil(math.Log10(s.min))); v <= s.max; v *= 10 {
		powers = append(powers, v)
	}
	return powers
}
