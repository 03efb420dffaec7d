package main

import (
	"fmt"
	"math"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/shoal-go/shoal/internal/plot"
)

// latencyPlot draws times over their percentiles as an SVG that needs nothing else. Both axes are logarithmic: to the
// right each step is ten times rarer, so that the worst is seen as well as the usual.
func latencyPlot(times *hdrhistogram.Histogram, caption string) string {
	const most, points = 6, 400
	nines := 1. // the axis goes from percentile 0 to a number of nines
	for math.Pow(10, nines) < float64(times.TotalCount()) && nines < most {
		nines++
	}
	lines := plot.Lines{X: percentileAxis(nines), Y: timeAxis(times.Min(), times.Max())}
	if times.TotalCount() == 0 {
		return plot.SVG(plot.Caption{Title: "Latency by percentile", Subtitle: "no messages were received"}, lines)
	}
	var curve plot.Curve
	for i := range points + 1 {
		x := nines * float64(i) / points
		at := float64(times.ValueAtQuantile(100 * (1 - math.Pow(10, -x))))
		curve.Points = append(curve.Points, plot.Point{X: x, Y: plot.Single(at)})
	}
	lines.Curves = []plot.Curve{curve}
	return plot.SVG(plot.Caption{Title: "Latency by percentile", Subtitle: caption}, lines)
}

// percentileAxis is an axis of the number of nines of a percentile.
func percentileAxis(nines float64) plot.Axis {
	a := plot.Axis{Title: "percentile of received messages", Most: nines}
	for _, percentile := range []float64{0, 50, 90, 99, 99.9, 99.99, 99.999, 99.9999} {
		if at := -math.Log10(1 - percentile/100); at <= nines+0.01 {
			a.Ticks = append(a.Ticks, plot.Tick{Value: at, Label: fmt.Sprintf("%g %%", percentile)})
		}
	}
	return a
}

// timeAxis is an axis of nanoseconds, in powers of ten from a microsecond on.
func timeAxis(least, most int64) plot.Axis {
	const shortest = 3 // powers of ten
	power := func(nanoseconds int64) float64 { return max(math.Log10(float64(max(nanoseconds, 1))), shortest) }
	low := math.Floor(power(least))
	high := max(math.Ceil(power(most)), low+1)
	a := plot.Axis{Least: math.Pow(10, low), Most: math.Pow(10, high), Logarithmic: true}
	for p := low; p <= high; p++ {
		a.Ticks = append(a.Ticks, plot.Tick{Value: math.Pow(10, p), Label: plot.Round(int64(math.Pow(10, p)))})
	}
	return a
}
